"""Axes: positions by hand and in a naive loop, recovery of known curves, and errors."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError, SettingError
from cellweft.tl._spatial_axis import Axis, axis_of_score, fit_axis, natural_basis, quantile_knots

# sums in another order, and curves approximated by 501 points
ROUNDING = 1e-7

KINDS = ("polynomial", "principal curve")
each_kind = pytest.mark.parametrize("kind", KINDS)


def arch(n_cells: int = 400, *, noise: float = 0.05, turn: float = np.pi) -> tuple[np.ndarray, np.ndarray]:
    """Draw cells around a circle of radius 1; return them and their positions along it."""
    rng = np.random.default_rng(0)
    along = rng.uniform(0, turn, n_cells)
    places = np.column_stack([-np.cos(along), np.sin(along)]) + noise * rng.normal(size=(n_cells, 2))
    return places, along


def naive_nearest(place: np.ndarray, line: np.ndarray) -> tuple[float, float]:
    """Return position and distance of one point, one segment at a time."""
    best, so_far = (np.inf, 0.0), 0.0
    for begin, end in itertools.pairwise(line):
        length = float(np.linalg.norm(end - begin))
        share = np.clip(np.dot(place - begin, end - begin) / length**2, 0, 1) if length else 0.0
        gap = float(np.linalg.norm(place - begin - share * (end - begin)))
        if gap < best[0] - 1e-12:
            best = gap, so_far + share * length
        so_far += length
    return best[1], best[0]


def test_position_by_hand() -> None:
    # a right angle: 4 along x, then 3 along y
    axis = Axis(kind="polynomial", curve=np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 3.0]]))
    cells = np.array([[-2.0, 0.0], [1.0, 1.0], [4.0, 0.0], [6.0, 2.0], [7.0, 7.0]])
    assert axis.length == 7.0
    np.testing.assert_allclose(axis.position(cells), [0, 1, 4, 6, 7])
    np.testing.assert_allclose(axis.distance(cells), [2, 1, 0, 2, 5])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), n_dimensions=st.sampled_from([2, 3]))
def test_position_equals_naive_loop(seed: int, n_dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    line = rng.normal(size=(int(rng.integers(2, 9)), n_dimensions)).repeat(rng.integers(1, 3), axis=0)
    cells = rng.normal(size=(7, n_dimensions)) + 1000  # far from zero, as real coordinates are
    axis = Axis(kind="principal curve", curve=line + 1000)
    expected = np.array([naive_nearest(cell, line + 1000) for cell in cells])
    np.testing.assert_allclose(axis.distance(cells), expected[:, 1], atol=ROUNDING)
    np.testing.assert_allclose(axis.position(cells), expected[:, 0], atol=ROUNDING)


def test_positions_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    places, _ = arch()
    axis = fit_axis(places)
    whole = axis.position(places)
    for size in (1, 501 * 7, 10**9):
        monkeypatch.setattr("cellweft.tl._spatial_axis.BLOCK_VALUES", size)
        # products of another shape may round the last bit differently
        np.testing.assert_allclose(axis.position(places), whole, rtol=0, atol=ROUNDING)


def test_no_cells_give_no_positions() -> None:
    axis = fit_axis(arch()[0])
    assert axis.position(np.empty((0, 2))).shape == axis.distance(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("n_dimensions", [2, 3])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_a_straight_line_is_found(n_dimensions: int, offset: float) -> None:
    along = np.linspace(0, 10, 40)
    direction = np.array([2.0, 1.0, -2.0])[:n_dimensions]
    places = offset + along[:, None] * direction / np.linalg.norm(direction)
    for kind in KINDS:
        axis = fit_axis(places, kind=kind)
        np.testing.assert_allclose(axis.position(places), along, atol=1e-6)
        np.testing.assert_allclose(axis.distance(places), 0, atol=1e-6)


def test_the_polynomial_equals_numpy() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(1500, 1670, 300)  # coordinates as in a real embryo, whose fifth powers reach 1e16
    y = 1500 - 0.02 * (x - 1590) ** 2 + rng.normal(size=300)
    curve = fit_axis(np.column_stack([x, y])).curve
    assert curve is not None
    expected = np.polynomial.Polynomial.fit(x, y, 5)(curve[:, 0])
    np.testing.assert_allclose(curve[:, 1], expected, rtol=1e-9)
    np.testing.assert_allclose(curve[[0, -1], 0], [x.min(), x.max()])


def test_a_polynomial_in_three_dimensions_consists_of_two_in_two_dimensions() -> None:
    rng = np.random.default_rng(2)
    places = rng.normal(size=(60, 3))
    curve = fit_axis(places, degree=2).curve
    assert curve is not None
    for column in (1, 2):
        fit = np.polynomial.Polynomial.fit(places[:, 0], places[:, column], 2)
        np.testing.assert_allclose(curve[:, column], fit(curve[:, 0]), atol=1e-9)


def test_length_of_a_parabola() -> None:
    # from -1 to 1, y = x^2 has the length (2 sqrt 5 + asinh 2) / 2
    x = np.linspace(-1, 1, 30)
    axis = fit_axis(np.column_stack([x, x**2]), degree=2)
    assert axis.length == pytest.approx((2 * np.sqrt(5) + np.arcsinh(2)) / 2, rel=1e-5)
    steps = np.linalg.norm(np.diff(axis.curve, axis=0), axis=1)
    # equal steps, even where the curve is steep
    np.testing.assert_allclose(steps, axis.length / 500, rtol=1e-3)
    assert axis.position(np.array([[0.0, 0.0]])) == pytest.approx([axis.length / 2])


@each_kind
def test_an_arch_is_ordered(kind: str) -> None:
    places, along = arch()
    axis = fit_axis(places, kind=kind, start=[-1.0, 0.0])
    # noise across the arch does not matter, and noise along it is a hundredth of its length
    assert np.corrcoef(axis.position(places), along)[0, 1] > 0.98
    assert axis.distance(places).mean() < 0.1


@pytest.mark.parametrize("knots", [5, 7, 10])
def test_a_principal_curve_follows_a_curve_that_turns_back(knots: int) -> None:
    places, along = arch(1000, noise=0.08, turn=1.5 * np.pi)
    axis = fit_axis(places, kind="principal curve", knots=knots, start=[-1.0, 0.0])
    assert axis.converged
    position = axis.position(places)
    assert np.corrcoef(position, along)[0, 1] > 0.995
    # the curve begins at the outermost cell, which noise puts some standard deviations before the arch
    slope, before = np.polyfit(along, position, 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert 0 <= before < 3 * 0.08


def test_a_principal_curve_through_a_helix() -> None:
    rng = np.random.default_rng(3)
    along = rng.uniform(0, 2 * np.pi, 800)
    helix = np.column_stack([along, np.sin(along), np.cos(along)]) + 0.05 * rng.normal(size=(800, 3))
    axis = fit_axis(helix, kind="principal curve")
    assert axis.converged
    assert np.corrcoef(axis.position(helix), along)[0, 1] > 0.998
    assert axis.distance(helix).mean() < 0.15


def test_two_knots_give_the_first_principal_component() -> None:
    places, _ = arch()
    axis = fit_axis(places, kind="principal curve", knots=2)
    centred = places - places.mean(axis=0)
    across = np.linalg.svd(centred)[2][1]
    np.testing.assert_allclose(axis.distance(places), np.abs(centred @ across), atol=0.02)


@each_kind
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9999))
def test_order_of_cells_does_not_matter(kind: str, seed: int) -> None:
    places, _ = arch(120)
    order = np.random.default_rng(seed).permutation(120)
    expected = fit_axis(places, kind=kind).position(places)[order]
    found = fit_axis(places[order], kind=kind).position(places[order])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@each_kind
def test_duplicating_every_cell_does_not_matter(kind: str) -> None:
    places, _ = arch(120)
    twice = np.concatenate([places, places])
    if kind == "polynomial":
        np.testing.assert_allclose(
            fit_axis(twice, kind=kind).position(places),
            fit_axis(places, kind=kind).position(places),
            atol=1e-6,
        )
    else:  # quantiles shift by at most one cell
        np.testing.assert_allclose(
            fit_axis(twice, kind=kind).position(places),
            fit_axis(places, kind=kind).position(places),
            atol=0.1,
        )


@pytest.mark.parametrize("options", [{"rotate": True}, {"kind": "principal curve"}])
@pytest.mark.parametrize("angle", [0.3, 2.0, 4.5])
def test_a_rotated_tissue_has_the_same_axis(options: dict[str, object], angle: float) -> None:
    places, _ = arch(turn=2.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    start = np.array([-1.0, 0.0])
    as_it_was = fit_axis(places, start=start, **options).position(places)
    moved = fit_axis(places @ turn + 7, start=start @ turn + 7, **options)
    np.testing.assert_allclose(moved.position(places @ turn + 7), as_it_was, atol=1e-6)


@each_kind
def test_the_start_determines_which_end_is_zero(kind: str) -> None:
    places, _ = arch()
    left, right = (fit_axis(places, kind=kind, start=[x, 0.0]) for x in (-1.0, 1.0))
    np.testing.assert_allclose(left.position(places) + right.position(places), left.length, atol=1e-6)
    assert left.position(np.array([[-1.0, 0.0]])) < 0.2
    default = fit_axis(places, kind=kind)
    assert default.curve is not None
    assert default.curve[0, 0] < default.curve[-1, 0]


@pytest.mark.parametrize("as_mask", [True, False])
def test_the_curve_is_fitted_to_some_cells(as_mask: bool) -> None:
    places, _ = arch()
    far = np.vstack([places, [[50.0, -50.0]]])
    mask = np.arange(401) < 400
    axis = fit_axis(far, cells=mask if as_mask else np.flatnonzero(mask))
    np.testing.assert_array_equal(axis.curve, fit_axis(places).curve)


def test_inputs_are_not_changed() -> None:
    places, _ = arch()
    before = places.copy()
    for kind in KINDS:
        axis = fit_axis(places, kind=kind, rotate=True)
        axis.position(places)
    np.testing.assert_array_equal(places, before)
    score = np.array([3.0, 1.0, 2.0])
    axis_of_score(score).position(score)[:] = 0
    axis_of_score(score, rank=True)
    np.testing.assert_array_equal(score, [3, 1, 2])


# Scores


def test_a_score_is_its_position() -> None:
    score = np.array([0.3, -2.0, 5.0])
    axis = axis_of_score(score)
    np.testing.assert_array_equal(axis.position(score), score)
    np.testing.assert_array_equal(axis.position(np.array([1.0])), [1.0])


@settings(max_examples=40, deadline=None)
@given(score=st.lists(st.integers(-3, 3), min_size=2, max_size=20).filter(lambda all_: len(set(all_)) > 1))
def test_ranks_are_quantiles(score: list[int]) -> None:
    values = np.array(score, dtype=float)
    axis = axis_of_score(values, rank=True)
    expected = [
        (sum(other < one for other in score) + sum(other == one for other in score) / 2) / len(score)
        for one in score
    ]
    np.testing.assert_allclose(axis.position(values), expected)
    # for scores outside the original ones
    np.testing.assert_array_equal(axis.position(np.array([-9.0, 9.0])), [0, 1])


def test_an_axis_from_a_score_has_no_curve() -> None:
    axis = axis_of_score(np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="an axis with a curve, got one made from a score"):
        axis.distance(np.zeros((2, 2)))
    with pytest.raises(InputError, match="an axis with a curve"):
        _ = axis.length
    with pytest.raises(InputError, match=r"one finite score per cell, got shape \(2, 2\)"):
        axis.position(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("score", "got"),
    [
        ([1.0, np.nan], "NaN or infinity"),
        ([[1.0], [2.0]], r"shape \(2, 1\)"),
        ([4.0, 4.0], "2 cells, all the same"),
        ([], "no cells"),
    ],
)
def test_invalid_scores_are_refused(score: list[float], got: str) -> None:
    with pytest.raises(InputError, match=f"score: .*{got}"):
        axis_of_score(np.array(score))


# Splines


@settings(max_examples=60, deadline=None)
@given(
    position=st.lists(st.integers(0, 12), min_size=1, max_size=40).map(lambda all_: np.array(all_, float)),
    knots=st.integers(2, 6),
)
def test_knots_are_at_cells(position: np.ndarray, knots: int) -> None:
    found = quantile_knots(position, knots)
    assert len(found) == min(knots, len(np.unique(position)))
    assert np.isin(found, position).all()
    assert (np.diff(found) > 0).all()
    assert (found[0], found[-1]) == (position.min(), position.max())
    if len(found) > 1:
        basis = natural_basis(position, found)
        np.testing.assert_allclose(basis.sum(axis=1), 1)
        assert np.linalg.matrix_rank(basis) == len(found)
        np.testing.assert_allclose(natural_basis(found, found), np.eye(len(found)), atol=1e-12)


def test_natural_splines_of_a_hand_computed_case() -> None:
    # through (0, 0), (1, 1), (2, 0): curvature -3 in the middle, none at the ends; 3/2 t - 1/2 t^3 up to 1
    basis = natural_basis(np.array([0.5, 1.5]), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(basis[:, 1], [0.75 - 0.0625] * 2)


# Errors


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (np.zeros(9), r"coordinates: expected 2 or 3 columns, one row per cell, got shape \(9,\)"),
        (np.zeros((9, 4)), r"2 or 3 columns, one row per cell, got shape \(9, 4\)"),
        (np.full((9, 2), np.nan), "NaN or infinity for 9 of 9 cells, the first at row 0"),
        (np.ones((9, 2)), "cells at different positions, got 9 cells at the same position"),
    ],
)
@each_kind
def test_invalid_coordinates_are_refused(kind: str, places: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_axis(places, kind=kind)


@pytest.mark.parametrize(
    ("options", "needed"), [({"degree": 3}, 5), ({"kind": "principal curve", "knots": 4}, 6)]
)
def test_too_few_cells(options: dict[str, object], needed: int) -> None:
    places = np.random.default_rng(0).normal(size=(needed, 2))
    fit_axis(places, **options)
    with pytest.raises(InputError, match=f"at least {needed} cells .* got {needed - 1}"):
        fit_axis(places[1:], **options)


@pytest.mark.parametrize(("n_places", "got"), [(3, "3"), (1, "1")])
def test_a_polynomial_needs_different_first_coordinates(n_places: int, got: str) -> None:
    places = np.column_stack([np.arange(20) % n_places, np.arange(20.0)])
    with pytest.raises(
        InputError, match=f"at least 6 .* for degree 5, got {got}.* use kind='principal curve'"
    ):
        fit_axis(places)
    assert np.isfinite(fit_axis(places, kind="principal curve").position(places)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": 0}, "degree: expected a whole number >= 1, got 0"),
        ({"degree": 2.5}, "degree: expected a whole number >= 1, got 2.5"),
        ({"knots": 1}, "knots: expected a whole number >= 2, got 1"),
        ({"kind": "line"}, "kind: expected one of 'polynomial', 'principal curve', got 'line'"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        fit_axis(arch()[0], **options)


@pytest.mark.parametrize("start", [[1.0], [1.0, 2.0, 3.0], [np.nan, 0.0]])
def test_an_invalid_start_is_refused(start: list[float]) -> None:
    with pytest.raises(InputError, match="start: expected a point with 2 finite coordinates"):
        fit_axis(arch()[0], start=start)


@pytest.mark.parametrize(
    "cells", [np.ones(3, dtype=bool), np.array([0, 400]), np.array([-1, 2]), np.array([0.5]), np.array(["a"])]
)
def test_an_invalid_choice_of_cells_is_refused(cells: np.ndarray) -> None:
    with pytest.raises(InputError, match="cells: expected a mask of 400 cells, or positions below that"):
        fit_axis(arch()[0], cells=cells)


def test_cells_of_other_dimensions() -> None:
    with pytest.raises(InputError, match="coordinates: expected 2 dimensions, as the curve has, got 3"):
        fit_axis(arch()[0]).position(np.zeros((4, 3)))


# Real cells


@pytest.mark.slow
def test_the_spinal_cord_of_an_embryo(shared_data: Path) -> None:
    import anndata

    obs = anndata.read_h5ad(shared_data / "embryo_benchmark_sc.h5ad", backed="r").obs
    places = obs[["x_global", "y_global"]].to_numpy()
    cord = (obs["cell_type"] == "Spinal cord").to_numpy()
    axis = fit_axis(places, cells=cord, start=places[cord].max(axis=0))
    # an arch, 149 wide and about 120 high, and a band of cells about 15 thick with a few cells far away
    assert 200 < axis.length < 300
    assert np.median(axis.distance(places[cord])) < 6
    right, left = (places[cord, 0] > 1650), (places[cord, 0] < 1530)
    position = axis.position(places[cord])
    assert position[right].mean() < 0.3 * axis.length < 0.7 * axis.length < position[left].mean()
