"""Labels of the reference on the cells of a tissue: probabilities, the best label, and who is unknown."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._errors import InputError
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress
from cellweft.data._pair import Labels, Pair
from cellweft.data.cell_values import CellValues
from cellweft.impute.annotation.calibration import ShareScale, joined
from cellweft.impute.annotation.held_out_cells import HeldOut, as_measured, draw_cells, share_weights
from cellweft.impute.annotation.label_table import label_table
from cellweft.impute.annotation.reference_labels import ReferenceLabels, read_labels
from cellweft.impute.base import FittedMethod
from cellweft.impute.planning import columns_at_once
from cellweft.impute.transfer import carried_to

SHARPNESS = 2.0
"""Factor on the sharpness of attention where it tells labels: measured, benchmarks/results/annotate.md."""
DEPTHS = (1.0, 0.5, 0.25, 0.12, 0.06)
"""Shares of the tissue's totals, of which one makes held-out cells as hard to tell as the tissue's are."""
_FOLDS = 3
_MOST_CLASSIFIED = 10_000  # cells of the reference that the classifiers learn from
_INVERSE_PENALTY, _MOST_STEPS = 10.0, 200

ReadPanel = Callable[[slice], FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotator:
    """What tells the labels of cells by their panel.

    Attributes
    ----------
    fitted
        Whose weights.
    scale
        From shares to probabilities.
    classifiers
        One for each part of the held-out cells, which learned from the others in the shared embedding.
    """

    fitted: FittedMethod
    scale: ShareScale
    classifiers: tuple[LogisticRegression, ...]

    def probabilities(
        self, shares: DoubleArray, measured: FloatArray, *, fold: int | None = None
    ) -> DoubleArray:
        """Return probabilities of the labels, (n_cells, n_labels): from shares, and from the embedding.

        Parameters
        ----------
        shares
            (n_cells, n_labels) of the weights of the reference.
        measured
            (n_cells, n_panel) log-normalised panel.
        fold
            The part that the cells are of, whose classifier alone is asked; all by default.
        """
        embedded = self.fitted.embed(measured, of="spatial")
        asked = self.classifiers if fold is None else self.classifiers[fold : fold + 1]
        told = np.zeros_like(shares)
        for one in asked:
            told[:, one.classes_] += one.predict_proba(embedded) / len(asked)
        return joined(self.scale.probabilities(shares), told)


def fit_annotator(
    fitted: FittedMethod,
    pair: Pair,
    labels: ReferenceLabels,
    shares: DoubleArray,
    *,
    at_once: int,
    progress: Progress,
) -> tuple[Annotator, HeldOut, DoubleArray]:
    """Learn to tell labels, from cells of the reference that are held out.

    Parameters
    ----------
    fitted, pair, labels
        Whose weights, the data, and the labels of its reference.
    shares
        (n_st, n_labels) in the tissue.
    at_once
        Labels that are carried together.
    progress
        Called as parts are done.

    Returns
    -------
    annotator, held_out : Annotator, HeldOut
    probabilities : ndarray
        (n_held_out, n_labels), each by what was learned without its part.
    """
    cells = draw_cells(labels.codes, np.flatnonzero(labels.codes >= 0), seed=fitted.seed)
    codes = labels.codes[cells]
    folds = numpy_stream(fitted.seed, "label folds").permutation(np.arange(len(cells)) % _FOLDS)
    composition, target = shares.mean(axis=0), float(shares.max(axis=1).mean())
    nearest, best = np.inf, None
    for number, depth in enumerate(DEPTHS if pair.st.scale == "raw" else DEPTHS[:1]):
        weights = share_weights(codes, composition)
        measured = as_measured(pair, cells, codes, weights=weights, depth=depth, seed=fitted.seed)
        one = HeldOut(cells=cells, codes=codes, folds=folds, weights=weights, measured=measured, depth=depth)
        of_depth = _held_out_shares(fitted, labels, one, at_once=at_once)
        progress("held-out cells", number + 1, len(DEPTHS))
        distance = abs(float(weights @ of_depth.max(axis=1)) - target)
        if distance < nearest:
            nearest, best = distance, (one, of_depth)
        if weights @ of_depth.max(axis=1) < target:
            break
    if best is None:  # shares that are not numbers have no distance
        raise InputError("labels", expected="shares of labels", got="NaN", fix="Fit the Imputer anew.")
    held_out, known = best
    scale = ShareScale.fit(known, codes, held_out.weights)
    weights = share_weights(codes, scale.probabilities(shares).mean(axis=0))
    held_out = HeldOut(**(vars(held_out) | {"weights": weights}))
    scale = ShareScale.fit(known, codes, weights)
    classifiers = tuple(_classifier(fitted, pair, labels, cells[folds == fold]) for fold in range(_FOLDS))
    annotator = Annotator(fitted=fitted, scale=scale, classifiers=classifiers)
    probabilities = np.empty_like(known)
    for fold in range(_FOLDS):
        rows = folds == fold
        probabilities[rows] = annotator.probabilities(known[rows], held_out.measured[rows], fold=fold)
    return annotator, held_out, probabilities


def _held_out_shares(
    fitted: FittedMethod, labels: ReferenceLabels, held_out: HeldOut, *, at_once: int
) -> DoubleArray:
    """Return shares of the labels in held-out cells, (n_cells, n_labels), of the other cells' weights."""
    shares = np.empty((len(held_out.cells), labels.names.shape[1]))
    for fold in range(_FOLDS):
        rows = held_out.folds == fold
        kept, measured = np.ones(len(labels.codes), dtype=np.bool_), held_out.measured[rows]
        kept[held_out.cells[rows]] = False
        found = label_shares(
            fitted, labels.values(kept), measured.__getitem__, n_cells=len(measured), at_once=at_once
        )
        shares[rows] = found
    return shares


