"""The placed cells that are nearest to each placed cell, by embedding or by place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weft._typing import DoubleArray, IntArray
from weft.core.mapping import Mapping
from weft.data.sparse import by_rows
from weft.data.stream import row_blocks

_BLOCK_BYTES = 64e6


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
    found = Mapping(queries=features, keys=features).topk(k + 1)[1].cpu().numpy()
    is_self = found == np.arange(len(found))[:, None]
    is_self[~is_self.any(axis=1), -1] = True  # a cell that is not among its own nearest loses the last
    nearest: IntArray = found[~is_self].reshape(-1, k)
    return nearest


def nearest_by_overlap(
    weights: sp.csr_matrix, nearness: sp.csr_matrix, k: int, *, block_bytes: float = _BLOCK_BYTES
) -> IntArray:
    """Return the other cells that most probably lived near.

    Parameters
    ----------
    weights
        (n_cells, n_spots) mapping weights of every cell.
    nearness
        (n_spots, n_spots) symmetric: how near two spots lie, 1 for the same one, falling to 0.
    k
        From 1 to all other cells.
    block_bytes
        Memory for a block of cells.

    Returns
    -------
    (n_cells, k) positions, nearest first; cells that overlap alike go by position.

    Notes
    -----
    The sum over pairs of spots of (weight of one cell) x nearness x (weight of the other) is the expected
    nearness of two cells' places. Unlike the distance of their mean places it does not take two cells for
    neighbours which both may live anywhere.
    """
    n_cells = weights.shape[0]
    back = weights.T.tocsr()
    found = np.empty((n_cells, k), dtype=np.int64)
    for rows in row_blocks(n_cells, max(int(block_bytes // (12 * n_cells)), 1)):
        spread = weights[rows] @ nearness  # b x n_spots
        overlap = (spread @ back).toarray()  # b x n_cells
        overlap[np.arange(len(overlap)), np.arange(rows.start, rows.stop)] = -1.0
        top = np.sort(np.argpartition(-overlap, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(overlap, top, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(top, order, axis=1)
    return found


def spot_nearness(coordinates: DoubleArray, groups: Iterable[IntArray], *, width: float) -> sp.csr_matrix:
    """Return exp(-d^2 / (2 width^2)) between spots of the same slice, up to three widths.

    Parameters
    ----------
    coordinates
        (n_spots, 2 or 3)
    groups
        Positions of the spots of every slice.
    width
        In the unit of the coordinates, above 0.
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
        (n_cells, n_cells) float32: 1 for the nearest of a cell, 1/2 for the next, falling to 1 / k.
    """
    n_cells, k = nearest.shape
    values = np.tile(1 / np.arange(1, k + 1, dtype=np.float32), n_cells)
    matrix = by_rows(values, nearest, n_columns=n_cells)
    matrix.sort_indices()
    return matrix
