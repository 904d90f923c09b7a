"""Positions of placed cells, their uncertainty, and the composition of spots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cellweft.data.io.keys import CONFIDENCE, PROPORTIONS, SLICE, SPREAD, WEIGHT
from cellweft.data.spatial import find_coordinates
from cellweft.evaluate.ground_truth import true_places as true_places_of
from cellweft.reports.accuracy import place_blocks
from cellweft.reports.document import Block, Form, Name, Part, Picture, Row, Table, text
from cellweft.reports.figures import picture
from cellweft.reports.inputs import Given, Result

MOST_TYPES = 20
"""Largest number of types in a table; the rest is omitted, with a note."""

_QUANTILES = (("low", 0.05), ("middle", 0.5), ("high", 0.95))
_MEASURES: tuple[tuple[str, str, Form], ...] = (
    (CONFIDENCE, "confidence", "score"),
    (SPREAD, "spread", "value"),
    (WEIGHT, "weight of the best spot", "score"),
)


def placement_blocks(given: Given, true_places: str | NDArray[np.float64] | None = None) -> tuple[Block, ...]:
    """Return the uncertainty of positions, maps, and scores if the truth is known.

    Parameters
    ----------
    given
        Inputs of the report, with placed cells, scores of positions, or both.
    true_places
        True positions of the placed cells, if known, as in `cellweft.pl.placed`.
    """
    blocks: list[Block] = []
    if given.placed is not None:
        blocks += _placed(given.placed, _true_places(given, true_places))
    blocks += place_blocks(given)
    if given.placed is not None and not given.scored(place=True):
        blocks.append(
            text(
                "Whether the positions are right was not tested here, because that requires cells of "
                "known position. cellweft.evaluate_placement tests it on such data, or on spots simulated "
                "from them.",
                tone="note",
            )
        )
    return tuple(blocks)


def _true_places(given: Given, true_places: str | NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return the true positions of the placed cells, as given, or from the reference or the placed cells."""
    if true_places is None or given.placed is None:
        return None
    if not isinstance(true_places, str):
        return true_places
    if given.pair is not None:
        return true_places_of(given.pair, true_places)
    data = given.placed.data
    places, _ = find_coordinates(
        data.obs, data.obsm, true_places, where=given.placed.name, argument="true_places"
    )
    return places


def _placed(result: Result, true_places: NDArray[np.float64] | None) -> list[Block]:
    columns = [measure for measure in _MEASURES if result.column(measure[0]) is not None]
    label = result.label_column
    slices = result.column(SLICE)
    cells = result.few(columns=[*([label] if label else []), CONFIDENCE, SPREAD])
    said: list[Part] = [result.number(result.n_cells, "cells"), " cells were placed"]
    if slices is not None:
        said += [" on ", result.number(int(slices.nunique()), f"{SLICE}, values"), " slices"]
    said.append(
        ". The confidence ranges from zero (all spots equally likely) to one (a single spot). The spread "
        "is the "
        "distance of a cell's possible positions from their mean, in the unit of the coordinates."
    )
    blocks: list[Block] = [text(*said)]
    if columns:
        blocks.append(_sureness(result, columns))
    if label is not None and columns:
        blocks.append(_by_type(result, label, columns[:2]))
    blocks += _maps(cells, result, label, true_places)
    return blocks


def _sureness(result: Result, columns: Sequence[tuple[str, str, Form]]) -> Table:
    """Return quantiles of the uncertainty of positions; each is the value of a cell."""
    rows: list[tuple[Part | None, ...]] = []
    for name, said, form in columns:
        values = np.asarray(result.column(name), dtype=np.float64)
        quantiles = [(quantile, _quantile(values[np.isfinite(values)], q)) for quantile, q in _QUANTILES]
        numbers = (
            result.number(value, f"obs, {name}, {quantile} of the cells", form)
            for quantile, value in quantiles
        )
        rows.append((said, *numbers))
    return Table(
        caption=("Confidence of the positions",),
        heads=("", "fifth percentile", "median", "ninety-fifth percentile"),
        rows=tuple(rows),
    )


def _quantile(values: NDArray[np.float64], q: float) -> float:
    """Return the value of a cell at a quantile; NaN if there is none."""
    return float(np.quantile(values, q, method="inverted_cdf")) if values.size else np.nan


def _left_out(result: Result, n: int, source: str, said: str) -> tuple[Part, ...]:
    """Return the note on rows that a table does not show, if there are any."""
    return (result.number(n, source), said) if n else ()


