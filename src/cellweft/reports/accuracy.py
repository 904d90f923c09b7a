"""How good it is: tables of scores and figures, each with a sentence that says what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import pandas as pd

from cellweft.data.io.keys import RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER
from cellweft.reports.document import Block, Heading, Name, Number, Part, Picture, Row, Table, text
from cellweft.reports.figures import picture
from cellweft.reports.formatting import HEADINGS, METRICS, lower_is_better
from cellweft.reports.inputs import Given, Result, Scores
from cellweft.reports.interpretation import form_of, own_method, verdict

_COLUMNS = (
    ("median gene", "median over genes", ("pearson", "spearman", "cosine", "mse")),
    ("median cell", "median over cells", ("pearson", "cosine")),
    ("clusters", "clusters", ("ari", "nmi")),
    ("gene modules", "modules", ("ari",)),
    ("reliable half", "most reliable half", ("pearson",)),
)
"""Columns of a table of scores: their head, the item of the summary, and its metrics."""


def summary_table(scores: Scores) -> Table:
    """Return the summary of a table of scores: a row for each method, the best of each column marked."""
    columns = _columns(scores)
    rows = [
        [summary_number(scores, item, metric, method=method) for _, item, metric in columns]
        for method in scores.methods
    ]
    for place, (_, _, metric) in enumerate(columns):
        _mark_best(rows, place, lower=lower_is_better(metric))
    groups = ((head, len(list(same))) for head, same in groupby(head for head, _, _ in columns))
    return Table(
        caption=("Summary of ", Name(scores.name), *_of_seeds(scores)),
        groups=(("", 1), *groups),
        heads=("method", *(_head(metric) for _, _, metric in columns)),
        rows=tuple((Name(method), *row) for method, row in zip(scores.methods, rows, strict=True)),
        note=("Higher is better, except for errors. The best of each column is bold; a dash: not scored.",),
    )


def summary_number(scores: Scores, item: str, metric: str, *, method: str) -> Number:
    """Return a score of the summary of a method, with its source."""
    value = scores.summary(item, metric, method=method)
    return scores.number(value, f"summary of {method}, {item}, {metric}", form_of(metric))


def _columns(scores: Scores) -> list[tuple[str, str, str]]:
    """Return the columns that a table can fill: head, item of the summary, metric."""
    rows = scores.table[scores.table["level"] == "summary"]
    there = dict.fromkeys(zip(rows["item"], rows["metric"], strict=True))
    if scores.by == "place":
        return [(item, item, metric) for item, metric in there if item in ("all cells", "all types")]
    wanted = [(head, item, metric) for head, item, metrics in _COLUMNS for metric in metrics]
    return [one for one in wanted if one[1:] in there]


def _head(metric: str) -> Part:
    return METRICS.get(metric, Name(metric))


def _of_seeds(scores: Scores) -> tuple[Part, ...]:
    if scores.n_seeds == 1:
        return ()
    return (", means of ", scores.number(scores.n_seeds, "seeds"), " seeds")


def _mark_best(rows: Sequence[list[Number]], place: int, *, lower: bool) -> None:
    values = np.array([row[place].value for row in rows])
    if len(rows) < 2 or not np.isfinite(values).any():
        return
    best = np.nanmin(values) if lower else np.nanmax(values)
    for row in rows:
        if row[place].value == best:
            row[place] = replace(row[place], best=True)


def quality_blocks(given: Given) -> tuple[Block, ...]:
    """Return what the tables of scores say of imputed expression."""
    found: list[Block] = []
    for scores in given.scored(place=False):
        heading = Heading((HEADINGS.get(scores.by, "Scores"),))
        found += [heading, verdict(scores, given.imputed), summary_table(scores)]
        if pictures := _pictures(scores, given.imputed):
            found.append(Row(pictures))
    if not found:
        found.append(
            text(
                "No table of scores was given, so that nothing is said here of how good the predictions are. "
                "cellweft.evaluate_imputation hides genes of the panel, predicts them, and compares the "
                "method with simple baselines.",
                tone="caution",
            )
        )
    return tuple(found)


def place_blocks(given: Given) -> tuple[Block, ...]:
    """Return what the tables of scores say of places and of compositions."""
    from cellweft import pl

    found: list[Block] = []
    for scores in given.scored(place=True):
        found += [Heading((HEADINGS["place"],)), verdict(scores, given.placed), summary_table(scores)]
        single = scores.table[scores.table["level"].isin(["cell", "type"])]
        levels = single.drop_duplicates("metric").set_index("metric")["level"]
        drawn = [
            picture(
                partial(pl.methods, scores.table, metric=metric),
                form="svg",
                alt=f"Box plot of {said} of each {levels[metric]}, by method",
                caption=(f"{said.capitalize()} of each {levels[metric]}, by method. {_BOX}",),
            )
            for metric, said in _SAID.items()
            if metric in levels
        ]
        if drawn:
            found.append(Row(tuple(drawn)))
    return tuple(found)


_SAID = {"location_error": "distance from the true place", "celltype_pcc": "correlation of the shares"}
_BOX = "The box holds the middle half."


def _pictures(scores: Scores, imputed: Result | None) -> tuple[Picture, ...]:
    from cellweft import pl

    if scores.each("gene", "pearson").empty:
        return ()
    found = [
        picture(
            lambda: pl.methods(scores.table, metric="pearson", level="gene"),
            form="svg",
            alt="Box plot of the correlation of each gene with the measurement, by method",
            caption=(
                "Correlation of each gene over the cells, by method: the box holds the middle half of the "
                "genes, its line is the median.",
            ),
        )
    ]
    own = own_method(scores, imputed)
    known = None if imputed is None else imputed.data.var
    if own is None or known is None or RELIABILITY not in known.columns:
        return tuple(found)
    metric = reliability_metric(known)
    scored = scores.each("gene", metric)
    expected = known[RELIABILITY].astype(float).dropna()
    both = scored.index.intersection(expected.index.astype(str))
    if own not in scored.columns or len(both) < 3:
        return tuple(found)
    found.append(
        picture(
            lambda: pl.reliability(known, scores.table, metric=metric, method=own, name_worst=3),
            form="svg",
            alt=f"Scatter plot of the {metric} that was expected of each gene against the one it reached",
            caption=(
                "What was expected of each gene against what it reached. Points on the line are as expected, "
                "below it worse. ",
                *_held_in(known, scored[own], f"{scores.name} and the imputed genes"),
            ),
        )
    )
    return tuple(found)


def reliability_metric(var: pd.DataFrame) -> str:
    """Return the score that the reliability expects: a correlation, where it comes with an interval."""
    return "pearson" if RELIABILITY_LOWER in var.columns else "cosine"


def _held_in(var: pd.DataFrame, reached: pd.Series[float], source: str) -> tuple[Part, ...]:
    """Return in how many genes the score lay within the interval that was given."""
    if RELIABILITY_LOWER not in var.columns:
        return ()
    low, high = (var[side].set_axis(var.index.astype(str)) for side in (RELIABILITY_LOWER, RELIABILITY_UPPER))
    names = reached.dropna().index.intersection(low.dropna().index)
    inside = (low[names] <= reached[names]) & (reached[names] <= high[names])
    return (
        Number(int(inside.sum()), "count", f"{source}: genes within their interval"),
        " of ",
        Number(len(names), "count", f"{source}: genes with both"),
        " lie within their interval, which nine in ten should.",
    )
