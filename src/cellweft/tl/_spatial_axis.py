"""Positions of cells along a spatial axis: a curve fitted through the tissue, or a score of each cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from cellweft._compute import BLOCK_VALUES, row_blocks, rows_within
from cellweft._errors import (
    InputError,
    array_of,
    check_array,
    check_choice,
    check_flag,
    check_range,
    checks_kinds,
)
from cellweft._typing import BoolArray, DoubleArray, IntArray
from cellweft.data.spatial import check_coordinates

CurveKind: TypeAlias = Literal["polynomial", "principal curve"]
"""How to fit a curve: the other coordinates as polynomials of the first, or by Hastie and Stuetzle."""

AxisKind: TypeAlias = Literal["polynomial", "principal curve", "score"]
"""How an axis was made."""

_CURVE_POINTS = 501  # of a fitted curve, evenly spaced
_FINE = 20  # times more points to measure its length
_FIT_POINTS = 101  # of a principal curve during the fit
_MOST_ROUNDS = 30
_SETTLED = 1e-3  # relative change of the mean squared distance for convergence
_STRETCH = 0.05  # of its length, by which a principal curve may grow at each end per round

_Curve = Callable[[DoubleArray], DoubleArray]  # (n,) parameters -> (n, d) places


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """A line through the tissue, with the positions of cells along it.

    Attributes
    ----------
    kind
        "polynomial", "principal curve" or "score".
    curve
        (n_points, 2 or 3) points of the line from start to end, in the unit of the coordinates; None for a
        score.
    ranked
        (n_cells,) the sorted scores whose quantiles are the positions; None if positions are not quantiles.
    converged
        Whether a principal curve converged; always True for the other kinds.

    Examples
    --------
    >>> axis = Axis(kind="polynomial", curve=np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 9.0]]))
    >>> axis.length
    10.0
    >>> axis.position(np.array([[-1.0, 0.0], [4.0, 7.0]]))
    array([0., 8.])
    >>> axis.distance(np.array([[-1.0, 0.0], [4.0, 7.0]]))
    array([1., 1.])
    """

    kind: AxisKind
    curve: DoubleArray | None = None
    ranked: DoubleArray | None = None
    converged: bool = True

    @property
    def length(self) -> float:
        """Length of the curve in the unit of the coordinates. InputError for an axis made from a score."""
        return float(_lengths(self._line()).sum())

    def position(self, coordinates: NDArray[Any]) -> DoubleArray:
        """Return the pseudo-position of cells.

        Parameters
        ----------
        coordinates
            (n_cells, 2 or 3) in the unit of the coordinates that the curve was fitted to. For an axis from a
            score, the scores of the cells, (n_cells,).

        Returns
        -------
        (n_cells,) The length of the curve from its start to the point nearest to each cell, 0 to `length`.
        For a score, the score itself or, with ``rank``, its quantile, 0 to 1.

        Raises
        ------
        InputError
            The shape or number of dimensions differs, or values are NaN or infinite.
        """
        if self.kind == "score":
            scores = _check_scores(coordinates, "coordinates")
            if self.ranked is None:
                return scores
            below, up_to = (np.searchsorted(self.ranked, scores, side=side) for side in ("left", "right"))
            return np.asarray((below + up_to) / (2 * len(self.ranked)))
        return self._nearest(coordinates)[0]

    def distance(self, coordinates: NDArray[Any]) -> DoubleArray:
        """Return the distance of cells from the curve.

        Parameters
        ----------
        coordinates
            (n_cells, 2 or 3)

        Returns
        -------
        (n_cells,), at least 0, in the unit of the coordinates.

        Raises
        ------
        InputError
            As in `position`; or the axis is from a score, which has no curve.
        """
        return self._nearest(coordinates)[1]

    def _line(self) -> DoubleArray:
        if self.curve is None:
            raise InputError(
                "axis",
                expected="an axis with a curve",
                got="one made from a score, which has no curve",
                fix="Fit a curve: cellweft.tl.fit_axis(coordinates).",
            )
        return self.curve

    def _nearest(self, coordinates: NDArray[Any]) -> tuple[DoubleArray, DoubleArray]:
        line = self._line()
        places = check_places(coordinates)
        if places.shape[1] != line.shape[1]:
            raise InputError(
                "coordinates",
                expected=f"{line.shape[1]} dimensions, as the curve has",
                got=f"{places.shape[1]}",
                fix="Pass coordinates with the same dimensions as those of the fit.",
            )
        return _project(places, line)


@checks_kinds
def fit_axis(
    coordinates: NDArray[Any],
    *,
    kind: CurveKind = "polynomial",
    degree: int = 5,
    knots: int = 6,
    rotate: bool = False,
    start: NDArray[Any] | None = None,
    cells: NDArray[Any] | None = None,
) -> Axis:
    """Fit a curve through cells, along which positions are measured.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3) finite, in any unit.
    kind
        ``"polynomial"``: fit the second coordinate (and the third) as a polynomial of the first, by least
        squares. ``"principal curve"``: can also follow a structure that turns back along the first
        coordinate.
    degree
        Degree of the polynomial, at least 1.
    knots
        Number of knots of the principal curve, at least 2. More knots allow more bends; two give a straight
        line.
    rotate
        Whether to use the longest principal axis of the cells as the first coordinate of the polynomial, so
        that the curve does not depend on the orientation of the tissue.
    start
        (2 or 3,) a point. The end of the curve nearest to it gets position 0. By default, the end with the
        smaller first coordinate.
    cells
        Cells to fit to, as a mask (n_cells,) or indices; all by default.

    Returns
    -------
    Axis
        The curve runs from the first to the last cell of the fit.

    Raises
    ------
    InputError
        Coordinates of another shape, NaN or infinite; fewer cells than ``degree`` + 2 (or ``knots`` + 2); all
        of them at the same position; fewer distinct first coordinates than the polynomial has coefficients;
        ``start`` or ``cells`` that do not fit the coordinates.
    SettingError
        The kind is unknown, ``degree`` is below 1, or ``knots`` is below 2.

    Notes
    -----
    The polynomial is that of "Constructing spatial trajectory along the spinal cord" in the Methods of STEM:
    the p of degree 5 that minimises sum_i (p(x_i) - y_i)^2, and geodesic distances along it. Chebyshev
    polynomials on the range of the data keep the fit stable at any unit. DEVIATION: position 0 is the end of
    the curve, not a chosen cell; a cell has the position of the curve's point that is nearest to it. The
    published order "from the top right corner" is ``start``.

    The principal curve is that of Hastie and Stuetzle (1989, JASA 84, 502): cells are projected on the curve,
    then every coordinate is smoothed along these positions, until the mean squared distance converges. It
    starts from the first principal component. The smoother is a natural cubic spline by least squares. Its
    number of knots grows one by one from 3, and each fit converges before the next, which prevents the curve
    from folding. Cells far from the structure distort its ends; leave them out with ``cells``.

    Examples
    --------
    >>> x = np.linspace(0.0, 1.0, 50)
    >>> axis = fit_axis(np.column_stack([x, 2 * x]), degree=1)
    >>> axis.position(np.array([[0.5, 1.0]])).round(3)
    array([1.118])
    """
    check_choice("kind", kind, ("polynomial", "principal curve"))
    check_range("degree", degree, low=1, integer=True)
    check_range("knots", knots, low=2, integer=True)
    check_flag("rotate", rotate)
    places = check_places(coordinates)
    places = places if cells is None else places[_chosen(cells, len(places))]
    _check_enough(places, needed=2 + (degree if kind == "polynomial" else knots), kind=kind)
    first = None if start is None else _check_start(start, places.shape[1])
    centre = places.mean(axis=0)
    if kind == "polynomial":
        curve, converged = _polynomial(places - centre, degree, rotate=rotate), True
    else:
        curve, converged = _principal_curve(places - centre, knots)
    return Axis(kind=kind, curve=_from_start(curve + centre, first), converged=converged)


@checks_kinds
def axis_of_score(score: NDArray[Any], *, rank: bool = False) -> Axis:
    """Return the axis of a score per cell, such as a zonation score transferred from spots.

    Parameters
    ----------
    score
        (n_cells,) finite.
    rank
        Whether positions are quantiles of these scores instead of the scores themselves.

    Returns
    -------
    Axis
        ``axis.position(score)`` gives the positions, of these cells or of others by their scores.

    Raises
    ------
    InputError
        The scores are not one finite number per cell, or are all the same.

    Notes
    -----
    A quantile is the share of scores below, plus half the share of equal scores, so that ties get the same
    value.

    Examples
    --------
    >>> score = np.array([10.0, 70.0, 20.0, 20.0])
    >>> axis_of_score(score, rank=True).position(score)
    array([0.125, 0.875, 0.5  , 0.5  ])
    """
    check_flag("rank", rank)
    scores = _check_scores(score, "score")
    if len(scores) == 0 or scores.min() == scores.max():
        raise InputError(
            "score",
            expected="at least two different values",
            got=f"{len(scores):,} cells, all the same" if len(scores) else "no cells",
            fix="Check how the score was computed.",
        )
    return Axis(kind="score", ranked=np.sort(scores) if rank else None)


def quantile_knots(position: DoubleArray, knots: int) -> DoubleArray:
    """Return knots for a spline over positions: quantiles of them, each the position of some cell.

    Parameters
    ----------
    position
        (n_cells,) finite.
    knots
        Number of knots, at least 2.

    Returns
    -------
    Increasing, from the smallest position to the largest. If ties make quantiles equal, quantiles of the
    distinct positions are used; there are fewer knots only if there are fewer distinct positions.

    Notes
    -----
    With a cell at each knot, all coefficients of the spline (its values at the knots) can be estimated.

    Examples
    --------
    >>> quantile_knots(np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 7.0]), 3)
    array([0., 2., 7.])
    >>> quantile_knots(np.array([3.0, 3.0, 4.0]), 5)
    array([3., 4.])
    """
    for among in (np.sort(position), np.unique(position)):
        at = np.linspace(0, len(among) - 1, min(knots, len(among))).round().astype(np.int64)
        distinct: DoubleArray = np.unique(among[at])
        if len(distinct) == knots:
            break
    return distinct


def natural_basis(position: DoubleArray, knots: DoubleArray) -> DoubleArray:
    """Return the natural cubic splines that are 1 at one knot and 0 at all others.

    Parameters
    ----------
    position
        (n_cells,) from the first knot to the last.
    knots
        (n_knots,) increasing, at least 2.

    Returns
    -------
    (n_cells, n_knots), rows that sum to 1. A spline's coefficients are its values at the knots.

    Examples
    --------
    >>> natural_basis(np.array([0.0, 0.25, 1.0]), np.array([0.0, 1.0]))
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [0.  , 1.  ]])
    """
    return np.asarray(CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(position))


def check_places(coordinates: NDArray[Any], where: str = "coordinates") -> DoubleArray:
    """Return coordinates as numbers.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3) finite.
    where
        Name of the coordinates in errors.

    Raises
    ------
    InputError
        Another shape, or NaN or infinity.
    """
    places = array_of(where, coordinates, fix="Pass the coordinates of the cells.")
    check_coordinates(places, where, fixes=("Pass the coordinates of the cells.", "Drop these cells."))
    return places


def _polynomial(places: DoubleArray, degree: int, *, rotate: bool) -> DoubleArray:
    """Return the curve with the other coordinates as polynomials of the first; places are centred."""
    turn = _principal_axes(places) if rotate else np.eye(places.shape[1])
    turned = places @ turn
    x = turned[:, 0]
    if x.min() == x.max():
        raise _too_steep(1, degree)
    fits = []
    for column in turned.T[1:]:
        # with `full`, the fit returns its rank instead of a warning
        fit, (_, rank, _, _) = np.polynomial.Chebyshev.fit(x, column, degree, full=True)
        if rank <= degree:
            raise _too_steep(len(np.unique(x)), degree)
        fits.append(fit)

    def curve(at: DoubleArray) -> DoubleArray:
        return np.column_stack([at, *(fit(at) for fit in fits)])

    return np.asarray(_evenly(curve, x.min(), x.max()) @ turn.T)


def _too_steep(n_positions: int, degree: int) -> InputError:
    return InputError(
        "coordinates",
        expected=f"at least {degree + 1} well separated first coordinates for degree {degree}",
        got=f"{n_positions}",
        fix="Lower the degree, set rotate=True, or use kind='principal curve'.",
    )


def _principal_curve(places: DoubleArray, knots: int) -> tuple[DoubleArray, bool]:
    """Return Hastie and Stuetzle's curve, and whether it converged; places are centred."""
    position = places @ _principal_axes(places)[:, 0]
    tiny = 1e-12 * float((places**2).sum(axis=1).mean())
    converged = False
    for n_knots in range(min(3, knots), knots + 1):
        off, converged = np.inf, False
        for _ in range(_MOST_ROUNDS):
            position, gap = _project(places, _stretched(_smoothed(places, position, n_knots), position))
            before, off = off, float((gap**2).mean())
            converged = abs(before - off) <= _SETTLED * off + tiny
            if converged:
                break
    return _evenly(_smoothed(places, position, knots), position.min(), position.max()), converged


