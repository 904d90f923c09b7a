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
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray, Progress, no_progress
from cellweft.data._pair import Labels, Pair
from cellweft.data.cell_values import CellValues
from cellweft.data.io.keys import RECORD
from cellweft.impute.annotation.calibration import LabelScale, joined
from cellweft.impute.annotation.held_out_cells import (
    HeldOut,
    as_measured,
    draw_cells,
    platform_spread,
    share_weights,
)
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
_PANEL_VALUES = 10_000_000  # values of the panel used to train a panel classifier, which limits memory
_INVERSE_PENALTY, _MOST_STEPS = 10.0, 200
_PANEL_INVERSE_PENALTY = 1.0
ALIKE = float(np.log(2))
"""Spread of the genes' levels between both sides below which their platforms are treated as the same."""
VOTES = (0.5, 0.5)
"""Weights of shares and classifier where the platforms differ..."""
VOTES_ALIKE = (0.1, 0.2, 0.7)
"""...and of shares, classifier and panel classifier where they do not."""

ReadPanel = Callable[[slice | IntArray], FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """Evidence on the labels of cells, not yet calibrated.

    Attributes
    ----------
    shares
        (n_cells, n_labels) share of each label in the weights of the reference cells.
    classified
        (n_cells, n_labels) probabilities by logistic regression in the shared embedding.
    by_panel
        (n_cells, n_labels) probabilities by logistic regression on the log-normalised panel. None if the
        platforms differ.
    """

    shares: DoubleArray
    classified: DoubleArray
    by_panel: DoubleArray | None = None

    @property
    def views(self) -> list[DoubleArray]:
        """The evidence that there is, in the order of the votes."""
        return [self.shares, self.classified, *([] if self.by_panel is None else [self.by_panel])]

    def agreement(self, weights: DoubleArray) -> float:
        """Return the weighted share of cells with the same best label in both; the weights sum to 1."""
        return float(weights @ (self.shares.argmax(axis=1) == self.classified.argmax(axis=1)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotator:
    """Turns evidence on cell types into calibrated probabilities.

    Attributes
    ----------
    scales
        The calibration of each kind of evidence.
    votes
        The weight of each; the sum is 1.
    """

    scales: tuple[LabelScale, ...]
    votes: tuple[float, ...]

    @classmethod
    def fit(cls, told: Told, codes: IntArray, weights: DoubleArray) -> Annotator:
        """Fit the calibrations to held-out cells; ``codes`` and ``weights`` as in `LabelScale.fit`."""
        alike = told.by_panel is not None
        scales = (LabelScale.fit(view, codes, weights, with_offsets=not alike) for view in told.views)
        return cls(scales=tuple(scales), votes=VOTES_ALIKE if alike else VOTES)

    def probabilities(self, told: Told) -> DoubleArray:
        """Return probabilities of the labels, (n_cells, n_labels)."""
        pairs = zip(self.scales, told.views, strict=True)
        return joined([scale.probabilities(view) for scale, view in pairs], self.votes)


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
        In the shared embedding: one per fold, trained without the cells of the fold, and one trained on all
        cells.
    panel_classifiers
        The same for the panel itself; empty if the platforms differ.
    at_once
        Number of labels to carry together.
    """

    fitted: FittedMethod
    pair: Pair
    labels: ReferenceLabels
    cells: IntArray
    folds: IntArray
    classifiers: tuple[LogisticRegression, ...]
    panel_classifiers: tuple[LogisticRegression, ...] = ()
    at_once: int

    @classmethod
    def of(cls, fitted: FittedMethod, pair: Pair, labels: ReferenceLabels, *, at_once: int) -> LabelLearner:
        """Choose the cells that are held out, and train the classifiers without them."""
        cells = draw_cells(labels.codes, np.flatnonzero(labels.codes >= 0), seed=fitted.seed)
        stream = numpy_stream(fitted.seed, "label folds")
        learner = cls(
            fitted=fitted,
            pair=pair,
            labels=labels,
            cells=cells,
            folds=stream.permutation(np.arange(len(cells)) % _FOLDS),
            classifiers=(),
            at_once=at_once,
        )
        embed = partial(fitted.embed, of="reference")
        return replace(
            learner,
            classifiers=learner._trained(embed, most=_MOST_CLASSIFIED, inverse_penalty=_INVERSE_PENALTY),
        )

    def with_panel(self) -> LabelLearner:
        """Return the same with classifiers on the panel."""
        most = min(_MOST_CLASSIFIED, _PANEL_VALUES // len(self.pair.sc_shared))
        trained = self._trained(np.asarray, most=most, inverse_penalty=_PANEL_INVERSE_PENALTY)
        return replace(self, panel_classifiers=trained)

    def read(self, rows: slice | IntArray) -> FloatArray:
        """Return the panel of spatial cells."""
        return self.pair.st.dense(rows, self.pair.st_shared)

    def of_tissue(self, progress: Progress) -> tuple[LabelLearner, Told]:
        """Return the evidence on the spatial cells, and the learner with the panel classifiers it needs."""
        n_cells = self.pair.st.n_cells
        every = self.labels.values(np.ones(self.pair.sc.n_cells, dtype=np.bool_))
        shares = self._shares(every, self.read, n_cells, progress=progress)
        codes, tissue_shares = self.labels.codes[self.cells], shares.mean(axis=0)
        spread = platform_spread(self.pair, self.cells, codes, shares=tissue_shares, seed=self.fitted.seed)
        learner = self.with_panel() if spread < ALIKE else self
        told = learner._told_by(shares)
        for rows in row_blocks(n_cells, READ_ROWS):
            learner._classify(self.read(rows), -1, told, rows)
        return learner, told

    def of_held_out(self, measured: FloatArray) -> Told:
        """Return the evidence on held-out cells, (n_cells, n_panel), each without the cells of its fold."""
        shape = len(self.cells), self.labels.names.shape[1]
        told = self._told_by(np.empty(shape))
        for fold in range(_FOLDS):
            rows = self.folds == fold
            kept, panel = np.ones(self.pair.sc.n_cells, dtype=np.bool_), measured[rows]
            kept[self.cells[rows]] = False
            told.shares[rows] = self._shares(self.labels.values(kept), panel.__getitem__, len(panel))
            self._classify(panel, fold, told, rows)
        return told

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

    def _told_by(self, shares: DoubleArray) -> Told:
        """Return evidence with these shares, whose classified values are still to be filled in."""
        by_panel = np.empty(shares.shape) if self.panel_classifiers else None
        return Told(shares=shares, classified=np.empty(shares.shape), by_panel=by_panel)

    def _classify(self, measured: FloatArray, number: int, told: Told, rows: slice | BoolArray) -> None:
        """Fill in some rows of the evidence, with the classifiers of a fold, or the last ones."""
        embedded = self.fitted.embed(measured, of="spatial")
        told.classified[rows] = self._likely(self.classifiers[number], embedded)
        if told.by_panel is not None:
            told.by_panel[rows] = self._likely(self.panel_classifiers[number], measured)

    def _likely(self, classifier: LogisticRegression, values: FloatArray) -> DoubleArray:
        """Return probabilities of all labels; 0 for those that the classifier does not know."""
        probabilities = np.zeros((len(values), self.labels.names.shape[1]))
        probabilities[:, classifier.classes_] = classifier.predict_proba(values)
        return probabilities

    def _trained(
        self, seen: Callable[[FloatArray], FloatArray], *, most: int, inverse_penalty: float
    ) -> tuple[LogisticRegression, ...]:
        """Return one classifier per fold, trained without its cells, and one trained on all cells.

        ``seen`` turns the panel of reference cells into the values that are classified.
        """
        left_out = [self.cells[self.folds == fold] for fold in range(_FOLDS)] + [np.zeros(0, np.int64)]
        return tuple(self._classifier(seen, cells, most, inverse_penalty) for cells in left_out)

    def _classifier(
        self, seen: Callable[[FloatArray], FloatArray], left_out: IntArray, most: int, inverse_penalty: float
    ) -> LogisticRegression:
        """Return logistic regression, trained without the reference cells left out."""
        codes = self.labels.codes
        usable = np.setdiff1d(np.flatnonzero(codes >= 0), left_out)
        rest = sample_rows(usable, most, numpy_stream(self.fitted.seed, "label classifier"))
        if len(np.unique(codes[rest])) < 2:
            rest = np.flatnonzero(codes >= 0)  # too few cells to leave any out
        values = np.concatenate(
            [
                seen(self.pair.sc.dense(rest[rows], self.pair.sc_shared))
                for rows in row_blocks(len(rest), READ_ROWS)
            ]
        )
        model = LogisticRegression(C=inverse_penalty, max_iter=_MOST_STEPS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # more steps would change no label
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few of each
            return model.fit(values, codes[rest])


def annotate_cells(
    fitted: FittedMethod, pair: Pair, labels: Labels | Sequence[str], *, memory: str | int, progress: Progress
) -> pd.DataFrame:
    """Return labels of the spatial cells; parameters and result as in `cellweft.Imputer.annotate`."""
    reference_labels = read_labels(pair, labels)
    at_once = columns_at_once(pair, reference_labels.names.shape[1], settings=fitted.settings, memory=memory)
    learner, tissue = LabelLearner.of(fitted, pair, reference_labels, at_once=at_once).of_tissue(progress)
    held_out, told = learner.held_out(tissue, progress)
    first = Annotator.fit(told, held_out.codes, held_out.weights)
    weights = share_weights(held_out.codes, first.probabilities(tissue).mean(axis=0))  # closer to the truth
    held_out = replace(held_out, weights=weights)
    annotator = Annotator.fit(told, held_out.codes, weights)
    table = label_table(
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
    table.attrs[RECORD]["platforms_alike"] = tissue.by_panel is not None
    return table
