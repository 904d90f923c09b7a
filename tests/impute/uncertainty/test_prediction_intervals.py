"""Prediction intervals: naive loops, coverage for new genes and within groups, and calibrated draws."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from cellweft._errors import InputError, SettingError
from cellweft.impute.uncertainty.prediction_intervals import (
    SMALLEST_PANEL,
    Intervals,
    _Entries,
    _places,
    _squared_effects,
    _stretched,
    _stretches,
    _table,
    basis_of,
    components,
    effect_shares,
    fit_intervals,
)

# float32 bounds of values of the order of 1
ROUNDING = 1e-6


def made(
    n_genes: int, *, n_cells: int = 400, shift: float = 0.0, seed: int = 0, zeros: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate predictions, measurements and similarity; noise grows with level, and levels are biased."""
    stream = np.random.default_rng(seed)
    kind = stream.standard_normal((n_cells, 1))
    level = 0.5 * kind * stream.standard_normal(n_genes) + stream.uniform(-1.5, 1, n_genes)
    predicted = np.log1p(np.exp(level))
    similarity = stream.uniform(size=n_cells)
    noise = stream.standard_normal(predicted.shape) * (0.1 + 0.6 * predicted) * (1.5 - similarity[:, None])
    truth = predicted * np.exp(shift * stream.standard_normal(n_genes)) + noise
    return predicted, np.maximum(truth, 0) if zeros else truth - truth.min() + 0.1, similarity


def covered(fitted: Intervals, data: tuple[np.ndarray, ...], level: float = 0.9) -> np.ndarray:
    predicted, truth, similarity = data
    lower, upper = fitted.bounds(predicted, similarity=similarity, level=level)
    return (truth >= lower - ROUNDING) & (truth <= upper + ROUNDING)


@pytest.fixture(scope="module")
def fitted() -> Intervals:
    return fit(made(40, shift=0.3))


def fit(data: tuple[np.ndarray, ...], **others: Any) -> Intervals:
    predicted, truth, similarity = data
    return fit_intervals(predicted, truth, similarity=similarity, **others)


def hand(*, effects: list[float] | None = None) -> Intervals:
    """One group of similarity, two levels: at 1 half zeros, the rest uniform on 0 to 2; at 3 no zeros."""
    even = np.linspace(0, 1, 401)
    return Intervals(
        edges=np.empty(0),
        levels=np.array([1.0, 3.0]),
        zeros=np.array([[0.5, 0.0]]),
        quantiles=np.stack([2 * even, 2 + 2 * even])[None],
        effects=np.array(effects or [0.0, 0.0]),
        centre=np.zeros(3),
        loadings=np.zeros((3, 0)),
    )