def _smoothed(places: DoubleArray, position: DoubleArray, knots: int) -> CubicSpline[np.float64]:
    """Return the natural spline nearest to the places, position -> place."""
    at = quantile_knots(position, knots)
    values = np.linalg.lstsq(natural_basis(position, at), places, rcond=None)[0]  # n_knots x d
    return CubicSpline(at, values, bc_type="natural")


def _stretched(curve: CubicSpline[np.float64], position: DoubleArray) -> DoubleArray:
    """Return points of the curve, extended by straight lines so that cells beyond its ends are separated.

    Otherwise, all outer cells would be projected on the ends, and each round would shorten the curve.
    """
    low, high = position.min(), position.max()
    line = curve(np.linspace(low, high, _FIT_POINTS))
    step = _STRETCH * _lengths(line).sum()
    ends = curve(np.array([low, high]), 1)  # derivatives
    ends = ends / np.maximum(np.linalg.norm(ends, axis=1, keepdims=True), 1e-300)
    return np.vstack([line[:1] - step * ends[:1], line, line[-1:] + step * ends[1:]])


def _evenly(curve: _Curve, low: float, high: float) -> DoubleArray:
    """Return evenly spaced points of a curve, (_CURVE_POINTS, d)."""
    fine = np.linspace(low, high, _FINE * (_CURVE_POINTS - 1) + 1)
    along = np.concatenate([[0.0], np.cumsum(_lengths(curve(fine)))])
    return curve(np.interp(np.linspace(0.0, along[-1], _CURVE_POINTS), along, fine))


