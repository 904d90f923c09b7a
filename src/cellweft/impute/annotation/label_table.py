"""The table that annotating returns: labels that agree, confidence, unknown cells, probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from cellweft._compute import READ_ROWS, row_blocks
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray
from cellweft.data._pair import Pair
from cellweft.data.io.keys import CONFIDENCE_COLUMN, LABEL, PROBABILITY, RECORD, UNKNOWN
from cellweft.impute.annotation.calibration import (
    KNOWN_CALLED_UNKNOWN,
    Novelty,
    calibration_error,
    centre_of,
    reliability_bins,
)
from cellweft.impute.annotation.held_out_cells import HeldOut
from cellweft.impute.annotation.reference_labels import ReferenceLabels


def label_table(
    pair: Pair,
    labels: ReferenceLabels,
    probabilities: DoubleArray,
    *,
    held_out: HeldOut,
    known: DoubleArray,
    read: Callable[[slice], FloatArray],
) -> pd.DataFrame:
    """Return the table of `cellweft.Imputer.annotate`.

    Parameters
    ----------
    pair, labels
        The data, and the labels of its reference.
    probabilities
        (n_st, n_labels) of each combination of labels.
    held_out, known
        Held-out cells of the reference, and (n_held_out, n_labels) their probabilities.
    read
        From a slice of the spatial cells to their log-normalised panel.
    """
    table: dict[str, Any] = {}
    told: dict[str, Any] = {}
    open_to = np.ones(probabilities.shape, dtype=np.bool_)  # combinations that agree with coarser labels
    unknown = pair.blank_cells.copy()
    for number, column in enumerate(labels.columns):
        names, groups = labels.groups(number)
        sums = _by_label(probabilities, groups, len(names))
        best = _by_label(probabilities * open_to, groups, len(names)).argmax(axis=1)
        open_to &= groups[None, :] == best[:, None]
        of_known = _by_label(known, groups, len(names))
        codes = groups[held_out.codes]
        novelty = Novelty.fit(of_known, held_out.measured, codes, held_out.weights)
        unknown = unknown | _novel(novelty, sums, read)
        before = "" if len(labels.columns) == 1 else f"{column}_"
        table[before + LABEL] = pd.Categorical.from_codes(best, categories=names)
        table[before + CONFIDENCE_COLUMN] = sums[np.arange(len(sums)), best]
        table[before + UNKNOWN] = unknown
        table |= {f"{before}{PROBABILITY}{name}": sums[:, place] for place, name in enumerate(names)}
        told[column] = _calibration(of_known, codes, held_out.weights) | {"cut": novelty.cut}
    made = pd.DataFrame(table, index=pair.st.obs_names)
    made.attrs[RECORD] = {
        "kind": "labels",
        "labels": told,
        "depth": held_out.depth,
        "held_out_cells": len(held_out.codes),
        "reference_cells_without_label": int((labels.codes < 0).sum()),
        "known_called_unknown": KNOWN_CALLED_UNKNOWN,
    }
    return made


def _by_label(probabilities: DoubleArray, groups: IntArray, n_labels: int) -> DoubleArray:
    """Return sums of combinations by the label that they have in a column: (n_cells, n_labels)."""
    sums = np.zeros((len(probabilities), n_labels))
    for place, group in enumerate(groups):
        sums[:, group] += probabilities[:, place]
    return sums


def _novel(novelty: Novelty, probabilities: DoubleArray, read: Callable[[slice], FloatArray]) -> BoolArray:
    """Return which spatial cells are of a type that the reference seems to lack, (n_cells,)."""
    blocks = list(row_blocks(len(probabilities), READ_ROWS))
    fits = np.concatenate([novelty.fit_of(probabilities[rows], read(rows)) for rows in blocks])
    centre = centre_of(fits)
    odds = [novelty.odds(probabilities[rows], fits[rows], read(rows), centre) for rows in blocks]
    return np.concatenate(odds) > novelty.cut


def _calibration(probabilities: DoubleArray, codes: IntArray, weights: DoubleArray) -> dict[str, Any]:
    """Return how confidence agrees with the truth in held-out cells, as values that every format stores."""
    best = probabilities.argmax(axis=1)
    bins = reliability_bins(probabilities.max(axis=1), best == codes, weights)
    names = ("confidence", "share_right", "weight")
    return {
        "calibration": {name: bins[:, place].tolist() for place, name in enumerate(names)},
        "calibration_error": calibration_error(bins),
        "share_right": float(weights @ (best == codes)),
    }
