"""The nearest placed cells of each placed cell, by embedding or by position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import BLOCK_BYTES, row_blocks, rows_within
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.nn.mapping import Mapping

MOST_COMPARED = 20_000
"""Largest number of cells for which positions of all pairs are compared."""

LISTED_CELLS = 128
"""With more cells: number of cells to compare with at each spot of a cell."""


def nearest_by_product(features: torch.Tensor, k: int) -> IntArray:
    """Return the other rows with the largest inner products, by blocks.

    Parameters
    ----------
    features
        (n_cells, n_features)
    k
        From 1 to all other cells.

    Returns
    -------
    (n_cells, k) positions, nearest first.
    """
    candidates = Mapping(queries=features, keys=features).topk(k + 1)[1].cpu().numpy()
    is_self = candidates == np.arange(len(candidates))[:, None]
    is_self[~is_self.any(axis=1), -1] = True  # otherwise, drop the last one
    nearest: IntArray = candidates[~is_self].reshape(-1, k)
    return nearest


def nearest_by_overlap(
    weights: sp.csr_matrix,
    nearness: sp.csr_matrix,
    k: int,
    *,
    most_cells: int = MOST_COMPARED,
    listed: int = LISTED_CELLS,
    block_bytes: float = BLOCK_BYTES,
) -> IntArray:
    """Return the other cells with the largest expected proximity.

    Parameters
    ----------
    weights
        (n_cells, n_spots) mapping weights of each cell.
    nearness
        (n_spots, n_spots) symmetric proximity of two spots: 1 for the same spot, decreasing to 0.
    k
        From 1 to all other cells.
    most_cells
        Up to this number of cells, all pairs of cells are compared.
    listed
        With more cells, each is only compared with this number of cells per spot (at least ``k`` + 1), those
        with the largest expected proximity to the spot.
    block_bytes
        Memory for a block of cells, in bytes.

    Returns
    -------
    (n_cells, k) positions, nearest first; ties are ordered by position.

    Notes
    -----
    The expected proximity of two cells is the sum, over pairs of spots, of (weight of one cell) x nearness x
    (weight of the other). In contrast to the distance of mean positions, it is low for two cells with unknown
    positions.
    """
    n_cells = weights.shape[0]
    if n_cells > most_cells:
        return _nearest_listed(weights, nearness, k, listed=max(listed, k + 1), block_bytes=block_bytes)
    back = weights.T.tocsr()
    nearest = np.empty((n_cells, k), dtype=np.int64)
    for rows in row_blocks(n_cells, rows_within(block_bytes, 12 * n_cells)):
        spread = weights[rows] @ nearness  # b x n_spots
        overlap = (spread @ back).toarray()  # b x n_cells
        overlap[np.arange(len(overlap)), np.arange(rows.start, rows.stop)] = -1.0
        top = np.sort(np.argpartition(-overlap, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(overlap, top, axis=1), axis=1, kind="stable")
        nearest[rows] = np.take_along_axis(top, order, axis=1)
    return nearest


def _nearest_listed(
    weights: sp.csr_matrix, nearness: sp.csr_matrix, k: int, *, listed: int, block_bytes: float
) -> IntArray:
    """Return the nearest cells among those listed at a cell's spots."""
    n_cells = weights.shape[0]
    near = _cells_near_spots(weights, nearness, listed=listed, block_bytes=block_bytes)
    nearest = np.empty((n_cells, k), dtype=np.int64)
    widest = int(np.diff(weights.indptr).max(initial=1)) * listed  # largest number of comparisons of a cell
    for rows in row_blocks(n_cells, rows_within(block_bytes, 24 * widest)):
        overlap = (weights[rows] @ near).tocsr()
        values, cells = _padded(overlap, least=k + 1)
        cells[cells == np.arange(rows.start, rows.stop)[:, None]] = -1
        values[cells < 0] = -1.0
        top = np.argpartition(-values, k - 1, axis=1)[:, :k]
        values, cells = np.take_along_axis(values, top, axis=1), np.take_along_axis(cells, top, axis=1)
        order = np.lexsort((cells, -values), axis=1)
        nearest[rows] = np.take_along_axis(cells, order, axis=1)
    for cell in np.flatnonzero((nearest < 0).any(axis=1)):  # cells with fewer than k candidates
        candidates = nearest[cell][nearest[cell] >= 0]
        others = np.setdiff1d(np.arange(min(2 * k + 2, n_cells)), [*candidates, cell])
        nearest[cell] = np.concatenate([candidates, others])[:k]
    return nearest


