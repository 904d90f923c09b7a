"""Simple baselines that other methods should outperform.

Each is called as ``method(train, test, genes, seed=0)``: ``train`` contains the reference and the spatial
cells and genes for training, ``test`` the spatial cells to predict, and ``genes`` positions in
``train.sc.genes``. The result is float32, test cells x requested genes, in log-normalised units of the
reference. All baselines are deterministic; the seed only exists for the common interface.

They work in blocks of test cells, without a matrix of test cells x reference cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp

from cellweft._compute import BLOCK_BYTES, READ_ROWS, row_blocks, rows_within
from cellweft._errors import InputError, check_choice, check_range
from cellweft._statistics import unit_length
from cellweft._typing import FloatArray, IntArray, Matrix
from cellweft.data._pair import Pair
from cellweft.data.side import Side

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler

Space: TypeAlias = Literal["zscore", "log"]
"""Values for comparing cells: z-scores of the panel genes within each side, or log-normalised values."""
Weights: TypeAlias = Literal["cosine", "uniform"]
"""Weights of the nearest cells: their cosine (at least 0), or equal weights."""
Baseline: TypeAlias = Callable[..., FloatArray]
"""A function of (train, test, genes, seed=..., own settings); see this module."""


def reference_mean(train: Pair, test: Pair, genes: IntArray, *, seed: int = 0) -> FloatArray:
    """Predict each gene's mean over the reference for all cells: a constant.

    Parameters
    ----------
    train, test
        The pair for training, and the pair with the spatial cells to predict.
    genes
        (n_genes,) positions in ``train.sc.genes``.
    seed
        Not used.

    Returns
    -------
    (n_test_cells, n_genes), log-normalised units of the reference.

    Notes
    -----
    If most cells express most genes, its cosine similarity is hard to beat although its correlation is 0. It
    shows how informative a cosine is.
    """
    mean = _moments(train.sc, genes).mean_
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
    """Predict the mean over the k most similar reference cells, by cosine.

    Parameters
    ----------
    train, test
        The pair for training, and the pair with the spatial cells to predict.
    genes
        (n_genes,) positions in ``train.sc.genes``.
    seed
        Not used.
    k
        Number of neighbours, at most the number of reference cells.
    space
        ``"zscore"`` compares z-scores of the panel genes, ``"log"`` their log-normalised values.
    weights
        ``"cosine"`` weights neighbours by their cosine, ``"uniform"`` equally.

    Returns
    -------
    (n_test_cells, n_genes), log-normalised units of the reference.

    Raises
    ------
    SettingError
        ``k``, ``space`` or ``weights`` out of range.
    InputError
        The panels of ``test`` and ``train`` differ.
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
        share[~share.any(axis=1)] = 1  # no neighbour has a positive cosine
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
    """Predict the mean over all reference cells, weighted by softmax(cosine / temperature).

    Parameters
    ----------
    train, test
        The pair for training, and the pair with the spatial cells to predict.
    genes
        (n_genes,) positions in ``train.sc.genes``.
    seed
        Not used.
    temperature
        Above 0. A lower temperature gives weight to fewer cells.
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
        The panels of ``test`` and ``train`` differ.
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
class Directions:
    """Standardisation of the shared genes of one side: (value - mean) / spread, with rows of length 1.

    Attributes
    ----------
    mean, spread
        (n_shared,) of the genes, float32; 0 and 1 if log-normalised values are compared.
    """

    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, side: Side, genes: IntArray, space: Space) -> Directions:
        """Return the standardisation of genes of a side, (n_shared,) positions, for a space."""
        mean, spread = np.zeros(len(genes)), np.ones(len(genes))
        if space == "zscore":
            moments = _moments(side, genes)
            mean, spread = moments.mean_, moments.scale_  # the scale of a constant is 1
        return cls(mean=mean.astype(np.float32), spread=spread.astype(np.float32))

    def rows(self, values: FloatArray) -> FloatArray:
        """Return (n, n_shared) values as rows of length 1; rows of zeros are unchanged."""
        return unit_length((values - self.mean) / self.spread, axis=1, dtype=np.float32)


def _similarities(train: Pair, test: Pair, *, space: Space) -> Iterator[tuple[slice, FloatArray]]:
    """Yield, for each block of test cells, its rows and the cosines with all reference cells, b x n_sc."""
    check_choice("space", space, ("zscore", "log"))
    if not np.array_equal(train.shared_genes, test.shared_genes):
        raise InputError(
            "test",
            expected=f"the {len(train.shared_genes)} panel genes of the training pair",
            got=f"{len(test.shared_genes)} genes, not the same ones",
            fix="Use the same panel for both: pair.panel(genes).",
        )
    n_sc = train.sc.n_cells
    reference = Directions.of(train.sc, train.sc_shared, space).rows(
        train.sc.dense(slice(0, n_sc), train.sc_shared)
    )  # n_sc x n_shared
    # moments of the training cells, so that a prediction does not depend on the other predicted cells
    spatial = Directions.of(train.st, train.st_shared, space)
    # cosines, their order or exponentials, and one temporary copy
    for rows in row_blocks(test.st.n_cells, rows_within(BLOCK_BYTES, 4 * 4 * n_sc)):
        cells = spatial.rows(test.st.dense(rows, test.st_shared))  # b x n_shared
        yield rows, cells @ reference.T


def _moments(side: Side, genes: IntArray) -> StandardScaler:
    """Return mean and standard deviation of each gene over all cells of a side."""
    from sklearn.preprocessing import StandardScaler

    moments = StandardScaler()
    for rows in row_blocks(side.n_cells, READ_ROWS):
        moments.partial_fit(side.dense(rows, genes).astype(np.float64))
    return moments


def _dense(product: Matrix) -> FloatArray:
    return np.asarray(product.toarray() if sp.issparse(product) else product, dtype=np.float32)


BASELINES: dict[str, Baseline] = {"mean": reference_mean, "knn": knn, "attention": attention}
"""The baselines, by their name in `cellweft.evaluate_imputation`."""