class TestBounds:
    def test_by_hand(self) -> None:
        """At level 1 the interval has 0.75 of the values above zero; at level 3 its width is 1.6."""
        lower, upper = hand().bounds([[1.0, 3.0]], similarity=[0.3], level=0.8)
        assert lower[0, 0] == 0
        assert upper[0, 0] == pytest.approx(1.5, abs=1e-6)
        assert upper[0, 1] - lower[0, 1] == pytest.approx(1.6, abs=1e-5)
        assert lower[0, 1] >= 2

    @pytest.mark.parametrize(
        ("detected", "wanted"),
        [
            # zeros alone are more than 0.8 of all; the condition on 0.75 of the detected values decides
            (0.1, 0.75),
            (0.5, 0.75),  # 0.8 of all would be 0.6 of the detected values
            (0.79, 0.75),  # 0.8 of all would be 0.747
            (0.9, 7 / 9),  # 0.1 zeros and 0.7 of the 0.9 detected values
        ],
    )
    def test_two_parts_by_hand(self, detected: float, wanted: float) -> None:
        """If detected values are uniform on 0 to 2, an interval up to 2 c holds a share c of them."""
        quantiles = np.tile(2 * np.linspace(0, 1, 401), (1, 2, 1))
        fitted = dataclasses.replace(hand(), zeros=np.full((1, 2), 1 - detected), quantiles=quantiles)
        lower, upper = fitted.bounds([[1.0]], similarity=[0.3], level=0.8)
        assert lower[0, 0] == 0
        assert upper[0, 0] == pytest.approx(2 * wanted, abs=1e-6)

    def test_intervals_exclude_zero_if_a_gene_is_almost_always_detected(self) -> None:
        """Values are uniform on 1 to 2 if detected: the shortest interval is without 0, 0.8 / 0.95 wide."""
        quantiles = np.tile(1 + np.linspace(0, 1, 401), (1, 2, 1))
        sure, unsure = (
            dataclasses.replace(hand(), zeros=np.full((1, 2), none), quantiles=quantiles)
            for none in (0.05, 0.25)
        )
        lower, upper = sure.bounds([[1.5]], similarity=[0.3], level=0.8)
        assert lower[0, 0] >= 1
        assert upper[0, 0] - lower[0, 0] == pytest.approx(0.8 / 0.95, abs=1e-5)
        assert unsure.bounds([[1.5]], similarity=[0.3], level=0.8)[0][0, 0] == 0

    def test_chances_of_detection_by_hand(self) -> None:
        """0.5 at level 1 and 1 at level 3; linear between them, and constant outside."""
        found = hand().detected([[0.0, 1.0, 1.5, 3.0, 9.0]], similarity=[np.nan])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [[0.5, 0.5, 0.625, 1, 1]], atol=1e-6)

    def test_chances_of_detection_hold_for_new_genes(self, fitted: Intervals) -> None:
        predicted, truth, similarity = made(60, shift=0.3, seed=9)
        chance = fitted.detected(predicted, similarity=similarity)
        for low, high in ((0, 0.7), (0.7, 0.9), (0.9, 1.01)):
            some = (chance >= low) & (chance < high)
            assert chance[some].mean() == pytest.approx((truth[some] > 0).mean(), abs=0.05)

    def test_beyond_the_levels_intervals_contain_the_prediction(self) -> None:
        lower, upper = hand().bounds([[0.0, 9.0]], similarity=[0.3], level=0.8)
        assert lower[0, 0] == 0
        assert upper[0, 1] == 9
        assert lower[0, 1] == pytest.approx(2, abs=0.41)

    @given(seed=st.integers(0, 99), level=st.floats(0.01, 0.99))
    @settings(max_examples=12, deadline=None)
    def test_bounds_contain_the_prediction_and_do_not_depend_on_order(
        self, fitted: Intervals, seed: int, level: float
    ) -> None:
        predicted, _, similarity = made(5, n_cells=37, seed=seed)
        lower, upper = fitted.bounds(predicted, similarity=similarity, level=level)
        assert lower.dtype == upper.dtype == np.float32
        told = predicted.astype(np.float32)
        assert ((lower >= 0) & (lower <= told) & (told <= upper)).all()
        some = np.random.default_rng(seed).permutation(37)[:20]
        again = fitted.bounds(predicted[some][:, [3, 1]], similarity=similarity[some], level=level)
        np.testing.assert_array_equal(again[0], lower[some][:, [3, 1]])
        np.testing.assert_array_equal(again[1], upper[some][:, [3, 1]])

    def test_a_higher_level_covers_more(self, fitted: Intervals) -> None:
        data = made(60, shift=0.3, seed=9)
        shares = [covered(fitted, data, level).mean() for level in (0.3, 0.6, 0.9, 0.99)]
        assert (np.diff(shares) > 0).all()

    def test_no_cells_no_genes_and_unknown_similarity(self, fitted: Intervals) -> None:
        assert fitted.bounds(np.empty((0, 3)), similarity=[])[0].shape == (0, 3)
        assert fitted.bounds(np.empty((2, 0)), similarity=[1, 2])[1].shape == (2, 0)
        lower, upper = fitted.bounds([[1.0], [1.0]], similarity=[np.nan, -9.0])
        np.testing.assert_array_equal(lower[0], lower[1])
        np.testing.assert_array_equal(upper[0], upper[1])

    @pytest.mark.parametrize("level", [0, 1, 1.5, -0.1, True, "most"])
    def test_levels_out_of_range(self, fitted: Intervals, level: Any) -> None:
        with pytest.raises(SettingError, match=r"level: expected a number from 0\.001 to 0\.999"):
            fitted.bounds([[1.0]], similarity=[1.0], level=level)

    def test_shapes_that_do_not_fit(self, fitted: Intervals) -> None:
        with pytest.raises(InputError, match=r"predicted: expected an array of shape \(3, 2\)"):
            fitted.bounds(np.ones((4, 2)), similarity=np.ones(3))


