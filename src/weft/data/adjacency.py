"""The spatial adjacency of spots: how near they lie, as rows that sum to one."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from weft._errors import check_choice, check_range
from weft._typing import DoubleArray, FloatArray, Kernel

KERNELS: tuple[Kernel, ...] = ("gaussian", "exponential", "knn")


def spatial_adjacency(
    coordinates: DoubleArray, *, kernel: Kernel = "gaussian", width: float = 1.0, k: int = 6
) -> FloatArray:
    """Return S of STEM: the adjacency of spots of one slice.

    Parameters
    ----------
    coordinates
        (n_spots, 2 or 3); the result is n_spots x n_spots, so that these are the spots of a batch.
    kernel
        "gaussian", exp(-d^2 / (2 width^2)); "exponential", exp(-d / width); "knn", 1 for the ``k`` nearest
        spots, the spot itself included, else 0.
    width
        Sigma, or the scale of the exponential, in the unit of the coordinates, above 0.
    k
        Neighbours of the "knn" kernel; all spots where there are fewer.

    Returns
    -------
    (n_spots, n_spots) float32, not negative; rows sum to 1.

    Raises
    ------
    SettingError
        An unknown kernel, or a width or k out of its range.

    Notes
    -----
    STEM, "Spatial adjacency matrix" and "Constructing ground truth ST spatial adjacency".

    Examples
    --------
    >>> spatial_adjacency(np.array([[0.0, 0.0], [1.0, 0.0]]), kernel="exponential").round(2)
    array([[0.73, 0.27],
           [0.27, 0.73]], dtype=float32)
    """
    check_choice("kernel", kernel, KERNELS)
    check_range("k", k, low=1, integer=True)
    check_range("width", width, low=np.finfo(float).tiny)
    n_spots = len(coordinates)
    if kernel == "knn":
        nearest = cKDTree(coordinates).query(coordinates, k=min(k, n_spots))[1].reshape(n_spots, -1)
        near = np.zeros((n_spots, n_spots))
        np.put_along_axis(near, nearest, 1.0, axis=1)
    else:
        distances = cdist(coordinates, coordinates) / width
        near = np.exp(-0.5 * distances**2 if kernel == "gaussian" else -distances)
    return np.asarray(near / near.sum(axis=1, keepdims=True), dtype=np.float32)
