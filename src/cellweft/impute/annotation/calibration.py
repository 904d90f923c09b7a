"""Calibration: from shares of labels to calibrated probabilities, and cells of types without a label.

All functions work on arrays; ``annotator`` computes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray

LEAST_SHARE = 1e-4
"""Lower bound of shares before logarithms."""
KNOWN_CALLED_UNKNOWN = 0.15
"""Share of held-out cells of known types that the threshold calls unknown."""
LEAST_VOTE = 0.3
"""A group of similar cells is unknown if at least this share of them look unknown..."""
LEAST_LIFT = 2.5
"""...and if this share is this many times the share among all cells; if not, the platforms differ."""
_LOWEST_CUT = (
    -0.5
)  # log odds; a cell below it clearly looks known. The groups make up for single cells that are wrong
_PENALTY = 0.03  # on the squares of the labels' offsets
_BINS = 10
_NEAREST = 10  # anchors whose cosines are averaged


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelScale:
    """Vector scaling (Guo et al. 2017): log p = slope log(q) + offset of the label, up to a constant.

    Attributes
    ----------
    slope
        Above 1, probabilities are sharper than the input q; below 1, they are flatter.
    offsets
        (n_labels,)
    """

    slope: float
    offsets: DoubleArray

    @classmethod
    def fit(
        cls, told: DoubleArray, codes: IntArray, weights: DoubleArray, *, with_offsets: bool = True
    ) -> LabelScale:
        """Choose both so that the labels of held-out cells become most likely.

        Parameters
        ----------
        told
            (n_cells, n_labels) shares, or uncalibrated probabilities.
        codes, weights
            (n_cells,) number of each cell's label, and how much the cell counts; weights sum to 1.
        with_offsets
            Without them only the slope is fitted (temperature scaling), so the best label stays the same.
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
        bounds = [(0.05, 20.0), *[(None, None) if with_offsets else (0.0, 0.0)] * n_labels]
        best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        return cls(slope=float(best[0]), offsets=best[1:])

    def probabilities(self, told: DoubleArray) -> DoubleArray:
        """Return calibrated probabilities for shares, both (n_cells, n_labels), as in `fit`."""
        logs = np.log(np.maximum(told, LEAST_SHARE))
        return np.asarray(softmax(self.slope * logs + self.offsets, axis=1))


def joined(tables: Sequence[DoubleArray], votes: Sequence[float]) -> DoubleArray:
    """Return the weighted geometric mean of tables of probabilities; rows and ``votes`` sum to 1."""
    logs = sum(vote * np.log(np.maximum(table, 1e-12)) for table, vote in zip(tables, votes, strict=True))
    return np.asarray(softmax(logs, axis=1))


def without_label(probabilities: DoubleArray, label: int) -> DoubleArray:
    """Return the probabilities as if a label were not in the reference: its column is 0."""
    left = probabilities.copy()
    left[:, label] = 0
    return np.asarray(left / np.maximum(left.sum(axis=1, keepdims=True), 1e-12))


def reliability_bins(
    confidence: DoubleArray, is_right: BoolArray, weights: DoubleArray
) -> NDArray[np.float64]:
    """Return mean confidence, share of correct labels, and weight of ten bins of confidence, if not empty.

    Parameters
    ----------
    confidence, is_right, weights
        (n_cells,) probability of the assigned label, whether it is correct, and weight of the cell.

    Returns
    -------
    (n_bins, 3); the weights sum to 1.
    """
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    weights = weights / weights.sum()
    sums = [
        np.bincount(bins, weights * values, minlength=_BINS)
        for values in (confidence, is_right, np.ones(len(bins)))
    ]
    filled = sums[2] > 0
    return np.column_stack(
        [sums[0][filled] / sums[2][filled], sums[1][filled] / sums[2][filled], sums[2][filled]]
    )


