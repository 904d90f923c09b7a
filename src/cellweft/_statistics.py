"""Unit length, cosine, Pearson correlation and shares of columns or rows, including constants and zeros.

A vector of zeros has no direction, and a constant has no variation: scaled to unit length, or centred, they
are exactly zero. Their cosine or correlation with any vector is 0, never NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cellweft._typing import DoubleArray


def centred(values: NDArray[Any], *, axis: int = 0) -> DoubleArray:
    """Subtract the mean of each vector, in float64.

    Parameters
    ----------
    values
        A matrix.
    axis
        Axis of the vectors: 0 for columns, 1 for rows.

    Examples
    --------
    >>> centred(np.array([[1.0, 0.1], [3.0, 0.1]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    values = np.asarray(values, dtype=np.float64)
    # make constants exactly zero despite rounding
    constant = values.max(axis=axis, keepdims=True) == values.min(axis=axis, keepdims=True)
    return np.where(constant, 0.0, values - values.mean(axis=axis, keepdims=True))


def unit_length(values: NDArray[Any], *, axis: int = 0, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Scale vectors to length 1; vectors of zeros are unchanged.

    Parameters
    ----------
    values
        A matrix.
    axis
        Axis of the vectors: 0 for columns, 1 for rows.
    dtype
        Data type of the computation and the result.

    Examples
    --------
    >>> unit_length(np.array([[3.0, 0.0], [4.0, 0.0]]))
    array([[0.6, 0. ],
           [0.8, 0. ]])
    """
    values = np.asarray(values, dtype=dtype)
    # scaling by a power of 2 is exact, and keeps the squares of tiny or huge values in range
    most = np.finfo(values.dtype).maxexp - 1
    exponent = np.frexp(np.abs(values).max(axis=axis, keepdims=True, initial=0))[1].clip(-most, most)
    values = values * np.ldexp(values.dtype.type(1), -exponent)
    length = np.sqrt((values**2).sum(axis=axis, keepdims=True))
    return np.asarray(np.divide(values, length, out=np.zeros_like(values), where=length > 0))


def cosine(left: NDArray[Any], right: NDArray[Any], *, axis: int = 0) -> DoubleArray:
    """Return the cosine similarity of corresponding vectors of two matrices, -1 to 1.

    Parameters
    ----------
    left, right
        Matrices with the same shape.
    axis
        Axis of the vectors: 0 for columns, 1 for rows.

    Examples
    --------
    >>> cosine(np.array([[3.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 1.0]]))
    array([0.6, 0. ])
    """
    products = unit_length(left, axis=axis) * unit_length(right, axis=axis)
    return np.asarray(products.sum(axis=axis).clip(-1.0, 1.0))


def pearson(left: NDArray[Any], right: NDArray[Any], *, axis: int = 0) -> DoubleArray:
    """Return the Pearson correlation of corresponding vectors of two matrices, -1 to 1.

    Parameters
    ----------
    left, right
        Matrices with the same shape.
    axis
        Axis of the vectors: 0 for columns, 1 for rows.

    Examples
    --------
    >>> pearson(np.array([[1.0, 2.0], [2.0, 2.0]]), np.array([[5.0, 1.0], [4.0, 2.0]]))
    array([-1.,  0.])
    """
    return cosine(centred(left, axis=axis), centred(right, axis=axis), axis=axis)


def row_shares(mass: DoubleArray, otherwise: DoubleArray) -> DoubleArray:
    """Return rows divided by their sums.

    Parameters
    ----------
    mass
        (n_rows, n_columns), at least 0.
    otherwise
        (n_columns,) result for empty rows.

    Examples
    --------
    >>> row_shares(np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([0.5, 0.5]))
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    """
    total = mass.sum(axis=1, keepdims=True)
    shares: DoubleArray = np.where(total > 0, mass / np.where(total > 0, total, 1.0), otherwise)
    return shares
