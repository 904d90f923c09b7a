"""Explains the position of a placed cell: the contribution of each gene to its largest mapping weight.

`cellweft.tl._dominant_genes` tests which genes are decisive for a segment of the tissue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cellweft._compute import parse_memory, progress_callback, row_blocks
from cellweft._errors import (
    InputError,
    MemoryBudgetError,
    arg,
    check_choice,
    check_kind,
    checks_kinds,
    require,
)
from cellweft._provenance import stamp
from cellweft._text import enough_bytes, human_bytes, near
from cellweft._typing import DoubleArray, FloatArray, IntArray, ProgressOption
from cellweft.data._pair import Pair
from cellweft.data.io.keys import RECORD
from cellweft.nn.integrated_gradients import Explain, integrated_gradients, mapping_weight
from cellweft.nn.mapping import BLOCK_ENTRIES, Mapping

if TYPE_CHECKING:
    from anndata import AnnData

_MOST_POINTS = 2048  # per evaluation; more is not faster
_MOST_ROWS = 512  # cells per progress report
_GENE_COPIES = 6  # copies of a point's genes: path, gradients, weighted gradients, and results
_HIDDEN_COPIES = 48  # copies of a query: layers of the published encoder (512, 256, 128), with gradients
_TILE_COPIES = 4


Groups: TypeAlias = "Sequence[Any] | NDArray[Any] | pd.Series"
"""The group of each cell."""


Cells: TypeAlias = "Sequence[int] | Sequence[str] | NDArray[Any] | pd.Index | AnnData | None"
"""Some of the placed cells: positions, names, booleans, an AnnData; None for all."""


class QueryModel(Protocol):
    """Maps the expression of cells to queries for their spots."""

    def queries(self, values: torch.Tensor) -> torch.Tensor:
        """Return (n_cells, n_latent) queries of (n_cells, n_genes) values, differentiable."""


@runtime_checkable
class Explained(Protocol):
    """The attributes of a placement that an explanation needs; `cellweft.Placement` has them."""

    @property
    def pair(self) -> Pair:
        """The placed cells, as its reference, and the spots."""

    @property
    def model(self) -> QueryModel:
        """The encoder of the cells."""

    @property
    def spots(self) -> torch.Tensor:
        """(n_spots, n_latent) keys of the spots, on the device of the model."""

    @property
    def spot_groups(self) -> dict[str, IntArray]:
        """Positions of the spots of each slice, by name."""

    @property
    def slice_of_cells(self) -> IntArray:
        """(n_cells,) index of each cell's slice in `spot_groups`."""

    @property
    def genes(self) -> NDArray[np.str_]:
        """(n_genes,) names of the model's genes."""

    def values(self, rows: IntArray) -> FloatArray:
        """Return the model input of some cells, (n_rows, n_genes)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """The contribution of each gene to the weight of a cell at its spot. Returned by `attribute`.

    Attributes
    ----------
    values
        (n_cells, n_genes) attributions: the part of `explained` that each gene contributes. Positive if the
        gene favours the spot of the cell, negative if it disfavours it.
    genes
        (n_genes,) names of the genes.
    cells, cell_names
        (n_cells,) indices and names of the placed cells.
    spot, spot_names
        (n_cells,) index and name of the spot with the largest weight, which is explained.
    explained
        (n_cells,) F(x) - F(0): by how much the weight (or its logarithm, or the product) exceeds that of a
        cell without expression.
    completeness_gap
        (n_cells,) absolute difference between `explained` and the sum of a cell's attributions.
    record
        How the attributions were made: what, steps, tolerance and versions, as plain values.
    """

    values: FloatArray
    genes: NDArray[np.str_]
    cells: IntArray
    cell_names: NDArray[np.str_]
    spot: IntArray
    spot_names: NDArray[np.str_]
    explained: DoubleArray
    completeness_gap: DoubleArray
    record: dict[str, Any]

    def __repr__(self) -> str:
        text = f"Attribution({self.values.shape[0]:,} cells x {self.values.shape[1]:,} genes"
        if len(self.cells):
            middle, most = np.quantile(self.relative_gap, [0.5, 1.0])
            text += f"; completeness gap: median {middle:.2%}, largest {most:.2%} of what is explained"
        return text + ")"

    @property
    def relative_gap(self) -> DoubleArray:
        """The completeness gap relative to the explained weight, (n_cells,).

        0 if there is no gap, and infinite if there is a gap but nothing to explain.
        """
        size = np.abs(self.explained)
        unexplained = np.where(self.completeness_gap > 0, np.inf, 0.0)
        return np.divide(self.completeness_gap, size, out=unexplained, where=size > 0)

    def to_anndata(self) -> AnnData:
        """Return the attributions as AnnData.

        ``obs`` contains ``spot`` (its name), ``explained``, ``completeness_gap`` and ``relative_gap``,
        and ``uns["cellweft"]`` contains the record.
        """
        from anndata import AnnData

        obs = pd.DataFrame(
            {
                "spot": self.spot_names.astype(object),
                "explained": self.explained,
                "completeness_gap": self.completeness_gap,
                "relative_gap": self.relative_gap,
            },
            index=pd.Index(self.cell_names.astype(object)),
        )
        var = pd.DataFrame(index=pd.Index(self.genes.astype(object)))
        return AnnData(self.values.copy(), obs=obs, var=var, uns={RECORD: dict(self.record)})

    def mean_by(self, labels: Groups) -> pd.DataFrame:
        """Return the mean attribution of each gene in each group of cells.

        Parameters
        ----------
        labels
            (n_cells,) the group of each cell.

        Returns
        -------
        n_labels x n_genes, with sorted groups (in the order of a categorical).

        Raises
        ------
        InputError
            Not one label for each cell.
        """
        groups = groups_of(labels, len(self.cells), where="labels")
        values = pd.DataFrame(self.values.astype(np.float64), columns=self.genes.astype(object))
        means: pd.DataFrame = values.groupby(np.asarray(groups.codes)).mean()
        return means.set_axis(pd.Index(groups.categories), axis=0)


@checks_kinds
def attribute(
    placed: Explained,
    cells: Cells = None,
    *,
    what: Explain = "weight",
    steps: int = 50,
    most_steps: int = 6400,
    tolerance: float = 0.01,
    memory: str | int = "1 GB",
    progress: ProgressOption = True,
) -> Attribution:
    """Explain the positions of placed cells, by integrated gradients of each cell's largest mapping weight.

    Parameters
    ----------
    placed
        A placement.
    cells
        Cells to explain: indices, booleans (n_placed,), names, or an AnnData of some of them, without
        repetition and in the order of the result. All by default.
    what
        "weight", as in the text of the paper; "log weight", which also works for cells whose weight is near 0
        or 1; or "product", the product of the embeddings of the cell and its spot, z_cell z_spot, which the
        paper used to find dominant genes. It measures the similarity to this spot regardless of the others.
    steps
        Number of points on the path from a cell without expression to the cell, at least 1.
    most_steps
        If the gap is too large, the steps of the path are halved repeatedly, up to this number of points.
    tolerance
        Accepted gap, relative to the explained value; at least 0. The result contains the remaining gaps.
    memory
        Budget for attributions and all intermediates, such as "4 GB".
    progress
        True shows a bar in terminals and notebooks, False shows nothing; a callback is called with
        (stage, done, total) in cells.

    Returns
    -------
    Attribution of every gene of the model in every cell. A cell without counts has attributions of 0, and its
    spot is meaningless.

    Raises
    ------
    InputError
        Cells are not placed, unknown or repeated.
    MemoryBudgetError
        The result does not fit in the budget.
    SettingError
        An option is unknown or a number is out of range.
    MissingExtraError
        captum is not installed.

    Notes
    -----
    STEM, "Attribution function": W_ij = x_j times the integral of dF(a x)/dx_j over a from 0 to 1, where F is
    the mapping weight C_im and m the spot with the largest weight at x, which stays the same along the path.
    The baseline is the zero vector. With ``what="product"``, F is z_i z_m instead of C_im. With several
    slices, F is the weight among the spots of the cell's own slice. Cells and spots are processed in blocks;
    a matrix of cells x spots is never created.
    """
    check_choice("what", what, get_args(Explain))
    check_placement(placed)
    captum = require("captum", "explain")  # fail before reading data
    names, genes = placed.pair.sc.obs_names.to_numpy(dtype=str), np.asarray(placed.genes, dtype=str)
    positions = cell_positions(cells, names)
    n_cells = len(positions)
    points, entries = _sizes(
        parse_memory(memory), n_cells=n_cells, n_genes=len(genes), n_latent=placed.spots.shape[1]
    )
    values = np.empty((n_cells, len(genes)), dtype=np.float32)
    explained, gap, spot = np.empty(n_cells), np.empty(n_cells), np.empty(n_cells, dtype=np.int64)
    done = 0
    with progress_callback(progress) as report:
        for part, spots in _blocks(placed, positions, size=min(points, _MOST_ROWS)):
            inputs = np.asarray(placed.values(positions[part]), dtype=np.float32)
            expression = torch.from_numpy(inputs).to(placed.spots.device)  # n_rows x n_genes
            keys = placed.spots[torch.from_numpy(spots)]
            with torch.no_grad():
                mapping = Mapping(queries=placed.model.queries(expression), keys=keys, block_entries=entries)
                nearest = mapping.topk(1)[1][:, 0]
            weight = mapping_weight(placed.model.queries, keys, nearest, what=what, tile_entries=entries)
            attributed = integrated_gradients(
                weight, expression, steps=steps, most_steps=most_steps, tolerance=tolerance, block=points
            )
            values[part], explained[part], gap[part] = (
                attributed.attributions,
                attributed.explained,
                attributed.gap,
            )
            spot[part] = spots[nearest.cpu().numpy()]
            done += len(part)
            report("attribute", done, n_cells)
    how = {"what": what, "steps": steps, "most_steps": most_steps, "tolerance": tolerance}
    record = stamp("attribution") | how
    return Attribution(
        values=values,
        genes=genes,
        cells=positions,
        cell_names=names[positions],
        spot=spot,
        spot_names=placed.pair.st.obs_names.to_numpy(dtype=str)[spot],
        explained=explained,
        completeness_gap=gap,
        record=record | {"versions": record["versions"] | {"captum": str(captum.__version__)}},
    )


def check_placement(placed: Any) -> None:
    """Raise `InputError` unless ``placed`` is a placement."""
    check_kind(
        "placed",
        placed,
        Explained,
        expected="a placement",
        fix="Place the cells first: placed = cellweft.Placer().fit(pair).place().",
    )


def groups_of(labels: Any, n_cells: int, *, where: str) -> pd.Categorical:
    """Return labels as a categorical without missing ones and without empty categories.

    Parameters
    ----------
    labels
        (n_cells,) group of each cell: text, numbers or a categorical.
    n_cells
        Number of cells.
    where
        Name of the labels in errors.

    Raises
    ------
    InputError
        Not one label for each cell.
    """
    groups = pd.Categorical(labels).remove_unused_categories()
    if len(groups) != n_cells or (groups.codes < 0).any():
        missing = int((groups.codes < 0).sum())
        raise InputError(
            where,
            expected=f"one for each of the {n_cells:,} cells of the attribution",
            got=f"{len(groups):,}" + (f", {missing:,} of them missing" if missing else ""),
            fix="Pass them in the order of attribution.cell_names, and remove cells without one.",
        )
    return groups


def _blocks(placed: Explained, cells: IntArray, *, size: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield (places in ``cells``, spots of their slice), slice by slice."""
    groups = list(placed.spot_groups.values())
    number = placed.slice_of_cells[cells]
    for group in np.unique(number):
        places = np.flatnonzero(number == group)
        for part in row_blocks(len(places), size):
            yield places[part], groups[group]


