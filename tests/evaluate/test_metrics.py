"""Every score: a hand-computed case, a naive loop, its properties, and columns without a score."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellweft._errors import InputError
from cellweft.evaluate import metrics
from cellweft.evaluate.metrics import METRICS

# sums of up to a few thousand float64 in another order
TOLERANCE = 1e-9


def matrices(low: int = 0) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two matrices of the same shape, cells x genes; each column is constant or clearly varies."""
    values = st.integers(low, 64).map(lambda whole: whole / 8)
    shapes = st.tuples(st.integers(2, 12), st.integers(1, 5))
    return shapes.flatmap(
        lambda shape: st.tuples(*(hnp.arrays(np.float64, shape, elements=values) for _ in range(2)))
    )


def naive(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """Return the score of one column from its definition, one number at a time."""
    n = len(x)
    mean_x, mean_y = math.fsum(x) / n, math.fsum(y) / n
    var_x = math.fsum((a - mean_x) ** 2 for a in x) / n
    var_y = math.fsum((b - mean_y) ** 2 for b in y) / n
    covariance = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    if name == "pearson":
        return covariance / math.sqrt(var_x * var_y) if var_x * var_y else 0.0
    if name == "spearman":
        return naive("pearson", *(np.array([naive_rank(one, side) for one in side]) for side in (x, y)))
    if name == "cosine":
        length = math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))
        return math.fsum(a * b for a, b in zip(x, y, strict=True)) / length if length else 0.0
    if name == "mse":
        return math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)) / n
    if name == "rmse_z":
        if not var_x * var_y:
            return math.sqrt(2)
        z_x = [(a - mean_x) / math.sqrt(var_x) for a in x]
        z_y = [(b - mean_y) / math.sqrt(var_y) for b in y]
        return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(z_x, z_y, strict=True)) / n)
    return naive_ssim(x, y) if name == "ssim" else naive_js(x, y)


def naive_rank(one: float, side: np.ndarray) -> float:
    return sum(other < one for other in side) + (sum(other == one for other in side) + 1) / 2


def naive_ssim(x: np.ndarray, y: np.ndarray) -> float:
    x, y = (side / max(side) if max(side) > 0 else side for side in (x, y))
    c1, c2 = 1e-4, 9e-4
    covariance = np.mean([(a - x.mean()) * (b - y.mean()) for a, b in zip(x, y, strict=True)])
    above = (2 * x.mean() * y.mean() + c1) * (2 * covariance + c2)
    return above / ((x.mean() ** 2 + y.mean() ** 2 + c1) * (np.var(x) + np.var(y) + c2))


def naive_js(x: np.ndarray, y: np.ndarray) -> float:
    x, y = ([max(one, 0.0) for one in side] for side in (x, y))
    if not sum(x) or not sum(y):
        return 0.0 if sum(x) == sum(y) else math.log(2)
    total = 0.0
    for a, b in zip([one / sum(x) for one in x], [one / sum(y) for one in y], strict=True):
        total += a / 2 * math.log(2 * a / (a + b)) if a else 0.0
        total += b / 2 * math.log(2 * b / (a + b)) if b else 0.0
    return total


# one gene in three cells, (0, 1, 2) against (0, 0, 3), computed by hand
BY_HAND = {
    "pearson": 3 / math.sqrt(2 * 6),  # centred: (-1, 0, 1) and (-1, -1, 2)
    "spearman": 1.5 / math.sqrt(2 * 1.5),  # ranks (1, 2, 3) and (1.5, 1.5, 3)
    "cosine": 6 / math.sqrt(5 * 9),
    "mse": 2 / 3,
    "rmse_z": math.sqrt(2 * (1 - math.sqrt(3) / 2)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    truth, prediction = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [0.0], [3.0]])
    assert METRICS[name](truth, prediction) == pytest.approx([BY_HAND[name]])


def test_js_by_hand() -> None:
    # p = (1/2, 1/2), q = (1, 0), mean (3/4, 1/4)
    expected = (0.5 * math.log(2 / 3) + 0.5 * math.log(2) + math.log(4 / 3)) / 2
    assert metrics.js(np.array([[4.0], [4.0]]), np.array([[3.0], [0.0]])) == pytest.approx([expected])


