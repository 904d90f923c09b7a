"""Semi-simulation: spots summed from measured cells with known positions, and cells with added noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import READ_BYTES, numpy_stream, row_blocks, rows_within
from cellweft._errors import (
    InputError,
    KeyMissingError,
    ScaleError,
    SettingError,
    arg,
    check_choice,
    check_range,
    check_seed,
    checks_kinds,
)
from cellweft._typing import DoubleArray, IntArray, SpotShape
from cellweft.data._pair import Pair, pair
from cellweft.data.expression_scale import Scan, judge_scale, scan_values
from cellweft.data.io.backed_matrix import RowSource, open_rows, per_row
from cellweft.data.spatial import find_coordinates, find_labels
from cellweft.data.synthetic.tissue import numbered_names

RESOLUTIONS = (55, 40, 22, 10)
"""Spot spacings of the published semi-simulations, um: from the size of a Visium spot to that of a cell."""

BOX_WIDTH = 0.55
"""Width of the paper's boxes, in spacings of its grid."""

_MOST_CROSSINGS = 10**8
_TOTAL = 1e4  # total to which STEM normalises each cell


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoSpots:
    """Measured cells, the spots summed from some of them, and the truth for both.

    Attributes
    ----------
    cells
        A copy of the cells. ``obsm["spatial_true"]``: their positions. ``obs["caught"]``: whether a spot
        contains their counts.
    spots
        Sums of raw counts, (n_spots, n_genes), CSR in float32. ``obs["n_cells"]``: number of cells in the
        sum. ``obsm["spatial"]``: centre of the spot, in the unit of the cells' coordinates.
        ``obsm["composition"]``: a table with the proportion of each type among these cells; types are sorted,
        rows sum to 1.
    labels
        Column of ``obs`` of the cells with the types.
    parameters
        How the spots were simulated: shape, grid, sizes, seed.
    """

    cells: AnnData
    spots: AnnData
    labels: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def pair(self) -> Pair:
        """Return a `cellweft.pair` with the cells as the reference and the spots as the spatial data."""
        return pair(self.cells, self.spots, labels=self.labels, coordinates="obsm:spatial")


