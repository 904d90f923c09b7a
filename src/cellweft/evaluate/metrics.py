"""Metrics of predictions against measurements: one function per score, applied to columns.

Each function takes ``truth`` and ``prediction``, both n_cells x n_genes, and returns one number per column.
Scores of cells are those of the transposed matrices: ``pearson(truth.T, prediction.T)``. Computations use
float64, a block of columns at a time. Scores are never NaN: a constant column, which has no correlation, or a
column of zeros, which has no direction, gets the value documented in its function.

`METRICS` contains all of them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import rankdata

from cellweft import _statistics
from cellweft._compute import BLOCK_VALUES, row_blocks, rows_within
from cellweft._errors import InputError, array_of, check_array
from cellweft._statistics import centred, unit_length
from cellweft._typing import DoubleArray

Score: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], DoubleArray]


def pearson(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the Pearson correlation of each column.

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite.

    Returns
    -------
    n_genes values from -1 to 1; higher is better. If a column is constant in either matrix, its correlation
    is undefined and 0 is returned.

    Raises
    ------
    InputError
        The shapes differ or are not two-dimensional, there is no cell, or a value is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> pearson(truth, truth[::-1])
    array([-1.,  0.])
    """
    return _by_columns(_statistics.pearson, truth, prediction)


def spearman(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the Spearman correlation of each column: `pearson` of the ranks.

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite.

    Returns
    -------
    n_genes values from -1 to 1; higher is better. A column that is constant in either matrix gets 0.

    Raises
    ------
    InputError
        As in `pearson`.

    Notes
    -----
    Tied values get their average rank.

    Examples
    --------
    >>> import numpy as np
    >>> spearman(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [10.0], [1000.0]]))
    array([1.])
    """
    return _by_columns(
        lambda t, p: _statistics.pearson(rankdata(t, axis=0), rankdata(p, axis=0)), truth, prediction
    )


def cosine(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the cosine similarity of each column (called CSS in the imputation papers).

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite.

    Returns
    -------
    n_genes values from -1 to 1 (from 0 if no value is negative); higher is better. A column that is all zero
    in either matrix gets 0.

    Raises
    ------
    InputError
        As in `pearson`.

    Notes
    -----
    Columns are not centred, so even a *constant* prediction scores high if most cells express the gene.
    Always compare it with `pearson`, and with the score of predicting the gene's mean.

    Examples
    --------
    >>> import numpy as np
    >>> cosine(np.array([[3.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])).round(3)
    array([0.99, 0. ])
    """
    return _by_columns(_statistics.cosine, truth, prediction)


