"""Learned attention: its map, loss and operators by hand and in loops, and what it learns."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn import attention, mapping
from cellweft.nn.attention import (
    AttentionModel,
    CellMap,
    Moments,
    choose_inputs,
    condensed_if_large,
    correlation_loss,
    train,
    with_metacells,
)
from cellweft.nn.config import AttentionSettings, keys_of
from cellweft.nn.mapping import Mapping
from cellweft.nn.metacells import Metacells

# float32 sums in another order than in float64
TOLERANCE = 2e-5

QUICK = AttentionSettings(steps=6, batch_cells=40, batch_reference=50)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def moved(settings_: AttentionSettings, n_genes: int, *, seed: int = 0) -> CellMap:
    """Return a map away from its initial values."""
    cells = CellMap(n_genes, settings_)
    with torch.no_grad():
        for number, one in enumerate(cells.parameters()):
            one += 0.3 * random(*one.shape, seed=seed + number)
    return cells


def sides(
    n_spatial: int = 70, n_sc: int = 80, *, n_genes: int = 12, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Make two sides with three gene programmes in common and no negative values."""
    stream = np.random.default_rng(seed)
    programmes = stream.standard_normal((3, n_genes))
    made = []
    for n_cells in (n_spatial, n_sc):
        told = stream.standard_normal((n_cells, 3)) @ programmes
        noise = 0.5 * stream.standard_normal((n_cells, n_genes))
        made.append(np.maximum(told + noise, 0).astype(np.float32))
    return made[0], made[1]


def trained(
    *,
    on: tuple[np.ndarray, np.ndarray] | None = None,
    settings_: AttentionSettings = QUICK,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> AttentionModel:
    spatial, reference = on or sides()
    return train(spatial, reference, spatial, settings=settings_, seed=seed, device=torch.device(device))


def same(one: AttentionModel, two: AttentionModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.cells.parameters(), two.cells.parameters(), strict=True))


def pearson(left: np.ndarray, right: np.ndarray) -> float:
    """Return the mean correlation of columns."""
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(left.T, right.T, strict=True)]))


class TestCellMap:
    def test_initial_embedding_by_hand(self) -> None:
        logs, scores = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, -2.0]])
        # (0.6, 0.8) from the values plus 0.4 * (0, -1) from the scores, scaled to length 1
        expected = np.array([0.6, -0.2]) / math.hypot(0.6, -0.2)
        cells = CellMap(2, AttentionSettings(temperature=0.25, detection=0.4))
        np.testing.assert_allclose(cells(logs, scores).detach().numpy()[0], expected, atol=1e-6)
        assert cells.log_sharpness.exp().item() == pytest.approx(4.0)
        assert cells.detection.item() == pytest.approx(0.4)
        assert cells.drift().item() == 0.0

    def test_it_equals_a_plain_loop(self) -> None:
        cells, logs, scores = moved(QUICK, 5), random(4, 5, seed=8), random(4, 5, seed=9)
        found = cells(logs, scores).detach().numpy()
        weights = [one.detach().double().numpy() for one in (cells.of_logs, cells.of_scores)]
        shares = cells.shares.detach().double().numpy()
        for cell in range(4):
            parts = [side[cell].double().numpy() for side in (logs, scores)]
            mixed = sum(
                share * (part / np.linalg.norm(part)) @ weight
                for share, part, weight in zip(shares, parts, weights, strict=True)
            )
            np.testing.assert_allclose(found[cell], mixed / np.linalg.norm(mixed), atol=TOLERANCE)

    @given(n_cells=st.integers(1, 12), n_genes=st.integers(1, 8), seed=st.integers(0, 50))
    @settings(max_examples=25, deadline=None)
    def test_embeddings_have_length_1(self, n_cells: int, n_genes: int, seed: int) -> None:
        found = moved(QUICK, n_genes, seed=seed)(
            random(n_cells, n_genes, seed=seed), random(n_cells, n_genes, seed=seed + 1)
        )
        np.testing.assert_allclose(found.detach().norm(dim=1).numpy(), 1, atol=TOLERANCE)

    def test_an_empty_cell_is_zero_and_has_a_gradient(self) -> None:
        cells = moved(QUICK, 4)
        found = cells(torch.zeros(2, 4), torch.zeros(2, 4))
        assert torch.equal(found, torch.zeros(2, 4))
        found.sum().backward()
        assert all(one.grad is None or torch.isfinite(one.grad).all() for one in cells.parameters())

    def test_hidden_genes_do_not_matter(self) -> None:
        cells, seen = moved(QUICK, 6), torch.tensor([1.0, 0, 1, 1, 0, 1])
        logs, scores = random(5, 6, seed=1), random(5, 6, seed=2)
        others = [torch.where(seen > 0, one, 50 * random(5, 6, seed=3)) for one in (logs, scores)]
        assert torch.equal(cells(logs, scores, seen), cells(*others, seen))
        assert not torch.allclose(cells(logs, scores, seen), cells(logs, scores))
        assert torch.equal(cells(logs, scores, torch.ones(6)), cells(logs, scores))

    def test_a_cell_does_not_depend_on_the_others(self) -> None:
        cells, logs, scores = moved(QUICK, 6), random(9, 6, seed=1), random(9, 6, seed=2)
        order = torch.tensor([4, 4, 0, 8])
        np.testing.assert_allclose(
            cells(logs[order], scores[order]).detach(), cells(logs, scores)[order].detach(), atol=TOLERANCE
        )

    def test_drift_is_the_squared_distance_from_the_identity(self) -> None:
        cells = moved(QUICK, 3)
        both = (cells.of_logs, cells.of_scores)
        way = sum(((one.detach().double().numpy() - np.eye(3)) ** 2).sum() for one in both)
        assert cells.drift().item() == pytest.approx(way, rel=1e-5)