def calibration_error(bins: NDArray[np.float64]) -> float:
    """Return the expected calibration error: mean |confidence - share of correct labels|."""
    return float((np.abs(bins[:, 0] - bins[:, 1]) * bins[:, 2]).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Anchors:
    """Reference cells in the shared embedding, used to measure nearness.

    Attributes
    ----------
    embedded
        (n_anchors, n_latent) of length 1.
    codes
        (n_anchors,) index of the label of each.
    """

    embedded: FloatArray
    codes: IntArray

    def nearness(
        self, embedded: FloatArray, *, without: int | None = None, own: IntArray | None = None
    ) -> DoubleArray:
        """Return the mean cosine of cells, (n_cells, n_latent), with their nearest anchors: (n_cells,).

        Parameters
        ----------
        embedded
            The cells.
        without
            A label; its anchors are excluded.
        own
            (n_cells,) the anchor that is the cell itself, which is excluded.
        """
        cosines = embedded @ self.embedded.T
        if own is not None:
            cosines[np.arange(len(own)), own] = -1
        if without is not None:
            cosines = cosines[:, self.codes != without]
        k = min(_NEAREST, cosines.shape[1])
        return np.asarray(np.partition(cosines, -k, axis=1)[:, -k:].mean(axis=1), dtype=np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Novelty:
    """Detects cells that look as if their type were not in the reference.

    Attributes
    ----------
    anchors
        Reference cells used to measure nearness.
    profiles
        (n_labels, n_panel) mean z-scored panel of each label's held-out cells.
    model
        Predicts, from features of a cell, the log odds that its type is missing.
    cut
        Log odds above which a cell is unknown.
    """

    anchors: Anchors
    profiles: DoubleArray
    model: LogisticRegression
    cut: float

    @classmethod
    def fit(
        cls,
        probabilities: DoubleArray,
        scores: DoubleArray,
        embedded: FloatArray,
        *,
        anchors: Anchors,
        weights: DoubleArray,
    ) -> Novelty:
        """Fit to held-out cells, removing one label at a time from the reference.

        Parameters
        ----------
        probabilities
            (n_cells, n_labels) calibrated probabilities.
        scores
            (n_cells, n_panel) z-scored panel.
        embedded
            (n_cells, n_latent)
        anchors
            The same cells in the reference's own values, in the same order.
        weights
            (n_cells,) weight of each cell; the sum is 1.
        """
        codes, n_labels, own = anchors.codes, probabilities.shape[1], np.arange(len(scores))
        present = np.unique(codes)
        profiles = np.zeros((n_labels, scores.shape[1]))
        for code in present:
            profiles[code] = scores[codes == code].mean(axis=0)
        near = anchors.nearness(embedded, own=own)
        fits = profile_fit(scores, probabilities, profiles)
        scale = Middle.of(near), Middle.of(fits)
        present_features = _seen(probabilities, near, fits, scale)
        missing = []
        for code in present:
            rows = codes == code
            left = without_label(probabilities[rows], code)
            far = anchors.nearness(embedded[rows], without=code)
            missing.append(_seen(left, far, profile_fit(scores[rows], left, profiles), scale))
        seen = np.concatenate([present_features, *missing])
        is_missing = np.repeat([0, 1], [len(present_features), len(seen) - len(present_features)])
        each = np.concatenate(
            [np.full(len(features), 1 / (len(present) * len(features))) for features in missing]
        )
        model = LogisticRegression(C=1.0)
        model.fit(seen, is_missing, sample_weight=np.concatenate([weights, each]) * len(present_features))
        odds = model.decision_function(present_features)
        order = np.argsort(odds, kind="stable")
        place = int(np.searchsorted(np.cumsum(weights[order]), 1 - KNOWN_CALLED_UNKNOWN))
        cut = max(float(odds[order[min(place, len(order) - 1)]]), _LOWEST_CUT)
        return cls(anchors=anchors, profiles=profiles, model=model, cut=cut)

    def unknown(self, probabilities: DoubleArray, near: DoubleArray, fits: DoubleArray) -> BoolArray:
        """Return which cells of a tissue are unknown, (n_cells,).

        Parameters
        ----------
        probabilities
            (n_cells, n_labels)
        near, fits
            (n_cells,) results of `Anchors.nearness` and `profile_fit`. They are compared with those of the
            other cells of the tissue, because their level depends on the platform.
        """
        seen = _seen(probabilities, near, fits, (Middle.of(near), Middle.of(fits)))
        return np.asarray(self.model.decision_function(seen) > self.cut)


def unknown_together(looks_unknown: BoolArray, groups: IntArray) -> BoolArray:
    """Return which cells are unknown, by groups of similar cells: (n_cells,).

    A missing type makes many similar cells look unknown. In single cells, this is mostly noise.

    Parameters
    ----------
    looks_unknown
        (n_cells,) result of `Novelty.unknown` for each cell.
    groups
        (n_cells,) index of each cell's group.
    """
    n_cells = np.maximum(np.bincount(groups), 1)
    share = np.bincount(groups, weights=looks_unknown) / n_cells
    return np.asarray((share > max(LEAST_VOTE, LEAST_LIFT * float(looks_unknown.mean())))[groups])


@dataclass(frozen=True, kw_only=True)
class Middle:
    """Median of values, and the median absolute deviation."""

    value: float
    spread: float

    @classmethod
    def of(cls, values: DoubleArray) -> Middle:
        """Compute both from (n_values,)."""
        middle = float(np.median(values))
        return cls(value=middle, spread=max(float(np.median(np.abs(values - middle))), 1e-3))

    def standard(self, values: DoubleArray) -> DoubleArray:
        """Return distances from the median, in units of the spread, -10 to 10."""
        return np.clip((values - self.value) / self.spread, -10, 10)


def profile_fit(scores: DoubleArray, probabilities: DoubleArray, profiles: DoubleArray) -> DoubleArray:
    """Return cosines of cells' z-scores, (n_cells, n_panel), with the profiles expected from their labels."""
    expected = probabilities @ profiles
    size = np.linalg.norm(scores, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((scores * expected).sum(axis=1) / np.maximum(size, 1e-9))


def z_scores(measured: FloatArray, mean: DoubleArray, square: DoubleArray) -> DoubleArray:
    """Return z-scores of (n_cells, n_panel) values, given the (n_panel,) means of values and of squares."""
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return np.asarray((measured - mean) / np.where(spread > 1e-6, spread, 1.0))


def _seen(
    probabilities: DoubleArray, near: DoubleArray, fits: DoubleArray, scale: tuple[Middle, Middle]
) -> DoubleArray:
    """Return the features for novelty: log odds of the best label, nearness, fit; (n_cells, 3)."""
    best = np.clip(probabilities.max(axis=1), 1e-6, 1 - 1e-6)
    return np.column_stack([np.log(best / (1 - best)), scale[0].standard(near), scale[1].standard(fits)])
