"""Transfer of labels to the cells of a tissue: probabilities, the best label, and unknown cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._statistics import row_shares
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress, no_progress
from cellweft.data._pair import Labels, Pair
from cellweft.data.cell_values import CellValues
from cellweft.impute.annotation.calibration import LabelScale, joined
from cellweft.impute.annotation.held_out_cells import HeldOut, as_measured, draw_cells, share_weights
from cellweft.impute.annotation.label_table import Views, label_table
from cellweft.impute.annotation.reference_labels import ReferenceLabels, read_labels
from cellweft.impute.base import FittedMethod
from cellweft.impute.planning import columns_at_once
from cellweft.impute.transfer import carried_to

SHARPNESS = 2.0
"""Factor on the sharpness of attention for labels, chosen with benchmarks/annotate.py."""
LEAST_DEPTH = 0.03
"""Smallest depth of held-out cells, as a share of the tissue's totals; thinning makes them as hard to
label."""
_HALVINGS = 5  # of the interval that contains this share
_FOLDS = 3
_MOST_CLASSIFIED = 10_000  # reference cells used to train the classifiers
_INVERSE_PENALTY, _MOST_STEPS = 10.0, 200

ReadPanel = Callable[[slice | IntArray], FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """The evidence of two methods on the labels of cells, not calibrated.

    Attributes
    ----------
    shares
        (n_cells, n_labels) share of each label in the weights of the reference cells.
    classified
        (n_cells, n_labels) probabilities from logistic regression in the shared embedding.
    """

    shares: DoubleArray
    classified: DoubleArray

    def agreement(self, weights: DoubleArray) -> float:
        """Return the weighted share of cells with the same best label in both; the weights sum to 1."""
        return float(weights @ (self.shares.argmax(axis=1) == self.classified.argmax(axis=1)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotator:
    """Turns evidence on cell types into calibrated probabilities.

    Attributes
    ----------
    of_shares, of_classified
        The calibration of each method.
    """

    of_shares: LabelScale
    of_classified: LabelScale

    @classmethod
    def fit(cls, told: Told, codes: IntArray, weights: DoubleArray) -> Annotator:
        """Fit both calibrations to held-out cells; ``codes`` and ``weights`` as in `LabelScale.fit`."""
        return cls(
            of_shares=LabelScale.fit(told.shares, codes, weights),
            of_classified=LabelScale.fit(told.classified, codes, weights),
        )

    def probabilities(self, told: Told) -> DoubleArray:
        """Return the probability of each label, (n_cells, n_labels)."""
        return joined(
            self.of_shares.probabilities(told.shares), self.of_classified.probabilities(told.classified)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelLearner:
    """Predicts labels of cells from their panel, with a fitted method.

    Attributes
    ----------
    fitted, pair, labels
        The fitted method, the data, and the labels of the reference.
    cells, folds
        (n_cells,) positions of the held-out reference cells, and the fold of each.
    classifiers
        One per fold, trained without the cells of the fold.
    at_once
        Number of labels to carry together.
    """

    fitted: FittedMethod
    pair: Pair
    labels: ReferenceLabels
    cells: IntArray
    folds: IntArray
    classifiers: tuple[LogisticRegression, ...]
    at_once: int

    @classmethod
    def of(cls, fitted: FittedMethod, pair: Pair, labels: ReferenceLabels, *, at_once: int) -> LabelLearner:
        """Choose held-out cells, and train the classifiers without them."""
        cells = draw_cells(labels.codes, np.flatnonzero(labels.codes >= 0), seed=fitted.seed)
        stream = numpy_stream(fitted.seed, "label folds")
        folds = stream.permutation(np.arange(len(cells)) % _FOLDS)
        classifiers = (_classifier(fitted, pair, labels, cells[folds == fold]) for fold in range(_FOLDS))
        return cls(
            fitted=fitted,
            pair=pair,
            labels=labels,
            cells=cells,
            folds=folds,
            classifiers=tuple(classifiers),
            at_once=at_once,
        )

    def read(self, rows: slice | IntArray) -> FloatArray:
        """Return the panel of spatial cells."""
        return self.pair.st.dense(rows, self.pair.st_shared)

    def of_tissue(self, progress: Progress) -> Told:
        """Return the evidence on the types of the spatial cells."""
        n_cells = self.pair.st.n_cells
        every = self.labels.values(np.ones(self.pair.sc.n_cells, dtype=np.bool_))
        shares = self._shares(every, self.read, n_cells, progress=progress)
        blocks = row_blocks(n_cells, READ_ROWS)
        classified = [self._classified(self.read(rows), self.classifiers) for rows in blocks]
        return Told(shares=shares, classified=np.concatenate(classified))

    def of_held_out(self, measured: FloatArray) -> Told:
        """Return the evidence on held-out cells, (n_cells, n_panel), each without the cells of its fold."""
        shape = len(self.cells), self.labels.names.shape[1]
        shares, classified = np.empty(shape), np.empty(shape)
        for fold in range(_FOLDS):
            rows = self.folds == fold
            kept, panel = np.ones(self.pair.sc.n_cells, dtype=np.bool_), measured[rows]
            kept[self.cells[rows]] = False
            shares[rows] = self._shares(self.labels.values(kept), panel.__getitem__, len(panel))
            classified[rows] = self._classified(panel, self.classifiers[fold : fold + 1])
        return Told(shares=shares, classified=classified)

    def held_out(self, tissue: Told, progress: Progress) -> tuple[HeldOut, Told]:
        """Return held-out cells that are as hard to label as the tissue's cells, and the evidence on them.

        Parameters
        ----------
        tissue
            Evidence on the spatial cells.
        progress
            Called after each depth.

        Notes
        -----
        The less informative the cells, the less often shares and classifier agree. The chosen depth is the
        one at which they agree on held-out cells as often as on tissue cells; it is found by bisection on a
        logarithmic scale.
        """
        n_cells, codes = len(tissue.shares), self.labels.codes[self.cells]
        target = tissue.agreement(np.full(n_cells, 1 / n_cells))
        weights = share_weights(codes, tissue.shares.mean(axis=0))
        low, high, depth = np.log(LEAST_DEPTH), 0.0, 1.0
        tried: list[tuple[float, HeldOut, Told]] = []
        for number in range(_HALVINGS + 1 if self.pair.st.scale == "raw" else 1):
            measured = as_measured(
                self.pair, self.cells, codes, weights=weights, depth=depth, seed=self.fitted.seed
            )
            told = self.of_held_out(measured)
            agreement = told.agreement(weights)
            held_out = HeldOut(codes=codes, weights=weights, measured=measured, depth=depth)
            tried.append((abs(agreement - target), held_out, told))
            progress("held-out cells", number + 1, _HALVINGS + 1)
            if depth == 1 and agreement <= target:
                break
            low, high = (low, np.log(depth)) if agreement > target else (np.log(depth), high)
            depth = float(np.exp((low + high) / 2))
        return min(tried, key=lambda attempt: attempt[0])[1:]

    def _shares(
        self, values: CellValues, read: ReadPanel, n_cells: int, progress: Progress = no_progress
    ) -> DoubleArray:
        """Return the share of each label in the weights of labelled reference cells."""
        mass = carried_to(
            self.fitted,
            read,
            values,
            n_cells=n_cells,
            at_once=self.at_once,
            sharpness=SHARPNESS,
            progress=progress,
        )
        return row_shares(mass, np.full(mass.shape[1], 1 / mass.shape[1]))

    def _classified(self, measured: FloatArray, classifiers: Sequence[LogisticRegression]) -> DoubleArray:
        """Return the mean of the classifiers' probabilities."""
        embedded = self.fitted.embed(measured, of="spatial")
        classified = np.zeros((len(measured), self.labels.names.shape[1]))
        for classifier in classifiers:
            classified[:, classifier.classes_] += classifier.predict_proba(embedded) / len(classifiers)
        return classified


