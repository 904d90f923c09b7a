"""Rows of matrices: as many entries in each, or brought to a sum of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._typing import DoubleArray, IntArray


def by_rows(values: NDArray[Any], columns: IntArray, *, n_columns: int) -> sp.csr_matrix:
    """Return a sparse matrix with as many entries in each row.

    Parameters
    ----------
    values, columns
        (n_rows, n_entries) the entries and their columns.
    n_columns
        Columns of the matrix.
    """
    n_rows, n_entries = columns.shape
    starts = np.arange(0, n_rows * n_entries + 1, n_entries)
    return sp.csr_matrix((values.ravel(), columns.ravel(), starts), shape=(n_rows, n_columns))


def row_shares(mass: DoubleArray, otherwise: DoubleArray) -> DoubleArray:
    """Return rows divided by their sums.

    Parameters
    ----------
    mass
        (n_rows, n_columns), at least 0.
    otherwise
        (n_columns,) what a row of nothing becomes.

    Examples
    --------
    >>> row_shares(np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([0.5, 0.5]))
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    """
    total = mass.sum(axis=1, keepdims=True)
    shares: DoubleArray = np.where(total > 0, mass / np.where(total > 0, total, 1.0), otherwise)
    return shares