class TestMoments:
    def test_mean_and_spread_equal_numpy(self, device: torch.device) -> None:
        values = random(50, 4) * 3 + 100
        found = Moments.of(values.to(device))
        exact = values.double().numpy()
        np.testing.assert_allclose(found.mean.cpu(), exact.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.spread.cpu(), exact.std(axis=0), rtol=1e-6)
        standard = found.standard(values.to(device)).cpu().numpy()
        np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(standard.std(axis=0), 1, atol=1e-4)

    @pytest.mark.parametrize("value", [0.0, 0.1, 7.3, 12345.6])
    def test_a_constant_column_has_spread_1_and_becomes_zero(self, value: float) -> None:
        values = torch.full((999, 2), value)
        values[:, 1] = random(999)
        found = Moments.of(values)
        assert float(found.spread[0]) == 1.0
        assert float(found.spread[1]) == pytest.approx(1, abs=0.1)
        assert torch.equal(found.standard(values)[:, 0], torch.zeros(999))

    def test_one_row(self) -> None:
        assert Moments.of(torch.tensor([[2.0, 3.0]])).spread.tolist() == [1.0, 1.0]


class TestCorrelationLoss:
    @given(n_cells=st.integers(3, 30), n_genes=st.integers(1, 6), seed=st.integers(0, 99))
    @settings(max_examples=25, deadline=None)
    def test_it_equals_numpy(self, n_cells: int, n_genes: int, seed: int) -> None:
        left, right = random(n_cells, n_genes, seed=seed), 5 + 2 * random(n_cells, n_genes, seed=seed + 100)
        expected = 1 - pearson(left.double().numpy(), right.double().numpy())
        assert float(correlation_loss(left, right)) == pytest.approx(expected, abs=TOLERANCE)

    def test_by_hand(self) -> None:
        measured = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
        predicted = torch.tensor([[5.0, 4.0], [6.0, 2.0], [7.0, 0.0]])  # correlations 1 and -1
        assert float(correlation_loss(predicted, measured)) == pytest.approx(1.0)
        assert float(correlation_loss(predicted[:, :1], measured[:, :1])) == pytest.approx(0.0, abs=1e-6)

    def test_scale_and_shift_of_predictions_do_not_matter(self) -> None:
        left, right = random(20, 3, seed=1), random(20, 3, seed=2)
        loss = float(correlation_loss(left, right))
        assert float(correlation_loss(7 * left - 3, right)) == pytest.approx(loss, abs=TOLERANCE)

    def test_a_constant_gene_is_ignored(self) -> None:
        left, right = random(20, 3, seed=1), random(20, 3, seed=2)
        right[:, 1] = 2.0
        expected = float(correlation_loss(left[:, [0, 2]], right[:, [0, 2]]))
        assert float(correlation_loss(left, right)) == pytest.approx(expected, abs=1e-6)
        assert float(correlation_loss(left, torch.ones(20, 3))) == 0.0

    def test_a_constant_prediction_has_loss_1_and_a_finite_gradient(self) -> None:
        left = torch.full((20, 1), 0.3, requires_grad=True)
        loss = correlation_loss(left, random(20, 1))
        assert loss.item() == pytest.approx(1.0)
        loss.backward()
        assert torch.isfinite(left.grad).all()


