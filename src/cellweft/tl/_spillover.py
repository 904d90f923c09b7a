"""Spill-over: the share of a cell's counts that its neighbours explain better than any reference cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import (
    READ_ROWS,
    numpy_stream,
    parse_memory,
    progress_callback,
    row_blocks,
    rows_within,
    sample_rows,
)
from cellweft._errors import (
    InputError,
    MemoryBudgetError,
    ScaleError,
    SettingError,
    arg,
    check_kind,
    check_range,
    check_seed,
    checks_kinds,
)
from cellweft._provenance import stamp
from cellweft._text import enough_bytes, human_bytes
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress, ProgressOption
from cellweft.data._pair import Pair, coordinates_of
from cellweft.data.hold_out import with_counts
from cellweft.data.io.keys import RECORD, SPILLOVER
from cellweft.nn.metacells import group_cells
from cellweft.nn.spillover import CANDIDATES, SHARES, SpilloverModel, Surroundings

LARGE_SPILLOVER = 0.2
"""Smallest mean share of a tissue that is considered large."""

_WIDE = 40  # cells around the nearest ones
_REACH = 3.0  # largest distance of neighbours, in multiples of the spacing
_SAMPLE_CELLS = 2000  # used to learn frequencies, gene factors and dispersions
_REFERENCE_CELLS = 20_000  # used to compute profiles
_PASSES = 2  # over the cells, after a first pass without neighbours
_CELL_BYTES = 12.0 * CANDIDATES + 100.0  # memory per cell: profiles, coordinates, trees
_MIX_COPIES, _GENE_COPIES = 2 * CANDIDATES + 6, 4  # copies of a cell's values in a block, in float64


@checks_kinds
def spillover(
    pair: Pair,
    *,
    n_neighbors: int = 6,
    radius: float | None = None,
    n_profiles: int = 100,
    seed: int = 0,
    memory: str | int = "1 GB",
    progress: ProgressOption = True,
) -> pd.Series[float]:
    """Return the share of each cell's panel counts that its neighbours explain better than the reference.

    Transcripts of a cell are assigned to its neighbour where cells overlap or segmentation misses the border.

    Parameters
    ----------
    pair
        The data. The spatial data must be counts of single cells (not of spots that contain several), with
        coordinates. No fit is needed.
    n_neighbors
        Number of nearest cells in the same slice whose transcripts may have spilled into a cell, at least 1.
    radius
        Maximum distance of these cells, in the unit of the coordinates, at least ``pair.spacing``; by default
        three times that.
    n_profiles
        Approximate number of groups of reference cells that a cell is compared with, at least 2. Each label
        of ``pair.labels`` has its own groups.
    seed
        Random seed for sampling the cells used for training.
    memory
        Budget for the data of the cells and of a block.
    progress
        As in `cellweft.Imputer.fit`; a callback is called while cells are read.

    Returns
    -------
    Series
        (n_st,) ``cellweft_spillover``, at least 0 and below 1. It is 0 for a cell without neighbours, NaN for
        one without counts in the panel. ``attrs["cellweft"]`` is the record. It includes ``mean``, over cells
        with neighbours and counts; ``caution``, a text if the mean is 0.2 or more, otherwise empty; and
        ``frequencies``, the fitted distribution of the shares.

    Raises
    ------
    KeyMissingError
        The pair has no coordinates.
    ScaleError
        The spatial data are not counts.
    InputError
        All cells have the same position, or no reference cell has counts in the panel.
    SettingError
        A setting is out of range.
    MemoryBudgetError
        The cells do not fit in the budget.

    Notes
    -----
    The counts of a cell are modelled as a mixture of two profiles: that of a group of reference cells,
    adapted to the spatial platform gene by gene, and the mean profile of its neighbours in the same slice,
    weighted by their totals and by the inverse of their distance, which is set to at least the spacing. The
    equations are in docs/counts.md. Cells whose neighbours are of their own type are not informative, and get
    about the mean of the tissue. In real tissue, where the reference fits less well, shares are uncertain,
    and too high if there is no spill-over. Compare them with the shares after shuffling the coordinates.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_cortex(
    ...     n_spatial=60, n_reference=60, n_genes=30, n_panel=20, spill_over=0.3
    ... )
    >>> share = spillover(cellweft.pair(tissue.sc, tissue.st), progress=False)
    >>> share.name, len(share), bool(share.between(0, 1).all())
    ('cellweft_spillover', 60, True)
    """
    estimate = _estimate(
        pair, n_neighbors, radius, n_profiles=n_profiles, seed=seed, memory=memory, progress=progress
    )
    model = estimate.model
    share = np.where(estimate.cells.totals > 0, estimate.share, np.nan)
    record = stamp("spillover") | {
        "n_neighbors": int(n_neighbors),
        "radius": estimate.neighborhoods.radius,
        "n_profiles": len(model.profiles),
        "seed": int(seed),
        "mean": estimate.mean,
        "caution": _caution(estimate.mean),
        "frequencies": {
            f"{level:g}": float(part) for level, part in zip(SHARES, model.prior.sum(axis=0), strict=True)
        },
    }
    result = pd.Series(share, index=pair.st.obs_names, name=SPILLOVER)
    result.attrs[RECORD] = record
    return result


@checks_kinds
def remove_spillover(
    pair: Pair,
    *,
    n_neighbors: int = 6,
    radius: float | None = None,
    n_profiles: int = 100,
    seed: int = 0,
    memory: str | int = "1 GB",
    progress: ProgressOption = True,
) -> Pair:
    """Return a pair whose spatial counts are those expected to be each cell's own.

    Fit to this pair to train and predict without the estimated spill-over. This improves the predictions
    where much has spilled over and the reference fits the tissue well. On real tissue, we found no gain for
    genes: see docs/counts.md before you use it.

    Parameters
    ----------
    pair, n_neighbors, radius, n_profiles, seed, progress
        As in `spillover`.
    memory
        Budget for the data of the cells and of a block. The new counts are additional: they are kept in
        memory, as a sparse matrix of cells x panel genes.

    Returns
    -------
    Pair
        The same reference and cells. The spatial data contain only the panel genes. Each count is multiplied
        by the probability that it is the cell's own, so the values are no longer integers, and no count
        becomes larger. The size of each cell is reduced by the same fraction as its panel counts, unless it
        is a size factor. Counts are not given back to the neighbours, so imputed counts are lower, too. A
        caution states how much was removed on average. Layers of the spatial data are dropped.

    Raises
    ------
    KeyMissingError, ScaleError, InputError, SettingError, MemoryBudgetError
        As in `spillover`.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_cortex(
    ...     n_spatial=60, n_reference=60, n_genes=30, n_panel=20, spill_over=0.3
    ... )
    >>> pair = cellweft.pair(tissue.sc, tissue.st)
    >>> own = remove_spillover(pair, progress=False)
    >>> own.st.n_cells, own.st.n_genes, bool((own.st.totals <= pair.st.totals).all())
    (60, 20, True)
    """
    estimate = _estimate(
        pair, n_neighbors, radius, n_profiles=n_profiles, seed=seed, memory=memory, progress=progress
    )
    cells, side, own = estimate.cells, pair.st, estimate.own_counts()
    kept = np.asarray(own.sum(axis=1), dtype=np.float64)[:, 0]
    fraction = np.divide(kept, cells.totals, out=np.ones(len(kept)), where=cells.totals > 0)
    removed = 1 - float(fraction[cells.totals > 0].mean()) if cells.totals.any() else 0.0
    caution = f"Spatial: estimated spill-over was removed from the counts, {removed:.0%} of a cell on average"
    return replace(
        pair,
        st=with_counts(
            side, pair.st_shared, own, totals=side.totals if side.has_sizes else side.totals * fraction
        ),
        st_shared=np.arange(len(pair.shared_genes)),
        cautions=(*pair.cautions, f"{caution}; see docs/counts.md."),
        findings=pair.findings | {"spillover_removed": removed},
    )


def _estimate(
    pair: Pair,
    n_neighbors: int,
    radius: float | None,
    *,
    n_profiles: int,
    seed: int,
    memory: str | int,
    progress: ProgressOption,
) -> _Estimate:
    """Return the estimate for a pair, after the checks of `spillover`."""
    check_kind("pair", pair, Pair, expected="a Pair", fix="Create one: cellweft.pair(sc, st).")
    check_range("n_neighbors", n_neighbors, low=1, integer=True)
    check_range("n_profiles", n_profiles, low=2, integer=True)
    check_seed(seed)
    budget = parse_memory(memory)
    neighborhoods = _Neighborhoods.of(pair, n_neighbors, _checked_radius(pair, radius))
    model = _reference_model(pair, n_profiles, seed=seed, budget=budget)
    cells = _Cells(pair=pair, rows_at_once=_rows_at_once(pair, model, budget))
    with progress_callback(progress) as report:
        return _estimated(cells, neighborhoods, model, seed=seed, progress=report)


def _caution(mean: float) -> str:
    if mean < LARGE_SPILLOVER:
        return ""
    return (
        f"Spatial: {mean:.0%} of a cell's counts are explained better by its neighbours than by the "
        "reference. Segmentation may miss cell borders, or the reference may lack cell types. Look at "
        "the cells with the highest shares before you interpret markers in unexpected cells."
    )


def check_spillover(pair: Pair) -> None:
    """Raise if `spillover` cannot be estimated for a pair."""
    coordinates_of(pair, expected="positions of the spatial cells, to find their neighbours")
    if pair.st.scale != "raw":
        raise ScaleError(
            "st",
            expected="spatial counts, to distinguish spill-over from noise",
            got="values that are not counts",
            fix="Specify the layer with the counts: " + arg("st_layer", "counts") + ".",
        )
    if pair.spacing is None and pair.st.n_cells > 1:
        raise InputError(
            "coordinates",
            expected="cells at different positions, to find their neighbours",
            got=f"{pair.st.n_cells:,} cells at the same position in their slice",
            fix="Specify the columns with the cells' positions.",
        )


def _checked_radius(pair: Pair, radius: float | None) -> float:
    check_spillover(pair)
    if radius is None:
        return _REACH * (pair.spacing or 1.0)
    check_range("radius", radius, low=0.0)
    if pair.spacing is not None and radius < pair.spacing:
        raise SettingError(
            "radius",
            expected=f"at least {pair.spacing:g}, the distance of a typical cell to its nearest neighbour",
            got=f"{radius:g}",
            fix="Pass it in the unit of the coordinates, or leave " + arg("radius") + " out.",
        )
    return float(radius)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Neighborhoods:
    """Cells near each cell of a tissue, computed on request."""

    coordinates: DoubleArray  # n_cells x 2 or 3
    slice_of: IntArray  # n_cells
    trees: list[tuple[IntArray, cKDTree]]  # cells of each slice
    n_neighbors: int
    radius: float
    spacing: float

    @classmethod
    def of(cls, pair: Pair, n_neighbors: int, radius: float) -> _Neighborhoods:
        places = np.asarray(pair.coordinates, dtype=np.float64)
        slice_of = np.zeros(len(places), dtype=np.int64)
        if pair.slices is not None:
            slice_of = pd.factorize(pair.slices)[0].astype(np.int64)
        members = [np.flatnonzero(slice_of == one) for one in range(int(slice_of.max(initial=-1)) + 1)]
        return cls(
            coordinates=places,
            slice_of=slice_of,
            trees=[(one, cKDTree(places[one])) for one in members],
            n_neighbors=n_neighbors,
            radius=radius,
            spacing=pair.spacing or 1.0,
        )

    def around(self, cells: IntArray, totals: DoubleArray, profiles: sp.csr_matrix) -> Surroundings:
        """Return the surroundings of some cells.

        Parameters
        ----------
        cells
            (n_asked,) positions of the cells.
        totals, profiles
            (n_cells,) total counts of each cell, and (n_cells, n_profiles) probabilities of its profiles; if
            these are of no cells, no neighbours are known.
        """
        if not profiles.shape[0]:
            return Surroundings.none(len(cells), profiles.shape[1])
        near, wide = self._weights(cells)
        both = [_shares(weights.multiply(totals[None]) @ profiles) for weights in (near, wide)]
        return Surroundings(near=both[0], wide=both[1])

    def _weights(self, cells: IntArray) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Return the weights of neighbours, and of the cells around them; (n_asked, n_cells) each."""
        parts: list[tuple[IntArray, IntArray, DoubleArray, NDArray[np.bool_]]] = []
        for number in np.unique(self.slice_of[cells]):
            members, tree = self.trees[number]
            rows = np.flatnonzero(self.slice_of[cells] == number)
            most = min(self.n_neighbors + _WIDE + 1, len(members))
            distance, indices = tree.query(self.coordinates[cells[rows]], k=[*range(1, most + 1)])
            others = members[indices]
            is_other = others != cells[rows][:, None]
            rank = np.cumsum(is_other, axis=1)  # 1 for the nearest other cell
            is_near = (rank <= self.n_neighbors) & (distance <= self.radius)
            at = np.broadcast_to(rows[:, None], others.shape)
            parts.append((at[is_other], others[is_other], distance[is_other], is_near[is_other]))
        at, others, distance, is_near = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        shape = len(cells), len(self.coordinates)
        by_distance = 1 / np.maximum(distance, self.spacing)
        near = sp.csr_matrix((by_distance[is_near], (at[is_near], others[is_near])), shape=shape)
        ones = np.ones(int((~is_near).sum()))
        return near, sp.csr_matrix((ones, (at[~is_near], others[~is_near])), shape=shape)


