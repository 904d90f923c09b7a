"""The table of an annotation: consistent labels, confidence, unknown cells, probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import MiniBatchKMeans

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._typing import DoubleArray, FloatArray, IntArray
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

_ALIKE = 30  # mean number of cells per group
_MOST_GROUPS, _MOST_GROUPED = 500, 20_000  # the second: cells used to form the groups


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """Functions that return the panel and the embedding of cells.

    Attributes
    ----------
    read
        Returns the log-normalised panel of a slice or of positions of spatial cells.
    embed
        Returns the shared embedding for the panel of cells, as measured in the tissue.
    anchors
        (n_held_out, n_latent) embeddings of the held-out cells, from the reference's own values.
    seed
        Seed of the draw of cells and of the grouping.
    """

    read: Callable[[slice | IntArray], FloatArray]
    embed: Callable[[FloatArray], FloatArray]
    anchors: FloatArray
    seed: int

    def groups(self, n_cells: int) -> MiniBatchKMeans | None:
        """Return a model that assigns cells to groups of similar cells; None for too few cells."""
        n_groups = min(n_cells // _ALIKE, _MOST_GROUPS)
        if n_groups < 2:
            return None
        some = sample_rows(np.arange(n_cells), _MOST_GROUPED, numpy_stream(self.seed, "groups of cells"))
        model = MiniBatchKMeans(n_groups, n_init=3, random_state=self.seed % 2**32)
        blocks = row_blocks(len(some), READ_ROWS)
        return model.fit(np.concatenate([self.embed(self.read(some[rows])) for rows in blocks]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Tissue:
    """Properties of the tissue cells that do not depend on labels.

    Attributes
    ----------
    groups
        (n_cells,) group of similar cells, by k-means; with too few cells, each cell is a group.
    near
        (n_cells,) nearness to the reference, from `Anchors.nearness`.
    mean, square
        (n_panel,) means of the panel's values and of their squares.
    """

    groups: IntArray
    near: DoubleArray
    mean: DoubleArray
    square: DoubleArray

    @classmethod
    def of(cls, views: Views, n_cells: int) -> Tissue:
        """Read the cells once."""
        model, anchors = views.groups(n_cells), Anchors(embedded=views.anchors, codes=np.zeros(0, np.int64))
        groups, near, sums = list[IntArray](), list[DoubleArray](), list[DoubleArray]()
        for rows in row_blocks(n_cells, READ_ROWS):
            measured = views.read(rows)
            embedded, values = views.embed(measured), measured.astype(np.float64)
            near.append(anchors.nearness(embedded))
            groups.append(np.arange(rows.start, rows.stop) if model is None else model.predict(embedded))
            sums.append(np.stack([values.sum(axis=0), (values**2).sum(axis=0)]))
        mean, square = np.sum(sums, axis=0) / n_cells
        return cls(
            groups=np.concatenate(groups).astype(np.int64),
            near=np.concatenate(near),
            mean=mean,
            square=square,
        )


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
        (n_st, n_labels) probability of each combination of labels.
    held_out, known
        Held-out cells of the reference, and (n_held_out, n_labels) their probabilities.
    views
        Functions that return the panel and the embedding of cells.
    """
    table: dict[str, Any] = {}
    label_records: dict[str, Any] = {}
    open_to = np.ones(probabilities.shape, dtype=np.bool_)  # combinations consistent with coarser labels
    unknown, weights = pair.blank_cells.copy(), held_out.weights
    squares = weights @ held_out.measured.astype(np.float64) ** 2
    scores = z_scores(held_out.measured, weights @ held_out.measured, squares)
    embedded = views.embed(held_out.measured)
    novelties, of_columns = list[Novelty](), list[DoubleArray]()
    for number, column in enumerate(labels.columns):
        names, groups = labels.groups(number)
        sums = _by_label(probabilities, groups, len(names))
        best = _by_label(probabilities * open_to, groups, len(names)).argmax(axis=1)
        open_to &= groups[None, :] == best[:, None]
        of_known = _by_label(known, groups, len(names))
        codes = groups[held_out.codes]
        novelty = Novelty.fit(
            of_known, scores, embedded, anchors=Anchors(embedded=views.anchors, codes=codes), weights=weights
        )
        novelties.append(novelty)
        of_columns.append(sums)
        before = _before(labels, column)
        table[before + LABEL] = pd.Categorical.from_codes(best, categories=names.tolist())
        table[before + CONFIDENCE_COLUMN] = sums[np.arange(len(sums)), best]
        table[before + UNKNOWN] = False  # set below, for all columns at once
        table |= {f"{before}{PROBABILITY}{name}": sums[:, place] for place, name in enumerate(names)}
        label_records[column] = _calibration(of_known, codes, weights) | {"cut": novelty.cut}
        label_records[column]["reference_cells"] = labels.counts(number)
    tissue = Tissue.of(views, pair.st.n_cells)
    fits = _fits(novelties, of_columns, views, tissue)
    for column, novelty, sums, fit in zip(labels.columns, novelties, of_columns, fits, strict=True):
        looks_unknown = novelty.unknown(sums, tissue.near, fit)
        unknown = unknown | unknown_together(looks_unknown, tissue.groups)
        table[_before(labels, column) + UNKNOWN] = unknown
    result = pd.DataFrame(table, index=pair.st.obs_names)
    result.attrs[RECORD] = {
        "kind": "labels",
        "labels": label_records,
        "depth": held_out.depth,
        "held_out_cells": len(held_out.codes),
        "reference_cells_without_label": int((labels.codes < 0).sum()),
        "known_called_unknown": KNOWN_CALLED_UNKNOWN,
    }
    return result


def _by_label(probabilities: DoubleArray, groups: IntArray, n_labels: int) -> DoubleArray:
    """Return sums over the combinations with the same label in a column: (n_cells, n_labels)."""
    sums = np.zeros((len(probabilities), n_labels))
    for place, group in enumerate(groups):
        sums[:, group] += probabilities[:, place]
    return sums


def _before(labels: ReferenceLabels, column: str) -> str:
    """Return the prefix of the names of a column's part of the table."""
    return "" if len(labels.columns) == 1 else f"{column}_"


def _fits(
    novelties: list[Novelty], of_columns: list[DoubleArray], views: Views, tissue: Tissue
) -> DoubleArray:
    """Return how well spatial cells fit the profiles of their labels, per column: (n_columns, n_cells).

    Parameters
    ----------
    novelties, of_columns
        For each column: its profiles, and (n_cells, n_labels) probabilities.
    views, tissue
        Functions that return the panel and the embedding of cells, and what all of them look like. They are
        read once.
    """
    fits = np.empty((len(novelties), len(tissue.near)))
    for rows in row_blocks(len(tissue.near), READ_ROWS):
        scores = z_scores(views.read(rows), tissue.mean, tissue.square)
        for number, (novelty, probabilities) in enumerate(zip(novelties, of_columns, strict=True)):
            fits[number, rows] = profile_fit(scores, probabilities[rows], novelty.profiles)
    return fits


def _calibration(probabilities: DoubleArray, codes: IntArray, weights: DoubleArray) -> dict[str, Any]:
    """Return how confidence agrees with the truth in held-out cells, as values that any format can store."""
    best = probabilities.argmax(axis=1)
    bins = reliability_bins(probabilities.max(axis=1), best == codes, weights)
    names = ("confidence", "share_right", "weight")
    return {
        "calibration": {name: bins[:, place].tolist() for place, name in enumerate(names)},
        "calibration_error": calibration_error(bins),
        "share_right": float(weights @ (best == codes)),
    }
