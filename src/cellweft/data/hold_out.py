"""The two sides of a pair as if some genes had never been measured in the tissue, or with other counts.

Held-out genes are removed first: scale, totals, the total to which cells are normalised, and empty cells and
genes are determined again from the remaining genes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._compute import READ_ROWS, row_blocks
from cellweft._errors import InputError
from cellweft._typing import DoubleArray, IntArray, Scale
from cellweft.data.batches import with_batches
from cellweft.data.expression_scale import judge_scale, scan_values
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.obs_table import HeldTable
from cellweft.data.side import Side
from cellweft.data.value_cautions import FEW_GENES


def cut_tissue(side: Side, genes: IntArray, *, detect_scale: bool) -> Side:
    """Return a spatial side as if only some of its genes had been measured.

    Parameters
    ----------
    side
        The spatial data.
    genes
        (n_kept,) positions of the remaining genes.
    detect_scale
        Whether to detect the scale again from these genes; otherwise it stays as given by the user.

    Returns
    -------
    The side with only these genes. Its cells are normalised by the sum of these genes, for any scale of the
    values; an earlier normalisation by the totals of all genes is removed. Size factors are not used, because
    they may depend on all genes. Only the names of the cells remain of ``obs``, and nothing of ``obsm`` and
    ``uns``, because embeddings, totals and clusters may depend on all genes.

    Raises
    ------
    InputError
        No cell has counts in these genes.
    """
    scan = scan_values(side.matrix, side.columns[genes])
    judged = judge_scale(side.matrix, side.columns[genes])
    is_new = detect_scale and judged.is_sure and judged.scale in get_args(Scale)
    scale = cast(Scale, judged.scale) if is_new else side.scale
    sums = scan.totals if side.rows is None else scan.totals[side.rows]
    empty = sums == 0
    if empty.all():
        raise InputError(
            "genes",
            expected="held-out genes that leave counts in at least one cell",
            got=f"{side.n_cells:,} cells without any counts in the {len(genes):,} remaining genes",
            fix="Hold out fewer genes.",
        )
    totals = _sums_of_logarithms(side, genes) if scale == "log" else sums
    return dataclasses.replace(
        _of_genes(side, genes),
        table=HeldTable(pd.DataFrame(index=side.table.names())),
        arrays={},
        uns={},
        layers={},
        scale=scale,
        totals=totals,
        target=float(np.median(totals[~empty])),
        has_sizes=False,
        divided_by_sum=True,
        sparsity=scan.sparsity,
        empty_cells=empty,
        gene_cells=scan.gene_cells,
    )


def panel_reference(side: Side, panel: IntArray) -> Side:
    """Return a reference with only the genes of the panel, held out or not.

    Parameters
    ----------
    side
        The reference.
    panel
        (n_panel,) positions of the panel genes, held out or not; the reference contains all of them.

    Returns
    -------
    The side with these genes. If the reference is a part of the transcriptome, without size factors, its
    counts are normalised by the sum of the panel, and its batches are compared again with these genes. A
    whole transcriptome keeps its totals, which are also used to normalise cells in imputation, and the levels
    of its batches.
    """
    if not _is_part(side) or side.scale != "raw" or side.has_sizes:
        return _of_genes(side, panel)
    scan = scan_values(side.matrix, side.columns[panel])
    totals = scan.totals if side.rows is None else scan.totals[side.rows]
    empty = totals == 0
    cut = dataclasses.replace(
        _of_genes(side, panel),
        totals=totals,
        target=float(np.median(totals[~empty])),
        empty_cells=empty,
        gene_cells=scan.gene_cells,
    )
    return cut if cut.batches is None else with_batches(cut, cut.batches)


def whole_genes(side: Side, panel: IntArray) -> NDArray[np.str_]:
    """Return the genes that determine the sizes of reference cells: the panel, or the whole transcriptome."""
    return side.genes[panel] if _is_part(side) else side.genes


def check_as_measured(findings: dict[str, Any]) -> None:
    """Raise `InputError` if the counts of a pair were corrected with genes that are to be held out."""
    if "spillover_removed" in findings:
        raise InputError(
            "pair",
            expected="counts as measured, because a trace of held-out genes remains in corrected counts",
            got="a pair from which spill-over was removed",
            fix="Hold out the genes first: remove_spillover(pair.hold_out(genes)).",
        )


def with_counts(side: Side, genes: IntArray, counts: sp.csr_matrix, *, totals: DoubleArray) -> Side:
    """Return a side with only some of its genes, and other counts of these.

    Parameters
    ----------
    side
        A side with counts.
    genes, counts
        (n_kept,) positions of genes, and (n_cells, n_kept) their counts, in memory.
    totals
        (n_cells,) sizes of the cells.
    """
    matrix = counts
    if side.rows is not None:  # the other rows of the input are not cells of this side
        place = np.full(side.matrix.shape[0], len(side.rows))
        place[side.rows] = np.arange(len(side.rows))
        matrix = sp.vstack([counts, sp.csr_matrix((1, len(genes)), dtype=counts.dtype)], format="csr")[place]
    return dataclasses.replace(
        _of_genes(side, genes),
        matrix=open_rows(sp.csr_matrix(matrix)),
        columns=np.arange(len(genes)),
        totals=totals,
        sparsity=1 - counts.nnz / max(counts.shape[0] * counts.shape[1], 1),
        gene_cells=np.asarray(counts.getnnz(axis=0), dtype=np.int64),
        layers={},
    )


def _of_genes(side: Side, genes: IntArray) -> Side:
    """Return a side with some of its genes, given by position, and the same normalisation."""
    by_gene = ("genes", "input_names", "columns", "gene_cells", "symbols", "gene_ids")
    parts: dict[str, Any] = {name: getattr(side, name)[genes] for name in by_gene}
    if side.batches is not None:
        parts["batches"] = side.batches.of_genes(genes)
    return dataclasses.replace(side, **parts)


def _is_part(side: Side) -> bool:
    """Return whether a reference is only a part of the transcriptome."""
    return side.n_genes < FEW_GENES


def side_counts(side: Side) -> dict[str, Any]:
    """Return the findings of a pair for a side with genes removed, as plain values that JSON can store."""
    return {
        "genes": side.n_genes,
        "scale": side.scale,
        "sparsity": round(float(side.sparsity), 4),
        "median_total": side.target,
        "size_factor": None,
        "median_size": side.target,
        "empty_cells": int(side.empty_cells.sum()),
        "empty_genes": int(side.empty_genes.sum()),
        "labels": "",
        "label_counts": {},
    }


def _sums_of_logarithms(side: Side, genes: IntArray) -> DoubleArray:
    """Return each cell's sum of expm1 over genes, which inverts the logarithms."""
    sums = np.zeros(side.n_cells)
    for rows in row_blocks(side.n_cells, READ_ROWS):
        block = side.stored(rows, genes)
        values = sp.csr_matrix(block).astype(np.float64)
        values.data = np.expm1(values.data)
        sums[rows] = np.asarray(values.sum(axis=1)).ravel()
    return sums