class TestChooseInputs:
    def test_all_of_a_small_panel(self) -> None:
        assert choose_inputs(np.ones((3, 4)), np.ones((2, 4)), 4).tolist() == [0, 1, 2, 3]

    def test_the_most_variable_genes_of_both_sides_in_panel_order(self) -> None:
        spatial = np.array([[0, 0, 0, 0], [2, 0, 0, 6]], dtype=np.float32)  # variance shares .1, 0, 0, .9
        reference = np.array([[0, 0, 0, 0], [0, 4, 3, 0]], dtype=np.float32)  # variance shares 0, .64, .36, 0
        assert choose_inputs(spatial, reference, 2).tolist() == [1, 3]
        assert choose_inputs(spatial, reference, 3).tolist() == [1, 2, 3]

    def test_both_sides_have_equal_weight_at_any_scale(self) -> None:
        spatial, reference = sides()
        first = choose_inputs(spatial, reference, 5)
        assert choose_inputs(1000 * spatial, reference, 5).tolist() == first.tolist()

    @pytest.mark.parametrize("seed", range(6))
    def test_it_equals_a_naive_loop(self, seed: int) -> None:
        """Variances differ widely: one side alone, spreads or unscaled sums would choose other genes."""
        stream = np.random.default_rng(seed)
        spatial, reference = (
            (stream.standard_normal((n, 9)) * 10 ** stream.uniform(-1.5, 1.5, 9)).astype(np.float32)
            for n in (30, 40)
        )
        shares = []
        for gene in range(9):
            parts = [
                side[:, gene].astype(float).var() / sum(side[:, one].astype(float).var() for one in range(9))
                for side in (spatial, reference)
            ]
            shares.append(sum(parts))
        for most in range(1, 9):
            best = sorted(sorted(range(9), key=lambda gene: -shares[gene])[:most])
            assert choose_inputs(spatial, reference, most).tolist() == best

    def test_a_constant_panel_gives_its_first_genes(self) -> None:
        assert choose_inputs(np.ones((3, 6)), np.zeros((2, 6)), 3).tolist() == [0, 1, 2]