class TestCoverage:
    """Coverage for new genes in new cells, over many draws of panels."""

    @pytest.mark.slow
    @pytest.mark.parametrize("n_panel", [12, 40])
    @pytest.mark.parametrize("shift", [0.0, 0.4])
    def test_coverage_for_new_genes(self, n_panel: int, shift: float) -> None:
        """The levels of new genes are biased too; if ignored, small panels give too little coverage."""
        shares = []
        for seed in range(4):
            fitted = fit(made(n_panel, n_cells=150, shift=shift, seed=seed))
            shares.append(covered(fitted, made(120, n_cells=100, shift=shift, seed=100 + seed)).mean())
        assert np.mean(shares) == pytest.approx(0.9, abs=0.02)

    @pytest.mark.slow
    def test_coverage_within_levels_and_similarities(self) -> None:
        fitted = fit(made(80, n_cells=500, shift=0.2))
        data = made(200, n_cells=300, shift=0.2, seed=5)
        inside = covered(fitted, data)
        deciles = np.searchsorted(np.quantile(data[0], np.arange(1, 10) / 10), data[0])
        assert all(0.85 <= inside[deciles == one].mean() <= 0.95 for one in range(10))
        thirds = np.searchsorted(np.quantile(data[2], [1 / 3, 2 / 3]), data[2])
        assert all(0.86 <= inside[thirds == one].mean() <= 0.94 for one in range(3))

    def test_coverage_of_rare_detected_values(self) -> None:
        """One value in twenty is above zero; about nine in ten of these are inside."""

        def sparse(n_genes: int, seed: int) -> tuple[np.ndarray, ...]:
            predicted, truth, similarity = made(n_genes, seed=seed)
            none = np.random.default_rng(seed).uniform(size=truth.shape) < 0.95
            return predicted, np.where(none, 0, truth + 0.1), similarity

        inside = covered(fit(sparse(40, 0)), data := sparse(60, 1))
        assert inside[data[1] > 0].mean() == pytest.approx(0.875, abs=0.03)
        assert inside[data[1] == 0].all()

    def test_with_almost_only_zeros_lower_bounds_are_zero(self) -> None:
        predicted, truth, similarity = made(20)
        truth[np.random.default_rng(0).uniform(size=truth.shape) < 0.97] = 0
        lower, _ = fit((predicted, truth, similarity)).bounds(predicted, similarity=similarity)
        assert (lower == 0).all()

    @pytest.mark.slow
    def test_intervals_are_narrower_than_one_quantile_for_all(self) -> None:
        data, new = made(60, n_cells=500), made(100, seed=3)
        fitted = fit(data)
        lower, upper = fitted.bounds(new[0], similarity=new[2])
        one_for_all = np.quantile(np.abs(data[1] - data[0]), 0.9)
        plain = new[0] + one_for_all - np.maximum(new[0] - one_for_all, 0)
        assert (upper - lower).mean() < 0.95 * plain.mean()