def mse(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the mean squared error of each column, in squared units of the values.

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite.

    Returns
    -------
    n_genes values >= 0; lower is better.

    Raises
    ------
    InputError
        As in `pearson`.

    Examples
    --------
    >>> import numpy as np
    >>> mse(np.array([[0.0], [2.0]]), np.array([[1.0], [2.0]]))
    array([0.5])
    """
    return _by_columns(lambda t, p: ((t - p) ** 2).mean(axis=0), truth, prediction)


def rmse_z(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the root mean squared error of each column after converting it to z-scores.

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite.

    Returns
    -------
    n_genes values from 0 to 2; lower is better. A column that is constant in either matrix has no z-scores.
    It gets sqrt(2), like a prediction without correlation.

    Raises
    ------
    InputError
        As in `pearson`.

    Notes
    -----
    The RMSE of Li et al. 2022 (Nature Methods 19, 662), with z-scores from the population standard deviation.
    If neither column is constant, it equals sqrt(2 (1 - r)), where r is the Pearson correlation. DEVIATION:
    their code returns 1.5 for a constant. With z-scores of 0, a constant would get 1 and beat predictions
    with a correlation below 0.5.

    Examples
    --------
    >>> import numpy as np
    >>> rmse_z(np.array([[0.0, 0.0], [2.0, 2.0]]), np.array([[9.0, 5.0], [1.0, 5.0]])).round(3)
    array([2.   , 1.414])
    """
    return _by_columns(_rmse_z, truth, prediction)


def ssim(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the structural similarity of each column, with a single window of all cells.

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite.

    Returns
    -------
    n_genes values, at most 1; higher is better. Two all-zero columns give 1; a variable column compared with
    an all-zero one gives nearly 0.

    Raises
    ------
    InputError
        As in `pearson`.

    Notes
    -----
    As in Li et al. 2022 (Nature Methods 19, 662): both columns are divided by their own maximum (unless it is
    0 or less), then (2 m1 m2 + C1) (2 s12 + C2) / ((m1^2 + m2^2 + C1) (s1^2 + s2^2 + C2)) with C1 = 0.01^2,
    C2 = 0.03^2 and population moments.

    Examples
    --------
    >>> import numpy as np
    >>> ssim(np.array([[0.0], [1.0]]), np.array([[0.0], [5.0]]))
    array([1.])
    """
    return _by_columns(_ssim, truth, prediction)


def js(truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    """Return the Jensen-Shannon divergence of each column, as a distribution over cells.

    Parameters
    ----------
    truth, prediction
        n_cells x n_genes, finite. Values below 0 count as 0.

    Returns
    -------
    n_genes values from 0 to ln 2 = 0.693; lower is better. A column without positive values is not a
    distribution. If only one of the two is such a column, the result is ln 2; if both are, it is 0.

    Raises
    ------
    InputError
        As in `pearson`.

    Notes
    -----
    As in Li et al. 2022 (Nature Methods 19, 662): columns are divided by their sum, the logarithm is natural,
    and the result is the divergence, not its square root. DEVIATION: their code returns 1 for an empty
    column, more than any divergence can reach.

    Examples
    --------
    >>> import numpy as np
    >>> js(np.array([[1.0, 2.0], [0.0, 2.0]]), np.array([[0.0, 3.0], [1.0, 3.0]])).round(3)
    array([0.693, 0.   ])
    """
    return _by_columns(_js, truth, prediction)


METRICS: dict[str, Score] = {
    score.__name__: score for score in (pearson, spearman, cosine, mse, rmse_z, ssim, js)
}
"""All scores of a gene or a cell, by their name in tables."""


def _by_columns(score: Score, truth: NDArray[Any], prediction: NDArray[Any]) -> DoubleArray:
    fix = "Pass matrices of cells x genes."
    truth, prediction = (
        array_of(name, matrix, fix=fix, numbers=False)
        for name, matrix in (("truth", truth), ("prediction", prediction))
    )
    for name, matrix in (("truth", truth), ("prediction", prediction)):
        if matrix.dtype.kind not in "biuf":
            array_of(name, matrix, fix=fix)
    if truth.ndim != 2 or prediction.shape != truth.shape or truth.shape[0] == 0:
        raise InputError(
            "prediction",
            expected="two matrices (cells x genes) of the same shape with at least one cell",
            got=f"shapes {truth.shape} (truth) and {prediction.shape} (prediction)",
            fix="Use the same cells and genes, in the same order, in both matrices.",
        )
    n_cells, n_genes = truth.shape
    scores = np.empty(n_genes)
    for columns in row_blocks(n_genes, rows_within(BLOCK_VALUES, n_cells)):
        t, p = (matrix[:, columns].astype(np.float64) for matrix in (truth, prediction))  # n_cells x block
        for name, block in (("truth", t), ("prediction", p)):
            check_array(name, block, expected="finite values", fix="Check how the matrix was computed.")
        scores[columns] = score(t, p)
    return scores


def _divide(columns: DoubleArray, by: DoubleArray) -> DoubleArray:
    """Divide each column by its number; columns with a number of 0 or less are unchanged."""
    return np.asarray(columns / np.where(by > 0, by, 1.0))


def _rmse_z(truth: DoubleArray, prediction: DoubleArray) -> DoubleArray:
    t, p = (unit_length(centred(side)) for side in (truth, prediction))  # z-scores, scaled to length 1
    score = np.sqrt(((t - p) ** 2).sum(axis=0))
    constant = ~(t.any(axis=0) & p.any(axis=0))
    return np.asarray(np.where(constant, np.sqrt(2.0), np.minimum(score, 2.0)))


def _ssim(truth: DoubleArray, prediction: DoubleArray) -> DoubleArray:
    c1, c2 = 0.01**2, 0.03**2
    x, y = (_divide(side, side.max(axis=0)) for side in (truth, prediction))
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    covariance = ((x - mean_x) * (y - mean_y)).mean(axis=0)
    spread = x.var(axis=0) + y.var(axis=0)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.asarray(luminance * (2 * covariance + c2) / (spread + c2))


def _js(truth: DoubleArray, prediction: DoubleArray) -> DoubleArray:
    p, q = (_divide(side, side.sum(axis=0)) for side in (truth.clip(0.0), prediction.clip(0.0)))
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=0) / 2
    empty = p.max(axis=0), q.max(axis=0)
    one_empty = (empty[0] == 0) != (empty[1] == 0)
    return np.asarray(np.where(one_empty, np.log(2), np.clip(divergence, 0.0, np.log(2))))
