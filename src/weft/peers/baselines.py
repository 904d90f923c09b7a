"""Methods of a few lines that every other one must beat.

Each is called as ``method(train, test, genes, seed=0)``: ``train`` holds the reference and the spatial cells
and genes that may be learned from, ``test`` the spatial cells to predict for, ``genes`` positions in
``train.sc.genes``. The answer is float32, test cells x asked genes, in log-normalised units of the reference.
None draws at random: the seed is taken to be called like every other method, and changes nothing.

Work goes by blocks of test cells; nothing of the size test cells x reference cells is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import scipy.sparse as sp

from weft._errors import InputError, check_choice, check_range
from weft._typing import DoubleArray, FloatArray, IntArray, Matrix
from weft.data.pair import Pair
from weft.data.side import Side
from weft.data.stream import row_blocks

Space: TypeAlias = Literal["zscore", "log"]
"""What cells are compared by: z-scores of the panel genes, each side's its own, or log-normalised values."""

Weights: TypeAlias = Literal["cosine", "uniform"]
"""How much each of the nearest cells counts: by its cosine (none below 0), or all the same."""

Baseline: TypeAlias = Callable[..., FloatArray]
"""A function of (train, test, genes, seed=..., and settings of its own) as this module describes it."""

_BLOCK_BYTES = 64e6
_MOMENT_ROWS = 4096


def reference_mean(train: Pair, test: Pair, genes: IntArray, *, seed: int = 0) -> FloatArray:
    """Predict every gene's mean over the reference in every cell: a constant.

    Parameters
    ----------
    train, test
        The pair to learn from, and the one whose spatial cells are predicted.
    genes
        (n_genes,) positions in ``train.sc.genes``.
    seed
        Not used.

    Returns
    -------
    (n_test_cells, n_genes), log-normalised units of the reference.

    Notes
    -----
    Where most cells express most genes its cosine similarity is hard to beat, and its correlation is none: it
    tells what a cosine is worth.
    """
    mean, _ = _moments(train.sc, genes)
    return np.repeat(mean[None, :].astype(np.float32), test.st.n_cells, axis=0)


def knn(
    train: Pair,
    test: Pair,
    genes: IntArray,
    *,
    seed: int = 0,
    k: int = 50,
    space: Space = "zscore",
    weights: Weights = "cosine",
) -> FloatArray:
    """Predict a mean over the k reference cells that are most similar by cosine.

    Parameters
    ----------
    train, test
        The pair to learn from, and the one whose spatial cells are predicted.
    genes
        (n_genes,) positions in ``train.sc.genes``.
    seed
        Not used.
    k
        Neighbours, at most the reference's cells.
    space
        ``"zscore"`` compares z-scores of the panel genes, ``"log"`` their log-normalised values.
    weights
        ``"cosine"`` lets neighbours count by their cosine, ``"uniform"`` all the same.

    Returns
    -------
    (n_test_cells, n_genes), log-normalised units of the reference.

    Raises
    ------
    SettingError
        ``k``, ``space`` or ``weights`` out of range.
    InputError
        ``test`` has another panel than ``train``.
    """
    n_sc = train.sc.n_cells
    check_range("k", k, low=1, high=n_sc, integer=True)
    check_choice("weights", weights, ("cosine", "uniform"))
    values = train.sc.block(slice(0, n_sc), genes)  # n_sc x n_genes
    predicted = np.empty((test.st.n_cells, len(genes)), dtype=np.float32)
    for rows, similarity in _similarities(train, test, space=space):
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]  # b x k
        share = np.take_along_axis(similarity, nearest, axis=1).clip(0)  # b x k
        if weights == "uniform":
            share[:] = 1
        share[~share.any(axis=1)] = 1  # no neighbour is similar at all
        share /= share.sum(axis=1, keepdims=True)
        starts = np.arange(0, nearest.size + 1, k)
        average = sp.csr_matrix((share.ravel(), nearest.ravel(), starts), shape=similarity.shape)
        predicted[rows] = _dense(average @ values)
    return predicted