class TestDraws:
    def test_by_hand(self) -> None:
        """Without effects of genes: at level 1 half zeros and the rest uniform; at level 3 no zeros."""
        drawn = hand().draw(
            np.tile([1.0, 3.0], (20_000, 1)), similarity=np.ones(20_000), generator=np.random.default_rng(0)
        )
        assert (drawn[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.02)
        above = drawn[drawn[:, 0] > 0, 0]
        assert kstest(above / 2, "uniform").pvalue > 0.001
        assert kstest((drawn[:, 1] - 2) / 2, "uniform").pvalue > 0.001

    @pytest.mark.slow
    def test_effects_of_genes_do_not_change_the_distribution_of_an_entry(self) -> None:
        """In one cell over many genes, effects of genes do not widen the distribution."""
        fitted = dataclasses.replace(hand(effects=[0.4, 0.2]), levels=np.array([1.0, 3.0]))
        predicted = np.tile([[3.0], [1.0], [1.0], [3.0]], (1, 4000))
        drawn = fitted.draw(predicted, similarity=np.ones(4), generator=np.random.default_rng(1))
        assert kstest((drawn[0] - 2) / 2, "uniform").pvalue > 0.001
        assert (drawn[1] == 0).mean() == pytest.approx(0.5, abs=0.03)

    @pytest.mark.slow
    def test_errors_of_one_gene_are_correlated_between_cells(self) -> None:
        """The correlation between cells is the variance share of the shift of a gene."""
        fitted = hand(effects=[0.36, 0.0])
        drawn = fitted.draw(
            np.full((2, 4000), 3.0), similarity=np.ones(2), generator=np.random.default_rng(2)
        )
        scores = norm.ppf(((drawn - 2) / 2).clip(1e-4, 1 - 1e-4))
        assert np.corrcoef(scores)[0, 1] == pytest.approx(0.36, abs=0.05)

    @pytest.mark.slow
    def test_errors_of_similar_cells_are_correlated(self) -> None:
        fitted = dataclasses.replace(hand(effects=[0.0, 0.0, 0.5]), loadings=np.array([[1.0], [0], [0]]))
        state = fitted.state([[1.0, 5, 5], [1.0, 0, 0], [-1.0, 0, 0]])
        np.testing.assert_array_equal(state, [[1], [1], [-1]])
        drawn = fitted.draw(
            np.full((3, 4000), 3.0), similarity=np.ones(3), generator=np.random.default_rng(3), state=state
        )
        likeness = np.corrcoef(norm.ppf(((drawn - 2) / 2).clip(1e-4, 1 - 1e-4)))
        assert likeness[0, 1] == pytest.approx(0.5, abs=0.05)
        assert likeness[0, 2] == pytest.approx(-0.5, abs=0.05)

    @pytest.mark.slow
    def test_variance_shares_of_effects_are_recovered(self) -> None:
        """Genes have shifts with a variance share of 0.3, or 0: the estimates recover these shares."""
        stream = np.random.default_rng(4)
        predicted = stream.uniform(1, 2, (250, 150))
        plain = stream.standard_normal(predicted.shape)
        for zeros in (False, True):
            for share in (0.0, 0.3):
                scores = np.sqrt(share) * stream.standard_normal(150) + np.sqrt(1 - share) * plain
                truth = np.maximum(scores, 0) if zeros else scores + 6
                found = fit_intervals(predicted, truth, similarity=np.ones(250)).effects
                assert found[0] == pytest.approx(share, abs=0.08)
                assert found[1:].sum() < 0.05

    def test_draws_have_the_distribution_of_measurements(self, fitted: Intervals) -> None:
        predicted, truth, similarity = made(300, shift=0.3, seed=8)
        drawn = fitted.draw(predicted, similarity=similarity, generator=np.random.default_rng(0))
        assert drawn.dtype == np.float32
        assert (drawn >= 0).all()
        assert (drawn == 0).mean() == pytest.approx((truth == 0).mean(), abs=0.03)
        assert drawn.mean() == pytest.approx(truth.mean(), rel=0.06)
        assert drawn.std() == pytest.approx(truth.std(), rel=0.1)
        wrong = (truth - predicted).mean(axis=0).std()
        assert (drawn - predicted).mean(axis=0).std() == pytest.approx(wrong, rel=0.4)

    def test_the_same_generator_draws_the_same(self, fitted: Intervals) -> None:
        predicted, _, similarity = made(4)
        one, other, third = (
            fitted.draw(predicted, similarity=similarity, generator=np.random.default_rng(seed))
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, other)
        assert (one != third).any()

    def test_nothing_to_draw(self, fitted: Intervals) -> None:
        stream = np.random.default_rng(0)
        assert fitted.draw(np.empty((0, 3)), similarity=[], generator=stream).shape == (0, 3)
        assert fitted.draw(np.empty((2, 0)), similarity=[1, 1], generator=stream).shape == (2, 0)

    def test_a_state_of_other_cells_is_refused(self, fitted: Intervals) -> None:
        with pytest.raises(InputError, match="state: expected an array of shape"):
            fitted.draw(
                [[1.0]], similarity=[1.0], generator=np.random.default_rng(0), state=np.zeros((2, 10))
            )


class TestFit:
    @pytest.mark.parametrize(("n_cells", "n_groups"), [(1, 1), (199, 1), (200, 2), (10_000, 3)])
    def test_groups_of_similarity_have_at_least_a_hundred_cells(self, n_cells: int, n_groups: int) -> None:
        ones = np.ones((n_cells, 6))
        entries = _Entries.of(ones, ones, np.arange(n_cells))
        assert len(np.unique(entries.group)) == n_groups
        assert len(entries.edges) == n_groups - 1

    @pytest.mark.slow
    def test_shares_of_zeros_and_quantiles_equal_those_of_the_groups(self) -> None:
        """Similar genes need no correction of quantiles, so a naive loop over groups gives the same."""
        predicted, truth, similarity = made(50, n_cells=600)
        fitted = fit((predicted, truth, similarity))
        group = np.searchsorted(fitted.edges, similarity, side="right")
        middles = np.quantile(predicted, np.arange(1, 12) / 12)
        for one in range(3):
            for level in range(12):
                values = []
                for cell in np.flatnonzero(group == one):
                    for gene in range(50):
                        if np.searchsorted(middles, predicted[cell, gene], side="right") == level:
                            values.append(truth[cell, gene])
                share = np.mean(np.array(values) == 0)
                assert fitted.zeros[one, level] == pytest.approx(share, abs=0.05)
                middle = np.median([value for value in values if value > 0])
                assert fitted.quantiles[one, level, 200] == pytest.approx(middle, rel=0.1)

    def test_the_state_is_standardised_over_the_cells_of_the_fit(self) -> None:
        data = made(30)
        fitted = fit(data)
        state = fitted.state(data[1])
        np.testing.assert_allclose(state.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(state.T @ state / len(state), np.eye(10), atol=1e-9)

    def test_more_genes_than_cells(self) -> None:
        data = made(150, n_cells=60)
        state = fit(data).state(data[1])
        np.testing.assert_allclose(state.T @ state / 60, np.eye(3), atol=1e-9)

    def test_it_is_restored_from_its_arrays(self, fitted: Intervals) -> None:
        again = Intervals.from_arrays(fitted.to_arrays())
        assert all(array.dtype == np.float64 for array in fitted.to_arrays().values())
        np.testing.assert_array_equal(
            again.bounds([[1.3]], similarity=[0.4])[1], fitted.bounds([[1.3]], similarity=[0.4])[1]
        )

    def test_the_same_seed_gives_the_same(self, fitted: Intervals) -> None:
        again = fit(made(40, shift=0.3)).to_arrays()
        for name, array in fitted.to_arrays().items():
            np.testing.assert_array_equal(again[name], array)

    @pytest.mark.parametrize("value", [0.0, 2.0])
    def test_identical_predictions_and_cells(self, value: float) -> None:
        truth = made(SMALLEST_PANEL, n_cells=30)[1]
        fitted = fit_intervals(np.full(truth.shape, value), truth, similarity=np.ones(30))
        lower, upper = fitted.bounds([[value]], similarity=[1.0])
        assert lower[0, 0] <= value <= upper[0, 0] < np.inf
        drawn = fitted.draw([[value]], similarity=[1.0], generator=np.random.default_rng(0))
        assert np.isfinite(drawn).all()

    def test_a_panel_of_zeros(self) -> None:
        fitted = fit_intervals(made(8)[0], np.zeros((400, 8)), similarity=np.ones(400))
        assert (fitted.bounds([[0.5]], similarity=[1.0])[1] == 0.5).all()
        assert (fitted.draw([[0.5]], similarity=[1.0], generator=np.random.default_rng(0)) == 0).all()

    def test_inputs_are_not_changed(self) -> None:
        data = made(10)
        copies = [one.copy() for one in data]
        fit(data)
        for one, copy in zip(data, copies, strict=True):
            np.testing.assert_array_equal(one, copy)

    def test_too_few_genes_and_wrong_shapes_are_refused(self) -> None:
        predicted, truth, similarity = made(SMALLEST_PANEL - 1)
        with pytest.raises(InputError, match="at least 6 genes, got an array of shape"):
            fit((predicted, truth, similarity))
        predicted, truth, similarity = made(8)
        with pytest.raises(InputError, match="truth: expected an array of shape"):
            fit((predicted, truth[:, 1:], similarity))
        with pytest.raises(InputError, match="predicted: expected an array of shape"):
            fit((predicted, truth, similarity[1:]))
        truth[0, 0] = np.nan
        with pytest.raises(InputError, match="expected finite values"):
            fit((predicted, truth, similarity))


def test_a_basis_by_hand() -> None:
    found = basis_of(np.array([1.0, 3.0]), np.array([[9.0], [-0.5]]))
    np.testing.assert_allclose(found, [[1, -1, 3], [1, 1, -0.5]])  # 9 is clipped to 3
    np.testing.assert_array_equal(basis_of(np.full(2, 5.0), np.zeros((2, 0))), [[1, 0], [1, 0]])
    assert basis_of(np.empty(0), np.zeros((0, 2))).shape == (0, 4)


def test_without_cuts_the_effects_are_least_squares() -> None:
    """Shift 0.8 and slope -0.5; the only bias is that of the prior, which is worth one cell."""
    stream = np.random.default_rng(0)
    basis = basis_of(stream.standard_normal(2000), np.zeros((2000, 0)))
    scores = basis @ [0.8, -0.5] + 0.5 * stream.standard_normal(2000)
    found = _squared_effects(basis, scores, np.full(2000, np.nan), noise=0.25)
    np.testing.assert_allclose(found, [0.64, 0.25], atol=0.03)


@pytest.mark.parametrize("shift", [-0.8, 0.0, 0.8])
def test_the_shift_is_recovered_from_censored_scores(shift: float) -> None:
    """Scores below a cut are only known to be below it; the others still reveal the shift."""
    stream = np.random.default_rng(1)
    scores = shift + stream.standard_normal(4000)
    cut = np.where(scores < 0.25, 0.25, np.nan)
    basis = basis_of(stream.standard_normal(4000), np.zeros((4000, 0)))
    found = _squared_effects(basis, np.where(np.isnan(cut), scores, -9.0), cut, noise=1.0)
    np.testing.assert_allclose(found, [shift**2, 0], atol=0.08)


def test_few_cells_give_shares_of_zero() -> None:
    values = np.random.default_rng(0).uniform(size=(3, 8))
    found = effect_shares(
        values, values, ranks=values, zeros=values * 0, part_of=np.arange(8) % 2, n_components=1
    )
    np.testing.assert_array_equal(found, [0, 0, 0])


@given(n_cells=st.integers(5, 30), n_panel=st.integers(3, 30), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_components_are_standardised(n_cells: int, n_panel: int, seed: int) -> None:
    panel = np.random.default_rng(seed).uniform(size=(n_cells, n_panel))
    centre, loadings = components(panel, 2)
    scores = (panel - centre) @ loadings
    np.testing.assert_allclose(scores.T @ scores / n_cells, np.eye(2), atol=1e-8)
    reached = np.linalg.svd(panel - centre, compute_uv=False)[:2]
    np.testing.assert_allclose(1 / np.linalg.norm(loadings, axis=0), reached / n_cells**0.5, rtol=1e-6)


def test_missing_components_are_zero() -> None:
    panel = np.outer(np.arange(6.0), np.ones(3))
    loadings = components(panel, 2)[1]
    assert (loadings[:, 1] == 0).all()
    assert (components(np.ones((4, 3)), 1)[1] == 0).all()


class TestNaiveLoops:
    """The steps of the fit, one entry at a time."""

    @pytest.fixture
    def data(self) -> _Entries:
        return _Entries.of(*made(12, n_cells=400, shift=0.4))

    def test_quantile_positions(self, data: _Entries) -> None:
        table = _table(data)
        places, shares = _places(table, data)
        fine = np.interp(np.arange(4 * len(table.levels) - 3) / 4, range(len(table.levels)), table.levels)
        for cell, gene in [(cell, gene) for cell in range(0, 400, 7) for gene in range(12)]:
            knot = fine[np.argmin(np.abs(fine - data.predicted[cell, gene]))]
            above = min(int(np.searchsorted(table.levels, knot)), len(table.levels) - 1)
            below = max(above - 1, 0)
            gap = table.levels[above] - table.levels[below]
            part = (knot - table.levels[below]) / gap if gap else 0.0
            group = data.group[cell]
            zeros, quantiles = (
                (1 - part) * one[group, below] + part * one[group, above]
                for one in (table.zeros, table.quantiles)
            )
            assert shares[cell, gene] == pytest.approx(zeros, abs=1e-9)
            value = data.truth[cell, gene]
            if value > 0:
                place = np.interp(value, quantiles, np.linspace(0, 1, 401))
                assert places[cell, gene] == pytest.approx(place, abs=1e-9)
            else:
                assert np.isnan(places[cell, gene])

    def test_with_few_genes_stretches_are_shrunk_towards_all_levels(self, data: _Entries) -> None:
        table, even = _table(data), np.linspace(0, 1, 401)
        stream = np.random.default_rng(1)
        places = np.where(data.truth > 0, stream.beta(0.6, 0.8, data.truth.shape), np.nan)
        before = places.copy()
        found = _stretches(table, data, places)
        level = np.searchsorted(table.bounds, data.predicted, side="right")
        every, trusts = np.quantile(before[data.truth > 0], even), []
        for one in range(len(table.levels)):
            some = (level == one) & (data.truth > 0)
            counts = [int(some[:, gene].sum()) for gene in range(12)]
            n_genes = sum(counts) ** 2 / sum(count**2 for count in counts)
            trust = n_genes / (n_genes + 10)
            trusts.append(trust)
            wanted = trust * np.quantile(before[some], even) + (1 - trust) * every
            np.testing.assert_allclose(found[one], wanted, atol=1e-12)
            np.testing.assert_allclose(places[some], np.interp(before[some], wanted, even))
        assert np.isnan(places[data.truth <= 0]).all()
        assert len(set(np.round(trusts, 6))) > 1

    def test_a_stretched_table(self, data: _Entries) -> None:
        table, even = _table(data), np.linspace(0, 1, 401)
        stretch = np.stack([even ** (1 + 0.3 * one) for one in range(len(table.levels))])
        found = _stretched(table.quantiles, stretch)
        for group, level in np.ndindex(*table.zeros.shape):
            for step in range(0, 401, 50):
                place = even[step] ** (1 + 0.3 * level)
                value = np.interp(place, even, table.quantiles[group, level])
                assert found[group, level, step] == pytest.approx(value, abs=1e-12)
