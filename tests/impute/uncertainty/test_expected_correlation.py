"""Predictability: summaries and fits against naive loops and by hand, scores left out, coverage."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from cellweft import metrics
from cellweft._errors import InputError, SettingError
from cellweft.impute.uncertainty.expected_correlation import (
    FEATURES,
    LEAST,
    LEVEL,
    SMALLEST_PANEL,
    Predictability,
    correlate,
    fit_predictability,
    growth,
    summaries,
)

ROUNDING = 1e-9
"""Sums of doubles in another order."""

SEARCH = 1e-4
"""What a general minimiser leaves of the way to the minimum."""


def drawn_panel(n_panel: int, *, seed: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Summaries of a panel, and correlations that the first two of them explain."""
    draw = np.random.default_rng(seed)
    common = draw.gamma(2.0, 0.3, n_panel)
    features = np.stack([common * draw.uniform(0.7, 1.3, n_panel) for _ in FEATURES], axis=1)
    fisher = 0.3 * features[:, 0] + 0.5 * features[:, 1] + noise * draw.standard_normal(n_panel)
    return features, np.tanh(fisher)


def drawn_genes(n_genes: int, *, seed: int, n_cells: int = 14, n_sc: int = 11) -> dict[str, np.ndarray]:
    """What `summaries` takes, at random."""
    draw = np.random.default_rng(seed)
    queries = np.sort(draw.choice(n_sc, 6, replace=False))
    return {
        "predicted": draw.gamma(1.0, size=(n_cells, n_genes)).astype(np.float32),
        "attended": draw.gamma(1.0, size=(n_cells, n_genes)).astype(np.float32),
        "reference": draw.poisson(1.0, (n_sc, n_genes)).astype(np.float32),
        "queries": queries,
        "within": draw.gamma(1.0, size=(6, n_genes)).astype(np.float32),
    }


def summarised(genes: dict[str, np.ndarray]) -> np.ndarray:
    return summaries(
        genes["predicted"],
        genes["attended"],
        reference=genes["reference"],
        queries=genes["queries"],
        within=genes["within"],
    )


def bare(errors: list[float]) -> Predictability:
    """One of a single summary, whose errors are given."""
    return Predictability(weights=np.ones(1), errors=np.array(errors), panel_scores=np.zeros(len(errors)))


# Summaries


def naive_pearson(left: list[float], right: list[float]) -> float:
    if len(set(left)) == 1 or len(set(right)) == 1:
        return 0.0
    a, b = sum(left) / len(left), sum(right) / len(right)
    product = sum((x - a) * (y - b) for x, y in zip(left, right, strict=True))
    squares = sum((x - a) ** 2 for x in left) * sum((y - b) ** 2 for y in right)
    return product / squares**0.5


def naive_spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5


def naive_summaries(genes: dict[str, np.ndarray]) -> np.ndarray:
    rows = []
    for gene in range(genes["reference"].shape[1]):
        of = {name: values[..., gene].astype(float).tolist() for name, values in genes.items()}
        truth = [of["reference"][cell] for cell in genes["queries"]]
        own = naive_spread(of["reference"])
        rows.append(
            [
                naive_spread(of["predicted"]),
                naive_spread(of["attended"]) / own if own else 0.0,
                max(naive_pearson(of["within"], truth), 0.0),
            ]
        )
    return np.array(rows)


