"""Assigns each cell to one spot: its best spot, or the best overall assignment with a capacity per spot."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from cellweft._errors import check_range
from cellweft._typing import IntArray

_TINY = 1e-30  # weight used instead of weights that are zero in float32
_OUT = 1e3  # cost of not assigning a cell: above that of any weight


def assign_cells(weights: sp.csr_matrix, *, capacity: int | None = None) -> IntArray:
    """Return one spot for each cell.

    Parameters
    ----------
    weights
        (n_cells, n_spots) the largest mapping weights of each cell, above 0 and at most 1.
    capacity
        Largest number of cells per spot; without it, each cell is assigned to its best spot.

    Returns
    -------
    (n_cells,) indices of spots; -1 for cells without a free spot among their candidates.

    Raises
    ------
    SettingError
        ``capacity`` below 1.

    Notes
    -----
    With a capacity, this is a linear assignment with the largest sum of log weights. Each spot occurs as
    often as its capacity, and each cell may stay unassigned at a cost above that of any weight.

    Examples
    --------
    >>> weights = sp.csr_matrix([[0.9, 0.1], [0.8, 0.2]])
    >>> assign_cells(weights).tolist(), assign_cells(weights, capacity=1).tolist()
    ([0, 0], [0, 1])
    """
    n_cells, n_spots = weights.shape
    if capacity is None:
        best = np.full(n_cells, -1, dtype=np.int64)
        filled = np.flatnonzero(np.diff(weights.indptr))
        for cell in filled:
            row = slice(weights.indptr[cell], weights.indptr[cell + 1])
            best[cell] = weights.indices[row][weights.data[row].argmax()]
        return best
    check_range("capacity", capacity, low=1, integer=True)
    entries = weights.tocoo()
    cost = 1.0 - np.log(np.maximum(entries.data.astype(np.float64), _TINY))  # above 0, as 0 means no edge
    # No spot needs more copies than the number of cells with this candidate.
    copies = np.minimum(np.bincount(entries.col, minlength=n_spots), min(int(capacity), len(entries.row)))
    first = np.concatenate([[0], np.cumsum(copies)])
    times = copies[entries.col]
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    rows = np.concatenate([np.repeat(entries.row, times), np.arange(n_cells)])
    columns = np.concatenate([np.repeat(first[entries.col], times) + within, first[-1] + np.arange(n_cells)])
    costs = np.concatenate([np.repeat(cost, times), np.full(n_cells, _OUT)])
    graph = sp.csr_matrix((costs, (rows, columns)), shape=(n_cells, first[-1] + n_cells))
    cells, places = min_weight_full_bipartite_matching(graph)
    spots = np.full(n_cells, -1, dtype=np.int64)
    spots[cells] = np.where(places < first[-1], np.searchsorted(first, places, side="right") - 1, -1)
    return spots