def label_shares(
    fitted: FittedMethod,
    values: CellValues,
    read: ReadPanel,
    *,
    n_cells: int,
    at_once: int,
    progress: Progress | None = None,
) -> DoubleArray:
    """Return the share that each label has in the weights that cells give to labelled cells.

    Parameters
    ----------
    fitted, read, n_cells, at_once, progress
        As of `cellweft.impute.transfer.carried_to`.
    values
        A column for each label.
    """
    more = {} if progress is None else {"progress": progress}
    mass = carried_to(fitted, read, values, n_cells=n_cells, at_once=at_once, sharpness=SHARPNESS, **more)
    total = mass.sum(axis=1, keepdims=True)
    return np.where(total > 0, mass / np.where(total > 0, total, 1), 1 / values.n_columns)


def _classifier(
    fitted: FittedMethod, pair: Pair, labels: ReferenceLabels, left_out: IntArray
) -> LogisticRegression:
    """Return logistic regression in the shared embedding, from cells of the reference but those left out."""
    usable = np.setdiff1d(np.flatnonzero(labels.codes >= 0), left_out)
    rest = sample_rows(usable, _MOST_CLASSIFIED, numpy_stream(fitted.seed, "label classifier"))
    if len(np.unique(labels.codes[rest])) < 2:
        rest = np.flatnonzero(labels.codes >= 0)  # a few cells: nothing can be left out
    embedded = np.concatenate(
        [
            fitted.embed(pair.sc.dense(rest[rows], pair.sc_shared), of="reference")
            for rows in row_blocks(len(rest), READ_ROWS)
        ]
    )
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=_MOST_STEPS, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few steps more change no label
        return model.fit(embedded, labels.codes[rest])


def annotate_cells(
    fitted: FittedMethod, pair: Pair, labels: Labels | Sequence[str], *, memory: str | int, progress: Progress
) -> pd.DataFrame:
    """Return labels of the spatial cells; parameters and result as of `cellweft.Imputer.annotate`."""
    asked = read_labels(pair, labels)
    at_once = columns_at_once(pair, asked.names.shape[1], settings=fitted.settings, memory=memory)

    def read(rows: slice) -> FloatArray:
        return pair.st.dense(rows, pair.st_shared)

    every = asked.values(np.ones(pair.sc.n_cells, dtype=np.bool_))
    shares = label_shares(fitted, every, read, n_cells=pair.st.n_cells, at_once=at_once, progress=progress)
    annotator, held_out, known = fit_annotator(
        fitted, pair, asked, shares, at_once=at_once, progress=progress
    )
    for rows in row_blocks(pair.st.n_cells, READ_ROWS):
        shares[rows] = annotator.probabilities(shares[rows], read(rows))
    return label_table(pair, asked, shares, held_out=held_out, known=known, read=read)