def _cells_near_spots(
    weights: sp.csr_matrix, nearness: sp.csr_matrix, *, listed: int, block_bytes: float
) -> sp.csr_matrix:
    """Return the ``listed`` cells with the largest expected proximity to each spot, (n_spots, n_cells)."""
    n_cells, n_spots = weights.shape
    least = np.zeros(n_spots, dtype=np.float32)  # lower bound of a spot's list
    parts: list[tuple[NDArray[Any], ...]] = []
    n_waiting, per_row = 0, max(weights.nnz / n_cells * (nearness.nnz / n_spots), 1.0)
    for rows in row_blocks(n_cells, rows_within(block_bytes, 12 * per_row)):
        spread = (weights[rows] @ nearness).tocoo()
        fits = spread.data > least[spread.col]
        parts.append((spread.data[fits], spread.col[fits], (spread.row[fits] + rows.start).astype(np.int32)))
        n_waiting += int(fits.sum())
        if n_waiting > n_spots * listed or rows.stop == n_cells:
            values, spots, cells = (np.concatenate(part) for part in zip(*parts, strict=True))
            order = np.lexsort((cells, -values, spots))
            places = np.arange(len(order)) - np.searchsorted(spots[order], spots[order])  # in a spot's list
            first, last = order[places < listed], order[places == listed - 1]
            least[spots[last]] = values[last]
            parts, n_waiting = [(values[first], spots[first], cells[first])], 0
    values, spots, cells = parts[0]
    return sp.csr_matrix((values, (spots, cells)), shape=(n_spots, n_cells))


def _padded(matrix: sp.csr_matrix, *, least: int) -> tuple[FloatArray, IntArray]:
    """Return the entries of each row and their columns, each (n_rows, width), padded with -1."""
    counts = np.diff(matrix.indptr)
    width = max(int(counts.max(initial=0)), least)
    there = np.arange(width) < counts[:, None]
    values = np.full(there.shape, -1.0, dtype=np.float32)
    columns = np.full(there.shape, -1, dtype=np.int64)
    values[there], columns[there] = matrix.data, matrix.indices
    return values, columns


def spot_nearness(coordinates: DoubleArray, groups: Iterable[IntArray], *, width: float) -> sp.csr_matrix:
    """Return exp(-d^2 / (2 width^2)) between spots of the same slice, up to three widths.

    Parameters
    ----------
    coordinates
        (n_spots, 2 or 3)
    groups
        Positions of the spots of each slice.
    width
        Width in the unit of the coordinates, above 0.
    """
    n_spots = len(coordinates)
    parts: list[tuple[NDArray[Any], ...]] = []
    for spots in groups:
        tree = cKDTree(coordinates[spots])
        near = tree.sparse_distance_matrix(tree, 3 * width, output_type="ndarray")
        parts.append((np.exp(-0.5 * (near["v"] / width) ** 2), spots[near["i"]], spots[near["j"]]))
    values, rows, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sp.csr_matrix((values.astype(np.float32), (rows, columns)), shape=(n_spots, n_spots))


def knn_matrix(nearest: IntArray) -> sp.csr_matrix:
    """Return neighbours as a sparse matrix.

    Parameters
    ----------
    nearest
        (n_cells, k) positions, nearest first.

    Returns
    -------
    csr_matrix
        (n_cells, n_cells) float32: 1 for the nearest cell, 1/2 for the next, down to 1 / k.
    """
    n_cells, k = nearest.shape
    values = np.tile(1 / np.arange(1, k + 1, dtype=np.float32), n_cells)
    matrix = by_rows(values, nearest, n_columns=n_cells)
    matrix.sort_indices()
    return matrix


def by_rows(values: NDArray[Any], columns: IntArray, *, n_columns: int) -> sp.csr_matrix:
    """Return a sparse matrix with the same number of entries in each row.

    Parameters
    ----------
    values, columns
        (n_rows, n_entries) the entries and their columns.
    n_columns
        Number of columns of the matrix.
    """
    n_rows, n_entries = columns.shape
    starts = np.arange(0, n_rows * n_entries + 1, n_entries)
    return sp.csr_matrix((values.ravel(), columns.ravel(), starts), shape=(n_rows, n_columns))
