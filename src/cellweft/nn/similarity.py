"""Similarity of genes: cosines of columns and rows, the paper's replacement rule, the largest per row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from cellweft._errors import check_range
from cellweft._statistics import unit_length
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray

_BLOCK = 2048  # rows of either side in one product
_RANK_VALUES = 5e6  # float64 numbers ranked at once
_EXTRA = 8  # additional float32 candidates for the ranking in float64
_SLACK = 1e-5  # above the float32 error of the difference of two cosines


class NearestRows(NamedTuple):
    """The most similar rows of each row.

    Attributes
    ----------
    places
        (n_rows, most) positions, most similar first; ties are ordered by position.
    cosines
        (n_rows, most) cosines, -1 to 1; a row of zeros has cosine 0 with all rows.
    """

    places: IntArray
    cosines: DoubleArray


def cosine_columns(left: FloatArray, right: FloatArray) -> DoubleArray:
    """Return the cosine similarity of every column of ``left`` with every column of ``right``: Eq. 5.

    Parameters
    ----------
    left, right
        (n_cells, n_left) and (n_cells, n_right); an all-zero column has similarity 0 with all.

    Examples
    --------
    >>> cosine_columns(np.eye(2), np.array([[1.0], [0.0]]))
    array([[1.],
           [0.]])
    """
    return np.asarray(unit_length(left.T, axis=1) @ unit_length(right.T, axis=1).T)


def centred(values: torch.Tensor, *, dim: int = 0) -> torch.Tensor:
    """Return columns (dim 0) or rows (dim 1) less their mean, differentiably."""
    return values - values.mean(dim=dim, keepdim=True)


def replace_where(expression: DoubleArray, other: DoubleArray, *is_known: BoolArray) -> DoubleArray:
    """Return the expression weights, replaced by ``other`` where both genes are known: Eq. 6.

    Parameters
    ----------
    expression, other
        (n_genes, n_sources) weights from expression (Eq. 5), and from another relation, such as proteins (Eq.
        4).
    is_known
        (n_genes,) and (n_sources,): which genes the other relation contains, such as those with an embedding.
    """
    genes, sources = is_known
    return np.where(genes[:, None] & sources[None, :], other, expression)


def keep_largest(weights: DoubleArray, most: int) -> DoubleArray:
    """Return weights with all but the ``most`` largest of each row set to zero; the first of tied ones stay.

    Examples
    --------
    >>> keep_largest(np.array([[0.1, 0.5, 0.3]]), 2)
    array([[0. , 0.5, 0.3]])
    """
    order = np.argsort(-weights, axis=1, kind="stable")[:, :most]
    largest = np.zeros_like(weights)
    np.put_along_axis(largest, order, np.take_along_axis(weights, order, axis=1), axis=1)
    return largest


def nearest_rows(
    rows: FloatArray, others: FloatArray | None = None, *, most: int, block: int = _BLOCK
) -> NearestRows:
    """Return the rows of a second matrix, or other rows of the same one, that are most similar by cosine.

    Parameters
    ----------
    rows
        (n_rows, n_dim) vectors of any length.
    others
        (n_others, n_dim) vectors to search; by default ``rows``, with each row itself excluded.
    most
        Number to return, at least 1; all if there are fewer.
    block
        Rows of either side in one product; the result does not depend on it.

    Notes
    -----
    Products of blocks in float32 select candidates, which are ranked in float64, so that the result depends
    neither on blocks nor on threads. In addition to the vectors, memory contains two blocks, their product
    (16 MB by default, and copies of it) and the candidates: about 20 MB for the nearest 20 of 35,000 rows.
    Within one matrix, each product is used for both of its blocks, which halves the work.

    Raises
    ------
    SettingError
        ``most`` or ``block`` is not a whole number above 0.

    Examples
    --------
    >>> near = nearest_rows(np.array([[1, 0], [0, 2], [3, 1]], dtype=np.float32), most=1)
    >>> near.places.tolist(), near.cosines.round(2).tolist()
    ([[2], [2], [0]], [[0.95], [0.32], [0.95]])
    """
    check_range("most", most, low=1, integer=True)
    check_range("block", block, low=1, integer=True)
    within = others is None
    left = _Vectors(rows)
    right = left if others is None else _Vectors(others)
    n_there = len(right.values) - within
    most = min(most, n_there)
    if most < 1 or not len(rows):
        return NearestRows(np.empty((len(rows), 0), dtype=np.int64), np.empty((len(rows), 0)))
    best = _Candidates(len(rows), min(most + _EXTRA, n_there))
    for start in range(0, len(rows), block):
        ones = left.unit(slice(start, start + block))
        for other in range(start if within else 0, len(right.values), block):
            cosines = ones @ right.unit(slice(other, other + block)).T
            if within and other == start:
                cosines.fill_diagonal_(-torch.inf)
            best.add(start, other, cosines)
            if within and other > start:
                best.add(other, start, cosines.T)
    return _ranked(left, right, best, most)


class _Vectors:
    """Rows, and the length of each."""

    def __init__(self, values: FloatArray) -> None:
        self.values = values
        self.lengths = np.sqrt(np.einsum("rd,rd->r", values, values, dtype=np.float64))
        inverse = np.divide(1, self.lengths, out=np.zeros(len(values)), where=self.lengths > 0)
        self._inverse = inverse.astype(np.float32)[:, None]

    def unit(self, rows: slice | IntArray) -> torch.Tensor:
        """Return some rows at unit length in float32; a row of zeros stays zero."""
        return torch.from_numpy(self.values[rows] * self._inverse[rows])


class _Candidates:
    """The best cosines of every row so far, in float32."""

    def __init__(self, n_rows: int, most: int) -> None:
        self.cosines = torch.full((n_rows, most), -torch.inf)
        self.places = torch.zeros((n_rows, most), dtype=torch.int64)

    def add(self, start: int, other: int, cosines: torch.Tensor) -> None:
        """Add (b, c) cosines of the rows from ``start`` on with the others from ``other`` on."""
        most = self.cosines.shape[1]
        new, places = cosines.topk(min(most, cosines.shape[1]), dim=1)
        part = slice(start, start + len(cosines))
        both = torch.cat([self.cosines[part], new], dim=1)
        where = torch.cat([self.places[part], places + other], dim=1)
        self.cosines[part], order = both.topk(most, dim=1)
        self.places[part] = where.gather(1, order)


def _ranked(left: _Vectors, right: _Vectors, best: _Candidates, most: int) -> NearestRows:
    """Return the most similar of each row's candidates, ranked in float64."""
    n_rows, within = len(left.values), left is right
    places, cosines = np.empty((n_rows, most), dtype=np.int64), np.empty((n_rows, most))
    candidates = best.places.numpy()
    size = max(int(_RANK_VALUES // (left.values.shape[1] * candidates.shape[1])), 1)
    for start in range(0, n_rows, size):
        rows = np.arange(start, min(start + size, n_rows))
        places[rows], cosines[rows] = _rank(left, right, rows, candidates[rows], most)
    if candidates.shape[1] < len(right.values) - within:
        # More rows may be tied than there are candidates, for example copies of a row: rank all tied rows.
        lowest = best.cosines[:, most - 1].numpy() - _SLACK
        for row in np.flatnonzero(best.cosines[:, -1].numpy() >= lowest):
            tied = _at_least(left.unit(np.array([row])), right, lowest[row])
            tied = tied[tied != row] if within else tied
            places[row], cosines[row] = _rank(left, right, np.array([row]), tied[None], most)
    return NearestRows(places, cosines)


def _rank(
    left: _Vectors, right: _Vectors, rows: IntArray, candidates: IntArray, most: int
) -> tuple[IntArray, DoubleArray]:
    """Return the most similar of (n_rows, n_candidates) positions, and their cosines, each (n_rows, most)."""
    candidates = np.sort(candidates, axis=1)  # so that a stable sort orders ties by position
    ones, products = left.values[rows].astype(np.float64), np.empty(candidates.shape)
    size = max(int(_RANK_VALUES // (left.values.shape[1] * len(rows))), 1)
    for start in range(0, candidates.shape[1], size):
        part = slice(start, start + size)
        others = right.values[candidates[:, part]].astype(np.float64)  # (n_rows, size, n_dim)
        products[:, part] = np.einsum("rd,rcd->rc", ones, others)
    lengths = left.lengths[rows, None] * right.lengths[candidates]
    cosines: DoubleArray = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(candidates, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def _at_least(vector: torch.Tensor, others: _Vectors, lowest: float) -> IntArray:
    """Return the positions of all rows with a cosine of at least ``lowest`` with a vector, (1, n_dim)."""
    positions = [
        start + np.flatnonzero((others.unit(slice(start, start + _BLOCK)) @ vector.T)[:, 0].numpy() >= lowest)
        for start in range(0, len(others.values), _BLOCK)
    ]
    return np.concatenate(positions)
