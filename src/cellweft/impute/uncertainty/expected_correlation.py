"""How well a gene is predicted: its out-of-fold Pearson correlation, foretold with an interval.

Attention that carried over to the tissue without loss would give a gene a correlation equal to the spread of
its prediction divided by the gene's own spread. That ratio, the spread of the final prediction and the
correlation reached within the reference are what a gene is judged by. Genes of the panel, each predicted
without its measurement, say how much each of the three is worth on the data at hand.
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
"""What `summaries` says of a gene, a column each; all at or above 0, and 0 if nothing is predicted."""

LEVEL = 0.9
"""Level of the intervals: of a reliable gene, the one at this level begins above 0."""

LEAST = 0.2
"""Least score of a reliable gene, where intervals are so narrow that lower ones begin above 0 too."""

SMALLEST_PANEL = 6
"""Fewest panel genes with a known correlation to learn from; an interval at `LEVEL` needs 9."""

_SHRINKAGE = 1.0  # towards equal weights, in genes: of six it decides much, of a hundred nearly nothing
_HIGHEST = 0.99  # correlations beyond have no finite Fisher z to speak of
_HALFWAY = 20.0  # genes with which a panel reaches half of the correlation that an endless one would


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredArrays:
    """What was learned, as arrays alone."""

    def to_arrays(self) -> dict[str, DoubleArray]:
        """Return the arrays by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return what `to_arrays` took apart.

        Parameters
        ----------
        arrays
            By name; others among them are passed over.

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
    """What was learned of how well genes are predicted.

    Attributes
    ----------
    weights
        (n_features,) at or above 0: what a unit of each summary adds to the Fisher z of the correlation of a
        gene off the panel.
    errors
        (n_known,) ascending: how far the score of a panel gene, left out, was from its correlation, divided
        by 1 + score.
    panel_scores
        (n_panel,) score of every panel gene by a model that was not trained on it, 0 to 1.

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
        """The score above which a gene is reliable: the interval at `LEVEL` begins above 0; `LEAST` or more.

        Infinite where the panel is too small for an interval, or its genes were foretold too badly.
        """
        width = self._width(LEVEL)
        return max(width / (1 - width), LEAST) if width < 1 else float("inf")

    def score(
        self, features: DoubleArray, *, level: float = LEVEL
    ) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Return the correlations to expect of genes off the panel, and intervals around them.

        Parameters
        ----------
        features
            (n_genes, n_features) as `summaries` gives them.
        level
            Share of genes whose correlation the interval is to hold, 0.01 to 0.999.

        Returns
        -------
        score : ndarray
            (n_genes,) Pearson correlation to expect over the cells of the tissue, 0 to 1.
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
        For genes of the panel take `panel_scores` and `interval`: the model was trained on these.
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
        """Return the lower and upper ends of the intervals around scores.

        Parameters
        ----------
        score
            (n_genes,) scores, 0 to 1.
        level
            Share of genes whose correlation the interval is to hold, 0.01 to 0.999.

        Returns
        -------
        (n_genes,) each, -1 to 1; -1 and 1 where the panel is too small for the level.

        Raises
        ------
        SettingError
            ``level`` is out of range.

        Notes
        -----
        Conformal, from the errors of panel genes left out one by one (the jackknife). The width grows with
        1 + score: a gene that ought to be predicted well, and is not, is the largest miss. The panel must be
        drawn as the requested genes are; one chosen for its marker genes gives intervals for such genes.
        """
        values = np.asarray(score, dtype=np.float64)
        half = self._width(level) * (1 + values)
        return np.maximum(values - half, -1.0), np.minimum(values + half, 1.0)

    def reliable(self, score: DoubleArray) -> BoolArray:
        """Return (n_genes,) whether each ``score`` is above `cut`."""
        return np.asarray(score) > self.cut

    def _width(self, level: float) -> float:
        """Return half the width of the interval around a score of 0."""
        check_range("level", level, low=0.01, high=0.999)
        # The rounding lets 0.9 of 9 + 1 genes be 9, not a hair above.
        rank = int(np.ceil(round((len(self.errors) + 1) * level, 9)))
        return float(self.errors[rank - 1]) if rank <= len(self.errors) else float("inf")


def growth(n_panel: int, n_seen: float) -> float:
    """Return how much better genes are predicted from a whole panel than from a part of it.

    Parameters
    ----------
    n_panel
        Genes of the panel, at least 1.
    n_seen
        Genes of the part, above 0.

    Returns
    -------
    Factor of the Fisher z of the correlation, 1 or more where the part is not larger than the panel.

    Notes
    -----
    Correlations are taken to grow with the panel as ``n / (n + 20)``. In ``benchmarks/panel_size.py`` half of
    what an endless panel would give is reached with 9 genes on one tissue and with 20 on the other; with 20,
    genes off panels of 16 to 50 genes are as good as foretold, in the mean.

    Examples
    --------
    >>> round(growth(30, 20), 3), round(growth(300, 200), 3)
    (1.2, 1.031)
    """
    return (1 + _HALFWAY / n_seen) / (1 + _HALFWAY / n_panel)


def fit_predictability(
    features: DoubleArray, pearson: DoubleArray, *, n_seen: float | None = None
) -> Predictability:
    """Learn from panel genes, each predicted without it, how well a gene is predicted.

    Parameters
    ----------
    features
        (n_panel, n_features) summaries of their out-of-fold predictions, at or above 0: more is better.
    pearson
        (n_panel,) correlation of these predictions with the measurement, -1 to 1; NaN if it is not known.
    n_seen
        Genes that each of these predictions was made from. Genes off the panel are predicted from all of it,
        and so better: see `growth`. By default they are taken to be predicted no better.

    Returns
    -------
    Predictability

    Raises
    ------
    InputError
        The shapes do not fit, a value is out of range, or fewer than `SMALLEST_PANEL` correlations are
        known.

    Notes
    -----
    The Fisher z of the correlation is a sum of the summaries with weights at or above 0 and no constant: a
    gene of which nothing is predicted has a correlation of 0. Weights are shrunk towards equal ones (of
    summaries scaled to a root mean square of 1), so that ten genes are enough. Nothing is drawn at random.
    """
    values, truth = _table(features), np.asarray(pearson, dtype=np.float64)
    is_known = _known(values, truth)
    scale = np.sqrt((values[is_known] ** 2).mean(axis=0))
    unit = np.divide(1.0, scale, out=np.zeros(len(scale)), where=scale > 0)  # 0: no gene of the panel has any
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
    """Return what genes are judged by: `FEATURES`, a fixed number per gene.

    Parameters
    ----------
    predicted
        (n_sample, n_genes) final predictions in cells of the tissue, of each gene without its measurement.
    attended
        (n_cells, n_genes) the same by the attention alone, in these cells or others: weighted means of the
        reference, in its units.
    reference
        (n_sc, n_genes) the genes in the reference.
    queries
        (n_queries,) positions of some cells of the reference.
    within
        (n_queries, n_genes) the genes in these cells, by attention over all other cells of the reference.

    Returns
    -------
    (n_genes, 3): standard deviation of the prediction over the tissue; that of the attended values divided by
    the gene's in the reference, 0 for a gene that is constant there; Pearson correlation of the
    prediction within the reference, 0 if it is negative or not defined.

    Raises
    ------
    InputError
        The shapes do not fit.
    """
    n_genes = reference.shape[1]
    check_shape("predicted", predicted, (len(predicted), n_genes))
    check_shape("attended", attended, (len(attended), n_genes))
    check_shape("within", within, (len(queries), n_genes))
    own, spread = _spread(reference), _spread(attended)
    ratio = np.divide(spread, own, out=np.zeros(len(own)), where=own > 0)
    return np.stack([_spread(predicted), ratio, correlate(within, reference[queries]).clip(min=0)], axis=1)


def correlate(predicted: FloatArray, measured: FloatArray) -> DoubleArray:
    """Return the Pearson correlation of every gene over cells.

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
    """Return the weights at or above 0 of least squares, shrunk towards equal ones.

    Sums over genes are enough: ``products`` of summaries with each other, ``moments`` with the Fisher z.
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
    """Return the genes whose correlation is known, after a look at all of them."""
    check_shape("pearson", pearson, (len(features),))
    is_known = ~np.isnan(pearson)
    if (np.abs(pearson[is_known]) > 1).any():
        raise InputError(
            "pearson",
            expected="correlations from -1 to 1",
            got=f"{np.abs(pearson[is_known]).max():g} at most, by size",
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
    """Raise `InputError` unless values have a shape."""
    if values.shape != shape:
        raise InputError(
            where,
            expected=f"an array of shape {shape}",
            got=f"one of shape {values.shape}",
            fix="Pass the same genes, and the same cells where they are shared.",
        )


def _spread(values: FloatArray) -> DoubleArray:
    """Return standard deviations of columns; 0 for a constant, which rounding alone would not give."""
    if len(values) == 0:
        return np.zeros(values.shape[1])
    constant = values.max(axis=0) == values.min(axis=0)
    return np.where(constant, 0.0, values.std(axis=0, dtype=np.float64))
