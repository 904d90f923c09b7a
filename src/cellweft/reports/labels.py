"""Cell types of the tissue: their calibration, frequencies, and positions."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

from cellweft._text import shown_unit
from cellweft._typing import IntArray
from cellweft.data.io.cell_labels import LabelColumn
from cellweft.reports.document import (
    Block,
    Heading,
    Name,
    Number,
    Part,
    Picture,
    Row,
    Table,
    Text,
    joined,
    text,
)
from cellweft.reports.figures import picture
from cellweft.reports.inputs import CellTypes, Given
from cellweft.reports.standards import check_of, worst

MOST_LABELS = 30
"""Largest number of labels in a table; the rest is omitted, with a note."""

_DIFFERS = "On average, confidence differs from the share of correct labels by "


def label_verdicts(given: Given) -> list[Text]:
    """Return a verdict on each column of labels; nothing if there are no labels."""
    if given.labels is None:
        return []
    return [_verdict(given.labels, column) for column in given.labels.table.columns]


def label_blocks(given: Given) -> tuple[Block, ...]:
    """Return the section on cell types: verdicts, a table and a reliability diagram for each column, maps."""
    labels = given.labels
    if labels is None:
        return ()
    columns = labels.table.columns
    blocks: list[Block] = [_counted(labels)]
    for column, said in zip(columns, label_verdicts(given), strict=True):
        blocks += [Heading((Name(column.name),))] if len(columns) > 1 else []
        blocks += [said, _table(labels, column), Row((_diagram(labels, column),))]
    return (*blocks, *_maps(given, labels, columns[-1]))


def label_cautions(given: Given) -> list[Text]:
    """Return cautions about these labels, in addition to those for all labels."""
    if given.labels is None:
        return []
    labels, said = given.labels, list[Text]()
    tissue = labels.record.get("inputs", {}).get("spatial", {})
    if tissue and tissue.get("scale", "raw") != "raw":
        words = ": the tissue data are not counts, so their depth is unknown. Confidence may be too high."
        said.append(text(Name(labels.name), words, tone="caution"))
    if tissue and tissue["cells"] != labels.n_cells:
        all_cells = labels.number(float(tissue["cells"]), "record, inputs, spatial, cells")
        cells = labels.number(labels.n_cells, "cells")
        parts = (" contains ", cells, " of the ", all_cells, " annotated cells. Shares refer to these.")
        said.append(text(Name(labels.name), *parts, tone="caution"))
    for column in labels.table.columns:
        reference_cells = labels.record["labels"][column.name].get("reference_cells")
        strange = [
            Name(str(label))
            for label in column.labels.categories
            if reference_cells and label not in reference_cells
        ]
        if strange:
            words = " has labels that are missing from its record: "
            names = joined(strange[:MOST_LABELS])
            end = ". Make sure that both are from the same run."
            said.append(text(Name(labels.name), words, *names, end, tone="caution"))
    return said


def _verdict(labels: CellTypes, column: LabelColumn) -> Text:
    record, where = labels.record["labels"][column.name], f"record, labels, {column.name}"
    right = labels.number(float(record["share_right"]), f"{where}, share_right", "share")
    error = labels.number(float(record["calibration_error"]), f"{where}, calibration_error", "score")
    unknown = labels.number(float(column.unknown.mean()), f"{column.prefix}unknown, mean", "share")
    checks = (
        check_of("calibration", error, _DIFFERS, error),
        check_of("unknown", unknown, "Of the cells of the tissue, ", unknown, " are unknown"),
    )
    said: list[Part] = [
        "Cell types by ",
        Name(column.name),
        ": ",
        right,
        " of the held-out reference cells got the right label.",
    ]
    for check in checks:
        said += check.parts
    if checks[1].grade != "good":
        said.append(" The reference may lack types of the tissue.")
    return text(*said, tone=worst([check.grade for check in checks]))


def _counted(labels: CellTypes) -> Text:
    parts: list[Part] = [
        labels.number(labels.n_cells, "cells"),
        " cells were assigned their most probable label from the reference. Confidence is the "
        "probability of this label. Cells are marked as unknown if the reference seems to lack their type.",
    ]
    if without := labels.record.get("reference_cells_without_label"):
        number = labels.number(float(without), "record, reference_cells_without_label")
        parts += [" In the reference, ", number, " cells without a label were not used."]
    return text(*parts)


def _table(labels: CellTypes, column: LabelColumn) -> Table:
    cells = pd.DataFrame({"label": column.labels, "confidence": column.confidence, "unknown": column.unknown})
    grouped = cells.groupby("label", observed=True, sort=True)
    each = pd.DataFrame({"cells": grouped.size(), **grouped[["confidence", "unknown"]].mean()})
    each = each.sort_values("cells", ascending=False, kind="stable")
    most_frequent, in_reference = each.iloc[:MOST_LABELS], _reference_shares(labels, column)
    rows: list[tuple[Part | None, ...]] = []
    for name, label_row in most_frequent.iterrows():
        of, at = f"cells labelled {name}", f"{column.prefix}label"
        row: list[Part | None] = [
            Name(str(name)),
            labels.number(float(label_row["cells"]), f"{at}, {of}"),
            labels.number(float(label_row["cells"]) / labels.n_cells, f"{at}, share of {of}", "share"),
        ]
        row += [in_reference.get(str(name))] if in_reference else []
        row += [
            labels.number(
                float(label_row["confidence"]), f"{column.prefix}confidence, mean of {of}", "score"
            ),
            labels.number(float(label_row["unknown"]), f"{column.prefix}unknown, mean of {of}", "share"),
        ]
        rows.append(tuple(row))
    return Table(
        caption=("Labels of ", Name(column.name), ", the most frequent first"),
        heads=(
            "label",
            "cells",
            "share",
            *(["share in the reference"] if in_reference else []),
            "mean confidence",
            "unknown",
        ),
        rows=tuple(rows),
        note=_note(labels, each, in_reference),
    )


def _note(labels: CellTypes, each: pd.DataFrame, in_reference: dict[str, Number]) -> tuple[Part, ...]:
    """Return a note on what a table of labels omits."""
    parts: list[Part] = []
    if len(each) > MOST_LABELS:
        left = labels.number(len(each) - MOST_LABELS, "labels that are not shown")
        parts += [left, " labels with fewer cells are not shown. "]
    absent = [name for name in in_reference if name not in each.index]
    if absent:
        names = [Name(name) for name in absent[:MOST_LABELS]]
        parts += ["No cell of the tissue was assigned any of these labels: ", *joined(names, last=", ")]
        parts.append("." if len(absent) <= MOST_LABELS else " and others.")
    return tuple(parts)


def _reference_shares(labels: CellTypes, column: LabelColumn) -> dict[str, Number]:
    """Return the share of each label among the reference's labelled cells; empty if unknown."""
    cells = labels.record["labels"][column.name].get("reference_cells", {})
    total = sum(float(n) for n in cells.values())
    source = f"record, labels, {column.name}, reference_cells, share of"
    if total <= 0:
        return {}
    return {name: labels.number(float(n) / total, f"{source} {name}", "share") for name, n in cells.items()}