class _Cells:
    """The panel counts of the spatial cells, read by blocks."""

    def __init__(self, *, pair: Pair, rows_at_once: int) -> None:
        self.pair, self.rows_at_once = pair, rows_at_once
        self.totals = np.zeros(pair.st.n_cells)
        for rows, counts in self.blocks():
            self.totals[rows] = counts.sum(axis=1, dtype=np.float64)

    def read(self, rows: slice | IntArray) -> FloatArray:
        """Return the counts of some cells, (n_rows, n_panel)."""
        stored = self.pair.st.stored(rows, self.pair.st_shared)
        dense: Any = stored.toarray() if sp.issparse(stored) else stored
        return np.asarray(dense, dtype=np.float32)

    def blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield all cells, block by block."""
        for rows in row_blocks(self.pair.st.n_cells, self.rows_at_once):
            yield rows, self.read(rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Estimate:
    """The fitted model, and what it says about each cell."""

    cells: _Cells
    neighborhoods: _Neighborhoods
    model: SpilloverModel
    share: DoubleArray  # n_cells
    is_compared: NDArray[np.bool_]  # n_cells: has neighbours and counts

    @property
    def mean(self) -> float:
        """Mean share of the cells that were compared with neighbours."""
        return float(self.share[self.is_compared].mean()) if self.is_compared.any() else 0.0

    def own_counts(self) -> sp.csr_matrix:
        """Return the counts that are expected to be the cells' own, (n_cells, n_panel).

        The profiles of neighbours are those of the final model: first without their own neighbours, then with
        these.
        """
        profiles = _no_profiles(self.model)
        for _ in range(_PASSES):
            parts = []
            for rows, block in self.cells.blocks():
                posterior = self.model.posterior(block, self._around(rows, profiles))
                parts.append(_table(posterior.candidates, posterior.of_profile, profiles.shape[1]))
            profiles = sp.csr_matrix(sp.vstack(parts, format="csr"))
        own = [
            sp.csr_matrix(self.model.own_counts(block, self._around(rows, profiles)))
            for rows, block in self.cells.blocks()
        ]
        return sp.csr_matrix(sp.vstack(own, format="csr"))

    def _around(self, rows: slice, profiles: sp.csr_matrix) -> Surroundings:
        cells = np.arange(rows.start, rows.stop)
        return self.neighborhoods.around(cells, self.cells.totals, profiles)


def _estimated(
    cells: _Cells, neighborhoods: _Neighborhoods, model: SpilloverModel, *, seed: int, progress: Progress
) -> _Estimate:
    """Return the model fitted to the cells, and the share of each."""
    totals, n_cells = cells.totals, len(cells.totals)
    drawn = sample_rows(np.flatnonzero(totals > 0), _SAMPLE_CELLS, numpy_stream(seed, "spillover: cells"))
    sample = np.sort(drawn)
    counts = cells.read(sample)
    share, has_neighbors = np.zeros(n_cells), np.zeros(n_cells, dtype=np.bool_)
    profiles = _no_profiles(model)
    for turn in range(_PASSES + 1):
        model = model.fit(counts, neighborhoods.around(sample, totals, profiles))
        parts = []
        for rows, block in cells.blocks():
            around = neighborhoods.around(np.arange(rows.start, rows.stop), totals, profiles)
            posterior = model.posterior(block, around)
            share[rows], has_neighbors[rows] = posterior.share, around.near.any(axis=1)
            parts.append(_table(posterior.candidates, posterior.of_profile, profiles.shape[1]))
            progress("spill-over", turn * n_cells + rows.stop, (_PASSES + 1) * n_cells)
        profiles = sp.csr_matrix(sp.vstack(parts, format="csr"))
    return _Estimate(
        cells=cells,
        neighborhoods=neighborhoods,
        model=model,
        share=share,
        is_compared=has_neighbors & (totals > 0),
    )


def _no_profiles(model: SpilloverModel) -> sp.csr_matrix:
    """Return probabilities of profiles of no cells."""
    return sp.csr_matrix((0, len(model.profiles)))


def _reference_model(pair: Pair, n_profiles: int, *, seed: int, budget: int) -> SpilloverModel:
    """Return the profiles of groups of reference cells; each label has its own groups."""
    most = rows_within(budget / 2, 4 * 6 * len(pair.sc_shared), most=_REFERENCE_CELLS)
    usable = np.flatnonzero(~pair.sc.empty_cells)
    cells = np.sort(sample_rows(usable, most, numpy_stream(seed, "spillover: reference")))
    values = pair.sc.dense(cells, pair.sc_shared)
    cells, values = cells[values.any(axis=1)], values[values.any(axis=1)]
    if not len(cells):
        raise InputError(
            "sc",
            expected="reference cells with counts in panel genes",
            got="none",
            fix="Check that both inputs use the same gene names.",
        )
    labels = np.zeros(len(cells)) if pair.labels is None else pd.factorize(pair.labels[cells])[0]
    means, sizes = list[DoubleArray](), list[DoubleArray]()
    for label in np.unique(labels):
        own = values[labels == label]
        groups = group_cells(own, most=max(round(n_profiles * len(own) / len(values)), 1), seed=seed)
        linear = np.expm1(own).astype(np.float64)
        means.append(linear if groups is None else groups.average(linear).astype(np.float64))
        sizes.append((np.ones(len(own)) if groups is None else groups.sizes).astype(np.float64))
    return SpilloverModel.of_reference(np.concatenate(means), np.concatenate(sizes))


def _rows_at_once(pair: Pair, model: SpilloverModel, budget: int) -> int:
    """Return the number of cells per block, or raise `MemoryBudgetError`."""
    n_profiles, n_genes = model.profiles.shape
    held = _CELL_BYTES * pair.st.n_cells
    per_row = 8.0 * (_MIX_COPIES * n_profiles + _GENE_COPIES * n_genes)
    if held + per_row > budget:
        raise MemoryBudgetError(
            "memory",
            expected=f"at least {enough_bytes(held + 2 * per_row)}, for {pair.st.n_cells:,} cells",
            got=human_bytes(budget),
            fix="Raise " + arg("memory") + ", or analyse one slice at a time.",
        )
    return rows_within(budget - held, per_row, most=READ_ROWS)


def _table(candidates: IntArray, chances: DoubleArray, n_profiles: int) -> sp.csr_matrix:
    """Return the probability of each profile as a sparse table, (n_cells, n_profiles)."""
    starts = np.arange(0, candidates.size + 1, candidates.shape[1])
    values = chances.astype(np.float32).ravel()
    return sp.csr_matrix((values, candidates.ravel(), starts), shape=(len(candidates), n_profiles))


def _shares(table: Any) -> DoubleArray:
    """Return rows divided by their sums, dense; rows of zeros are unchanged."""
    dense = np.asarray(table.toarray(), dtype=np.float64)
    sums = dense.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(dense, sums, out=np.zeros_like(dense), where=sums > 0))
