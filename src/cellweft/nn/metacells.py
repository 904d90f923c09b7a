"""Metacells: groups of reference cells with one key, so that large references do not slow down attention.

The softmax of learned attention is broad: cells with similar keys have nearly the same weight for each query.
A group of such cells can therefore have one key, and the mean of its cells as the value of a gene.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._typing import DoubleArray, FloatArray, IntArray, Matrix

_PASSES = 3  # of k-means; ten were not closer to attention over all cells
_FITTED_CELLS = 30_000  # most cells to learn centres from; then each cell is assigned to the nearest


@dataclass(frozen=True, kw_only=True, eq=False)
class Metacells:
    """Cells in groups.

    Attributes
    ----------
    groups
        (n_cells,) the group of each cell, 0 to n_groups - 1; none is empty.

    Examples
    --------
    >>> pairs = Metacells(groups=np.array([0, 1, 0, 1]))
    >>> pairs.average(np.array([[1.0], [2.0], [3.0], [6.0]]))
    array([[2.],
           [4.]], dtype=float32)
    """

    groups: IntArray

    @cached_property
    def sizes(self) -> IntArray:
        """Number of cells in each group, (n_groups,)."""
        return np.bincount(self.groups)

    def average(self, values: Matrix) -> FloatArray:
        """Return the mean of each group's cells.

        Parameters
        ----------
        values
            (n_cells, n_columns), dense or sparse.

        Returns
        -------
        (n_groups, n_columns), dense.
        """
        sums = self._members @ values
        dense = sums.toarray() if sp.issparse(sums) else sums
        return np.asarray(dense / self.sizes[:, None], dtype=np.float32)

    def spread(self, values: NDArray[np.floating[Any]]) -> DoubleArray:
        """Return the mean squared distance of each group's cells from their mean, (n_groups,).

        Parameters
        ----------
        values
            (n_cells, n_columns)
        """
        means, squares = self.average(values), np.empty(len(values))
        for rows in row_blocks(len(values), READ_ROWS):
            apart = values[rows].astype(np.float64) - means[self.groups[rows]]
            squares[rows] = (apart**2).sum(axis=1)
        return np.asarray(self._members @ squares / self.sizes)

    @cached_property
    def _members(self) -> sp.csr_matrix:
        """Membership of cells in groups, 1 or 0: n_groups x n_cells, in float64 for the sums."""
        order = np.argsort(self.groups, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.sizes)])
        shape = len(self.sizes), len(self.groups)
        return sp.csr_matrix((np.ones(len(order)), order, starts), shape=shape)


def group_cells(
    points: NDArray[np.floating[Any]], *, most: int, seed: int, weights: DoubleArray | None = None
) -> Metacells | None:
    """Return groups of neighbouring cells, or None if there are no more cells than groups.

    Parameters
    ----------
    points
        (n_cells, n_latent) finite.
    most
        Largest number of groups, at least 1; there are fewer if fewer points are distinct.
    seed
        Seed of the draw of initial centres.
    weights
        (n_cells,) weight of each cell, above 0: cells with large weights are in small groups. All equal by
        default.

    Notes
    -----
    K-means (Lloyd), starting at cells drawn at random. With more than 30,000 cells, the centres are learned
    from a random sample of this size. It uses float64, so that the order of sums in threads does not change
    the groups.

    Examples
    --------
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> group_cells(points, most=2, seed=0).groups
    array([0, 1, 0])
    >>> group_cells(points, most=3, seed=0) is None
    True
    """
    if len(points) <= most:
        return None
    stream, counts = numpy_stream(seed, "metacells"), np.ones(len(points)) if weights is None else weights
    drawn = sample_rows(np.arange(len(points)), _FITTED_CELLS, stream)
    distinct, copies = np.unique(points[drawn].astype(np.float64), axis=0, return_inverse=True)
    sums = np.bincount(copies.ravel(), weights=counts[drawn])  # numpy 2.0.0 gives a column
    shares = sums / sums.sum()
    places = np.arange(len(distinct))
    if len(distinct) > most:
        places = np.sort(stream.choice(places, most, replace=False, p=shares))
    centres = KMeans(len(places), init=distinct[places], n_init=1, max_iter=_PASSES, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty groups are removed below
        centres.fit(distinct, sample_weight=shares)
    blocks = row_blocks(len(points), READ_ROWS)
    nearest = [centres.predict(points[rows].astype(np.float64)) for rows in blocks]
    return Metacells(groups=np.unique(np.concatenate(nearest), return_inverse=True)[1])
