"""Compares cells inside a region with all others, for each gene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from cellweft._compute import row_blocks, rows_within
from cellweft._errors import SettingError
from cellweft._typing import BoolArray, DoubleArray, Matrix
from cellweft.viewer.matrix import GeneMatrix

MOST_GENES = 200
"""Number of genes returned by a comparison."""

LEAST_SPREAD = 0.01
"""Lower limit of the pooled spread, in the unit of the values (logarithms)."""


_VALUES = 2**16  # values per block, which fit in the processor's cache


class GoneError(Exception):
    """The client has disconnected."""


def read_inside(body: bytes, n_cells: int) -> BoolArray:
    """Return which cells are inside, from one bit per cell.

    Parameters
    ----------
    body
        ``ceil(n_cells / 8)`` bytes, the first cell in the lowest bit of the first.
    n_cells
        Number of cells of the dataset.

    Raises
    ------
    SettingError
        The length differs, or no cell is inside, or none outside.

    Examples
    --------
    >>> read_inside(bytes([0b00000101]), 4).tolist()
    [True, False, True, False]
    """
    length = -(-n_cells // 8)
    if len(body) != length:
        raise SettingError(
            "body", expected=f"{length} bytes, one bit per cell", got=f"{len(body)}", fix="Send all cells."
        )
    bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8), count=n_cells, bitorder="little")
    inside = bits.astype(bool)
    if not 0 < inside.sum() < n_cells:
        raise SettingError(
            "body",
            expected="cells inside, and others outside",
            got=f"{int(inside.sum())} of {n_cells} inside",
            fix="Select some of the cells.",
        )
    return inside


def group_moments(
    matrix: GeneMatrix, inside: BoolArray, *, is_gone: Callable[[], bool] = lambda: False
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return the number of values of each gene on both sides, their means and their variances.

    Parameters
    ----------
    matrix
        (n_cells, n_genes), read once, piece by piece.
    inside
        (n_cells,)
    is_gone
        Called between pieces; returns whether the client has disconnected.

    Returns
    -------
    counts, means, variances : ndarray
        (2, n_genes) each, inside and outside, float64. NaN values are ignored; the mean of a side without
        values is NaN. Variances are sums of squared deviations divided by the count minus one.

    Raises
    ------
    GoneError
        The client has disconnected.

    Notes
    -----
    Sums and sums of squares are computed in float64, which is precise enough for logarithms.
    """
    n_genes = matrix.shape[1]
    totals = np.zeros((3, 2, n_genes))

    def work(rows: slice, genes: slice, block: Matrix) -> tuple[slice, DoubleArray]:
        return genes, _sums(block, inside[rows])

    for genes, group_sums in matrix.over(work):
        if is_gone():
            raise GoneError
        totals[:, :, genes] += group_sums
    counts, sums, squares = totals
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
        variances = np.maximum(squares - sums * means, 0) / (counts - 1)
    return counts, means, variances


def _sums(block: Matrix, inside: BoolArray) -> DoubleArray:
    """Return number of values, their sum and their sum of squares, inside and outside: (3, 2, n_genes)."""
    if sp.issparse(block):
        return _sparse_sums(block, inside)
    totals = np.zeros((3, 2, block.shape[1]))
    for rows in row_blocks(block.shape[0], rows_within(_VALUES, block.shape[1])):
        values = np.asarray(block[rows], dtype=np.float64)
        for side, chosen in enumerate((inside[rows], ~inside[rows])):
            part = values[chosen]
            sums, n_values = part.sum(axis=0), np.full(part.shape[1], len(part))
            if np.isnan(sums).any():
                missing = np.isnan(part)
                part[missing] = 0
                sums, n_values = part.sum(axis=0), n_values - missing.sum(axis=0)
            # No matrix products here, because their library starts its own threads in each of ours.
            totals[:, side] += n_values, sums, np.square(part, out=part).sum(axis=0)
    return totals


def _sparse_sums(block: Any, inside: BoolArray) -> DoubleArray:
    sides = np.stack([inside, ~inside], axis=1).astype(np.float64)
    values = block.astype(np.float64).T
    missing = np.isnan(values.data)
    values.data[missing] = 0
    squares, holes = values.copy(), values.copy()
    squares.data **= 2
    holes.data = missing.astype(np.float64)
    n_values = sides.sum(axis=0)[:, None] - (holes @ sides).T
    return np.stack([n_values, (values @ sides).T, (squares @ sides).T])


def scores_of(
    means: DoubleArray, variances: DoubleArray, counts: DoubleArray, *, reliability: DoubleArray | None
) -> DoubleArray:
    """Return the score of each gene: the standardised difference of the sides, times the reliability.

    Parameters
    ----------
    means, variances, counts
        (2, n_genes), from `group_moments`.
    reliability
        (n_genes,) NaN if unknown; None if unknown for all genes.

    Returns
    -------
    (n_genes,)
        Above zero if the mean is higher inside; NaN if a side has no values.

    Notes
    -----
    ::

        spread = sqrt(((n1 - 1) s1^2 + (n2 - 1) s2^2) / (n1 + n2 - 2))
        score  = (mean inside - mean outside) / max(spread, 0.01) * max(reliability, 0)

    with n1, s1 inside and n2, s2 outside: Cohen's d [1]_ times the reliability, which is 1 if unknown. With
    equal differences, genes with a higher reliability are first, and genes with a reliability of zero or less
    are last. Use the score only for sorting. It is not a test, because the region was chosen by eye, and
    imputed values of neighbouring cells are not independent.

    .. [1] Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition, 1988.

    Examples
    --------
    >>> means, variances = np.array([[2.0], [1.0]]), np.array([[0.25], [0.25]])
    >>> counts = np.full((2, 1), 10.0)
    >>> scores_of(means, variances, counts, reliability=np.array([0.5])).tolist()
    [1.0]
    """
    free = counts - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = np.where(free > 0, free * variances, 0).sum(axis=0)
        spread = np.sqrt(pooled / np.maximum(free.sum(axis=0), 1))
    scores = (means[0] - means[1]) / np.maximum(spread, LEAST_SPREAD)
    if reliability is None:
        return np.asarray(scores)
    return np.asarray(scores * np.where(np.isnan(reliability), 1, np.maximum(reliability, 0)))


def compared(
    matrix: GeneMatrix,
    inside: BoolArray,
    *,
    reliability: DoubleArray | None,
    is_gone: Callable[[], bool] = lambda: False,
) -> dict[int, dict[str, float]]:
    """Return the genes that best distinguish a region from the rest, the best first.

    Parameters
    ----------
    matrix
        (n_cells, n_genes)
    inside
        (n_cells,)
    reliability
        (n_genes,) NaN if unknown; None if unknown for all genes.
    is_gone
        Called between pieces; returns whether the client has disconnected.

    Returns
    -------
    dict
        For at most `MOST_GENES` genes, by number: means ``inside`` and ``outside``, their ``difference`` and
        the ``score``; sorted by decreasing absolute score, then by number. Genes without a score are omitted.

    Raises
    ------
    GoneError
        The client has disconnected.
    """
    counts, means, variances = group_moments(matrix, inside, is_gone=is_gone)
    scores = scores_of(means, variances, counts, reliability=reliability)
    order = np.argsort(-np.abs(scores), kind="stable")
    return {
        int(number): {
            "inside": float(means[0, number]),
            "outside": float(means[1, number]),
            "difference": float(means[0, number] - means[1, number]),
            "score": float(scores[number]),
        }
        for number in order[:MOST_GENES]
        if np.isfinite(scores[number])
    }
