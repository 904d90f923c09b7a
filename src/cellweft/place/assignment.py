"""One place for every cell: the best spot, or the best for all where a spot holds only so many cells."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from cellweft._errors import check_range
from cellweft._typing import IntArray

_TINY = 1e-30  # weights that are zero in float32 get the cost of this one
_OUT = 1e3  # cost of no place at all: above that of any weight


def assign_cells(weights: sp.csr_matrix, *, capacity: int | None = None) -> IntArray:
    """Return one spot for every cell.

    Parameters
    ----------
    weights
        (n_cells, n_spots) the largest mapping weights of every cell, above 0 and at most 1.
    capacity
        Cells per spot at most; without it each cell takes its best spot.

    Returns
    -------
    (n_cells,) positions of spots; -1 for cells that find no place among their candidates.

    Raises
    ------
    SettingError
        ``capacity`` below 1.

    Notes
    -----
    With a capacity it is a linear assignment: the largest sum of log weights, every spot standing there as
    often as it may be taken, and each cell having the way out of no place at a cost above that of any.

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
    cost = 1.0 - np.log(np.maximum(entries.data.astype(np.float64), _TINY))  # above 0: 0 would be no edge
    # No spot needs more copies than there are cells that want it.
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
