"""Levels: features of a gene against plain numpy, initial levels, and what the networks learn."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from cellweft.nn import platform_effects
from cellweft.nn.attention import AttentionModel, Moments, train
from cellweft.nn.config import AttentionSettings
from cellweft.nn.platform_effects import (
    FEATURES,
    GeneLevels,
    LevelNet,
    Levels,
    choose_share,
    fit_levels,
    mixed,
)
from cellweft.nn.training import linear

# float32 sums in another order than in float64
TOLERANCE = 2e-5

N_SC, N_SAMPLE, N_GENES = 60, 50, 7
SETTINGS = AttentionSettings(steps=0, level_steps=150, level_hidden=8)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(scope="module")
def model() -> AttentionModel:
    """Untrained attention."""
    spatial, reference = (random(n, 9, seed=n).clamp_min(0).numpy() for n in (N_SAMPLE, N_SC))
    return train(spatial, reference, spatial, settings=SETTINGS, seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    """Genes of the reference; the last is zero, the second last constant, the third last nearly zero."""
    made = random(N_SC, N_GENES, seed=3).clamp_min(0)
    made[:, -3], made[4, -3] = 0, 1e-5
    made[:, -2], made[:, -1] = 1.5, 0
    return made


def made_up(n_genes: int, *, mean: float = 0.8, spread: float = 0.4) -> GeneLevels:
    """Return levels of genes that differ only in two features."""
    one = torch.ones(n_genes)
    return GeneLevels(
        carried=Moments(mean=mean * one, spread=spread * one),
        pattern=Moments(mean=0 * one, spread=one),
        varies=spread * one,
        mean=torch.linspace(0.2, 2, n_genes),
        spread=0.5 * one,
        expressing=torch.linspace(0.1, 0.9, n_genes),
    )


def tensors(genes: GeneLevels) -> list[torch.Tensor]:
    moments = [part for one in (genes.carried, genes.pattern) for part in (one.mean, one.spread)]
    return [*moments, genes.varies, genes.mean, genes.spread, genes.expressing]


def no_progress(*, by_cell: bool) -> LevelNet:
    """Return a network without corrections."""
    net = LevelNet(8, stream(), by_cell=by_cell)
    with torch.no_grad():
        for one in net.parameters():
            one.zero_()
    return net


class TestGeneLevels:
    def test_features_equal_plain_numpy(self, model: AttentionModel, values: torch.Tensor) -> None:
        known, carried = GeneLevels.of(model, values[:, :4])
        products = model.sample.double().numpy() @ model.keys.double().numpy().T
        weights = np.exp(products) / np.exp(products).sum(axis=1, keepdims=True)
        reference = values[:, :4].double().numpy()
        expected = weights @ reference
        raw = (expected - expected.mean(axis=0)) / expected.std(axis=0)
        raw += SETTINGS.detection * model.sample_detection.double().numpy()[:, None]
        np.testing.assert_allclose(carried, expected, atol=TOLERANCE)
        for found, plain in (
            (known.carried.mean, expected.mean(axis=0)),
            (known.carried.spread, expected.std(axis=0)),
            (known.varies, expected.std(axis=0)),
            (known.pattern.mean, raw.mean(axis=0)),
            (known.pattern.spread, raw.std(axis=0)),
            (known.mean, reference.mean(axis=0)),
            (known.spread, reference.std(axis=0)),
            (known.expressing, (reference > 0).mean(axis=0)),
        ):
            np.testing.assert_allclose(found, plain, atol=TOLERANCE)
        pattern = known.patterns(carried, model.sample_detection, SETTINGS.detection)
        np.testing.assert_allclose(pattern, (raw - raw.mean(axis=0)) / raw.std(axis=0), atol=20 * TOLERANCE)

    def test_genes_do_not_depend_on_each_other(self, model: AttentionModel, values: torch.Tensor) -> None:
        whole, carried = GeneLevels.of(model, values)
        order = torch.tensor([3, 0, 6, 3])
        some, there = GeneLevels.of(model, values[:, order])
        np.testing.assert_allclose(there, carried[:, order], atol=TOLERANCE)
        for one, two in zip(tensors(some)[4:], tensors(whole.take(order))[4:], strict=True):
            np.testing.assert_allclose(one, two, atol=TOLERANCE)

    def test_features_by_hand(self) -> None:
        one = torch.ones(1)
        known = GeneLevels(
            carried=Moments(mean=0.5 * one, spread=2 * one),
            pattern=Moments(mean=0 * one, spread=one),
            varies=2 * one,
            mean=0.7 * one,
            spread=0.9 * one,
            expressing=0.25 * one,
        )
        expected = [math.log(value + 0.01) for value in (0.5, 2, 0.7, 0.9)] + [math.log(0.26 / 0.76)]
        np.testing.assert_allclose(known.features()[0], expected, atol=1e-6)

    def test_genes_that_do_not_vary_have_no_spread(self, model: AttentionModel, values: torch.Tensor) -> None:
        """Genes that are nearly zero, constant or zero have spread 0, not 1."""
        known, _ = GeneLevels.of(model, values)
        assert known.varies[-3:].tolist() == [0.0, 0.0, 0.0]
        assert (known.varies[:-3] > 0).all()
        assert known.spread[-2:].tolist() == [0.0, 0.0]
        assert known.expressing[-2:].tolist() == [1.0, 0.0]
        intercept, slope = known.start()
        assert slope[-3:].tolist() == [0.0, 0.0, 0.0]
        for one in (known.features(), intercept, slope, *tensors(known)):
            assert torch.isfinite(one).all()
        assert (known.features()[-1, :4] - math.log(0.01)).abs().max() < 1e-5

    @pytest.mark.parametrize("mean", [1e-3, 0.02, 0.7, 3.0, 40.0])
    def test_the_initial_level_has_the_mean_and_spread_of_attention(self, mean: float) -> None:
        known = made_up(1, mean=mean, spread=0.1 * mean)
        intercept, slope = (float(one[0]) for one in known.start())
        assert math.log1p(math.exp(intercept)) == pytest.approx(mean, rel=1e-3)
        step = 1e-4
        risen = math.log1p(math.exp(intercept + slope * step))
        assert (risen - math.log1p(math.exp(intercept))) / step == pytest.approx(0.1 * mean, rel=2e-3)

    def test_the_initial_slope_and_intercept_are_bounded(self) -> None:
        intercept, slope = made_up(1, mean=0.0, spread=10.0).start()
        assert float(slope[0]) == 5.0
        assert math.log1p(math.exp(float(intercept[0]))) == pytest.approx(1e-3, rel=1e-3)

    def test_subsets_and_concatenation(self, model: AttentionModel, values: torch.Tensor) -> None:
        known, _ = GeneLevels.of(model, values)
        parts = [known.take(torch.tensor(one, dtype=torch.int64)) for one in ([5, 2], [], [2, 0, 1])]
        joined = GeneLevels.join(parts)
        for one, two in zip(tensors(joined), tensors(known), strict=True):
            assert torch.equal(one, two[[5, 2, 2, 0, 1]])
        assert torch.equal(joined.features(), known.features()[[5, 2, 2, 0, 1]])


class TestLevelNet:
    @pytest.mark.parametrize("by_cell", [False, True])
    def test_shapes(self, by_cell: bool) -> None:
        net = LevelNet(8, stream(), by_cell=by_cell)
        found = net(random(3, FEATURES), random(4, 3), random(4, 1))
        assert found.shape == ((4, 3, 2) if by_cell else (3, 2))

    def test_an_entry_depends_only_on_its_gene_pattern_and_cell(self) -> None:
        net = LevelNet(8, stream(), by_cell=True)
        features, pattern, detection = random(3, FEATURES), random(4, 3, seed=1), random(4, 1, seed=2)
        whole = net(features, pattern, detection).detach()
        for cell in range(4):
            for gene in range(3):
                alone = net(
                    features[gene : gene + 1],
                    pattern[cell : cell + 1, gene : gene + 1],
                    detection[cell : cell + 1],
                ).detach()
                np.testing.assert_allclose(alone[0, 0], whole[cell, gene], atol=TOLERANCE)

    def test_the_network_by_gene_ignores_pattern_and_cell(self) -> None:
        net, features = LevelNet(8, stream(), by_cell=False), random(3, FEATURES)
        assert torch.equal(
            net(features, random(4, 3, seed=1), random(4, 1)),
            net(features, random(6, 3, seed=2), random(6, 1)),
        )

    def test_it_is_initialised_from_its_own_stream_with_small_weights(self) -> None:
        before = torch.get_rng_state()
        one, again, other = (LevelNet(8, stream(seed), by_cell=True) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(one.first.weight, again.first.weight)
        assert not torch.equal(one.first.weight, other.first.weight)
        assert float(one.last.weight.detach().abs().max()) <= 0.1 * 8**-0.5
        assert float(one.direct.weight.detach().abs().max()) <= 0.1 * FEATURES**-0.5


class TestValues:
    def test_without_corrections_a_gene_has_the_level_of_the_reference(self) -> None:
        genes = made_up(4)
        silent_levels = Levels(
            nets=(no_progress(by_cell=False), no_progress(by_cell=True)),
            features=Moments.of(genes.features()),
        )
        pattern = torch.linspace(-2, 2, 9)[:, None].expand(9, 4)
        found = silent_levels.values(pattern, torch.zeros(9, 1), genes).numpy()
        intercept = math.log(math.expm1(0.8))
        slope = 0.4 * (1 + math.exp(-intercept))
        expected = [math.log1p(math.exp(intercept + slope * one)) for one in pattern[:, 0].tolist()]
        np.testing.assert_allclose(found, np.tile(expected, (4, 1)).T, atol=TOLERANCE)
        np.testing.assert_allclose(found[4], 0.8, atol=TOLERANCE)

    def test_corrections_add_to_the_intercept_and_multiply_the_slope(self) -> None:
        genes, net = made_up(2), no_progress(by_cell=False)
        with torch.no_grad():
            net.last.bias.copy_(torch.tensor([0.3, math.log(2)]))
        found = Levels(nets=(net,), features=Moments.of(genes.features())).values(
            torch.tensor([[0.0, 1.0]]), torch.zeros(1, 1), genes
        )
        intercept, slope = (float(one[0]) for one in genes.start())
        expected = [math.log1p(math.exp(intercept + 0.3)), math.log1p(math.exp(intercept + 0.3 + 2 * slope))]
        np.testing.assert_allclose(found[0], expected, atol=TOLERANCE)

    def test_it_is_the_mean_of_the_networks(self) -> None:
        genes, pattern, detection = made_up(3), random(5, 3), random(5, 1)
        nets = tuple(LevelNet(8, stream(seed), by_cell=bool(seed)) for seed in (0, 1))
        moments = Moments.of(genes.features())
        both, *each = (
            Levels(nets=some, features=moments).values(pattern, detection, genes)
            for some in (nets, nets[:1], nets[1:])
        )
        np.testing.assert_allclose(both, (each[0] + each[1]) / 2, atol=TOLERANCE)

    def test_values_of_extreme_genes_are_finite_and_not_negative(self) -> None:
        genes = dataclasses.replace(made_up(3), mean=torch.tensor([0.0, 50.0, 1e6]))
        net = LevelNet(8, stream(), by_cell=True)
        with torch.no_grad():
            net.last.weight *= 1e4
        found = Levels(nets=(net,), features=Moments.of(made_up(3).features())).values(
            100 * random(20, 3), 100 * random(20, 1), genes
        )
        assert torch.isfinite(found).all()
        assert (found >= 0).all()

    def test_block_size_does_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        genes, pattern, detection = made_up(6), random(31, 6), random(31, 1)
        nets = (LevelNet(8, stream(), by_cell=False), LevelNet(8, stream(), by_cell=True))
        known = Levels(nets=nets, features=Moments.of(genes.features()))
        whole = known.values(pattern, detection, genes)
        some = torch.tensor([4, 1])
        np.testing.assert_allclose(
            known.values(pattern[5:9][:, some], detection[5:9], genes.take(some)),
            whole[5:9][:, some],
            atol=TOLERANCE,
        )
        for most in (1, 13, 100):
            monkeypatch.setattr(platform_effects, "_MOST_VALUES", most)
            np.testing.assert_allclose(known.values(pattern, detection, genes), whole, atol=TOLERANCE)
        assert known.values(pattern[:0], detection[:0], genes).shape == (0, 6)
        assert known.values(pattern[:, :0], detection, genes.take(torch.tensor([], dtype=int))).shape == (
            31,
            0,
        )


class TestShare:
    """The weight of the learned level, next to the level of the reference."""

    def test_unchanged_levels_have_the_mean_and_spread_of_attention(self) -> None:
        genes = made_up(3, mean=0.8, spread=0.4)
        pattern = torch.tensor([[-1.0, 0.0, 1.0], [-5.0, 2.0, 0.5]])
        expected = [[0.4, 0.8, 1.2], [0.0, 1.6, 1.0]]
        np.testing.assert_allclose(genes.unchanged(pattern), expected, atol=TOLERANCE)

    @pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
    def test_a_known_share_is_recovered(self, share: float) -> None:
        learned, own = random(50, 4), random(50, 4, seed=1)
        truth = own + share * (learned - own)
        assert choose_share(learned, own, truth) == pytest.approx(share, abs=0.0126)

    def test_it_minimises_the_mean_logarithm_of_the_errors(self) -> None:
        learned, own = random(40, 5), random(40, 5, seed=1)
        truth = 0.6 * learned + 0.4 * own + random(40, 5, seed=2) * torch.tensor([0.1, 1, 2, 3, 10])
        least = 1e-3 * float(truth.double().var(dim=0, correction=0).mean())
        tried = {}
        for share in torch.linspace(0, 1, 41).tolist():
            errors = ((own + share * (learned - own) - truth) ** 2).mean(dim=0)
            tried[share] = float(torch.log(errors + least).mean())
        assert choose_share(learned, own, truth) == pytest.approx(min(tried, key=tried.__getitem__))

    def test_a_gene_with_large_values_does_not_decide_for_all(self) -> None:
        """Networks predict one gene with large errors better, the reference four with small errors."""
        truth, noise = 3 * random(60, 5).abs(), random(60, 5, seed=1)
        learned = truth + noise * torch.tensor([1.0, 1, 1, 1, 1])
        own = truth + noise.flip(0) * torch.tensor([9.0, 0.4, 0.4, 0.4, 0.4])
        errors = [((one - truth) ** 2).mean() for one in (learned, own)]
        assert errors[0] < 0.1 * errors[1]
        assert choose_share(learned, own, truth) < 0.5

    def test_a_prediction_is_mixed_according_to_the_share(self) -> None:
        genes, pattern, detection = made_up(3), random(5, 3), random(5, 1)
        nets, moments = (LevelNet(8, stream(), by_cell=True),), Moments.of(genes.features())
        whole, half, none = (
            Levels(nets=nets, features=moments, share=share).values(pattern, detection, genes)
            for share in (1.0, 0.5, 0.0)
        )
        np.testing.assert_allclose(none, genes.unchanged(pattern), atol=TOLERANCE)
        np.testing.assert_allclose(half, (whole + none) / 2, atol=TOLERANCE)
        assert mixed(whole, none, 1.0) is whole

    def test_genes_without_expression_give_a_valid_share(self) -> None:
        nothing = torch.zeros(20, 3)
        assert 0 <= choose_share(nothing, nothing, nothing) <= 1


class TestFitting:
    @staticmethod
    def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, GeneLevels, torch.Tensor]:
        """Simulate a platform where every gene has a higher level and half the contrast of the reference."""
        genes, pattern = made_up(16), random(200, 16, seed=seed)
        intercept, slope = genes.start()
        truth = torch.nn.functional.softplus(intercept + 1.1 + 0.5 * slope * pattern)
        return pattern, random(200, 1, seed=seed + 1).expand(200, 16), genes, truth

    def fit(self, settings: AttentionSettings = SETTINGS, *, seed: int = 0, by_cell: bool = True) -> Levels:
        pattern, detection, genes, truth = self.planted()
        return fit_levels(
            pattern,
            detection,
            genes=genes,
            truth=truth,
            settings=settings,
            generator=stream(seed),
            by_cell=by_cell,
        )

    def test_a_step_uses_at_most_256_cells_and_64_genes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen, plain = set(), LevelNet.forward

        def forward(net: LevelNet, features: Any, pattern: torch.Tensor, detection: Any) -> torch.Tensor:
            seen.add(tuple(pattern.shape))
            return plain(net, features, pattern, detection)

        monkeypatch.setattr(LevelNet, "forward", forward)
        fit_levels(
            random(300, 100),
            random(300, 100),
            genes=made_up(100),
            truth=random(300, 100).exp(),
            settings=dataclasses.replace(SETTINGS, level_steps=2),
            generator=stream(),
        )
        assert seen == {(256, 64)}

    @pytest.mark.slow
    def test_a_known_level_is_learned_and_holds_for_a_new_gene(self) -> None:
        pattern, detection, genes, truth = self.planted()
        kept, new = torch.arange(12), torch.arange(12, 16)
        start = Levels(
            nets=(no_progress(by_cell=False), no_progress(by_cell=True)),
            features=Moments.of(genes.features()),
        )
        known = fit_levels(
            pattern[:, kept],
            detection[:, kept],
            genes=genes.take(kept),
            truth=truth[:, kept],
            settings=SETTINGS,
            generator=stream(),
        )
        errors = [
            float(
                (
                    (one.values(pattern[:, new], detection[:, new], genes.take(new)) - truth[:, new]) ** 2
                ).mean()
            )
            for one in (start, known)
        ]
        assert errors[1] < 0.1 * errors[0]

    def test_the_same_stream_gives_the_same_bits_and_another_does_not(self) -> None:
        quick = dataclasses.replace(SETTINGS, level_steps=3)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first, again, other = self.fit(quick), self.fit(quick), self.fit(quick, seed=1)
        assert torch.equal(torch.get_rng_state(), before)
        pattern, detection, genes, _ = self.planted()
        told = [one.values(pattern, detection, genes) for one in (first, again, other)]
        assert torch.equal(told[0], told[1])
        assert not torch.equal(told[0], told[2])

    def test_one_network_uses_the_cell_and_one_does_not(self) -> None:
        assert [net.by_cell for net in self.fit(dataclasses.replace(SETTINGS, level_steps=0)).nets] == [
            False,
            True,
        ]

    def test_without_the_network_by_cell_the_level_is_the_same_in_every_cell(self) -> None:
        levels = self.fit(dataclasses.replace(SETTINGS, level_steps=5), by_cell=False)
        assert [net.by_cell for net in levels.nets] == [False]
        pattern, detection, genes, _ = self.planted()
        values = levels.values(pattern, detection, genes)
        assert torch.equal(values, levels.values(pattern, -detection, genes))

    def test_genes_that_were_never_detected_give_finite_values(self) -> None:
        pattern, detection, genes, truth = self.planted()
        for real in (torch.zeros_like(truth), torch.where(torch.arange(16) < 3, 0 * truth, truth)):
            known = fit_levels(
                pattern,
                detection,
                genes=genes,
                truth=real,
                settings=dataclasses.replace(SETTINGS, level_steps=5),
                generator=stream(),
            )
            found = known.values(pattern, detection, genes)
            assert torch.isfinite(found).all()
            assert (found >= 0).all()


class TestConstants:
    """Constants in the code have the documented effect on the result."""

    def test_a_slope_changes_by_at_most_a_factor_of_e_cubed(self) -> None:
        genes, pattern = made_up(3), random(4, 3)
        corrections = torch.zeros(4, 3, 2)
        found = {}
        for change in (-50.0, -3.0, -2.9, 2.9, 3.0, 50.0):
            corrections[..., 1] = change
            found[change] = platform_effects._value(corrections, pattern, genes)
        intercept, slope = genes.start()
        by_hand = torch.nn.functional.softplus(intercept + slope * math.exp(3.0) * pattern)
        torch.testing.assert_close(found[50.0], by_hand, rtol=TOLERANCE, atol=TOLERANCE)
        assert torch.equal(found[50.0], found[3.0])
        assert torch.equal(found[-50.0], found[-3.0])
        assert not torch.equal(found[2.9], found[3.0])
        assert not torch.equal(found[-2.9], found[-3.0])

    def test_features_of_a_new_gene_are_clipped_at_three_standard_deviations(self) -> None:
        net = LevelNet(8, stream(), by_cell=False)
        genes = made_up(1)
        centre = genes.features()[0]
        found = {}
        for far in (2.9, 3.0, 3.1, 30.0):
            moments = Moments(mean=centre - far, spread=torch.ones(FEATURES))
            levels = Levels(nets=(net,), features=moments)
            found[far] = float(levels.values(torch.zeros(1, 1), torch.zeros(1, 1), genes))
        assert found[3.1] == found[30.0] == pytest.approx(found[3.0], abs=TOLERANCE)
        assert abs(found[2.9] - found[3.0]) > 10 * TOLERANCE

    def test_networks_start_at_a_tenth_of_the_usual_weights(self) -> None:
        net, draws = LevelNet(8, stream(5), by_cell=True), stream(5)
        for name, (n_in, n_out) in {
            "first": (FEATURES + 2, 8),
            "second": (8, 8),
            "last": (8, 2),
            "direct": (FEATURES, 2),
        }.items():
            usual, layer = linear(n_in, n_out, draws), getattr(net, name)
            factor = 0.1 if name in ("last", "direct") else 1.0
            torch.testing.assert_close(layer.weight, usual.weight * factor)
            torch.testing.assert_close(layer.bias, usual.bias)

    def test_noise_and_weight_decay_of_each_kind_of_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        noise: dict[bool, list[torch.Tensor]] = {False: [], True: []}
        decays: list[float] = []
        forward, optimiser = LevelNet.forward, torch.optim.AdamW

        def seen(self: LevelNet, features: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
            noise[self.by_cell].append(features.detach().clone())
            return forward(self, features, *others)

        def made(*arguments: Any, **options: Any) -> Any:
            decays.append(options["weight_decay"])
            return optimiser(*arguments, **options)

        monkeypatch.setattr(LevelNet, "forward", seen)
        monkeypatch.setattr(torch.optim, "AdamW", made)
        alike = dataclasses.replace(made_up(40), mean=torch.ones(40), expressing=0.5 * torch.ones(40))
        fit_levels(
            random(30, 40),
            random(30, 40, seed=1),
            genes=alike,  # their standardised features are zero, so only noise remains
            truth=random(30, 40, seed=2).clamp_min(0),
            settings=dataclasses.replace(SETTINGS, level_steps=50),
            generator=stream(),
        )
        assert decays == [0.1, 0.01]
        for by_cell, spread in ((False, 0.3), (True, 0.2)):
            drawn = torch.cat([one.flatten() for one in noise[by_cell]])
            assert float(drawn.std()) == pytest.approx(spread, rel=0.05)  # from 10,000 draws
            assert abs(float(drawn.mean())) < 0.02

    def test_offsets_of_logarithms_and_the_smallest_mean(self) -> None:
        genes = dataclasses.replace(made_up(2, mean=0.0), expressing=torch.tensor([0.0, 1.0]))
        assert genes.features()[0, 0].item() == pytest.approx(math.log(0.01), rel=1e-5)
        assert genes.features()[:, 4].tolist() == pytest.approx(
            [math.log(0.01 / 1.01), math.log(1.01 / 0.01)], rel=1e-5
        )
        intercept, _ = genes.start()
        assert torch.nn.functional.softplus(intercept)[0].item() == pytest.approx(1e-3, rel=1e-3)