@checks_kinds
def pseudo_spots(
    cells: AnnData,
    *,
    coordinates: str | None = None,
    labels: str | None = None,
    spacing: float | None = None,
    grid: tuple[int, int] | None = None,
    shape: SpotShape = "discs",
    radius: float | None = None,
    width: float = BOX_WIDTH,
    caught: float | None = None,
    min_cells: int = 3,
    seed: int = 0,
) -> PseudoSpots:
    """Sum measured cells into spots on a regular grid, to simulate a platform with lower resolution.

    Parameters
    ----------
    cells
        Raw counts in X, with coordinates; not changed.
    coordinates
        ``"obsm:KEY"`` or ``"obs:X,Y"``, two-dimensional; by default ``obsm["spatial"]`` or columns with usual
        names.
    labels
        Column of ``obs`` with cell types; by default a column with a recognised name.
    spacing
        Distance between spots, in the unit of the coordinates; see `RESOLUTIONS`. The grid is centred on the
        tissue.
    grid
        Instead of ``spacing``, the number of grid points along the first and the second axis, such as ``(30,
        40)`` in the paper. They extend from edge to edge of the tissue.
    shape
        "discs", in which the counts of some cells are lost, or "boxes" as in the paper, which contain all of
        their cells, with gaps between the boxes.
    radius
        Radius of the discs; by default half of the spacing (the smaller one if the grid has two), so that no
        cell is in two spots.
    width
        Width of the boxes as a fraction of the grid spacing, above 0 and at most 1.
    caught
        Fraction of the cells in a spot whose counts are captured, above 0 and at most 1, drawn once for each
        cell; by default 0.6 for discs (published values are 0.5 to 0.7) and 1 for boxes, whose gaps already
        lose cells.
    min_cells
        Spots with fewer captured cells are left out.
    seed
        Random seed.

    Returns
    -------
    PseudoSpots
        The cells and the spots.

    Raises
    ------
    SettingError
        A setting is out of range, or both or neither of ``spacing`` and ``grid`` are given.
    KeyMissingError
        There are no coordinates, or no cell types.
    InputError
        The coordinates are not two finite numbers per cell, or no spot has enough cells.
    ScaleError
        X does not contain raw counts.

    Notes
    -----
    "Semi-simulation data generation" of Hao et al. 2024 (STEM). The text specifies neither shape nor size.
    The published pseudo-spots of embryo 1 are sums over all cells in boxes, whose width is 0.55 times the
    grid spacing along each axis, on a grid of 30 x 40 from edge to edge. Three in ten cells are in a box, the
    others in between. ``shape="boxes", grid=(30, 40)`` reproduces such spots. Discs with a random loss of
    cells are not from the paper.

    Types with a "/" in their names cannot be columns in an .h5ad file. To write such spots, store the values
    of the composition in ``obsm["composition"]`` and its column names in ``uns["composition_names"]``.

    Examples
    --------
    >>> places = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0], [10.0, 1.0]])
    >>> cells = AnnData(np.eye(4, dtype="float32"), obsm={"spatial": places})
    >>> cells.obs["cell_type"] = ["A", "A", "A", "B"]
    >>> made = pseudo_spots(cells, spacing=9, caught=1, min_cells=2)
    >>> made.spots.X.toarray()
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]], dtype=float32)
    >>> made.spots.obsm["composition"]
             A    B
    spot1  1.0  0.0
    spot2  0.5  0.5
    """
    check_choice("shape", shape, get_args(SpotShape))
    if shape == "boxes" and radius is not None:
        fix = "Leave " + arg("radius") + " out, or write " + arg("shape", "discs") + "."
        raise SettingError(
            "radius", expected="no radius with boxes, which have a width", got=repr(radius), fix=fix
        )
    caught = (0.6 if shape == "discs" else 1.0) if caught is None else caught
    check_range("caught", caught, low=0, high=1)
    check_range("width", width, low=1e-9, high=1)
    check_range("min_cells", min_cells, low=1, integer=True)
    check_seed(seed)
    if caught == 0:
        raise SettingError("caught", expected="a share above 0", got="0", fix="Choose one of 0.5 to 0.7.")
    places = _places(cells, coordinates)
    types, labels = _types(cells, labels)
    source, _ = _raw_counts(cells)
    middles, spacings = _crossings(places, spacing, grid)
    if shape == "discs":
        radius = float(spacings.min()) / 2 if radius is None else radius
        check_range("radius", radius, low=1e-12)
    order = numpy_stream(seed, "caught cells").permutation(len(places))
    drawn = np.sort(order[: round(caught * len(places))])
    # n_crossings x n_cells
    if radius is None:
        members = in_boxes(middles, places, drawn, sides=width * spacings)
    else:
        members = _members(middles, places, drawn, radius)
    filled_crossings = np.flatnonzero(np.diff(members.indptr) >= min_cells)
    if not len(filled_crossings):
        raise InputError(
            "spots",
            expected=f"at least one spot with {min_cells} or more captured cells",
            got=f"none of {len(middles):,} (at most {np.diff(members.indptr).max(initial=0)} cells in one)",
            fix="Widen the spots: raise spacing= or radius=, or lower min_cells=.",
        )
    members = members[filled_crossings]
    spots = _assemble(members, source, cells.var, types=types, middles=middles[filled_crossings])
    copy = cells.to_memory(copy=True) if cells.isbacked else cells.copy()
    copy.obsm["spatial_true"] = places
    copy.obs["caught"] = np.bincount(members.indices, minlength=len(places)) > 0
    size = {"radius": radius} if shape == "discs" else {"width": width}
    parameters = {"shape": shape, "spacing": spacings.tolist(), **size}
    parameters |= {"caught": caught, "min_cells": int(min_cells), "seed": int(seed)}
    return PseudoSpots(cells=copy, spots=spots, labels=labels, parameters=parameters)