def attention(
    train: Pair,
    test: Pair,
    genes: IntArray,
    *,
    seed: int = 0,
    temperature: float = 0.1,
    space: Space = "zscore",
) -> FloatArray:
    """Predict a mean over all reference cells, weighted by softmax(cosine / temperature).

    Parameters
    ----------
    train, test
        The pair to learn from, and the one whose spatial cells are predicted.
    genes
        (n_genes,) positions in ``train.sc.genes``.
    seed
        Not used.
    temperature
        Above 0. Lower looks at fewer cells.
    space
        ``"zscore"`` compares z-scores of the panel genes, ``"log"`` their log-normalised values.

    Returns
    -------
    (n_test_cells, n_genes), log-normalised units of the reference.

    Raises
    ------
    SettingError
        ``temperature`` or ``space`` out of range.
    InputError
        ``test`` has another panel than ``train``.
    """
    check_range("temperature", temperature, low=1e-6)
    values = train.sc.block(slice(0, train.sc.n_cells), genes)  # n_sc x n_genes
    predicted = np.empty((test.st.n_cells, len(genes)), dtype=np.float32)
    for rows, similarity in _similarities(train, test, space=space):
        logits = similarity / np.float32(temperature)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))  # b x n_sc
        weights /= weights.sum(axis=1, keepdims=True)
        predicted[rows] = _dense(values.T @ weights.T).T
    return predicted


@dataclass(frozen=True, kw_only=True)
class _Standard:
    """How the panel's values of one side are made comparable: (value - mean) / spread, rows of length 1."""

    mean: FloatArray
    spread: FloatArray

    def directions(self, values: FloatArray) -> FloatArray:
        """Return rows of length 1; a row of zeros stays one: it is as similar to every cell."""
        rows = (values - self.mean) / self.spread
        length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
        return np.asarray(rows / np.where(length > 0, length, 1))


def _similarities(train: Pair, test: Pair, *, space: Space) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the cosines of each block of test cells with all reference cells: rows, b x n_sc."""
    check_choice("space", space, ("zscore", "log"))
    if not np.array_equal(train.shared_genes, test.shared_genes):
        raise InputError(
            "test",
            expected=f"the {len(train.shared_genes)} panel genes that were trained on",
            got=f"{len(test.shared_genes)} genes, not the same",
            fix="Take the same panel of both: pair.panel(genes).",
        )
    n_sc = train.sc.n_cells
    reference = _standard(train.sc, train.sc_shared, space).directions(
        train.sc.dense(slice(0, n_sc), train.sc_shared)
    )  # n_sc x n_shared
    # the training cells' moments: a cell's prediction must not hang on which cells are predicted with it
    spatial = _standard(train.st, train.st_shared, space)
    # cosines, their order or exponentials, and one copy on the way
    size = max(1, int(_BLOCK_BYTES // (4 * 4 * n_sc)))
    for rows in row_blocks(test.st.n_cells, size):
        cells = spatial.directions(test.st.dense(rows, test.st_shared))  # b x n_shared
        yield rows, cells @ reference.T


def _standard(side: Side, genes: IntArray, space: Space) -> _Standard:
    mean, spread = np.zeros(len(genes)), np.ones(len(genes))
    if space == "zscore":
        mean, spread = _moments(side, genes)
    return _Standard(
        mean=mean.astype(np.float32), spread=np.where(spread > 0, spread, 1.0).astype(np.float32)
    )


def _moments(side: Side, genes: IntArray) -> tuple[DoubleArray, DoubleArray]:
    """Return mean and standard deviation of every gene over all cells of a side, (n_genes,) each."""
    total, mean, squares = 0, np.zeros(len(genes)), np.zeros(len(genes))
    for rows in row_blocks(side.n_cells, _MOMENT_ROWS):
        values = side.dense(rows, genes).astype(np.float64)
        # the pairwise update of Chan et al. 1979: sums of squares alone would cancel
        n, block_mean = len(values), values.mean(axis=0)
        shift = block_mean - mean
        squares += ((values - block_mean) ** 2).sum(axis=0) + shift**2 * (total * n / (total + n))
        mean += shift * (n / (total + n))
        total += n
    return mean, np.sqrt(squares / total)


def _dense(product: Matrix) -> FloatArray:
    return np.asarray(product.toarray() if sp.issparse(product) else product, dtype=np.float32)