def _principal_axes(places: DoubleArray) -> DoubleArray:
    """Return the orthonormal axes of centred places as columns, the longest first; (d, d)."""
    _, axes = np.linalg.eigh(places.T @ places)
    return axes[:, ::-1]


def _from_start(curve: DoubleArray, start: DoubleArray | None) -> DoubleArray:
    """Return the curve, reversed if its end is nearer to the start."""
    ends = curve[[0, -1]]
    first, last = map(tuple, ends) if start is None else np.linalg.norm(ends - start, axis=1)
    return curve[::-1].copy() if last < first else curve


def _lengths(line: DoubleArray) -> DoubleArray:
    """Return the lengths of a line's segments, (n_points - 1,)."""
    return np.asarray(np.linalg.norm(np.diff(line, axis=0), axis=1))


def _project(places: DoubleArray, line: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Return the position, along a line, of the point nearest to each place, and its distance; (n,) each."""
    centre = line.mean(axis=0)  # centred, so that the products below are exact
    begins, reach = line[:-1] - centre, np.diff(line, axis=0)  # (n_segments, d)
    lengths = _lengths(line)
    squared = np.maximum(lengths**2, 1e-300)  # a segment of length 0 is a point
    before = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    position, distance = np.empty(len(places)), np.empty(len(places))
    for rows in row_blocks(len(places), rows_within(BLOCK_VALUES, len(begins))):
        block = places[rows] - centre
        along = block @ reach.T - (begins * reach).sum(axis=1)  # (block, n_segments)
        share = np.clip(along / squared, 0.0, 1.0)
        # |place - begin - share * reach|^2 without the |place|^2 common to all segments
        gap = (begins**2).sum(axis=1) - 2 * block @ begins.T + share * (share * squared - 2 * along)
        best = gap.argmin(axis=1)
        part = share[np.arange(len(block)), best]
        position[rows] = before[best] + part * lengths[best]
        foot = begins[best] + part[:, None] * reach[best]
        distance[rows] = np.linalg.norm(block - foot, axis=1)
    return position, distance


def _check_scores(score: NDArray[Any], where: str) -> DoubleArray:
    scores = array_of(where, score, fix="Pass the scores of all cells as one column.").copy()
    check_array(
        where,
        scores,
        fits=scores.ndim == 1,
        expected="one finite score per cell",
        fix="Pass one score for each cell, without missing values.",
    )
    return scores


def _check_enough(places: DoubleArray, *, needed: int, kind: str) -> None:
    expected, got = f"at least {needed} cells to fit this {kind} to", f"{len(places)}"
    fix = "Pass more cells, or request a smoother curve."
    if len(places) >= needed:
        expected, got = "cells at different positions", f"{len(places):,} cells at the same position"
        fix = "Check how the coordinates were computed."
    if len(places) < needed or (places == places[0]).all():
        raise InputError("coordinates", expected=expected, got=got, fix=fix)


def _check_start(start: NDArray[Any], n_dimensions: int) -> DoubleArray:
    place = array_of("start", start, fix="Pass a point near the end of the tissue where positions start.")
    check_array(
        "start",
        place,
        fits=place.shape == (n_dimensions,),
        expected=f"a point with {n_dimensions} finite coordinates",
        fix="Pass a point near the end of the tissue where positions start.",
    )
    return place


def _chosen(cells: NDArray[Any], n_cells: int) -> BoolArray | IntArray:
    chosen = array_of("cells", cells, fix="Pass a mask or positions.", numbers=False)
    is_mask = chosen.dtype == np.bool_ and chosen.shape == (n_cells,)
    is_list = np.issubdtype(chosen.dtype, np.integer) and chosen.ndim == 1
    is_list = is_list and bool(chosen.min(initial=0) >= 0 and chosen.max(initial=0) < max(n_cells, 1))
    if not (is_mask or is_list):
        raise InputError(
            "cells",
            expected=f"a mask of {n_cells:,} cells, or positions below that number",
            got=f"{chosen.dtype} values of shape {chosen.shape}",
            fix="Choose the rows of the coordinates to fit the curve to.",
        )
    return chosen