@given(seed=st.integers(0, 1000), n_genes=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_summaries_equal_a_naive_loop(seed: int, n_genes: int) -> None:
    genes = drawn_genes(n_genes, seed=seed)
    found = summarised(genes)
    assert found.shape == (n_genes, len(FEATURES))
    np.testing.assert_allclose(found, naive_summaries(genes), atol=ROUNDING)


def test_summaries_by_hand() -> None:
    found = summaries(
        np.float32([[1, 0], [3, 0]]),
        np.float32([[0, 5], [1, 5]]),
        reference=np.float32([[0, 1], [4, 2], [0, 2], [4, 1]]),
        queries=np.array([3, 0]),
        within=np.float32([[2, 2], [1, 9]]),
    )
    np.testing.assert_allclose(found, [[1, 0.25, 1], [0, 0, 0]], atol=ROUNDING)


def test_constants_have_summaries_of_zero() -> None:
    genes = drawn_genes(1, seed=0)
    # The mean of many 0.1 is not 0.1 to the last digit, so that a plain standard deviation would not be 0.
    flat = genes | {
        name: np.full_like(genes[name], 0.1) for name in ("predicted", "attended", "reference", "within")
    }
    np.testing.assert_array_equal(summarised(flat), [[0, 0, 0]])
    reference_alone = summarised(genes | {"reference": np.full_like(genes["reference"], 0.1)})
    assert reference_alone[0, 0] > 0
    np.testing.assert_array_equal(reference_alone[0, 1:], [0, 0])


def test_a_gene_is_summarised_by_itself() -> None:
    genes = drawn_genes(6, seed=1)
    some = {name: values if name == "queries" else values[:, [4, 1]] for name, values in genes.items()}
    np.testing.assert_allclose(summarised(some), summarised(genes)[[4, 1]], atol=ROUNDING)


def test_summaries_do_not_depend_on_the_order_of_cells() -> None:
    genes, draw = drawn_genes(5, seed=2), np.random.default_rng(0)
    cells, sc, asked = draw.permutation(14), draw.permutation(11), draw.permutation(6)
    moved = {
        "predicted": genes["predicted"][cells],
        "attended": genes["attended"][cells],
        "reference": genes["reference"][sc],
        "queries": np.argsort(sc)[genes["queries"]][asked],
        "within": genes["within"][asked],
    }
    np.testing.assert_allclose(summarised(moved), summarised(genes), atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "shape"), [("predicted", (14, 2)), ("attended", (14, 2)), ("within", (11, 3))]
)
def test_summaries_want_the_same_genes_and_cells(name: str, shape: tuple[int, int]) -> None:
    genes = drawn_genes(3, seed=0) | {name: np.zeros(shape, dtype=np.float32)}
    with pytest.raises(
        InputError, match=rf"^{name}: expected an array of shape \(\d+, 3\), got one of shape"
    ):
        summarised(genes)


# Correlations