def _classifier(
    fitted: FittedMethod, pair: Pair, labels: ReferenceLabels, left_out: IntArray
) -> LogisticRegression:
    """Return logistic regression in the shared embedding, without the reference cells left out."""
    usable = np.setdiff1d(np.flatnonzero(labels.codes >= 0), left_out)
    rest = sample_rows(usable, _MOST_CLASSIFIED, numpy_stream(fitted.seed, "label classifier"))
    if len(np.unique(labels.codes[rest])) < 2:
        rest = np.flatnonzero(labels.codes >= 0)  # too few cells to leave any out
    embedded = np.concatenate(
        [
            fitted.embed(pair.sc.dense(rest[rows], pair.sc_shared), of="reference")
            for rows in row_blocks(len(rest), READ_ROWS)
        ]
    )
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_MOST_STEPS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # more steps would change no label
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # with few cells each
        return model.fit(embedded, labels.codes[rest])


def annotate_cells(
    fitted: FittedMethod, pair: Pair, labels: Labels | Sequence[str], *, memory: str | int, progress: Progress
) -> pd.DataFrame:
    """Return labels of the spatial cells; parameters and result as in `cellweft.Imputer.annotate`."""
    reference_labels = read_labels(pair, labels)
    at_once = columns_at_once(pair, reference_labels.names.shape[1], settings=fitted.settings, memory=memory)
    learner = LabelLearner.of(fitted, pair, reference_labels, at_once=at_once)
    tissue = learner.of_tissue(progress)
    held_out, told = learner.held_out(tissue, progress)
    first = Annotator.fit(told, held_out.codes, held_out.weights)
    weights = share_weights(held_out.codes, first.probabilities(tissue).mean(axis=0))  # closer to the truth
    held_out = replace(held_out, weights=weights)
    annotator = Annotator.fit(told, held_out.codes, weights)
    return label_table(
        pair,
        reference_labels,
        annotator.probabilities(tissue),
        held_out=held_out,
        known=annotator.probabilities(told),
        views=Views(
            read=learner.read,
            embed=partial(fitted.embed, of="spatial"),
            anchors=fitted.embed(pair.sc.dense(learner.cells, pair.sc_shared), of="reference"),
            seed=fitted.seed,
        ),
    )
