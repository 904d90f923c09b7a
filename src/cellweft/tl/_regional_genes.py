"""Genes that differ between parts of the tissue: regions, bins of an axis, or distance from a cell type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import BLOCK_VALUES, READ_ROWS, parse_memory, row_blocks
from cellweft._errors import (
    InputError,
    SettingError,
    arg,
    array_of,
    check_array,
    check_choice,
    check_known,
    check_range,
    checks_kinds,
)
from cellweft._text import shorten
from cellweft._typing import BoolArray, DoubleArray, IntArray
from cellweft.data._pair import Labels, coordinates_of, labels_of
from cellweft.data.io.columns import column_of
from cellweft.tl._attribution import Cells, cell_positions, check_placement
from cellweft.tl._dominant_genes import rank_sum_tests

if TYPE_CHECKING:
    from cellweft.data.side import Side
    from cellweft.place.placement import Placement

Of: TypeAlias = Literal["cells", "spots"]
"""Which expression to compare: that of the placed cells, or the measurements of the spots."""

_FEWEST = 2  # smallest number of cells of a tested region
_COPIES = 8  # copies of a block of values: ranks, their order, sums


@checks_kinds
def regional_genes(
    placed: Placement,
    regions: str | Sequence[Any] | NDArray[Any] | pd.Series,
    *,
    of: Of = "cells",
    cells: Cells = None,
    genes: Sequence[str] | None = None,
    reference: str | None = None,
    fdr: float = 0.05,
    memory: str | int = "1 GB",
) -> pd.DataFrame:
    """Find the genes that are more highly expressed in one region of the tissue than in the others.

    Parameters
    ----------
    placed
        A placement.
    regions
        (n_chosen,) the region of every selected cell (or spot), from `regions_of`, `axis_bins` or
        `near_type`, or your own. Cells whose region is missing (None, NaN) are left out. Or a column of
        ``obs`` of the spots, such as "layer"; a cell then gets the value of the spot nearest to its position.
    of
        "cells": compare the log-normalised expression of the placed cells, for all genes of the reference.
        "spots": compare the measurements of the spots.
    cells
        Cells (or spots) to use, such as those of one type: indices, names or booleans; all by default.
    genes
        Names of genes of the cells (or spots); all by default.
    reference
        Region to compare the others with; by default, each region is compared with all others together.
    fdr
        False discovery rate, 0 to 1, within a region.
    memory
        Budget for the block of genes that is read at once. Smaller blocks need more passes over a file.

    Returns
    -------
    DataFrame
        One row per gene and region of two or more cells: ``region``, ``gene``, ``statistic``, ``auc``,
        ``difference`` of the mean log-normalised expression, ``p`` and ``fdr`` as in `dominant_genes`, and
        ``higher``: whether the gene is significant and higher inside. Sorted by region, then by
        ``statistic``, highest first.

    Raises
    ------
    InputError
        ``placed`` is not a placement; the number of regions differs from that of the cells; there are fewer
        than two regions with two cells.
    KeyMissingError, GeneError
        The column or gene does not exist.
    SettingError
        ``of``, ``reference`` or ``fdr`` is out of range.

    Notes
    -----
    "Statistics and reproducibility" of Hao et al. 2024 (STEM): the Wilcoxon rank-sum test of each group
    against the union of the rest, of log-normalised values, with false discovery rates of Benjamini-Hochberg.
    The paper used it to find the genes of the layers of the cortex, of ten bins of the liver's axis, of
    fibroblasts near the portal and the central vein, and of spots near plasmacytoid dendritic cells.

    Cells were placed by their expression, so p-values of genes that the model uses (``placed.genes``) only
    rank genes; they do not prove a gradient. The cells of a region are not independent draws either.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
    >>> placer = cellweft.Placer(settings={"steps": 5, "models": 1})
    >>> placed = placer.fit(cellweft.pair(tissue.sc, tissue.st)).place()
    >>> depth = axis_bins(placed.coordinates()[:, 1], 2)
    >>> table = regional_genes(placed, depth, genes=["Gene01", "Gene02"])
    >>> table[["region", "gene"]].to_numpy().shape
    (4, 2)
    """
    check_placement(placed)
    check_choice("of", of, get_args(Of))
    check_range("fdr", fdr, low=0, high=1)
    side: Side = placed.pair.sc if of == "cells" else placed.pair.st
    chosen = cell_positions(cells, side.obs_names.to_numpy(dtype=str))
    if isinstance(regions, str):
        own = regions_of(placed, regions) if of == "cells" else _spot_labels(placed, regions)
        regions = own[chosen]
    groups, in_regions = _groups(regions, len(chosen), reference)
    positions, names = _gene_positions(side, genes)
    rows = chosen[in_regions]

    def read(some: slice) -> DoubleArray:
        parts = [side.dense(rows[part], positions[some]) for part in row_blocks(len(rows), READ_ROWS)]
        return np.concatenate(parts).astype(np.float64)

    budget = max(parse_memory(memory) / (8 * _COPIES), BLOCK_VALUES / 64)
    table = rank_sum_tests(read, groups, names, reference=reference, block_values=budget)
    table = table.rename(columns={"segment": "region"})
    table["higher"] = (table["fdr"] < fdr) & (table["auc"] > 0.5)
    return table.sort_values(
        ["region", "statistic"], ascending=[True, False], kind="stable", ignore_index=True
    )


@checks_kinds
def regions_of(placed: Placement, column: str) -> NDArray[Any]:
    """Return the region of every placed cell: that of the spot nearest to its position.

    Parameters
    ----------
    placed
        A placement.
    column
        Column of ``obs`` of the spots with a region, layer or other label of each.

    Returns
    -------
    (n_cells,) labels, None if the spot has none. Only spots of the cell's own slice are considered.

    Raises
    ------
    InputError
        ``placed`` is not a placement.
    KeyMissingError
        No such column.

    Notes
    -----
    As in the paper's analysis of the cortex, where placed cells were grouped by their positions.
    """
    check_placement(placed)
    labels, places, spots_at = _spot_labels(placed, column), placed.coordinates(), coordinates_of(placed.pair)
    regions = np.full(len(places), None, dtype=object)
    for number, spots in enumerate(placed.spot_groups.values()):
        cells = np.flatnonzero(placed.slice_of_cells == number)
        if len(cells):
            regions[cells] = labels[spots[cKDTree(spots_at[spots]).query(places[cells])[1]]]
    return regions


def axis_bins(
    position: NDArray[Any], bins: int = 10, *, by: Literal["length", "cells"] = "length"
) -> pd.Categorical[str]:
    """Divide an axis into bins, and return the bin of every cell.

    Parameters
    ----------
    position
        (n_cells,) positions along the axis, for example from `Axis.position`, or a score from
        `Placement.transfer`; NaN if a cell has none.
    bins
        Number of bins, at least 2.
    by
        "length": bins of equal length. "cells": bins with equal numbers of cells.

    Returns
    -------
    Categorical
        "bin 01" and so on, ordered; missing if the position is missing.

    Raises
    ------
    InputError
        The positions are not one number per cell, or are all the same.
    SettingError
        ``bins`` or ``by`` is out of range.

    Examples
    --------
    >>> list(axis_bins(np.array([0.0, 1.0, 2.0, 10.0]), 2))
    ['bin 1', 'bin 1', 'bin 1', 'bin 2']
    >>> list(axis_bins(np.array([0.0, 1.0, 2.0, 10.0]), 2, by="cells"))
    ['bin 1', 'bin 1', 'bin 2', 'bin 2']
    """
    check_range("bins", bins, low=2, high=10**6, integer=True)
    check_choice("by", by, ("length", "cells"))
    along = array_of("position", position, fix="Pass one position per cell.", numbers=False)
    is_number = along.dtype.kind in "biuf"
    is_known = ~np.isnan(along.astype(np.float64)) if is_number else np.zeros(along.shape, dtype=np.bool_)
    check_array(
        "position",
        along[is_known],
        fits=along.ndim == 1 and is_number and bool(is_known.any()),
        expected="one number per cell",
        fix="Pass the positions of all cells as one column.",
    )
    values = along[is_known].astype(np.float64)
    if values.min() == values.max():
        got = f"{len(values):,} cells at the same position"
        fix = "Check how the positions were computed."
        raise InputError("position", expected="cells at different positions", got=got, fix=fix)
    if by == "cells":
        rank = np.empty(len(values), dtype=np.int64)
        rank[np.argsort(values, kind="stable")] = np.arange(len(values))
        number = rank * bins // len(values)
    else:
        edges = np.linspace(values.min(), values.max(), bins + 1)[1:-1]
        number = np.searchsorted(edges, values, side="right")
    codes = np.full(len(along), -1, dtype=np.int64)
    codes[is_known] = number
    width = len(str(bins))
    names = pd.Index([f"bin {bin_number:0{width}d}" for bin_number in range(1, bins + 1)])
    return pd.Categorical.from_codes(codes, names, ordered=True)


@checks_kinds
def near_type(
    placed: Placement, cell_type: str, *, of: Of = "cells", within: float | None = None, labels: Labels = None
) -> NDArray[Any]:
    """Return whether each cell (or spot) is near placed cells of a type, or far from them.

    Parameters
    ----------
    placed
        A placement.
    cell_type
        One of the types of the cells.
    of
        "cells" or "spots".
    within
        Largest distance that counts as near, above 0, in the unit of the coordinates; by default the spacing
        of the spots.
    labels
        Cell types: a column of the cells' ``obs``, (n_cells,) values, or None for ``pair.labels``.

    Returns
    -------
    (n_cells,) or (n_spots,) "near" or "far"; None for cells of the type itself, and for spots without counts.

    Raises
    ------
    InputError, KeyMissingError
        ``placed`` is not a placement, or the labels do not exist.
    SettingError
        No such type, or ``within`` out of range.

    Notes
    -----
    The paper's comparison of spots near plasmacytoid dendritic cells with other spots is
    ``regional_genes(placed, near_type(placed, "PDC", of="spots"), of="spots")``. Distances are only computed
    within a slice.
    """
    check_placement(placed)
    check_choice("of", of, get_args(Of))
    if within is not None:
        check_range("within", within, low=1e-12)
    reach = placed.pair.spacing or 1.0 if within is None else within
    types = labels_of(placed.pair, labels)
    check_known(cell_type, np.unique(types), "cell_type", expected="a type of the cells", error=SettingError)
    places, spots_at = placed.coordinates(), coordinates_of(placed.pair)
    sides = np.full(len(places) if of == "cells" else len(spots_at), None, dtype=object)
    for number, spots in enumerate(placed.spot_groups.values()):
        cells = np.flatnonzero(placed.slice_of_cells == number)
        is_type = types[cells] == cell_type
        selected = cells[~is_type] if of == "cells" else spots
        if len(selected):
            points = places[selected] if of == "cells" else spots_at[selected]
            sides[selected] = np.where(_reached(points, places[cells[is_type]], reach), "near", "far")
    return sides


def _reached(points: DoubleArray, of: DoubleArray, within: float) -> BoolArray:
    if not len(of):
        return np.zeros(len(points), dtype=np.bool_)
    return np.asarray(cKDTree(of).query(points)[0] <= within * (1 + 1e-12))


def _spot_labels(placed: Placement, column: str) -> NDArray[Any]:
    side = placed.pair.st
    values = column_of(side.obs, column, where=f"the spots ({side.source})", argument="regions")
    labels = values.astype(object).to_numpy(copy=True)
    labels[np.asarray(values.isna())] = None
    return labels


def _groups(regions: Any, n_cells: int, reference: str | None) -> tuple[pd.Categorical, IntArray]:
    """Return the regions of cells that have one, and the positions of these cells."""
    labels = pd.Categorical(regions) if np.ndim(regions) == 1 else None
    if labels is None or len(labels) != n_cells:
        raise InputError(
            "regions",
            expected=f"a column of obs of the spots, or a region for each of {n_cells:,}",
            got=f"{len(labels):,}" if labels is not None else f"shape {np.shape(regions)}",
            fix="Pass the regions of the chosen cells, in their order.",
        )
    labelled = np.flatnonzero(labels.codes >= 0)
    groups = labels[labelled].remove_unused_categories().rename_categories(str)
    sizes = np.bincount(groups.codes, minlength=len(groups.categories))
    if (sizes >= _FEWEST).sum() < 2:
        named = [f"{name} ({size:,})" for name, size in zip(groups.categories, sizes, strict=True)]
        raise InputError(
            "regions",
            expected=f"at least two regions with {_FEWEST} or more cells",
            got=shorten(named) if named else "none",
            fix="Merge small regions, or choose more cells.",
        )
    if reference is not None:
        large = groups.categories[sizes >= _FEWEST].tolist()
        expected = f"a region with {_FEWEST} or more cells, or None for all others"
        check_known(reference, large, "reference", expected=expected, error=SettingError)
    return groups, labelled


def _gene_positions(side: Side, genes: Sequence[str] | None) -> tuple[IntArray, NDArray[np.str_]]:
    from cellweft.data.gene_names import find_names

    if genes is None:
        return np.arange(side.n_genes), side.genes
    positions = find_names([genes] if isinstance(genes, str) else list(genes), side.genes, where="genes")
    if not len(positions):
        fix = "List some, or leave " + arg("genes") + " out."
        raise InputError("genes", expected="genes to compare", got="none", fix=fix)
    return positions, side.genes[positions]