class TestTraining:
    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self) -> None:
        first = trained()
        torch.manual_seed(5)
        assert same(first, trained())
        assert not same(first, trained(seed=1))

    def test_global_random_states_are_neither_read_nor_written(self) -> None:
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002 -- the global state is what is watched
        before = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002
        trained()
        assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002

    def test_inputs_are_not_changed(self) -> None:
        spatial, reference = sides()
        before = spatial.copy(), reference.copy()
        trained(on=(spatial, reference))
        np.testing.assert_array_equal(spatial, before[0])
        np.testing.assert_array_equal(reference, before[1])

    def test_training_improves_predictions_of_unseen_genes(self, device: torch.device) -> None:
        """The model is trained on twenty genes and predicts ten others."""
        spatial, reference = sides(300, 300, n_genes=30)
        found = {}
        for steps in (0, 60):
            changed = AttentionSettings(
                steps=steps, lr=0.02, temperature=0.5, batch_cells=96, batch_reference=200
            )
            model = trained(on=(spatial[:, :20], reference[:, :20]), settings_=changed, device=device)
            values = torch.from_numpy(reference[:, 20:]).to(device)
            carried = model.mapping(model.queries(spatial[:, :20])).apply(values)
            found[steps] = pearson(carried.cpu().numpy(), spatial[:, 20:])
        assert found[60] > found[0] + 0.02
        assert np.mean(model.history[-5:]) < np.mean(model.history[:5])

    def test_the_history_has_means_over_twentieths_of_training(self) -> None:
        assert len(trained().history) == 6
        assert len(trained(settings_=dataclasses.replace(QUICK, steps=41)).history) == 20
        assert trained(settings_=dataclasses.replace(QUICK, steps=0)).history == ()

    def test_progress_is_reported_to_the_end(self) -> None:
        told: list[tuple[str, int, int]] = []
        spatial, reference = sides()
        train(
            spatial,
            reference,
            spatial,
            settings=QUICK,
            seed=0,
            device=torch.device("cpu"),
            progress=lambda *step: told.append(step),
        )
        assert told == [("attention", step, 6) for step in range(1, 7)]

    def test_two_genes_cannot_train_and_three_can(self) -> None:
        """Of two genes none can be hidden, because a pattern of a single gene cannot be standardised."""
        spatial, reference = sides(n_genes=2)
        two = trained(on=(spatial, reference))
        assert torch.equal(two.cells.of_logs, torch.eye(2))
        assert two.history == ()
        spatial, reference = sides(n_genes=3)
        three = trained(on=(spatial, reference))
        assert not torch.equal(three.cells.of_logs, torch.eye(3))
        for model in (two, three):
            assert torch.isfinite(model.keys).all()
            assert torch.isfinite(model.mapping(model.sample).apply(random(80, 2))).all()

    @pytest.mark.parametrize("part", [0.0, 1.0])
    def test_some_genes_are_always_hidden_and_some_visible(self, part: float) -> None:
        model = trained(settings_=dataclasses.replace(QUICK, hide_least=part, hide_most=part))
        assert np.isfinite(model.history).all()
        assert not torch.equal(model.cells.of_logs, torch.eye(12))

    def test_the_pull_keeps_the_map_near_its_start(self) -> None:
        drifts = []
        for pull in (0.0, 1.0, 100.0):
            model = trained(settings_=dataclasses.replace(QUICK, steps=20, lr=0.01, pull=pull))
            drifts.append(float(model.cells.drift().detach()))
        assert drifts[2] < drifts[1] < drifts[0]

    def test_the_pull_is_part_of_the_loss(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CellMap, "drift", lambda self: self.of_logs.sum() * 0 + 7)
        with_pull, without = (
            trained(settings_=dataclasses.replace(QUICK, steps=1, pull=pull)).history for pull in (0.5, 0.0)
        )
        assert with_pull[0] - without[0] == pytest.approx(3.5, abs=1e-5)

    def test_exactly_the_hidden_genes_are_predicted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Gene g has values from 10 g to 10 g + 1, so that values identify their gene."""
        shown: list[torch.Tensor] = []
        asked: list[set[int]] = []
        forward, loss = CellMap.forward, correlation_loss

        def seen_forward(self: CellMap, logs: torch.Tensor, scores: torch.Tensor, seen: Any = None) -> Any:
            if seen is not None:
                shown.append(seen.clone())
            return forward(self, logs, scores, seen)

        def seen_loss(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            assert predicted.shape == truth.shape
            asked.append({int(gene) // 10 for gene in truth.min(dim=0).values.tolist()})
            return loss(predicted, truth)

        monkeypatch.setattr(CellMap, "forward", seen_forward)
        monkeypatch.setattr(attention, "correlation_loss", seen_loss)
        stream = np.random.default_rng(0)
        two = [(stream.random((n, 12)) + 10 * np.arange(12)).astype(np.float32) for n in (50, 60)]
        changed = dataclasses.replace(QUICK, steps=60, hide_least=0.25, hide_most=0.5)
        trained(on=(two[0], two[1]), settings_=changed)
        assert len(asked) == 60
        assert len(shown) == 120  # two sides per step
        for step, genes in enumerate(asked):
            for seen in shown[2 * step : 2 * step + 2]:
                assert set(torch.nonzero(seen == 0)[:, 0].tolist()) == genes
                assert set(seen.tolist()) == {0.0, 1.0}
            assert 3 <= len(genes) <= 6
        assert {len(genes) for genes in asked} == {3, 4, 5, 6}
        times = np.bincount([gene for genes in asked for gene in genes], minlength=12)
        assert times.min() > 8  # 22 on average: every gene is hidden sometimes
        assert times.max() < 40

    def test_constant_and_zero_genes_give_finite_results(self) -> None:
        spatial, reference = sides()
        spatial[:, 2], reference[:, 3] = 0, 0
        spatial[:, 4] = reference[:, 4] = 1.5
        spatial[7] = reference[9] = 0
        model = trained(on=(spatial, reference))
        assert np.isfinite(model.history).all()
        assert all(torch.isfinite(one).all() for one in model.cells.parameters())
        assert torch.isfinite(model.sample).all()
        assert torch.isfinite(model.keys).all()

    def test_the_number_of_compared_genes_is_limited(self) -> None:
        spatial, reference = sides()
        model = trained(settings_=dataclasses.replace(QUICK, most_inputs=5))
        assert model.inputs.tolist() == choose_inputs(spatial, reference, 5).tolist()
        assert model.keys.shape == (80, 5)
        spatial[:, np.delete(np.arange(12), model.inputs)] = 99  # genes that the model does not use
        np.testing.assert_array_equal(model.queries(spatial), model.sample)


class TestModel:
    def test_queries_are_embeddings_times_the_sharpness(self) -> None:
        spatial, _ = sides()
        model = trained()
        sharpness = float(model.cells.log_sharpness.detach().exp())
        np.testing.assert_allclose(model.queries(spatial).norm(dim=1), sharpness, rtol=TOLERANCE)
        np.testing.assert_allclose(model.keys.norm(dim=1), 1, rtol=TOLERANCE)
        np.testing.assert_array_equal(model.queries(spatial), model.sample)
        assert not model.sample.requires_grad
        assert not model.keys.requires_grad

    def test_the_share_of_detected_inputs_is_standardised_over_the_sample(self) -> None:
        spatial, _ = sides()
        model = trained()
        share = np.array([sum(value > 0 for value in cell) / len(cell) for cell in spatial])
        expected = (share - share.mean()) / share.std()
        np.testing.assert_allclose(model.sample_detection, expected, atol=TOLERANCE)
        np.testing.assert_allclose(model.detection(spatial[3:9]), expected[3:9], atol=TOLERANCE)

    def test_attention_gives_weighted_means(self) -> None:
        model, values = trained(), random(80, 3).abs()
        products = model.sample.double().numpy() @ model.keys.double().numpy().T
        weights = np.exp(products) / np.exp(products).sum(axis=1, keepdims=True)
        expected = weights @ values.double().numpy()
        np.testing.assert_allclose(model.mapping(model.sample).apply(values), expected, atol=TOLERANCE)

    def test_within_equals_attention_to_all_other_cells(self) -> None:
        """Compare with a plain loop over cells and over all other cells of the reference."""
        model, values, cells = trained(), random(80, 3).abs(), np.array([5, 0, 79, 5])
        found = model.within(cells, values).numpy()
        keys, sharpness = (
            model.keys.double().numpy(),
            float(model.cells.log_sharpness.detach().double().exp()),
        )
        for row, cell in enumerate(cells):
            total, carried = 0.0, np.zeros(3)
            for other in range(80):
                if other != cell:
                    weight = math.exp(sharpness * float(keys[cell] @ keys[other]))
                    total, carried = total + weight, carried + weight * values[other].double().numpy()
            np.testing.assert_allclose(found[row], carried / total, atol=TOLERANCE)

    def test_within_does_not_depend_on_the_cell_itself(self) -> None:
        model, values = trained(), random(80, 2).abs()
        changed = values.clone()
        changed[5] = 1000.0
        # the value of the cell itself is subtracted in float32, which leaves 1e-4 of a value of 1000
        np.testing.assert_allclose(
            model.within(np.array([5]), changed), model.within(np.array([5]), values), atol=2e-3
        )

    def test_similarity_is_the_soft_maximum_of_the_cosines(self) -> None:
        model = trained()
        sharpness = float(model.cells.log_sharpness.detach().exp())
        found = model.similarity(model.sample)
        for cell in range(0, 70, 9):
            cosines = [float(model.sample[cell].double() @ key.double()) / sharpness for key in model.keys]
            soft = math.log(sum(math.exp(sharpness * one) for one in cosines) / 80) / sharpness
            assert found[cell] == pytest.approx(soft, abs=TOLERANCE)
            assert np.mean(cosines) - TOLERANCE <= found[cell] <= max(cosines) + TOLERANCE
        assert found.dtype == np.float64

    def test_similarity_by_hand(self) -> None:
        model = trained()
        sharpness = float(model.cells.log_sharpness.detach().exp())
        one = dataclasses.replace(model, keys=model.keys[:1])
        queries = sharpness * torch.stack([model.keys[0], -model.keys[0], torch.zeros(12)])
        np.testing.assert_allclose(one.similarity(queries), [1, -1, 0], atol=TOLERANCE)

    @pytest.mark.parametrize(("entries", "most_keys"), [(1, 2**15), (300, 2**15), (2**22, 16), (50, 7)])
    def test_block_size_does_not_matter(
        self, monkeypatch: pytest.MonkeyPatch, entries: int, most_keys: int
    ) -> None:
        model, values, cells = trained(), random(80, 3).abs(), np.arange(0, 80, 3)

        def results() -> list[np.ndarray]:
            carried = model.mapping(model.sample).apply(values).numpy()
            return [carried, model.within(cells, values).numpy(), model.similarity(model.sample)]

        whole = results()
        monkeypatch.setattr(attention, "Mapping", functools.partial(Mapping, block_entries=entries))
        monkeypatch.setattr(mapping, "_MOST_KEYS", most_keys)
        for one, two in zip(results(), whole, strict=True):
            np.testing.assert_allclose(one, two, atol=TOLERANCE)

    def test_the_order_of_the_reference_does_not_matter(self) -> None:
        _, reference = sides()
        model, values = trained(), random(80, 3).abs()
        order = np.random.default_rng(0).permutation(80)
        other = attention.with_reference(model, reference[order][:, model.inputs], seed=0)
        np.testing.assert_allclose(other.keys, model.keys[order], atol=TOLERANCE)
        np.testing.assert_allclose(
            other.mapping(other.sample).apply(values[order]),
            model.mapping(model.sample).apply(values),
            atol=TOLERANCE,
        )
        np.testing.assert_allclose(
            other.similarity(other.sample), model.similarity(model.sample), atol=TOLERANCE
        )

    def test_devices_agree(self, device: torch.device) -> None:
        start = dataclasses.replace(QUICK, steps=0)
        here, there = trained(settings_=start), trained(settings_=start, device=device)
        values = random(80, 3).abs()
        assert there.device.type == device.type
        for one, two in (
            (here.keys, there.keys),
            (here.detection(sides()[0]), there.detection(sides()[0])),
            (here.mapping(here.sample).apply(values), there.mapping(there.sample).apply(values.to(device))),
            (here.within(np.arange(4), values), there.within(np.arange(4), values.to(device))),
        ):
            np.testing.assert_allclose(two.cpu(), one, atol=10 * TOLERANCE)


class TestMetacells:
    """The model with its reference condensed to metacells, compared with attention to every cell."""

    def test_groups_of_one_cell_give_exact_attention(self) -> None:
        model, values = trained(), random(80, 3).abs()
        groups = np.random.default_rng(0).permutation(80)
        alone = with_metacells(model, Metacells(groups=groups))
        assert alone.n_keys == model.n_keys == 80
        np.testing.assert_allclose(alone.at_keys(values)[groups], values, atol=1e-6)
        np.testing.assert_allclose(
            alone.mapping(alone.sample).apply(alone.at_keys(values)),
            model.mapping(model.sample).apply(values),
            atol=1e-6,
        )
        np.testing.assert_allclose(
            alone.similarity(alone.sample), model.similarity(model.sample), atol=TOLERANCE
        )

    def test_groups_of_identical_cells_give_exact_attention(self) -> None:
        """The reference has 2 to 8 copies of each of 20 cells, so 20 metacells lose nothing."""
        spatial, reference = sides(n_sc=20)
        repeats = np.repeat(np.arange(20), np.arange(20) % 7 + 2)
        model = trained(on=(spatial, reference[repeats]))
        values = random(20, 3).abs()[repeats]
        few = model.condensed(most=20, seed=0)
        assert few.n_keys == 20
        np.testing.assert_allclose(
            few.mapping(few.sample).apply(few.at_keys(values)),
            model.mapping(model.sample).apply(values),
            atol=TOLERANCE,
        )
        np.testing.assert_allclose(few.similarity(few.sample), model.similarity(model.sample), atol=TOLERANCE)

    def test_it_equals_a_plain_loop(self) -> None:
        model, values = trained().condensed(most=9, seed=0), random(80, 3).abs()
        assert model.metacells is not None
        keys, queries = model.keys.double().numpy(), model.sample.double().numpy()
        found = model.mapping(model.sample).apply(model.at_keys(values)).numpy()
        for row in range(0, 70, 11):
            total, carried = 0.0, np.zeros(3)
            for group in range(model.n_keys):
                own = keys[model.metacells.groups == group]
                around = np.mean([((queries @ (key - own.mean(axis=0))) ** 2).mean() for key in own])
                product = float(queries[row] @ own.mean(axis=0))
                weight = len(own) * math.exp(product + around / 2)
                held = values.double().numpy()[model.metacells.groups == group].mean(axis=0)
                total, carried = total + weight, carried + weight * held
            np.testing.assert_allclose(found[row], carried / total, atol=TOLERANCE)

    def test_few_metacells_give_nearly_the_same_as_all_cells(self) -> None:
        spatial, reference = sides(n_sc=600)
        model, values = trained(on=(spatial, reference)), torch.from_numpy(reference)
        exact = model.mapping(model.sample).apply(values).numpy()
        alike, near = [], []
        for most in (10, 40, 160):
            few = model.condensed(most=most, seed=0)
            alike.append(pearson(few.mapping(few.sample).apply(few.at_keys(values)).numpy(), exact))
            near.append(np.abs(few.similarity(few.sample) - model.similarity(model.sample)).mean())
        assert alike == sorted(alike)
        assert alike[-1] > 0.995
        assert near == sorted(near, reverse=True)
        assert near[-1] < 0.01  # in units of the cosine, with a quarter of the keys

    def test_within_always_uses_all_cells(self) -> None:
        model, values, cells = trained(), random(80, 3).abs(), np.array([3, 50, 79])
        few = model.condensed(most=5, seed=0)
        assert torch.equal(few.within(cells, values), model.within(cells, values))

    def test_a_small_reference_is_not_condensed(self) -> None:
        model, values = trained(), random(80, 3).abs()
        assert model.condensed(most=79, seed=0).metacells is not None
        same_ = model.condensed(most=80, seed=0)
        assert same_.metacells is None
        assert same_.at_keys(values) is values
        assert torch.equal(same_.mapping(model.sample).keys, model.keys)

    def test_only_a_large_reference_is_condensed_by_default(self) -> None:
        for most, n_keys in ((19, 19), (20, 80), (4000, 80)):
            model = trained(settings_=dataclasses.replace(QUICK, most_keys=most))
            assert condensed_if_large(model, seed=0).n_keys == n_keys == keys_of(80, most=most)

    def test_it_can_be_condensed_again(self) -> None:
        few = trained().condensed(most=20, seed=0).condensed(most=5, seed=0)
        assert few.n_keys == 5
        assert few.mapping(few.sample).shape == (70, 5)
        assert few.condensed(most=80, seed=0).metacells is None

    def test_the_same_seed_gives_the_same_bits(self) -> None:
        one, two, other = (trained().condensed(most=15, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(one.mapping(one.sample).keys, two.mapping(two.sample).keys)
        assert not torch.equal(one.mapping(one.sample).keys, other.mapping(other.sample).keys)

    def test_devices_agree(self, device: torch.device) -> None:
        start = dataclasses.replace(QUICK, steps=0)
        here, there = (
            trained(settings_=start, device=where).condensed(most=15, seed=0) for where in ("cpu", device)
        )
        values = random(80, 3).abs()
        moved_ = there.at_keys(values.to(device))
        assert moved_.device.type == device.type
        np.testing.assert_allclose(
            there.mapping(there.sample).apply(moved_).cpu(),
            here.mapping(here.sample).apply(here.at_keys(values)),
            atol=10 * TOLERANCE,
        )


def test_moments_are_computed_in_float64() -> None:
    """In float32 the sum of these values would be wrong, because its steps are 4."""
    found = Moments.of(torch.tensor([[2.0**24], [2.0**24 + 2]]))
    assert found.spread.item() == 1.0
