"""The table that annotating returns: labels that agree, confidence, unknown cells, probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import MiniBatchKMeans

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray
from cellweft.data._pair import Pair
from cellweft.data.io.keys import CONFIDENCE_COLUMN, LABEL, PROBABILITY, RECORD, UNKNOWN
from cellweft.impute.annotation.calibration import (
    KNOWN_CALLED_UNKNOWN,
    Anchors,
    Novelty,
    calibration_error,
    profile_fit,
    reliability_bins,
    unknown_together,
    z_scores,
)
from cellweft.impute.annotation.held_out_cells import HeldOut
from cellweft.impute.annotation.reference_labels import ReferenceLabels

_ALIKE = 30  # cells of a group, in the mean
_MOST_GROUPS, _MOST_GROUPED = 500, 20_000  # the latter: cells that the groups are learned from


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """How cells are seen.

    Attributes
    ----------
    read
        From a slice or positions of spatial cells to their log-normalised panel.
    embed
        From the panel of cells, as the tissue measures it, to the shared embedding.
    anchors
        (n_held_out, n_latent) the held-out cells in it, as the reference holds them.
    seed
        Of the draw of cells and of the groups that they form.
    """

    read: Callable[[slice | IntArray], FloatArray]
    embed: Callable[[FloatArray], FloatArray]
    anchors: FloatArray
    seed: int

    def groups(self, n_cells: int) -> IntArray:
        """Return the group of similar cells that each spatial cell is in, (n_cells,), by k-means.

        Of too few cells for several groups, each is a group.
        """
        n_groups = min(n_cells // _ALIKE, _MOST_GROUPS)
        if n_groups < 2:
            return np.arange(n_cells)
        some = sample_rows(np.arange(n_cells), _MOST_GROUPED, numpy_stream(self.seed, "groups of cells"))
        model = MiniBatchKMeans(n_groups, n_init=3, random_state=self.seed % 2**32)
        model.fit(np.concatenate([self._embedded(some[rows]) for rows in row_blocks(len(some), READ_ROWS)]))
        blocks = row_blocks(n_cells, READ_ROWS)
        return np.concatenate([model.predict(self._embedded(rows)) for rows in blocks]).astype(np.int64)

    def _embedded(self, rows: slice | IntArray) -> FloatArray:
        return self.embed(self.read(rows))


def label_table(
    pair: Pair,
    labels: ReferenceLabels,
    probabilities: DoubleArray,
    *,
    held_out: HeldOut,
    known: DoubleArray,
    views: Views,
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
    views
        How cells are seen.
    """
    table: dict[str, Any] = {}
    told: dict[str, Any] = {}
    open_to = np.ones(probabilities.shape, dtype=np.bool_)  # combinations that agree with coarser labels
    unknown, weights = pair.blank_cells.copy(), held_out.weights
    squares = weights @ held_out.measured.astype(np.float64) ** 2
    scores = z_scores(held_out.measured, weights @ held_out.measured, squares)
    alike = views.groups(pair.st.n_cells)
    for number, column in enumerate(labels.columns):
        names, groups = labels.groups(number)
        sums = _by_label(probabilities, groups, len(names))
        best = _by_label(probabilities * open_to, groups, len(names)).argmax(axis=1)
        open_to &= groups[None, :] == best[:, None]
        of_known = _by_label(known, groups, len(names))
        codes = groups[held_out.codes]
        novelty = Novelty.fit(
            of_known,
            scores,
            views.embed(held_out.measured),
            anchors=Anchors(embedded=views.anchors, codes=codes),
            weights=weights,
        )
        unknown = unknown | unknown_together(_looks_unknown(novelty, sums, views), alike)
        before = "" if len(labels.columns) == 1 else f"{column}_"
        table[before + LABEL] = pd.Categorical.from_codes(best, categories=names.tolist())
        table[before + CONFIDENCE_COLUMN] = sums[np.arange(len(sums)), best]
        table[before + UNKNOWN] = unknown
        table |= {f"{before}{PROBABILITY}{name}": sums[:, place] for place, name in enumerate(names)}
        told[column] = _calibration(of_known, codes, weights) | {"cut": novelty.cut}
        told[column]["reference_cells"] = labels.counts(number)
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


def _looks_unknown(novelty: Novelty, probabilities: DoubleArray, views: Views) -> BoolArray:
    """Return which spatial cells look by themselves as if the reference lacked their type, (n_cells,)."""
    blocks, near, fits = (
        list(row_blocks(len(probabilities), READ_ROWS)),
        list[DoubleArray](),
        list[DoubleArray](),
    )
    sums = np.zeros((2, novelty.profiles.shape[1]))
    for rows in blocks:
        values = views.read(rows).astype(np.float64)
        sums += values.sum(axis=0), (values**2).sum(axis=0)
    mean, square = sums / len(probabilities)
    for rows in blocks:
        measured = views.read(rows)
        near.append(novelty.anchors.nearness(views.embed(measured)))
        scores = z_scores(measured, mean, square)
        fits.append(profile_fit(scores, probabilities[rows], novelty.profiles))
    return novelty.unknown(probabilities, np.concatenate(near), np.concatenate(fits))


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