def _by_type(result: Result, label: str, columns: Sequence[tuple[str, str, Form]]) -> Table:
    types = pd.Series(np.asarray(result.column(label)).astype(str))
    counts = types.value_counts()
    counts = counts.loc[sorted(counts.index, key=lambda cell_type: (-counts[cell_type], cell_type))]
    shown_types = list(counts.index[:MOST_TYPES])
    values = {name: pd.Series(np.asarray(result.column(name), dtype=np.float64)) for name, _, _ in columns}
    middles = {
        name: column.groupby(types).quantile(0.5, interpolation="lower") for name, column in values.items()
    }
    rows: list[tuple[Part | None, ...]] = [
        (
            Name(cell_type),
            result.number(int(counts[cell_type]), f"cells of {cell_type}"),
            *(
                result.number(
                    float(middles[name][cell_type]), f"obs, {name}, the median cell of {cell_type}", form
                )
                for name, _, form in columns
            ),
        )
        for cell_type in shown_types
    ]
    left = len(counts) - len(shown_types)
    return Table(
        caption=("Cell types, the most frequent first",),
        heads=(Name(label), "cells", *(f"{said} of the median cell" for _, said, _ in columns)),
        rows=tuple(rows),
        note=_left_out(result, left, "types that are not shown", " types with fewer cells are not shown."),
    )


def _maps(
    cells: AnnData, result: Result, label: str | None, true_places: NDArray[np.float64] | None
) -> list[Block]:
    from cellweft import pl

    blocks: list[Block] = []
    if label is not None:
        both = true_places is not None
        said = "True positions of the cells, and where they were placed, by " if both else "Placed cells by "
        by_label = picture(
            lambda: pl.placed(cells, label, truth=true_places),
            alt=f"Map of the placed cells by {label}" + ", next to their true positions" * both,
            caption=(said, Name(label), "."),
        )
        blocks.append(Row((by_label,)))
    drawn: list[Picture] = [
        picture(
            partial(pl.placed, cells, name),
            alt=f"Map of the placed cells by their {said}",
            caption=(f"Placed cells by their {said}: {meaning}.",),
        )
        for name, said, meaning in (
            (CONFIDENCE, "confidence", "high where only a few spots are likely"),
            (SPREAD, "spread", "high if a cell may have come from a place far from the plotted position"),
        )
        if result.column(name) is not None
    ]
    return [*blocks, Row(tuple(drawn))] if drawn else blocks


def composition_blocks(given: Given) -> tuple[Block, ...]:
    """Return the section on the composition of spots."""
    from cellweft import pl

    result = given.spots
    if result is None or PROPORTIONS not in result.data.obsm:
        return ()
    shares = result.data.obsm[PROPORTIONS]
    table = shares if isinstance(shares, pd.DataFrame) else pd.DataFrame(np.asarray(shares))
    table = table.set_axis(table.columns.astype(str), axis=1)
    blocks: list[Block] = [_types(result, table)]
    few = result.few()
    if few.obsm:
        few.obsm[PROPORTIONS] = table.set_axis(few.obs_names)
        maps = picture(
            lambda: pl.composition(few),
            alt="Maps of the spots coloured by the share of each of the most abundant types",
            caption=("Share of the most abundant types in each spot.",),
        )
        blocks.append(Row((maps,)))
    return tuple(blocks)


def _types(result: Result, table: pd.DataFrame) -> Table:
    values = table.to_numpy(dtype=np.float64)
    largest = np.bincount(values.argmax(axis=1), minlength=values.shape[1]) if values.size else np.zeros(0)
    order = sorted(range(values.shape[1]), key=lambda column: (-largest[column], table.columns[column]))
    rows = tuple(
        (
            Name(str(table.columns[column])),
            result.number(int(largest[column]), f"{PROPORTIONS}, spots of mostly this type"),
            result.number(_quantile(values[:, column], 0.5), f"{PROPORTIONS}, the middle spot", "share"),
            result.number(float(values[:, column].max()), f"{PROPORTIONS}, the largest", "share"),
        )
        for column in order[:MOST_TYPES]
    )
    left = len(order) - len(rows)
    return Table(
        caption=("Composition of ", result.number(len(table), "spots"), " spots"),
        heads=("type", "spots in which it is the most frequent", "median share", "largest share"),
        rows=rows,
        note=_left_out(result, left, f"{PROPORTIONS}: types not shown", " types are not shown."),
    )
