"""Expected accuracy of a gene: a prediction of its out-of-fold Pearson correlation, with an interval.

If attention transferred to the tissue without loss, the correlation of a gene would be the spread of its
prediction divided by the gene's own spread. The expected correlation is estimated from this ratio, the spread
of the final prediction, and the correlation within the reference. Panel genes, each predicted without its
measurement, determine the weights of these three values for the given data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from cellweft._errors import InputError, check_range
from cellweft._statistics import pearson
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray

FEATURES = ("tissue_spread", "spread_ratio", "reference_pearson")
"""Columns of `summaries`; all are at least 0, and 0 if nothing is predicted."""

LEVEL = 0.9
"""Level of the intervals. A gene is reliable if the lower limit of its interval is above 0."""

LEAST = 0.2
"""Lowest score of a reliable gene, for cases in which intervals are very narrow."""

SMALLEST_PANEL = 6
"""Fewest panel genes with a known correlation to learn from; an interval at `LEVEL` needs 9."""

_SHRINKAGE = 1.0  # towards equal weights, in genes: large for six genes, negligible for a hundred
_HIGHEST = 0.99  # keeps the Fisher z of correlations finite
_HALFWAY = 20.0  # panel size that gives half the Fisher z of an infinite panel


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredArrays:
    """A fitted model that consists of arrays."""

    def to_arrays(self) -> dict[str, DoubleArray]:
        """Return the arrays by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model with these arrays, as returned by `to_arrays`.

        Parameters
        ----------
        arrays
            Arrays by name; other names are ignored.

        Raises
        ------
        InputError
            An array is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise InputError(
                cls.__name__.lower(),
                expected=f"arrays named {', '.join(names)}",
                got=f"none named {', '.join(missing)}",
                fix="Pass all arrays that to_arrays returned.",
            )
        return cls(**{name: np.asarray(arrays[name], dtype=np.float64) for name in names})


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictability(StoredArrays):
    """The fitted model of the accuracy of genes.

    Attributes
    ----------
    weights
        (n_features,) at least 0: increase of the Fisher z per unit of each summary, for genes that are not on
        the panel.
    errors
        (n_known,) ascending: error of the score of each panel gene when it was left out, divided by 1 +
        score.
    panel_scores
        (n_panel,) score of each panel gene from a model that was not trained on it, 0 to 1.

    Examples
    --------
    >>> features = np.array([[0.2], [0.4], [0.4], [0.6], [0.8], [1.0], [1.0], [0.6], [0.2]])
    >>> pearson = np.tanh(features[:, 0] + np.array([1, -1, 1, -1, 1, -1, 1, -1, 1]) / 50)
    >>> known = fit_predictability(features, pearson)
    >>> score, lower, upper = known.score(np.array([[0.0], [0.5]]))
    >>> score.round(2), lower.round(2), upper.round(2)
    (array([0.  , 0.46]), array([-0.02,  0.44]), array([0.02, 0.49]))
    >>> known.reliable(score)
    array([False,  True])
    """

    weights: DoubleArray
    errors: DoubleArray
    panel_scores: DoubleArray

    @property
    def cut(self) -> float:
        """The score above which a gene is reliable: its interval at `LEVEL` is above 0; at least `LEAST`.

        Infinite if the panel is too small for an interval, or the errors of its genes are too large.
        """
        width = self._width(LEVEL)
        return max(width / (1 - width), LEAST) if width < 1 else float("inf")

    def score(
        self, features: DoubleArray, *, level: float = LEVEL
    ) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Return the expected correlations of genes that are not on the panel, with intervals.

        Parameters
        ----------
        features
            (n_genes, n_features) from `summaries`.
        level
            Share of genes with a correlation inside the interval, 0.01 to 0.999.

        Returns
        -------
        score : ndarray
            (n_genes,) expected Pearson correlation over the cells of the tissue, 0 to 1.
        lower, upper : ndarray
            (n_genes,) each, -1 to 1.

        Raises
        ------
        InputError
            ``features`` have another shape or are not finite.
        SettingError
            ``level`` is out of range.

        Notes
        -----
        For panel genes, use `panel_scores` and `interval`, because the model was trained on these genes.
        """
        values = _table(features)
        if values.shape[1] != len(self.weights):
            raise InputError(
                "features",
                expected=f"{len(self.weights)} columns, as in the fit",
                got=f"{values.shape[1]}",
                fix="Summarise the scored genes in the same way as the panel genes.",
            )
        score: DoubleArray = np.tanh(values @ self.weights)
        return score, *self.interval(score, level=level)

    def interval(self, score: DoubleArray, *, level: float = LEVEL) -> tuple[DoubleArray, DoubleArray]:
        """Return the lower and upper limits of the intervals around scores.

        Parameters
        ----------
        score
            (n_genes,) scores, 0 to 1.
        level
            Share of genes with a correlation inside the interval, 0.01 to 0.999.

        Returns
        -------
        (n_genes,) each, -1 to 1; -1 and 1 if the panel is too small for the level.

        Raises
        ------
        SettingError
            ``level`` is out of range.

        Notes
        -----
        Conformal intervals, from the errors of panel genes left out one by one (the jackknife). The width is
        proportional to 1 + score, because the largest errors are those of genes with a high score and a poor
        prediction. Intervals are valid for genes like those of the panel; a panel of marker genes gives
        intervals for marker genes.
        """
        values = np.asarray(score, dtype=np.float64)
        half = self._width(level) * (1 + values)
        return np.maximum(values - half, -1.0), np.minimum(values + half, 1.0)

    def reliable(self, score: DoubleArray) -> BoolArray:
        """Return (n_genes,) whether each ``score`` is above `cut`."""
        return np.asarray(score) > self.cut

    def _width(self, level: float) -> float:
        """Return half the width of an interval around the score 0."""
        check_range("level", level, low=0.01, high=0.999)
        # Rounding makes 0.9 of 9 + 1 genes exactly 9, without floating-point error.
        rank = int(np.ceil(round((len(self.errors) + 1) * level, 9)))
        return float(self.errors[rank - 1]) if rank <= len(self.errors) else float("inf")


def growth(n_panel: int, n_seen: float) -> float:
    """Return the factor by which predictions from a whole panel are better than from a part of it.

    Parameters
    ----------
    n_panel
        Number of panel genes, at least 1.
    n_seen
        Number of genes in the part, above 0.

    Returns
    -------
    Factor for the Fisher z of the correlation, at least 1 if the part is not larger than the panel.

    Notes
    -----
    Correlations are assumed to increase with the panel as ``n / (n + 20)``. In ``benchmarks/panel_size.py``,
    half of the limit for an infinite panel is reached with 9 genes on one tissue and with 20 on the other.
    With 20, the scores of genes not on the panel are, on average, correct for panels of 16 to 50 genes.

    Examples
    --------
    >>> round(growth(30, 20), 3), round(growth(300, 200), 3)
    (1.2, 1.031)
    """
    return (1 + _HALFWAY / n_seen) / (1 + _HALFWAY / n_panel)


def fit_predictability(
    features: DoubleArray, pearson: DoubleArray, *, n_seen: float | None = None
) -> Predictability:
    """Fit the model of accuracy to panel genes, each predicted without its measurement.

    Parameters
    ----------
    features
        (n_panel, n_features) summaries of their out-of-fold predictions, at least 0; higher is better.
    pearson
        (n_panel,) correlation of these predictions with the measurement, -1 to 1; NaN if unknown.
    n_seen
        Number of genes used for each of these predictions. Genes that are not on the panel are predicted from
        the whole panel, and therefore better: see `growth`. By default, no difference is assumed.

    Returns
    -------
    Predictability

    Raises
    ------
    InputError
        The shapes are inconsistent, a value is out of range, or fewer than `SMALLEST_PANEL` correlations are
        known.

    Notes
    -----
    The Fisher z of the correlation is a weighted sum of the summaries, with weights of at least 0 and no
    constant: a gene without any predicted variation has correlation 0. Weights are shrunk towards equal
    weights (for summaries scaled to a root mean square of 1), so that ten genes are enough. The fit is
    deterministic.
    """
    values, truth = _table(features), np.asarray(pearson, dtype=np.float64)
    is_known = _known(values, truth)
    scale = np.sqrt((values[is_known] ** 2).mean(axis=0))
    unit = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 0)  # 0 if it is 0 for all genes
    inputs, fisher = values * unit, np.arctanh(truth.clip(-_HIGHEST, _HIGHEST))
    products, moments = inputs[is_known].T @ inputs[is_known], inputs[is_known].T @ fisher[is_known]
    weights = _weights(products, moments)
    left_out = np.tile(weights, (len(values), 1))
    for gene in np.flatnonzero(is_known):
        own = inputs[gene]
        left_out[gene] = _weights(products - np.outer(own, own), moments - own * fisher[gene])
    scores = np.tanh((inputs * left_out).sum(axis=1))
    errors = np.abs(truth - scores)[is_known] / (1 + scores[is_known])
    better = 1.0 if n_seen is None else growth(len(values), n_seen)
    return Predictability(weights=weights * unit * better, errors=np.sort(errors), panel_scores=scores)


def summaries(
    predicted: FloatArray,
    attended: FloatArray,
    *,
    reference: FloatArray,
    queries: IntArray,
    within: FloatArray,
) -> DoubleArray:
    """Return the summaries of genes for the expected correlation: `FEATURES`.

    Parameters
    ----------
    predicted
        (n_sample, n_genes) final predictions in tissue cells, for each gene without its measurement.
    attended
        (n_cells, n_genes) the same from attention alone, in these or other cells: weighted means of the
        reference, in its units.
    reference
        (n_sc, n_genes) values of the genes in the reference.
    queries
        (n_queries,) positions of some reference cells.
    within
        (n_queries, n_genes) predictions for these cells from attention over all other reference cells.

    Returns
    -------
    (n_genes, 3): standard deviation of the prediction over the tissue; that of the attended values divided by
    that of the gene in the reference, 0 for a constant gene; Pearson correlation of the prediction within the
    reference, 0 if it is negative or not defined.

    Raises
    ------
    InputError
        The shapes are inconsistent.
    """
    n_genes = reference.shape[1]
    check_shape("predicted", predicted, (len(predicted), n_genes))
    check_shape("attended", attended, (len(attended), n_genes))
    check_shape("within", within, (len(queries), n_genes))
    own, spread = _spread(reference), _spread(attended)
    ratio = np.divide(spread, own, out=np.zeros(len(own)), where=own > 0)
    return np.stack([_spread(predicted), ratio, correlate(within, reference[queries]).clip(min=0)], axis=1)


def correlate(predicted: FloatArray, measured: FloatArray) -> DoubleArray:
    """Return the Pearson correlation of each gene over cells.

    Parameters
    ----------
    predicted, measured
        (n_cells, n_genes) each.

    Returns
    -------
    (n_genes,) -1 to 1; 0 for a gene that is constant on either side, as in `cellweft.metrics.pearson`.

    Raises
    ------
    InputError
        The shapes differ.
    """
    check_shape("predicted", predicted, measured.shape)
    return pearson(predicted, measured) if len(measured) else np.zeros(measured.shape[1])


def _weights(products: DoubleArray, moments: DoubleArray) -> DoubleArray:
    """Return non-negative least-squares weights, shrunk towards equal weights.

    Only sums over genes are needed: ``products`` of summaries with each other, ``moments`` with the Fisher z.
    """
    total = products.sum()
    equal = max(moments.sum() / total, 0.0) if total > 0 else 0.0  # least squares with one weight for all
    root = np.linalg.cholesky(products + _SHRINKAGE * np.eye(len(moments)))
    target = solve_triangular(root, moments + _SHRINKAGE * equal, lower=True)
    return np.asarray(nnls(root.T, target)[0], dtype=np.float64)


def _table(features: DoubleArray) -> DoubleArray:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all() or (values < 0).any():
        raise InputError(
            "features",
            expected="a table of genes x summaries, finite and at or above 0",
            got=f"an array of shape {values.shape}" if values.ndim != 2 else "another value",
            fix="Pass the result of summaries.",
        )
    return values


def _known(features: DoubleArray, pearson: DoubleArray) -> BoolArray:
    """Return which genes have a known correlation, after checking all values."""
    check_shape("pearson", pearson, (len(features),))
    is_known = ~np.isnan(pearson)
    if (np.abs(pearson[is_known]) > 1).any():
        raise InputError(
            "pearson",
            expected="correlations from -1 to 1",
            got=f"absolute values up to {np.abs(pearson[is_known]).max():g}",
            fix="Pass Pearson correlations of out-of-fold predictions.",
        )
    if is_known.sum() < SMALLEST_PANEL:
        raise InputError(
            "pearson",
            expected=f"at least {SMALLEST_PANEL} genes whose correlation is known",
            got=f"{is_known.sum()}",
            fix="Fit without reliability, or with a larger panel.",
        )
    return is_known


def check_shape(where: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless values have this shape."""
    if values.shape != shape:
        raise InputError(
            where,
            expected=f"an array of shape {shape}",
            got=f"one of shape {values.shape}",
            fix="Pass the same genes, and the same cells where they are shared.",
        )


def _spread(values: FloatArray) -> DoubleArray:
    """Return standard deviations of columns; exactly 0 for constants, despite rounding."""
    if len(values) == 0:
        return np.zeros(values.shape[1])
    constant = values.max(axis=0) == values.min(axis=0)
    return np.where(constant, 0.0, values.std(axis=0, dtype=np.float64))