@checks_kinds
def add_noise(cells: AnnData, level: float, *, seed: int = 0) -> AnnData:
    """Return the cells with Gaussian noise added to their log-normalised values.

    Parameters
    ----------
    cells
        Raw counts in X; not changed.
    level
        R, the variance of the noise relative to the variance of each gene over the cells. The paper uses 0.2,
        0.4, 0.6 and 0.8. With 0, no noise is added.
    seed
        Seed of the noise.

    Returns
    -------
    The same cells and genes. X: float32 array, natural logarithm of 1 + counts per 10,000 of the cell, plus
    noise, not below 0. Layers are removed, because they contain values without noise. Use `cellweft.pair`
    with ``sc_scale="log"``.

    Raises
    ------
    SettingError
        ``level`` or ``seed`` out of range.
    ScaleError
        X does not contain raw counts.

    Notes
    -----
    "Adding different noise levels" of Hao et al. 2024 (STEM): variance R G_i for gene i with variance G_i,
    clipped at 0. DEVIATION: the text adds it to "the raw data". Here it is added after normalisation, to the
    values that STEM uses, so that a level has the same effect in cells with many and with few counts.

    Examples
    --------
    >>> cells = AnnData(np.array([[1.0, 0.0], [1.0, 3.0]], dtype="float32"))
    >>> add_noise(cells, 0).X.round(2)
    array([[9.21, 0.  ],
           [7.82, 8.92]], dtype=float32)
    """
    from sklearn.preprocessing import StandardScaler

    check_range("level", level, low=0)
    check_seed(seed)
    source, scan = _raw_counts(cells)
    moments, stream = StandardScaler(), numpy_stream(seed, "noise")
    values = np.empty(cells.shape, dtype=np.float32)
    n_rows = rows_within(READ_BYTES, 8 * cells.n_vars)
    for rows in row_blocks(cells.n_obs, n_rows):
        totals = scan.totals[rows]
        block = per_row(source.read(rows), _TOTAL / np.where(totals > 0, totals, 1.0))
        values[rows] = np.log1p(block.toarray() if sp.issparse(block) else block)
        moments.partial_fit(values[rows].astype(np.float64))
    spread = np.sqrt(level * moments.var_)  # n_genes
    for rows in row_blocks(cells.n_obs, n_rows):
        noise = spread * stream.standard_normal(values[rows].shape)
        values[rows] = np.maximum(values[rows] + noise, 0)
    return AnnData(
        values,
        obs=pd.DataFrame(cells.obs).copy(),
        var=pd.DataFrame(cells.var).copy(),
        obsm={key: cells.obsm[key].copy() for key in cells.obsm},
    )


def _places(cells: AnnData, coordinates: str | None) -> DoubleArray:
    places, source = find_coordinates(cells.obs, cells.obsm, coordinates, where="cells")
    if places is None or places.shape[1] != 2:
        expected, fix = "coordinates in two dimensions", "Choose two: "
        got = "none" if places is None else f"{places.shape[1]} dimensions"
    elif not np.ptp(places, axis=0).any():
        expected, fix = "cells at different positions", "Choose other coordinates: "
        got = "all cells at the same position"
    else:
        return places
    fix += arg("coordinates", "obs:X,Y") + "."
    raise InputError(f"cells ({source})", expected=expected, got=got, fix=fix)


def _types(cells: AnnData, labels: str | None) -> tuple[NDArray[np.str_], str]:
    types, column = find_labels(cells.obs, labels, where="cells", argument="labels")
    if types is None:
        expected = "a column with cell types, such as 'cell_type'"
        raise KeyMissingError(
            "cells.obs",
            expected=expected,
            got="no column with at least two types",
            fix="Specify it: labels='COLUMN'.",
        )
    return types, column


def _raw_counts(cells: AnnData) -> tuple[RowSource, Scan]:
    """Return the rows of X and their scan, or raise `ScaleError` unless they are raw counts."""
    source = open_rows(cells if cells.isbacked and cells.is_view else cells.X, where="cells.X")
    scan = scan_values(source)
    scale = None if scan.n_missing or scan.n_negative else judge_scale(source).scale
    if scale != "raw":
        raise ScaleError(
            "cells.X",
            expected="raw counts, which can be summed",
            got="NaN or infinite values" if scan.n_missing else f"{scale or 'scaled'} values",
            fix="Put the counts in X: cells.X = cells.layers[NAME].",
        )
    return source, scan


