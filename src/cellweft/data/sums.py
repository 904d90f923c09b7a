"""Detects rows and columns that are sums or other statistics of all others, not cells or genes."""

from __future__ import annotations

import re

import numpy as np

from cellweft._compute import READ_BYTES, row_blocks, rows_within
from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft._typing import DoubleArray, IntArray
from cellweft.data.expression_scale import Scan
from cellweft.data.io.backed_matrix import RowSource
from cellweft.data.io.features import FEWEST_SUMMED
from cellweft.data.io.lazy_input import Input

_STATISTIC = re.compile(
    r"\W*(grand[ _]?|row[ _]?|col(umn)?[ _]?)?"
    r"((sub)?totals?|sums?|means?|averages?|avg|medians?|std ?dev)\W*",
    re.IGNORECASE,
)
"""Names of rows with a statistic, not of cells."""
_FEWEST_CELLS = 10  # number of cells that rules out a sum by chance


def refuse_statistics(data: Input) -> None:
    """Raise `FormatError` if rows have names of sums or means."""
    names = (str(name) for block in data.obs.name_blocks() for name in block)
    called = [name for name in names if _STATISTIC.fullmatch(name)]
    if called:
        raise _no_cell(data.where, called[0], f"rows named like sums or means: {shorten(called)}")


def refuse_sums(data: Input, source: RowSource, scan: Scan, *, cells: IntArray | None) -> None:
    """Raise `FormatError` if a row is the sum of all other rows, or a column that of all other genes.

    Parameters
    ----------
    data
        The input, for names in errors.
    source, scan
        The values of the used cells, and their scan.
    cells
        Rows of the input with these cells; None for all.
    """
    n_cells = len(scan.totals)
    row = _half_of(scan.totals, rtol=1e-5)
    if n_cells >= FEWEST_SUMMED and row is not None and _is_sum(source, row, data.columns):
        name = data.obs.names()[row if cells is None else cells[row]]
        raise _no_cell(data.where, str(name), "the sums of all other rows")
    # Projections use random weights of cells, so that an equality for them is true in each cell.
    gene = _half_of(scan.projections, rtol=1e-5)
    n_filled = np.count_nonzero(scan.totals)
    few = n_filled < _FEWEST_CELLS or np.count_nonzero(scan.gene_cells) < FEWEST_SUMMED
    if gene is not None and not few and scan.gene_cells[gene] == n_filled:
        name = str(data.var.index[gene])
        raise FormatError(
            f"{data.where}, column {name!r}",
            expected="a gene",
            got="the sums of all other genes, which would halve every gene's share",
            fix="Remove this column.",
        )


def _half_of(values: DoubleArray, *, rtol: float) -> int | None:
    """Return the position of the value that is the sum of all others."""
    place = int(np.argmax(values)) if len(values) else 0
    total = values.sum()
    return place if total > 0 and np.isclose(2 * values[place], total, rtol=rtol, atol=0) else None


def _is_sum(source: RowSource, row: int, columns: IntArray | None) -> bool:
    """Return whether a row is the sum of all others in each column."""
    sums = np.zeros(source.shape[1] if columns is None else len(columns))
    for rows in row_blocks(source.shape[0], rows_within(READ_BYTES, source.row_bytes)):
        sums += np.asarray(source.read(rows, columns).sum(axis=0), dtype=np.float64).ravel()
    values = np.asarray(source.read(slice(row, row + 1), columns).sum(axis=0), dtype=np.float64).ravel()
    return bool(np.allclose(2 * values, sums, rtol=1e-4))


def _no_cell(where: str, name: str, got: str) -> FormatError:
    return FormatError(
        f"{where}, row {name!r}",
        expected="a row per cell",
        got=got,
        fix="Remove this row, or rename the cell.",
    )