@given(seed=st.integers(0, 1000), n_cells=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_correlations_are_those_of_the_metrics(seed: int, n_cells: int) -> None:
    draw = np.random.default_rng(seed)
    predicted, measured = draw.integers(0, 3, size=(2, n_cells, 4)).astype(np.float32)
    found = correlate(predicted, measured)
    np.testing.assert_allclose(found, metrics.pearson(measured, predicted), atol=ROUNDING)
    naive = [naive_pearson(*pair) for pair in zip(predicted.T.tolist(), measured.T.tolist(), strict=True)]
    np.testing.assert_allclose(found, naive, atol=ROUNDING)


def test_correlations_of_no_cells_and_of_no_genes() -> None:
    np.testing.assert_array_equal(correlate(np.zeros((0, 2)), np.zeros((0, 2))), [0, 0])
    assert correlate(np.zeros((4, 0)), np.zeros((4, 0))).shape == (0,)


def test_correlations_want_one_shape() -> None:
    with pytest.raises(
        InputError, match=r"^predicted: expected an array of shape \(4, 2\), got one of .*4, 3"
    ):
        correlate(np.zeros((4, 3)), np.zeros((4, 2)))


# The fit


def test_one_summary_by_hand() -> None:
    # One weight for all is one weight: least squares through the origin, 2.8 / 14 with all six.
    features = np.array([[1.0], [2.0], [0.0], [3.0], [0.0], [0.0]])
    fisher = np.array([0.4, 0.6, 0.1, 0.4, -0.1, 0.0])
    known = fit_predictability(features, np.tanh(fisher))
    assert known.weights[0] == pytest.approx(2.8 / 14)
    left_out = [(1, 2.4 / 13), (2, 1.6 / 10), (0, 0.2), (3, 1.6 / 5), (0, 0.2), (0, 0.2)]
    scores = np.tanh([value * weight for value, weight in left_out])
    np.testing.assert_allclose(known.panel_scores, scores)
    np.testing.assert_allclose(known.errors, sorted(abs(np.tanh(fisher) - scores) / (1 + scores)))
    score, lower, upper = known.score(np.array([[0.0], [2.0]]), level=0.5)
    np.testing.assert_allclose(score, [0, np.tanh(0.4)])
    width = known.errors[3]  # half of 6 + 1, rounded up: the fourth
    np.testing.assert_allclose(lower, score - width * (1 + score))
    np.testing.assert_allclose(upper, score + width * (1 + score))


def test_growth_by_hand() -> None:
    """From 20 genes .5 of the correlation of an endless panel is reached, from 30 .6: 1.2 times as much."""
    assert growth(30, 20) == pytest.approx(0.6 / 0.5)
    assert growth(30, 30) == 1
    assert growth(10**6, 10**6 * 2 / 3) == pytest.approx(1, abs=1e-5)


def test_genes_off_the_panel_are_predicted_from_more_genes() -> None:
    """Their Fisher z is larger by the growth; scores and errors of panel genes stay."""
    features, pearson = drawn_panel(30, seed=1)
    one, more = fit_predictability(features, pearson), fit_predictability(features, pearson, n_seen=20)
    fisher = np.arctanh(one.score(features)[0])
    np.testing.assert_allclose(np.arctanh(more.score(features)[0]), 1.2 * fisher)
    np.testing.assert_array_equal(more.panel_scores, one.panel_scores)
    np.testing.assert_array_equal(more.errors, one.errors)


def naive_weights(features: np.ndarray, fisher: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Minimise what the fit minimises, by a general method."""
    inputs = features / scale
    mean = inputs.mean(axis=1)
    equal = max(mean @ fisher / (mean @ mean), 0.0) / features.shape[1]

    def loss(weights: np.ndarray) -> float:
        return float(((inputs @ weights - fisher) ** 2).sum() + ((weights - equal) ** 2).sum())

    bounds = [(0, None)] * features.shape[1]
    found = minimize(loss, np.full(features.shape[1], equal), bounds=bounds, options={"ftol": 1e-14})
    return found.x / scale


@pytest.mark.parametrize("n_panel", [SMALLEST_PANEL, 15])
def test_the_fit_equals_a_naive_one(n_panel: int) -> None:
    features, pearson = drawn_panel(n_panel, seed=n_panel, noise=0.4)
    scale, fisher = np.sqrt((features**2).mean(axis=0)), np.arctanh(pearson)
    known = fit_predictability(features, pearson)
    np.testing.assert_allclose(known.weights, naive_weights(features, fisher, scale), atol=SEARCH)
    for gene in range(n_panel):
        others = np.delete(np.arange(n_panel), gene)
        left_out = np.tanh(features[gene] @ naive_weights(features[others], fisher[others], scale))
        assert known.panel_scores[gene] == pytest.approx(left_out, abs=SEARCH)


@given(seed=st.integers(0, 1000), n_panel=st.integers(SMALLEST_PANEL, 40))
@settings(max_examples=25, deadline=None)
def test_order_and_units_do_not_matter(seed: int, n_panel: int) -> None:
    features, pearson = drawn_panel(n_panel, seed=seed, noise=0.3)
    known = fit_predictability(features, pearson)
    order = np.random.default_rng(seed).permutation(n_panel)
    units = np.array([3.0, 0.01, 1.0])
    other = fit_predictability(features[order] * units, pearson[order])
    np.testing.assert_allclose(other.panel_scores, known.panel_scores[order], atol=ROUNDING)
    np.testing.assert_allclose(other.weights * units, known.weights, atol=ROUNDING)
    np.testing.assert_allclose(other.errors, known.errors, atol=ROUNDING)
    assert (known.weights >= 0).all()
    assert ((known.panel_scores >= 0) & (known.panel_scores <= 1)).all()


def test_a_gene_is_scored_by_itself() -> None:
    features, pearson = drawn_panel(20, seed=0)
    known = fit_predictability(features, pearson)
    whole = np.stack(known.score(features))
    np.testing.assert_allclose(np.stack(known.score(features[[7, 7, 2]])), whole[:, [7, 7, 2]], atol=ROUNDING)
    assert np.stack(known.score(features[:0])).shape == (3, 0)


def test_a_panel_score_does_not_see_its_own_correlation() -> None:
    features, pearson = drawn_panel(12, seed=3)
    changed = pearson.copy()
    changed[4] = -0.9
    one, other = fit_predictability(features, pearson), fit_predictability(features, changed)
    assert one.panel_scores[4] == pytest.approx(other.panel_scores[4], abs=ROUNDING)
    assert (np.delete(one.panel_scores - other.panel_scores, 4) != 0).all()


def test_a_gene_that_is_not_predicted_has_a_score_of_zero() -> None:
    known = fit_predictability(*drawn_panel(30, seed=0))
    score, lower, upper = known.score(np.zeros((1, 3)))
    assert score[0] == 0
    assert lower[0] < 0 < upper[0]
    assert not known.reliable(score)[0]


def test_panels_that_teach_nothing_promise_nothing() -> None:
    features, pearson = drawn_panel(20, seed=0)
    for poor in (np.zeros(20), -pearson):
        known = fit_predictability(features, poor)
        np.testing.assert_array_equal(known.score(features)[0], np.zeros(20))
    blank = fit_predictability(np.zeros((20, 3)), pearson)
    np.testing.assert_array_equal(blank.weights, np.zeros(3))
    # A summary that is 0 for the whole panel says nothing of other genes.
    features[:, 2] = 0
    assert fit_predictability(features, pearson).score(np.array([[0.0, 0.0, 9.0]]))[0][0] == 0


def test_correlations_of_one_are_borne() -> None:
    features, _ = drawn_panel(10, seed=0)
    known = fit_predictability(features, np.array([1.0, -1.0] * 5))
    assert np.isfinite(np.stack(known.score(features))).all()


def test_genes_of_unknown_correlation_are_scored_all_the_same() -> None:
    features, pearson = drawn_panel(20, seed=0)
    pearson[[3, 8]] = np.nan
    known = fit_predictability(features, pearson)
    rest = np.delete(np.arange(20), [3, 8])
    alone = fit_predictability(features[rest], pearson[rest])
    np.testing.assert_allclose(known.weights, alone.weights, atol=ROUNDING)
    np.testing.assert_allclose(known.panel_scores[rest], alone.panel_scores, atol=ROUNDING)
    np.testing.assert_allclose(known.panel_scores[[3, 8]], alone.score(features[[3, 8]])[0], atol=ROUNDING)
    assert len(known.errors) == 18


@pytest.mark.parametrize("n_panel", [10, 200])
def test_scores_rank_genes_off_the_panel(n_panel: int) -> None:
    known = fit_predictability(*drawn_panel(n_panel, seed=1))
    features, pearson = drawn_panel(300, seed=2)
    score = known.score(features)[0]
    assert spearmanr(score, pearson).statistic > 0.8
    assert np.median(pearson[known.reliable(score)]) > np.median(pearson)


# Intervals and the cut


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("n_panel", [12, 60])
def test_intervals_cover_what_they_say(n_panel: int, level: float) -> None:
    held = []
    for seed in range(60):
        features, pearson = drawn_panel(n_panel + 30, seed=seed, noise=0.3)
        known = fit_predictability(features[:n_panel], pearson[:n_panel])
        _, lower, upper = known.score(features[n_panel:], level=level)
        held.append(np.mean((pearson[n_panel:] >= lower) & (pearson[n_panel:] <= upper)))
    rank = np.ceil((n_panel + 1) * level) / (n_panel + 1)  # what the whole number of genes makes of the level
    # Three standard errors of 60 panels, and a twentieth that the jackknife is not exact.
    assert abs(np.mean(held) - rank) < 3 * np.std(held) / np.sqrt(60) + 0.05


def test_higher_levels_give_wider_intervals() -> None:
    known = fit_predictability(*drawn_panel(50, seed=0))
    scores = np.linspace(0, 1, 7)
    ends = [known.interval(scores, level=level) for level in (0.5, 0.8, 0.95)]
    for (inner_low, inner_high), (low, high) in pairwise(ends):
        assert (low <= inner_low).all()
        assert (high >= inner_high).all()
    assert all((low >= -1).all() and (high <= 1).all() for low, high in ends)


def test_nine_genes_are_enough_for_an_interval_and_eight_are_not() -> None:
    low, high = bare([0.1] * 9).interval(np.array([0.5]))
    np.testing.assert_allclose([low[0], high[0]], [0.35, 0.65])
    few = bare([0.1] * 8)
    assert [float(end[0]) for end in few.interval(np.array([0.5]))] == [-1.0, 1.0]
    assert few.cut == float("inf")
    assert not few.reliable(np.array([0.99])).any()


@pytest.mark.parametrize("error", [0.01, 0.2, 0.4, 0.7])
def test_a_gene_is_reliable_from_the_cut_on(error: float) -> None:
    known = bare([error] * 20)
    scores = np.linspace(0, 1, 401)
    lower, _ = known.interval(scores, level=LEVEL)
    np.testing.assert_array_equal(known.reliable(scores), (lower > ROUNDING) & (scores > LEAST))
    assert known.cut == pytest.approx(max(error / (1 - error), LEAST))


@pytest.mark.parametrize("error", [1.0, 1.5])
def test_where_nothing_was_foretold_no_gene_is_reliable(error: float) -> None:
    assert not bare([error] * 20).reliable(np.array([0.0, 1.0])).any()


# Storing, and errors


def test_it_comes_back_from_its_arrays() -> None:
    features, pearson = drawn_panel(20, seed=0)
    known = fit_predictability(features, pearson)
    arrays = known.to_arrays()
    assert set(arrays) == {"weights", "errors", "panel_scores"}
    assert {one.dtype for one in arrays.values()} == {np.dtype(np.float64)}
    back = Predictability.from_arrays(arrays | {"other": np.zeros(1)})
    np.testing.assert_array_equal(np.stack(back.score(features)), np.stack(known.score(features)))
    np.testing.assert_array_equal(back.panel_scores, known.panel_scores)
    assert back.cut == known.cut
    del arrays["errors"]
    with pytest.raises(InputError, match=r"predictability: expected .* got none named errors\. Pass all"):
        Predictability.from_arrays(arrays)


def test_inputs_are_not_changed() -> None:
    features, pearson = drawn_panel(12, seed=0)
    features[:, 1], pearson[2] = 0, np.nan
    before = features.copy(), pearson.copy()
    fit_predictability(features, pearson).score(features)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(pearson, before[1])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1])
def test_summaries_that_make_no_sense_are_refused(wrong: float) -> None:
    features, pearson = drawn_panel(12, seed=0)
    known = fit_predictability(features, pearson)
    features[3, 1] = wrong
    with pytest.raises(
        InputError, match=r"features: expected a table .* finite and at or above 0, got another value"
    ):
        fit_predictability(features, pearson)
    with pytest.raises(
        InputError, match=r"features: expected a table .* finite and at or above 0, got another value"
    ):
        known.score(features)


def test_tables_must_fit() -> None:
    features, pearson = drawn_panel(12, seed=0)
    with pytest.raises(InputError, match=r"features: expected a table .* got an array of shape \(12,\)"):
        fit_predictability(features[:, 0], pearson)
    with pytest.raises(
        InputError, match=r"pearson: expected an array of shape \(12,\), got one of .*\(11,\)"
    ):
        fit_predictability(features, pearson[:-1])
    with pytest.raises(InputError, match="features: expected 3 columns, as in the fit, got 2"):
        fit_predictability(features, pearson).score(features[:, :2])


def test_correlations_must_be_correlations() -> None:
    features, pearson = drawn_panel(12, seed=0)
    pearson[0] = -1.5
    with pytest.raises(
        InputError, match=r"pearson: expected correlations from -1 to 1, got absolute values up to 1\.5"
    ):
        fit_predictability(features, pearson)


def test_too_small_a_panel_is_refused() -> None:
    features, pearson = drawn_panel(SMALLEST_PANEL, seed=0)
    assert np.isfinite(fit_predictability(features, pearson).panel_scores).all()
    pearson[0] = np.nan
    with pytest.raises(
        InputError, match="pearson: expected at least 6 genes whose correlation is known, got 5"
    ):
        fit_predictability(features, pearson)


@pytest.mark.parametrize("level", [0, 1, -0.5, float("nan")])
def test_a_level_is_a_share(level: float) -> None:
    known = fit_predictability(*drawn_panel(12, seed=0))
    with pytest.raises(SettingError, match=r"level: expected a number from 0\.01 to 0\.999, got"):
        known.interval(np.zeros(2), level=level)
