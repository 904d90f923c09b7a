"""From shares of labels to calibrated probabilities, and to which cells are of a type that nobody named.

Arrays alone: what they are made of is in ``annotator``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from cellweft._typing import BoolArray, DoubleArray, IntArray

LEAST_SHARE = 1e-4
"""What stands for shares that are smaller, before logarithms."""
KNOWN_CALLED_UNKNOWN = 0.05
"""Share of the held-out cells of known types that the cut lets go as unknown."""
_PENALTY = 0.03  # on the squares of the labels' offsets
_BINS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelScale:
    """Vector scaling (Guo et al. 2017): log p = slope log(q) + offset of the label, up to a constant.

    Attributes
    ----------
    slope
        How much sharper, above 1, or flatter probabilities are than what is scaled, q.
    offsets
        (n_labels,)
    """

    slope: float
    offsets: DoubleArray

    @classmethod
    def fit(cls, told: DoubleArray, codes: IntArray, weights: DoubleArray) -> LabelScale:
        """Choose both so that the labels of held-out cells become most likely.

        Parameters
        ----------
        told
            (n_cells, n_labels) shares, or probabilities that are not calibrated.
        codes, weights
            (n_cells,) number of each cell's label, and how much the cell counts; weights sum to 1.
        """
        logs, n_labels = np.log(np.maximum(told, LEAST_SHARE)), told.shape[1]
        truth = np.eye(n_labels)[codes]

        def loss(values: DoubleArray) -> tuple[float, DoubleArray]:
            scores = log_softmax(values[0] * logs + values[1:], axis=1)
            wrong = weights[:, None] * (np.exp(scores) - truth)
            of_offsets = wrong.sum(axis=0) + 2 * _PENALTY * values[1:]
            total = (
                -(weights * scores[np.arange(len(codes)), codes]).sum() + _PENALTY * (values[1:] ** 2).sum()
            )
            return float(total), np.concatenate([[(wrong * logs).sum()], of_offsets])

        start = np.concatenate([[1.0], np.zeros(n_labels)])
        bounds = [(0.05, 20.0), *[(None, None)] * n_labels]
        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        return cls(slope=float(best[0]), offsets=best[1:])

    def probabilities(self, told: DoubleArray) -> DoubleArray:
        """Return (n_cells, n_labels) probabilities of (n_cells, n_labels) shares, as `fit` takes them."""
        logs = np.log(np.maximum(told, LEAST_SHARE))
        return np.asarray(softmax(self.slope * logs + self.offsets, axis=1))


def joined(first: DoubleArray, second: DoubleArray) -> DoubleArray:
    """Return the geometric mean of two tables of probabilities, rows summing to 1."""
    product = np.sqrt(np.maximum(first, 1e-12) * np.maximum(second, 1e-12))
    return np.asarray(product / product.sum(axis=1, keepdims=True))


def without_label(probabilities: DoubleArray, label: int) -> DoubleArray:
    """Return probabilities as they are where a label is not in the reference: its column is 0."""
    left = probabilities.copy()
    left[:, label] = 0
    return np.asarray(left / np.maximum(left.sum(axis=1, keepdims=True), 1e-12))


def reliability_bins(
    confidence: DoubleArray, is_right: BoolArray, weights: DoubleArray
) -> NDArray[np.float64]:
    """Return mean confidence, share that is right, and weight of ten bins of confidence, empty ones left out.

    Parameters
    ----------
    confidence, is_right, weights
        (n_cells,) probability of the label that was given, whether it is the cell's, and how much it counts.

    Returns
    -------
    (n_bins, 3); the weights sum to 1.
    """
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    weights = weights / weights.sum()
    sums = [
        np.bincount(bins, weights * one, minlength=_BINS)
        for one in (confidence, is_right, np.ones(len(bins)))
    ]
    filled = sums[2] > 0
    return np.column_stack(
        [sums[0][filled] / sums[2][filled], sums[1][filled] / sums[2][filled], sums[2][filled]]
    )


def calibration_error(bins: NDArray[np.float64]) -> float:
    """Return the expected calibration error: the mean distance of confidence and share that is right."""
    return float((np.abs(bins[:, 0] - bins[:, 1]) * bins[:, 2]).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Novelty:
    """Which cells look as if their type were not in the reference.

    Attributes
    ----------
    profiles
        (n_labels, n_panel) mean z-scored panel of the labels' held-out cells.
    mean, spread
        (n_panel,) of the held-out cells, which z-scores are taken by.
    model
        From what is seen of a cell to the log odds that its type is missing.
    centre
        Median and spread of the fit to the profiles, among the held-out cells.
    cut
        Log odds above which a cell is unknown.
    """

    profiles: DoubleArray
    mean: DoubleArray
    spread: DoubleArray
    model: LogisticRegression
    centre: tuple[float, float]
    cut: float

    @classmethod
    def fit(
        cls, probabilities: DoubleArray, measured: DoubleArray, codes: IntArray, weights: DoubleArray
    ) -> Novelty:
        """Learn it from held-out cells, with one type at a time as if the reference lacked it.

        Parameters
        ----------
        probabilities
            (n_cells, n_labels) calibrated.
        measured
            (n_cells, n_panel) log-normalised panel, as the tissue's.
        codes, weights
            (n_cells,) number of each cell's label, and how much the cell counts; weights sum to 1.
        """
        mean = weights @ measured
        spread = np.sqrt(weights @ (measured - mean) ** 2)
        spread = np.where(spread > 1e-6, spread, 1.0)
        n_labels, scores = probabilities.shape[1], (measured - mean) / spread
        profiles = np.stack([scores[codes == code].mean(axis=0) for code in range(n_labels)])
        fits = profile_fit(scores, probabilities, profiles)
        centre = centre_of(fits)
        known, missing = [_seen(probabilities, fits, centre, measured)], list[DoubleArray]()
        for code in range(n_labels):
            rows = codes == code
            left = without_label(probabilities[rows], code)
            missing.append(_seen(left, profile_fit(scores[rows], left, profiles), centre, measured[rows]))
        seen = np.concatenate([*known, *missing])
        is_missing = np.repeat([0, 1], [len(codes), len(seen) - len(codes)])
        each = np.concatenate([np.full(len(one), 1 / (n_labels * len(one))) for one in missing])
        balance = np.concatenate([weights, each]) * len(seen)
        model = LogisticRegression(C=1.0).fit(seen, is_missing, sample_weight=balance)
        odds = model.decision_function(known[0])
        order = np.argsort(odds, kind="stable")
        place = np.searchsorted(np.cumsum(weights[order]), 1 - KNOWN_CALLED_UNKNOWN)
        cut = float(odds[order[min(place, len(order) - 1)]])
        return cls(profiles=profiles, mean=mean, spread=spread, model=model, centre=centre, cut=cut)

    def fit_of(self, probabilities: DoubleArray, measured: DoubleArray) -> DoubleArray:
        """Return how well cells fit the profiles of their labels: cosines of z-scores, (n_cells,)."""
        return profile_fit((measured - self.mean) / self.spread, probabilities, self.profiles)

    def odds(
        self,
        probabilities: DoubleArray,
        fits: DoubleArray,
        measured: DoubleArray,
        centre: tuple[float, float],
    ) -> DoubleArray:
        """Return log odds that the types of cells are missing, (n_cells,); ``centre`` is of all fits."""
        return np.asarray(self.model.decision_function(_seen(probabilities, fits, centre, measured)))


def profile_fit(scores: DoubleArray, probabilities: DoubleArray, profiles: DoubleArray) -> DoubleArray:
    """Return cosines of cells' z-scores, (n_cells, n_panel), with the profiles that their labels lead to."""
    expected = probabilities @ profiles
    size = np.linalg.norm(scores, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((scores * expected).sum(axis=1) / np.maximum(size, 1e-9))


def centre_of(fits: DoubleArray) -> tuple[float, float]:
    """Return median, and median distance from it, of fits."""
    middle = float(np.median(fits))
    return middle, max(float(np.median(np.abs(fits - middle))), 1e-3)


def _seen(
    probabilities: DoubleArray, fits: DoubleArray, centre: tuple[float, float], measured: DoubleArray
) -> DoubleArray:
    """Return what novelty is told by: log odds of the label, entropy, fit, genes detected; (n_cells, 4)."""
    best = np.clip(probabilities.max(axis=1), 1e-6, 1 - 1e-6)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    detected = np.log1p((measured > 0).sum(axis=1))
    fit = np.clip((fits - centre[0]) / centre[1], -10, 10)
    return np.column_stack([np.log(best / (1 - best)), entropy, fit, detected])
