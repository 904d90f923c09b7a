"""What the values of a matrix are: one pass over its rows, and the judgement from it.

Raw counts are whole numbers. Counts divided by a size, and the logarithm of that, are told apart by a trace
that the whole numbers leave: within a cell the values (or their exponentials) are whole multiples of the
smallest one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cellweft._compute import READ_BYTES, row_blocks, rows_within
from cellweft._typing import DoubleArray, IntArray, Matrix, Scale
from cellweft.data.io.backed_matrix import RowSource

MOSTLY_WHOLE = 0.01
"""Counts may hold this fraction of values that are not whole: cells whose integers were not recovered."""

_LARGEST_LOG = 25.0  # log2 of 3e7 counts; counts divided by a size go far beyond it


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """What one pass over a matrix found.

    Attributes
    ----------
    totals, panel_totals
        (n_cells,) sum of each row, over all columns and over the panel's.
    gene_cells
        (n_genes,) cells in which each gene is above zero (or below it).
    n_values
        Entries that are not zero.
    n_fractional, n_negative, n_missing
        Entries that are not whole, below zero, and NaN or infinite.
    missing_at
        Row and column of the first NaN or infinite entry.
    smallest, largest
        Range of the finite values.
    linear_whole, log_whole
        Share of values (of their exponentials less 1) that are whole multiples of their cell's smallest, 0 to
        1.
    """

    totals: DoubleArray
    panel_totals: DoubleArray
    gene_cells: IntArray
    n_values: int
    n_fractional: int
    n_negative: int
    n_missing: int
    missing_at: tuple[int, int] | None
    smallest: float
    largest: float
    linear_whole: float
    log_whole: float

    @property
    def sparsity(self) -> float:
        """Share of entries that are zero."""
        return 1 - self.n_values / max(len(self.totals) * len(self.gene_cells), 1)


def scan_values(
    source: RowSource,
    columns: IntArray | None = None,
    *,
    panel: IntArray | None = None,
    look: Callable[[Matrix], None] = lambda _: None,
) -> Scan:
    """Read a matrix once, block by block, and collect what `judge_scale` and the summary need.

    Parameters
    ----------
    source
        (n_cells, n_columns)
    columns
        The columns that are genes; all by default.
    panel
        Positions among these genes whose sum per cell is wanted too; all by default.
    look
        Called with each block, so that what else all values are wanted for need not read them again.

    Examples
    --------
    >>> from cellweft.data.io.backed_matrix import open_rows
    >>> scan = scan_values(open_rows(np.array([[0.0, 2.0], [1.0, 0.0]])))
    >>> scan.totals, scan.n_values, scan.n_fractional
    (array([2., 1.]), 2, 0)
    """
    n_cells, n_genes = source.shape[0], source.shape[1] if columns is None else len(columns)
    weights = np.ones((n_genes, 2))
    if panel is not None:
        weights[:, 1] = np.bincount(panel, minlength=n_genes)
    totals, panel_totals = np.zeros(n_cells), np.zeros(n_cells)
    gene_cells = np.zeros(n_genes, dtype=np.int64)
    counts = np.zeros(4, dtype=np.int64)  # not zero, fractional, negative, missing
    smallest, largest, missing_at, whole = np.inf, -np.inf, None, (0.0, 0.0)
    for rows in row_blocks(n_cells, rows_within(READ_BYTES, source.row_bytes)):
        block = source.read(rows, columns)
        values = block.data if sp.issparse(block) else block
        finite = np.isfinite(values)
        if not finite.all():
            missing_at = missing_at or _first_missing(block, rows.start)
            values[~finite] = 0
        seen = values, values != np.rint(values), values < 0, ~finite
        counts += [np.count_nonzero(one) for one in seen]
        with_zeros = not sp.issparse(block) or values.size < block.shape[0] * block.shape[1]
        smallest = min(smallest, float(values.min(initial=0.0 if with_zeros else np.inf)))
        largest = max(largest, float(values.max(initial=0.0 if with_zeros else -np.inf)))
        totals[rows], panel_totals[rows] = _sums(block, weights).T
        gene_cells += filled_rows(block)
        look(block)
        if rows.start == 0 and counts[1]:
            whole = _whole_multiples(block[:2000])
    return Scan(
        totals=totals,
        panel_totals=panel_totals,
        gene_cells=gene_cells,
        n_values=int(counts[0]),
        n_fractional=int(counts[1]),
        n_negative=int(counts[2]),
        n_missing=int(counts[3]),
        missing_at=missing_at,
        smallest=smallest,
        largest=largest,
        linear_whole=whole[0],
        log_whole=whole[1],
    )


def judge_scale(scan: Scan) -> Scale | None:
    """Say what the values are; None where they are below zero (centred, scaled), which cellweft cannot use.

    Notes
    -----
    Raw: at most 1 % of the values are not whole. Else the trace of the counts decides (see the module), and
    where several counts per gene are too rare to leave one, the largest value: a logarithm stays below 25.
    """
    if scan.n_negative:
        return None
    if scan.n_fractional <= MOSTLY_WHOLE * scan.n_values:
        return "raw"
    best = max(scan.linear_whole, scan.log_whole)
    if best > 0.5 and abs(scan.linear_whole - scan.log_whole) > 0.2:
        return "normalised" if scan.linear_whole > scan.log_whole else "log"
    return "log" if scan.largest <= _LARGEST_LOG else "normalised"


def _sums(block: Matrix, weights: DoubleArray) -> DoubleArray:
    """Sum each row in float64, so that a sum does not depend on the block: (n_rows, 2)."""
    if sp.issparse(block):
        doubles = block.data.astype(np.float64)
        return np.asarray(sp.csr_matrix((doubles, block.indices, block.indptr), shape=block.shape) @ weights)
    doubles = block.astype(np.float64)
    panel = weights[:, 1].astype(bool)
    return np.column_stack([doubles.sum(axis=1), np.ascontiguousarray(doubles[:, panel]).sum(axis=1)])


def filled_rows(block: Matrix) -> IntArray:
    """Return in how many rows each column is not zero."""
    if sp.issparse(block):
        filled = block.data != 0
        places = block.indices if filled.all() else block.indices[filled]
        return np.asarray(np.bincount(places, minlength=block.shape[1]))
    return np.asarray(np.count_nonzero(block, axis=0))


def _first_missing(block: Matrix, start: int) -> tuple[int, int]:
    if sp.issparse(block):
        place = int(np.flatnonzero(~np.isfinite(block.data))[0])
        return start + int(np.searchsorted(block.indptr, place, side="right")) - 1, int(block.indices[place])
    row, column = np.argwhere(~np.isfinite(block))[0]
    return start + int(row), int(column)


def _whole_multiples(block: Matrix) -> tuple[float, float]:
    """Return the share of whole multiples of the cell's smallest value: as they are, and as exponentials."""
    rows = sp.csr_matrix(block).astype(np.float64)
    rows.eliminate_zeros()
    filled = np.diff(rows.indptr) > 0
    if not filled.any() or rows.data.min() < 0 or rows.data.max() > 700:  # exp would overflow: no logarithm
        return float(filled.any()), 0.0
    shares = []
    for values in (rows.data, np.expm1(rows.data)):
        least = np.minimum.reduceat(values, rows.indptr[:-1][filled])
        ratios = values / np.repeat(least, np.diff(rows.indptr)[filled])
        # 1 is the smallest itself; above 20 rounding hides the trace
        ratios = ratios[(ratios > 1.2) & (ratios < 20)]
        near_whole = np.abs(ratios - np.rint(ratios)) < 0.01
        shares.append(float(near_whole.mean()) if len(ratios) >= 50 else 0.0)
    return shares[0], shares[1]
