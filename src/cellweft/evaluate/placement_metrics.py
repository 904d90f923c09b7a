"""Scores of placed cells: error of positions, and accuracy of compositions.

`location_errors`, `hits` and `hit_number` score cells, `composition_pcc` scores cell types over the spots;
`type_groups` separates frequent from rare types. Computations use float64. Scores are never NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import row_blocks, rows_within
from cellweft._errors import InputError, array_of, check_array
from cellweft._typing import DoubleArray, IntArray
from cellweft.evaluate.metrics import pearson

GROUPS = ("major", "moderate", "rare")
"""Groups of cell types by frequency: the published ranks 1 to 5, 6 to 10, and all others."""

_RANKS = (5, 10)  # last rank of major and of moderate types
_BLOCK_VALUES = 2**20  # neighbours per block
_SLACK = 1 + 1e-12  # distances to the same cell, computed in two ways, differ by rounding


def location_errors(true: NDArray[Any], predicted: NDArray[Any]) -> DoubleArray:
    """Return the distance between the predicted and the true position of each cell.

    Parameters
    ----------
    true, predicted
        (n_cells, n_dimensions) positions in the same unit, finite.

    Returns
    -------
    (n_cells,) Euclidean distances in the unit of the positions; lower is better.

    Raises
    ------
    InputError
        The shapes differ or are not two-dimensional, there is no cell, or a value is NaN or infinite.

    Notes
    -----
    Their mean is the MAE of Hao et al. 2024 (STEM), "Performance evaluation".

    Examples
    --------
    >>> location_errors(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 1.0]]))
    array([5., 0.])
    """
    true, predicted = _places("true", true), _places("predicted", predicted)
    if true.shape != predicted.shape:
        raise InputError(
            "predicted",
            expected=f"positions of the same shape as the true ones, {true.shape}",
            got=f"shape {predicted.shape}",
            fix="Pass the positions of the same cells, in the same order and with the same dimensions.",
        )
    return np.asarray(np.sqrt(((true - predicted) ** 2).sum(axis=1)))


def hits(true: NDArray[Any], neighbors: NDArray[Any]) -> IntArray:
    """Return how many of the K predicted neighbours of each cell are among its K true nearest cells.

    Parameters
    ----------
    true
        (n_cells, n_dimensions) true positions of the cells, finite.
    neighbors
        (n_cells, K) indices of the cells that are predicted to be nearest, in any order, without duplicates
        or the cell itself.

    Returns
    -------
    (n_cells,) from 0 to K; higher is better.

    Raises
    ------
    InputError
        ``true`` is not a matrix of finite positions, or a row of ``neighbors`` does not consist of 1 to
        n_cells - 1 different other cells.

    Notes
    -----
    ConservedNeighbor_i(K) of Hao et al. 2024 (STEM). A cell is among the K nearest if it is not farther away
    than the K-th. Cells at the same distance as the K-th all count, so the score does not depend on the order
    of the cells.

    Examples
    --------
    >>> true = np.array([[0.0], [1.0], [3.0], [4.0]])
    >>> hits(true, np.array([[1], [0], [0], [2]]))
    array([1, 1, 0, 1])
    """
    fix = "Pass indices of cells, cells x neighbours."
    true, neighbors = _places("true", true), array_of("neighbors", neighbors, fix=fix, numbers=False)
    n_cells = len(true)
    _check_neighbors(neighbors, n_cells)
    k = neighbors.shape[1]
    tree = cKDTree(true)
    n_hits = np.empty(n_cells, dtype=np.int64)
    for rows in row_blocks(n_cells, rows_within(_BLOCK_VALUES, k + 1)):
        # the cell itself is among the k + 1, at 0: the last of them is as far as the k-th other cell
        farthest = np.asarray(tree.query(true[rows], k=[k + 1])[0])  # b x 1
        gaps = true[neighbors[rows]] - true[rows, None]  # b x k x n_dimensions
        n_hits[rows] = (np.sqrt((gaps**2).sum(axis=2)) <= farthest * _SLACK).sum(axis=1)
    return n_hits


def hit_number(true: NDArray[Any], neighbors: NDArray[Any]) -> float:
    """Return the hit number for K neighbours: the mean of `hits` over the cells.

    Parameters
    ----------
    true
        (n_cells, n_dimensions) true positions of the cells, finite.
    neighbors
        (n_cells, K) indices of the cells that are predicted to be nearest, in any order, without duplicates
        or the cell itself.

    Returns
    -------
    From 0 to K. Neighbours drawn at random get K (K / (n_cells - 1)) on average.

    Raises
    ------
    InputError
        As in `hits`.

    Notes
    -----
    Hit number(K) of Hao et al. 2024 (STEM), "Performance evaluation".

    Examples
    --------
    >>> hit_number(np.array([[0.0], [1.0], [3.0], [4.0]]), np.array([[1], [0], [0], [2]]))
    0.75
    """
    return float(np.mean(hits(true, neighbors)))


def composition_pcc(true: NDArray[Any], predicted: NDArray[Any]) -> DoubleArray:
    """Return the Pearson correlation of true and predicted proportions over spots, for each cell type.

    Parameters
    ----------
    true, predicted
        (n_spots, n_types) proportion of each type in each spot, finite.

    Returns
    -------
    (n_types,) from -1 to 1; higher is better. If a type has the same proportion in all spots in either
    matrix, for example because it is absent, its correlation is undefined and 0 is returned, as in
    `cellweft.metrics.pearson`.

    Raises
    ------
    InputError
        The shapes differ or are not two-dimensional, there is no spot, or a value is NaN or infinite.

    Notes
    -----
    The PCC of Hao et al. 2024 (STEM), "Performance evaluation".

    Examples
    --------
    >>> true = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    >>> composition_pcc(true, np.array([[0.9, 0.5], [0.6, 0.5], [0.3, 0.5]]))
    array([1., 0.])
    """
    fix = "Pass proportions, spots x types."
    true, predicted = array_of("true", true, fix=fix), array_of("predicted", predicted, fix=fix)
    if true.ndim != 2 or true.shape != predicted.shape or len(true) == 0:
        raise InputError(
            "predicted",
            expected="two matrices (spots x types) of the same shape with at least one spot",
            got=f"shapes {true.shape} (true) and {predicted.shape} (predicted)",
            fix="Use the same spots and types, in the same order, in both matrices.",
        )
    return pearson(true, predicted)


def type_groups(frequencies: NDArray[Any]) -> NDArray[np.str_]:
    """Classify each cell type as "major", "moderate" or "rare".

    Parameters
    ----------
    frequencies
        (n_types,) number of cells of each type, or their proportion. Of equally frequent types, the first
        ranks higher.

    Returns
    -------
    (n_types,) one of `GROUPS` each. The five most frequent types are major, the next five moderate, all
    others rare.

    Raises
    ------
    InputError
        There is not one finite number per type.

    Notes
    -----
    The ranks are those of Hao et al. 2024 (STEM): "rank 1-5, 6-10, and other cell types".

    Examples
    --------
    >>> type_groups(np.array([3, 90, 80, 70, 60, 50, 4])).tolist()
    ['moderate', 'major', 'major', 'major', 'major', 'major', 'moderate']
    """
    frequencies = array_of("frequencies", frequencies, fix="Count the cells of each type.")
    check_array(
        "frequencies",
        frequencies,
        fits=frequencies.ndim == 1,
        expected="one finite number for each type",
        fix="Count the cells of each type.",
    )
    rank = np.empty(len(frequencies), dtype=np.int64)
    rank[np.argsort(-frequencies, kind="stable")] = np.arange(len(frequencies))
    return np.array(GROUPS)[np.searchsorted(_RANKS, rank, side="right")]


def _places(name: str, places: NDArray[Any]) -> DoubleArray:
    coordinates = array_of(name, places, fix="Pass positions, cells x coordinates.")
    check_array(
        name,
        coordinates,
        fits=coordinates.ndim == 2 and coordinates.size > 0,
        expected="finite positions (cells x coordinates) of at least one cell",
        fix="Check how the positions were computed.",
    )
    return coordinates


def _check_neighbors(neighbors: NDArray[Any], n_cells: int) -> None:
    """Raise `InputError` unless each cell has the same number of distinct other cells."""
    got = ""
    if neighbors.ndim != 2 or len(neighbors) != n_cells or not 1 <= neighbors.shape[1] < n_cells:
        got = f"shape {neighbors.shape}"
    elif neighbors.dtype.kind not in "iu" or neighbors.min() < 0 or neighbors.max() >= n_cells:
        got = "values that are not indices of cells"
    elif bool((neighbors == np.arange(n_cells)[:, None]).any()):
        got = "a cell that is its own neighbour"
    elif bool((np.diff(np.sort(neighbors, axis=1), axis=1) == 0).any()):
        got = "a duplicate neighbour"
    if got:
        raise InputError(
            "neighbors",
            expected=f"indices of other cells, without duplicates, {n_cells} x 1 to {n_cells - 1} neighbours",
            got=got,
            fix="Omit the cell itself, and request fewer neighbours than there are cells.",
        )
