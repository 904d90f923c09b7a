"""Shares of spill-over: hand-computed cases, a naive loop, and counts simulated from the model."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import nbinom

from cellweft.nn.spillover import (
    BACKGROUNDS,
    SHARES,
    SpilloverModel,
    Surroundings,
    _better_dispersion,
    _share_frequencies,
)

TWO = np.array([[0.45, 0.45, 0.05, 0.05], [0.05, 0.05, 0.45, 0.45]])


def model_of(profiles: np.ndarray) -> SpilloverModel:
    made = SpilloverModel.of_reference(profiles, np.full(len(profiles), 1e6))
    return replace(made, dispersion=np.full(profiles.shape[1], 0.1))


def test_profiles_sum_to_one_and_small_groups_are_shrunk_to_the_average() -> None:
    made = SpilloverModel.of_reference(np.array([[8.0, 0.0], [0.0, 2.0]]), np.array([1.0, 3.0]))
    # average (2, 1.5); groups (8 + 2, 1.5) / 2 and (2, 6 + 1.5) / 4
    np.testing.assert_allclose(made.profiles, [[10 / 11.5, 1.5 / 11.5], [2 / 9.5, 7.5 / 9.5]], atol=1e-5)
    assert made.prior.sum() == pytest.approx(1)


def test_the_posterior_equals_a_naive_loop() -> None:
    draw = np.random.default_rng(0)
    model = replace(model_of(draw.dirichlet(np.ones(5), 3)), frequency=np.array([0.5, 0.3, 0.2]))
    assert not model._unlike.all()  # a profile is similar to itself
    counts = draw.poisson(4.0, (6, 5)).astype(np.float32)
    near, wide = draw.dirichlet(np.ones(3), 6), draw.dirichlet(np.ones(3), 6)
    known = model.posterior(counts, Surroundings(near=near, wide=wide))
    for cell in range(6):
        weights = np.zeros((3, len(BACKGROUNDS), len(SHARES)))
        for k in range(3):
            own = model.profiles[k]
            seen = [model.profiles[other if model._unlike[k, other] else k] for other in range(3)]
            for b, background in enumerate(BACKGROUNDS):
                for s, share in enumerate(SHARES):
                    rest = (1 - background) * own + background * (wide[cell] @ seen)
                    mean = counts[cell].sum() * ((1 - share) * rest + share * (near[cell] @ seen))
                    chance = nbinom.pmf(counts[cell], 10.0, 10.0 / (10.0 + mean)).prod()
                    weights[k, b, s] = chance * model.prior[b, s] * model.frequency[k]
        weights /= weights.sum()
        assert known.share[cell] == pytest.approx(weights.sum(axis=(0, 1)) @ SHARES, abs=1e-4)
        of_profile = np.zeros(3)
        of_profile[known.candidates[cell]] = known.of_profile[cell]
        np.testing.assert_allclose(of_profile, weights.sum(axis=(1, 2)), atol=1e-4)
    np.testing.assert_allclose(known.expected.sum(axis=1), 1, atol=1e-5)


def test_the_share_increases_with_counts_of_neighbouring_types() -> None:
    counts = np.array([[50, 50, 0, 0], [45, 45, 5, 5], [35, 35, 15, 15]], dtype=np.float32)
    pure = model_of(np.array([[0.5, 0.5, 1e-3, 1e-3], [1e-3, 1e-3, 0.5, 0.5]]))
    other, both = np.tile([0.0, 1.0], (3, 1)), np.full((3, 2), 0.5)
    share = pure.posterior(counts, Surroundings(near=other, wide=both)).share
    assert share[0] < share[1] < share[2]
    assert share[0] < 0.02


def test_neighbours_of_the_same_type_give_the_prior() -> None:
    model = model_of(TWO)
    counts = np.array([[40, 40, 5, 5], [30, 30, 20, 20]], dtype=np.float32)
    same = np.tile([1.0, 0.0], (2, 1))
    share = model.posterior(counts[:1], Surroundings(near=same[:1], wide=same[:1])).share
    assert share[0] == pytest.approx(model.prior.sum(axis=0) @ SHARES, abs=1e-3)


def test_isolated_cells_have_no_spill_over_and_no_cells_are_accepted() -> None:
    model = model_of(TWO)
    counts = np.array([[9, 9, 3, 3], [0, 0, 0, 0]], dtype=np.float32)
    assert model.posterior(counts, Surroundings.none(2, 2)).share.tolist() == [0, 0]
    nobody = Surroundings.none(0, 2)
    assert model.posterior(counts[:0], nobody).share.shape == (0,)
    assert model.fit(counts[:0], nobody) is model


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_a_known_share_is_recovered_from_simulated_counts(level: float) -> None:
    draw = np.random.default_rng(1)
    profiles = draw.dirichlet(np.full(20, 0.3), 4)
    factor = np.exp(0.5 * draw.standard_normal(20))  # platform effect
    seen = profiles * factor / (profiles * factor).sum(axis=1, keepdims=True)
    kind, near = draw.integers(4, size=600), draw.dirichlet(np.full(4, 0.5), 600)
    rate = 150 * ((1 - level) * (0.9 * seen[kind] + 0.1 * seen.mean(axis=0)) + level * near @ seen)
    counts = draw.poisson(rate * draw.gamma(10.0, 0.1, rate.shape)).astype(np.float32)
    around = Surroundings(near=near, wide=np.full((600, 4), 0.25))
    model = SpilloverModel.of_reference(profiles, np.full(4, 50.0))
    for _ in range(2):
        model = model.fit(counts, around)
    assert model.posterior(counts, around).share.mean() == pytest.approx(level, abs=0.04)
    held = np.abs(np.log(model.profiles / seen))[seen > 0.02]
    assert np.median(held) < 0.1


def test_the_candidates_are_the_most_likely_profiles_in_a_naive_loop() -> None:
    draw = np.random.default_rng(2)
    profiles = draw.dirichlet(np.full(12, 0.5), 30)
    dispersion = draw.uniform(0.05, 3.0, 12)
    model = replace(SpilloverModel.of_reference(profiles, np.full(30, 1e6)), dispersion=dispersion)
    model = replace(model, frequency=draw.dirichlet(np.ones(30)))
    # 128 is a power of 2, so nothing is rounded
    counts = draw.multinomial(128, profiles[:20]).astype(np.float32)
    share = float(model.prior.sum(axis=0) @ SHARES)
    means = 128 * ((1 - share) * model.profiles + share * (model.frequency @ model.profiles))
    chances = nbinom.logpmf(counts[:, None], 1 / dispersion, 1 / (1 + dispersion * means)).sum(axis=2)
    expected = np.argsort(-(chances + np.log(model.frequency)), axis=1)
    candidates = model.candidates(counts)
    np.testing.assert_array_equal(candidates, expected[:, : candidates.shape[1]])
    assert candidates.shape[1] < 30


def test_a_gene_with_few_counts_keeps_its_share_in_a_profile() -> None:
    profiles = np.array([[0.499, 0.5, 0.001], [0.899, 0.1, 0.001]])
    model = replace(SpilloverModel.of_reference(profiles, np.full(2, 1e6)), dispersion=np.full(3, 1e-3))
    counts = np.random.default_rng(3).multinomial(20, profiles[0], size=4000).astype(np.float32)
    improved = model._improved(counts, Surroundings.none(4000, 2), model.candidates(counts))
    assert improved.profiles[0, 2] == pytest.approx(0.001, rel=0.3)  # 0.02 counts per cell


def test_few_cells_with_spill_over_are_outweighed_by_five_without() -> None:
    n_backgrounds, n_shares = len(BACKGROUNDS), len(SHARES)
    likelihood = np.zeros((15, n_backgrounds, n_shares))
    likelihood[:, 0, 3] = 1  # 15 cells that certainly have this share
    prior = _share_frequencies(likelihood, np.full((n_backgrounds, n_shares), 1 / (n_backgrounds * n_shares)))
    assert prior[0, 3] == pytest.approx(15 / 20)
    assert prior[:, 0].sum() == pytest.approx(5 / 20)


def test_the_dispersion_climbs_to_the_most_likely_of_three() -> None:
    draw = np.random.default_rng(5)
    true, means = np.array([0.1, 0.5, 1.5, 6.0]), draw.uniform(0.5, 8.0, (400, 4))
    counts = draw.negative_binomial(1 / true, 1 / (1 + true * means)).astype(np.float32)
    for start in (0.05, 0.3, 1.0, 4.0, 19.0):
        tried = (np.array([0.6, 1.0, 1.6]) * start).clip(0.02, 20.0)
        likely = [nbinom.logpmf(counts, 1 / one, 1 / (1 + one * means)).sum(axis=0) for one in tried]
        expected = tried[np.argmax(likely, axis=0)]
        np.testing.assert_allclose(_better_dispersion(counts, means, np.full(4, start)), expected)


def test_a_gene_that_a_profile_lacks_keeps_a_millionth_of_the_mean() -> None:
    made = SpilloverModel.of_reference(np.array([[200.0, 0.0]]), np.array([1.0]))
    assert made.profiles[0, 1] == pytest.approx(1e-6 * 100 / 200, rel=1e-3)
