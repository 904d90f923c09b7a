"""Draws very many cells as pixels: the mean of their values, or their most frequent label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, distance_transform_edt

from cellweft._typing import BoolArray, DoubleArray, IntArray

CELLS_PER_PIXEL = 2.5
"""Mean number of cells in non-empty pixels."""

MOST_PIXELS = 1_500
"""Largest number of pixels along the longer side."""

_ENCLOSED = 5  # filled ones of eight neighbours that make an empty pixel count as between cells


def cell_width(places: DoubleArray) -> float:
    """Return the side of the square available per cell, from the density of the cells.

    Parameters
    ----------
    places
        (n_cells, 2) in any unit; at least one cell.

    Returns
    -------
    float
        In the unit of the places, above 0; 1 if all cells have the same position.

    Notes
    -----
    The area of the tissue is that of the non-empty squares of a grid. A square has the area of four cells if
    cells were distributed evenly over the bounding box. Holes in the tissue are therefore excluded.

    Examples
    --------
    >>> grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0)), axis=-1).reshape(-1, 2)
    >>> round(cell_width(grid), 1)
    1.0
    """
    extent = np.ptp(places, axis=0)
    span = float(extent.max())
    if span == 0:
        return 1.0
    sides = np.maximum(extent, span / 100)
    square = float(np.sqrt(sides.prod() * min(4.0 / len(places), 1.0)))
    number = np.floor((places - places.min(axis=0)) / square).astype(np.int64)
    occupied = len(np.unique(number[:, 0] * (int(number[:, 1].max()) + 1) + number[:, 1]))
    return float(np.sqrt(occupied / len(places))) * square


@dataclass(frozen=True, eq=False)
class Grid:
    """Square pixels over a tissue, and the pixel of each cell.

    Attributes
    ----------
    shape
        Number of rows (by increasing y) and columns (by x).
    extent
        Left, right, lowest and highest coordinate of the outer edges.
    pixel
        (n_cells,) index of each cell's pixel, row by row.
    """

    shape: tuple[int, int]
    extent: tuple[float, float, float, float]
    pixel: IntArray

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]


def grid_of(places: DoubleArray, *, per_pixel: float = CELLS_PER_PIXEL, most: int = MOST_PIXELS) -> Grid:
    """Return a grid of pixels for cells, as fine as their density allows.

    Parameters
    ----------
    places
        (n_cells, 2)
    per_pixel
        Mean number of cells in non-empty pixels.
    most
        Largest number of pixels along the longer side.
    """
    low, size = places.min(axis=0), np.ptp(places, axis=0)
    side = max(cell_width(places) * per_pixel**0.5, float(size.max()) / most)
    n_columns, n_rows = (int(n) for n in np.maximum(np.ceil(size / side), 1))
    column, row = (
        np.minimum(((places[:, axis] - low[axis]) / side).astype(np.int64), n - 1)
        for axis, n in enumerate((n_columns, n_rows))
    )
    (left, right), (lowest, highest) = np.stack(
        [low, low + np.array([n_columns, n_rows]) * side], axis=1
    ).tolist()
    extent = left, right, lowest, highest
    return Grid(shape=(n_rows, n_columns), extent=extent, pixel=row * n_columns + column)


def pixel_means(grid: Grid, values: DoubleArray) -> tuple[DoubleArray, BoolArray]:
    """Return the mean of the values in each pixel, and which pixels to draw.

    Parameters
    ----------
    grid
        Grid of the cells.
    values
        (n_cells,) values; NaN are ignored.

    Returns
    -------
    means, shown : ndarray
        Both with the shape of the grid. Pixels with cells but without values are NaN; enclosed empty pixels
        get the value of the nearest pixel.

    Examples
    --------
    >>> grid = grid_of(np.array([[0.0, 0.0], [0.1, 0.0], [4.0, 0.0]]), per_pixel=4)
    >>> pixel_means(grid, np.array([1.0, 3.0, 7.0]))[0][0, [0, -1]].tolist()
    [2.0, 7.0]
    """
    has_value = ~np.isnan(values)
    cells = np.bincount(grid.pixel, minlength=grid.size)
    n = np.bincount(grid.pixel[has_value], minlength=grid.size)
    sums = np.bincount(grid.pixel[has_value], weights=values[has_value], minlength=grid.size)
    means = np.divide(sums, n, out=np.full(grid.size, np.nan), where=n > 0)
    return _spread(means.reshape(grid.shape), (cells > 0).reshape(grid.shape))


def pixel_modes(grid: Grid, codes: IntArray) -> tuple[IntArray, BoolArray]:
    """Return the most frequent label in each pixel, and which pixels to draw.

    Parameters
    ----------
    grid
        Grid of the cells.
    codes
        (n_cells,) index of the label, -1 if missing, which counts as a separate label. In a tie, the smallest
        index is used, and missing ones last.

    Returns
    -------
    codes, shown : ndarray
        Both with the shape of the grid; enclosed empty pixels get the label of the nearest pixel.

    Examples
    --------
    >>> grid = grid_of(np.array([[0.0, 0.0], [0.1, 0.0], [0.1, 0.1], [4.0, 0.0]]), per_pixel=4)
    >>> pixel_modes(grid, np.array([1, 0, 1, 2]))[0][0, [0, -1]].tolist()
    [1, 2]
    """
    n_labels = int(codes.max(initial=0)) + 2
    last = np.where(codes < 0, n_labels - 1, codes)
    pairs, counts = np.unique(grid.pixel * n_labels + last, return_counts=True)
    pixel, label = np.divmod(pairs, n_labels)
    best = np.lexsort((label, -counts, pixel))
    _, first = np.unique(pixel[best], return_index=True)
    winners = best[first]
    modes = np.full(grid.size, -1, dtype=np.int64)
    modes[pixel[winners]] = np.where(label[winners] == n_labels - 1, -1, label[winners])
    is_filled = np.zeros(grid.size, dtype=np.bool_)
    is_filled[pixel] = True
    return _spread(modes.reshape(grid.shape), is_filled.reshape(grid.shape))


def _spread(image: NDArray[Any], is_filled: BoolArray) -> tuple[NDArray[Any], BoolArray]:
    """Fill empty pixels between cells from the nearest pixel."""
    around = convolve(is_filled.astype(np.int64), np.ones((3, 3), dtype=np.int64), mode="constant")
    enclosed = ~is_filled & (around >= _ENCLOSED)
    if not enclosed.any():
        return image, is_filled
    row, column = distance_transform_edt(~is_filled, return_distances=False, return_indices=True)
    filled = image.copy()
    filled[enclosed] = image[row[enclosed], column[enclosed]]
    return filled, is_filled | enclosed