def test_ssim_by_hand() -> None:
    # (0, 1) against (1, 0) after scaling: means 1/2, variances 1/4, covariance -1/4
    expected = (-0.5 + 9e-4) / (0.5 + 9e-4)
    assert metrics.ssim(np.array([[0.0], [4.0]]), np.array([[3.0], [0.0]])) == pytest.approx([expected])


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25, deadline=None)
@given(sides=matrices(low=-64))
def test_every_score_equals_a_naive_loop(name: str, sides: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = sides
    expected = [naive(name, truth[:, gene], prediction[:, gene]) for gene in range(truth.shape[1])]
    np.testing.assert_allclose(METRICS[name](truth, prediction), expected, rtol=1e-7, atol=1e-7)


def test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    truth = rng.poisson(1.0, (200, 4)).astype(np.float32)
    prediction = (truth + rng.normal(size=truth.shape)).clip(0).astype(np.float32)
    for gene in range(4):
        x, y = truth[:, gene].astype(float), prediction[:, gene].astype(float)
        assert metrics.pearson(truth, prediction)[gene] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
        assert metrics.spearman(truth, prediction)[gene] == pytest.approx(
            scipy.stats.spearmanr(x, y).statistic
        )
        assert metrics.js(truth, prediction)[gene] == pytest.approx(
            scipy.spatial.distance.jensenshannon(x, y) ** 2
        )


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25, deadline=None)
@given(sides=matrices(), seed=st.integers(0, 99))
def test_order_of_cells_does_not_matter(name: str, sides: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    truth, prediction = sides
    order = np.random.default_rng(seed).permutation(len(truth))
    np.testing.assert_allclose(
        METRICS[name](truth[order], prediction[order]), METRICS[name](truth, prediction), atol=TOLERANCE
    )


@pytest.mark.parametrize("name", [name for name in METRICS if name != "mse"])
@settings(max_examples=25, deadline=None)
@given(sides=matrices(), scale=st.floats(0.01, 100))
def test_scale_of_a_side_does_not_matter(
    name: str, sides: tuple[np.ndarray, np.ndarray], scale: float
) -> None:
    truth, prediction = sides
    np.testing.assert_allclose(
        METRICS[name](truth, prediction * scale), METRICS[name](truth, prediction), atol=1e-7
    )


@pytest.mark.parametrize("name", ["pearson", "spearman", "rmse_z"])
@settings(max_examples=25, deadline=None)
@given(sides=matrices(), shift=st.integers(-50, 50))
def test_shift_of_a_side_does_not_matter(name: str, sides: tuple[np.ndarray, np.ndarray], shift: int) -> None:
    truth, prediction = sides
    np.testing.assert_allclose(
        METRICS[name](truth, prediction + shift), METRICS[name](truth, prediction), atol=1e-7
    )


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25, deadline=None)
@given(sides=matrices(low=-64))
def test_range_and_symmetry(name: str, sides: tuple[np.ndarray, np.ndarray]) -> None:
    scores = METRICS[name](*sides)
    low, high = {"mse": (0, np.inf), "rmse_z": (0, 2), "js": (0, math.log(2))}.get(
        name, (-np.inf, 1 + TOLERANCE)
    )
    assert np.all((scores >= low) & (scores <= high))
    np.testing.assert_allclose(scores, METRICS[name](*sides[::-1]), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "constant", "zero", "both_zero"),
    [
        ("pearson", 0.0, 0.0, 0.0),
        ("spearman", 0.0, 0.0, 0.0),
        ("cosine", 3 / math.sqrt(5 * 3), 0.0, 0.0),
        ("mse", 2 / 3, 5 / 3, 0.0),
        ("rmse_z", math.sqrt(2), math.sqrt(2), math.sqrt(2)),
        ("ssim", None, None, 1.0),
        ("js", None, math.log(2), 0.0),
    ],
)
def test_columns_without_a_score(
    name: str, constant: float | None, zero: float | None, both_zero: float
) -> None:
    varies = np.array([0.0, 1.0, 2.0])
    truth = np.column_stack([varies, varies, np.zeros(3)])
    prediction = np.column_stack([np.ones(3), np.zeros(3), np.zeros(3)])
    scores = METRICS[name](truth, prediction)
    assert np.isfinite(scores).all()
    for score, expected in zip(scores, (constant, zero, both_zero), strict=True):
        assert expected is None or score == pytest.approx(expected, abs=TOLERANCE)


def test_a_constant_column_is_constant_despite_rounding() -> None:
    # the mean of a thousand times 0.1 is not 0.1
    constant = np.full((1000, 1), 0.1)
    assert metrics.pearson(np.arange(1000.0)[:, None], constant)[0] == 0.0
    assert metrics.rmse_z(np.arange(1000.0)[:, None], constant)[0] == math.sqrt(2)


def test_tiny_values_are_not_rounded_to_zero() -> None:
    tiny = np.array([[1e-200], [3e-200], [2e-200]])
    assert metrics.pearson(tiny, tiny) == pytest.approx([1.0])
    assert metrics.cosine(tiny, tiny) == pytest.approx([1.0])


@pytest.mark.parametrize("name", METRICS)
def test_block_size_does_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    truth, prediction = rng.poisson(1.0, (50, 7)).astype(np.float32), rng.random((50, 7), dtype=np.float32)
    whole = METRICS[name](truth, prediction)
    monkeypatch.setattr(metrics, "BLOCK_VALUES", 100)
    np.testing.assert_allclose(METRICS[name](truth, prediction), whole, atol=TOLERANCE)


def test_scores_of_cells_equal_those_of_the_transpose() -> None:
    rng = np.random.default_rng(2)
    truth, prediction = rng.random((6, 9)), rng.random((6, 9))
    by_cell = metrics.pearson(truth.T, prediction.T)
    assert by_cell[3] == pytest.approx(np.corrcoef(truth[3], prediction[3])[0, 1])


def test_inputs_are_not_changed() -> None:
    rng = np.random.default_rng(3)
    truth, prediction = rng.random((6, 9)) - 0.5, rng.random((6, 9)) - 0.5
    before = truth.copy(), prediction.copy()
    for score in METRICS.values():
        score(truth, prediction)
    np.testing.assert_array_equal(truth, before[0])
    np.testing.assert_array_equal(prediction, before[1])


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 1), (3,)])
def test_different_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        InputError, match=r"cells x genes\) of the same shape .* got shapes \(3, 2\) \(truth\)"
    ):
        metrics.pearson(np.ones((3, 2)), np.ones(shape))


def test_no_cells() -> None:
    with pytest.raises(InputError, match="at least one cell"):
        metrics.mse(np.ones((0, 2)), np.ones((0, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="prediction: expected finite values, got NaN or infinity"):
        metrics.js(np.ones((3, 2)), np.array([[1.0, 1.0], [1.0, bad], [1.0, 1.0]]))


def test_no_genes_gives_no_scores() -> None:
    assert metrics.spearman(np.ones((3, 0)), np.ones((3, 0))).shape == (0,)