def _crossings(
    places: DoubleArray, spacing: float | None, grid: tuple[int, int] | None
) -> tuple[DoubleArray, DoubleArray]:
    """Return the crossing points of the grid, (n_crossings, 2), and its spacing along each axis, (2,).

    If all cells have the same coordinate along an axis, its spacing is that of the other axis.
    """
    if (spacing is None) == (grid is None):
        raise SettingError(
            "spacing",
            expected="either a spacing or a grid",
            got="neither" if spacing is None else "both",
            fix="Write spacing=55 (in the unit of the coordinates) or grid=(30, 40).",
        )
    low, high = places.min(axis=0), places.max(axis=0)
    wide = high > low
    if spacing is None:
        counts = np.where(wide, _checked_grid(grid), 1)  # cells in a line have one row of spots
    else:
        check_range("spacing", spacing, low=1e-12, high=1e12)
        counts = np.floor((high - low) / spacing * (1 + 1e-12)) + 1
    if np.prod(counts) > _MOST_CROSSINGS:
        raise SettingError(
            "spacing",
            expected=f"a grid of at most {_MOST_CROSSINGS:,} points",
            got=f"{' x '.join(f'{count:,.0f}' for count in counts)}",
            fix="Increase it, in the unit of the coordinates.",
        )
    if spacing is not None:
        low = (low + high - (counts - 1) * spacing) / 2
        axes = [start + spacing * np.arange(int(n)) for start, n in zip(low, counts, strict=True)]
        spacings = np.full(2, float(spacing))
    else:
        axes = [np.linspace(*limits) for limits in zip(low, high, counts, strict=True)]
        spacings = (high - low) / np.maximum(counts - 1, 1)
        spacings[~wide] = spacings[wide].min()
    across, along = np.meshgrid(*axes)
    return np.column_stack([across.ravel(), along.ravel()]), spacings


def _checked_grid(grid: tuple[int, int] | None) -> tuple[int, int]:
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise SettingError(
            "grid",
            expected="numbers of grid points along the two axes",
            got=repr(grid),
            fix="Write grid=(30, 40).",
        )
    for count in grid:
        check_range("grid", count, low=2, integer=True)
    return grid[0], grid[1]


def in_boxes(
    middles: DoubleArray, places: DoubleArray, drawn: IntArray, *, sides: DoubleArray
) -> sp.csr_matrix:
    """Return which of the drawn cells are in which box, n_boxes x n_cells of ones; boxes include edges.

    Parameters
    ----------
    middles, places
        (n_boxes, 2) centres of the boxes, and (n_cells, 2) positions of all cells.
    drawn
        Indices of the captured cells.
    sides
        (2,) width of a box along each axis, above 0.
    """
    scaled = middles / (sides / 2), places[drawn] / (sides / 2)
    slack = 1 + 1e-9  # includes cells on an edge despite rounding
    near: Any = cKDTree(scaled[1]).query_ball_point(scaled[0], slack, p=np.inf)
    columns = drawn[np.concatenate([np.asarray(cells, dtype=np.int64) for cells in near])]
    starts = np.concatenate([[0], np.cumsum([len(cells) for cells in near])])
    return sp.csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(middles), len(places)))


def _members(middles: DoubleArray, places: DoubleArray, drawn: IntArray, radius: float) -> sp.csr_matrix:
    """Return which of the drawn cells are in which spot, n_crossings x n_cells of ones."""
    near = cKDTree(middles).sparse_distance_matrix(cKDTree(places[drawn]), radius, output_type="ndarray")
    ones = np.ones(len(near), dtype=np.float64)
    return sp.csr_matrix((ones, (near["i"], drawn[near["j"]])), shape=(len(middles), len(places)))


def _assemble(
    members: sp.csr_matrix,
    source: RowSource,
    var: pd.DataFrame,
    *,
    types: NDArray[np.str_],
    middles: DoubleArray,
) -> AnnData:
    sums = sp.csr_matrix((members.shape[0], source.shape[1]), dtype=np.float64)
    by_cell = members.tocsc()
    for rows in row_blocks(source.shape[0], rows_within(READ_BYTES, source.row_bytes)):
        block = sp.csr_matrix(source.read(rows))  # b x n_genes
        sums = sums + by_cell[:, rows] @ block.astype(np.float64)
    names, codes = np.unique(types, return_inverse=True)
    is_type = sp.csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)))
    in_spot = (members @ is_type).toarray()  # n_spots x n_types
    n_cells = in_spot.sum(axis=1).astype(np.int64)
    index = numbered_names("spot", len(n_cells))
    shares = pd.DataFrame(in_spot / n_cells[:, None], index=index, columns=pd.Index(names.tolist()))
    return AnnData(
        sums.astype(np.float32),
        obs=pd.DataFrame({"n_cells": n_cells}, index=index),
        var=pd.DataFrame(var).copy(),
        obsm={"spatial": middles, "composition": shares},
    )