def _diagram(labels: CellTypes, column: LabelColumn) -> Picture:
    from cellweft import pl

    return picture(
        lambda: pl.label_calibration(labels.record, column.name),
        form="svg",
        alt=f"Reliability diagram of {column.name}: share of cells with the right label, by confidence",
        caption=(
            "Held-out cells of the reference: share with the right label, by confidence. On the line, "
            "confidence is well calibrated; below it, confidence is too high. The area of a point is its "
            "share of the cells.",
        ),
    )


def _maps(given: Given, labels: CellTypes, column: LabelColumn) -> list[Block]:
    """Return maps of the most detailed labels, or a remark if there are no positions."""
    from cellweft import pl

    placed = _cells_with_places(given, labels)
    if placed is None:
        said = (
            "There is no map of the labels, because no positions of these cells were given. Pass the imputed "
        )
        said += "result too, or the two inputs."
        return [text(said, tone="note")]
    cells, rows, source = placed
    types = pd.Series(column.labels[rows], name=column.name).where(~column.unknown[rows])
    unit = labels.record.get("inputs", {}).get("spatial", {}).get("unit")
    draw = partial(pl.spatial, cells, unit=shown_unit(str(unit)) if unit else None)
    head = "Cells coloured by their label in "
    parts: tuple[Part, ...] = (head, Name(column.name), ". Unknown cells are grey.")
    if len(rows) < labels.n_cells:
        number = labels.number(len(rows), f"cells that are in {source} too")
        parts += (" Shown are the ", number, " cells that have a position in ", Name(source), ".")
    by_label = picture(
        partial(draw, types.cat.remove_unused_categories()),
        alt=f"Map of the tissue by the cells' label of {column.name}",
        caption=parts,
    )
    by_confidence = picture(
        partial(draw, pd.Series(column.confidence[rows], name="confidence")),
        alt=f"Map of the tissue by the confidence of the cells' label of {column.name}",
        caption=("Cells coloured by the confidence of this label.",),
    )
    return [Row((by_label, by_confidence))]


def _cells_with_places(given: Given, labels: CellTypes) -> tuple[AnnData, IntArray, str] | None:
    """Return the labelled cells with positions, their rows in the table, and the source of the positions."""
    for data, source in _places(given):
        rows = labels.table.cells.get_indexer(data.obs_names.astype(str))
        if (rows >= 0).any():
            return data[rows >= 0].copy(), rows[rows >= 0].astype(np.int64), source
    return None


def _places(given: Given) -> list[tuple[AnnData, str]]:
    """Return tissue cells with their positions, for each part of the report that contains them."""
    tables = [(result.few(), result.name) for result in (given.imputed, given.spots) if result is not None]
    tables = [(data, name) for data, name in tables if len(data.obsm)]
    if given.pair is not None and given.pair.coordinates is not None:
        table = pd.DataFrame(index=given.pair.st.obs_names.astype(str))
        data = AnnData(obs=table, obsm={"spatial": np.asarray(given.pair.coordinates)})
        tables.append((data, "the inputs"))
    return tables