def _sizes(budget: int, *, n_cells: int, n_genes: int, n_latent: int) -> tuple[int, int]:
    """Return the number of points per evaluation, and of products of points and spots in memory."""
    answer = 4 * n_cells * n_genes
    # a quarter of the remaining memory
    entries = min(BLOCK_ENTRIES, max(budget - answer, 0) // (4 * 4 * _TILE_COPIES))
    per_point = 4 * (_GENE_COPIES * n_genes + _HIDDEN_COPIES * n_latent)
    points = (budget - answer - 4 * _TILE_COPIES * entries) // per_point
    if points < 1:
        raise MemoryBudgetError(
            "memory",
            expected=f"at least {enough_bytes(answer + 2 * per_point)}, to explain {n_cells:,} cells",
            got=human_bytes(budget),
            fix="Raise " + arg("memory") + ", or explain fewer cells at a time.",
        )
    return min(points, _MOST_POINTS), max(entries, 1)


def cell_positions(cells: Any, names: NDArray[np.str_]) -> IntArray:
    """Return positions of the requested cells, in the requested order."""
    from anndata import AnnData

    if cells is None:
        return np.arange(len(names))
    wanted = np.asarray(cells.obs_names if isinstance(cells, AnnData) else cells)
    if wanted.dtype == bool and wanted.shape == names.shape:
        return np.flatnonzero(wanted)
    fix = "Choose the placed cells to explain."
    if wanted.ndim != 1 or (wanted.dtype.kind not in "iuOUST" and len(wanted)):
        expected, got = f"positions, names, an AnnData or {len(names):,} booleans", str(wanted.dtype)
        raise InputError("cells", expected=expected, got=f"{got} of shape {wanted.shape}", fix=fix)
    positions = wanted.astype(np.int64) if wanted.dtype.kind in "iuf" else _by_name(wanted.astype(str), names)
    outside = (positions < 0) | (positions >= len(names))
    if outside.any() or len(np.unique(positions)) < len(positions):
        expected = f"positions from 0 to {len(names) - 1:,}, each once"
        got = f"{positions[outside][0]}" if outside.any() else "some cells more than once"
        raise InputError("cells", expected=expected, got=got, fix=fix)
    return positions


def _by_name(wanted: NDArray[np.str_], names: NDArray[np.str_]) -> IntArray:
    index = pd.Index(names)
    twice = index[index.duplicated()].intersection(pd.Index(wanted))
    missing = pd.Index(wanted).difference(index)
    if len(twice) or len(missing):
        name = str(missing[0] if len(missing) else twice[0])
        raise InputError(
            "cells",
            expected="names of placed cells, each of a single cell",
            got=f"{name!r}, which {'no cell has' if len(missing) else 'several cells have'}",
            fix=near(name, names[:10_000]) if len(missing) else "Use positions instead.",
        )
    return np.asarray(index.get_indexer_for(pd.Index(wanted)), dtype=np.int64)
