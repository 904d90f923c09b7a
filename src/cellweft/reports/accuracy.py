"""The accuracy of results: tables of scores and figures, each with a sentence that explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal, get_args

import numpy as np
import pandas as pd

from cellweft._typing import PlacerPreset, Preset
from cellweft.data.io.keys import RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER
from cellweft.evaluate.imputation import protocol_text
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
    Tone,
    text,
)
from cellweft.reports.figures import picture
from cellweft.reports.formatting import HEADINGS, METRICS, base_of, lower_is_better
from cellweft.reports.inputs import Given, Result, Scores
from cellweft.reports.standards import Check, Grade, checks_of, tissue_width, worst

Outcome = Literal["better", "alike", "worse"]
_OWN = {*get_args(Preset), *get_args(PlacerPreset)}
_CERTAIN = 0.05  # significance level of the sign test
_COLUMNS = (
    ("median gene", "median over genes", ("pearson", "spearman", "cosine", "mse")),
    ("median gene, counts", "median over genes", ("pearson_counts", "spearman_counts", "mse_counts")),
    ("median cell", "median over cells", ("pearson", "cosine")),
    ("clusters", "clusters", ("ari", "nmi")),
    ("gene modules", "modules", ("ari",)),
    ("reliable half", "most reliable half", ("pearson",)),
)
"""Columns of a table of scores: heading, item of the summary, and its metrics."""


def summary_table(scores: Scores) -> Table:
    """Return the summary of a table of scores: one row per method, with the best of each column marked."""
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
        note=(
            "Higher is better, except for errors. The best value of each column is bold; a dash means not "
            "scored.",
            *([f" {protocol}"] if (protocol := protocol_text(scores.record)) else []),
        ),
    )


def summary_number(scores: Scores, item: str, metric: str, *, method: str) -> Number:
    """Return a summary score of a method, with its source."""
    value = scores.summary(item, metric, method=method)
    return scores.number(value, f"summary of {method}, {item}, {metric}", form_of(metric))


def _columns(scores: Scores) -> list[tuple[str, str, str]]:
    """Return the columns available in a table: heading, item of the summary, metric."""
    rows = scores.table[scores.table["level"] == "summary"]
    there = dict.fromkeys(zip(rows["item"], rows["metric"], strict=True))
    if scores.by == "place":
        return [(item, item, metric) for item, metric in there if item in ("all cells", "all types")]
    wanted = [(head, item, metric) for head, item, metrics in _COLUMNS for metric in metrics]
    return [column for column in wanted if column[1:] in there]


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
    """Return the section on the accuracy of imputed expression."""
    blocks: list[Block] = []
    for scores in given.scored(place=False):
        heading = Heading((HEADINGS.get(scores.by, "Scores"),))
        blocks += [heading, verdict(scores, given.imputed), summary_table(scores)]
        if pictures := _pictures(scores, given.imputed):
            blocks.append(Row(pictures))
    if not blocks:
        blocks.append(
            text(
                "No table of scores was given, so this report cannot say how good the predictions are. "
                "cellweft.evaluate_imputation hides genes of the panel, predicts them, and compares the "
                "method with simple baselines.",
                tone="caution",
            )
        )
    return tuple(blocks)


def place_blocks(given: Given) -> tuple[Block, ...]:
    """Return the section on the accuracy of positions and compositions."""
    from cellweft import pl

    blocks: list[Block] = []
    for scores in given.scored(place=True):
        said = verdict(scores, given.placed, width=tissue_width(given))
        blocks += [Heading((HEADINGS["place"],)), said, summary_table(scores)]
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
            blocks.append(Row(tuple(drawn)))
    return tuple(blocks)


_SAID = {"location_error": "distance from the true position", "celltype_pcc": "correlation of the shares"}
_BOX = "The box shows the middle half."


def _pictures(scores: Scores, imputed: Result | None) -> tuple[Picture, ...]:
    from cellweft import pl

    if scores.each("gene", "pearson").empty:
        return ()
    pictures = [
        picture(
            lambda: pl.methods(scores.table, metric="pearson", level="gene"),
            form="svg",
            alt="Box plot of the correlation of each gene with the measurement, by method",
            caption=(
                "Correlation of each gene over the cells, by method. The box shows the middle half of the "
                "genes, its line the median.",
            ),
        )
    ]
    own = own_method(scores, imputed)
    var = None if imputed is None else imputed.data.var
    if own is None or var is None or RELIABILITY not in var.columns:
        return tuple(pictures)
    metric = reliability_metric(var)
    scored = scores.each("gene", metric)
    expected = var[RELIABILITY].astype(float).dropna()
    both = scored.index.intersection(expected.index.astype(str))
    if own not in scored.columns or len(both) < 3:
        return tuple(pictures)
    pictures.append(
        picture(
            lambda: pl.reliability(var, scores.table, metric=metric, method=own, name_worst=3),
            form="svg",
            alt=f"Scatter plot of the expected against the observed {metric} of each gene",
            caption=(
                "Expected against observed score of each gene. Points on the line are as expected, points "
                "below it are worse. ",
                *_held_in(var, scored[own], f"{scores.name} and the imputed genes"),
            ),
        )
    )
    return tuple(pictures)


def reliability_metric(var: pd.DataFrame) -> str:
    """Return the metric that the reliability predicts: a correlation, if it has an interval."""
    return "pearson" if RELIABILITY_LOWER in var.columns else "cosine"


def _held_in(var: pd.DataFrame, reached: pd.Series[float], source: str) -> tuple[Part, ...]:
    """Return the number of genes with a score inside their interval."""
    if RELIABILITY_LOWER not in var.columns:
        return ()
    low, high = (var[side].set_axis(var.index.astype(str)) for side in (RELIABILITY_LOWER, RELIABILITY_UPPER))
    names = reached.dropna().index.intersection(low.dropna().index)
    inside = (low[names] <= reached[names]) & (reached[names] <= high[names])
    return (
        Number(int(inside.sum()), "count", f"{source}: genes within their interval"),
        " of ",
        Number(len(names), "count", f"{source}: genes with both"),
        " lie within their interval; nine in ten should.",
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of a method with the best baseline, item by item.

    Attributes
    ----------
    own, other
        The method, and the baseline.
    own_score, other_score
        Their medians.
    wins, items
        Number of items in which the method is better, and of all items.
    outcome
        The conclusion of both the medians and a sign test; "alike" if they disagree.
    """

    own: str
    other: str
    own_score: Number
    other_score: Number
    wins: Number
    items: Number
    outcome: Outcome


def own_method(scores: Scores, result: Result | None) -> str | None:
    """Return the method of a table that made the result; None if there is no method of cellweft."""
    own = [name for name in scores.methods if base_of(name) in _OWN]
    preset = None if result is None else result.record.get("preset")
    return next((name for name in own if base_of(name) == preset), own[0] if own else None)


def compared(scores: Scores, own: str, *, metric: str) -> Comparison | None:
    """Return a comparison of a method with the baseline with the best median; None without baselines.

    Parameters
    ----------
    scores
        Scores of genes, or of positions.
    own
        The method.
    metric
        "pearson" or "mse" for genes, "location_error" for cells.

    Notes
    -----
    The sign test counts the items in which one of the two is better, without ties. Errors of neighbouring
    cells are correlated, so that the test for cells overstates the significance of small differences.
    """
    from scipy.stats import binomtest

    level = "cell" if metric == "location_error" else "gene"
    table = scores.each(level, metric)
    others = [name for name in table.columns if base_of(name) not in _OWN]
    if own not in table.columns or not others:
        return None
    sign = -1.0 if lower_is_better(metric) else 1.0
    medians = sign * table[[own, *others]].median()
    best = str(medians[others].idxmax())
    both = table[[own, best]].dropna()
    ahead = sign * (both[own] - both[best])
    wins, losses = int((ahead > 0).sum()), int((ahead < 0).sum())
    if not wins + losses:
        return None
    outcome: Outcome = "alike"
    leads = float(medians[own] - medians[best])
    if binomtest(wins, wins + losses).pvalue < _CERTAIN and leads * (wins - losses) > 0:
        outcome = "better" if wins > losses else "worse"
    said, form = f"{metric} of each {level}", form_of(metric)
    return Comparison(
        own=own,
        other=best,
        own_score=scores.number(float(table[own].median()), f"{said}, median of {own}", form),
        other_score=scores.number(float(table[best].median()), f"{said}, median of {best}", form),
        wins=scores.number(wins, f"{said}, where {own} is ahead of {best}"),
        items=scores.number(len(both), said),
        outcome=outcome,
    )


def form_of(metric: str) -> Literal["score", "value"]:
    """Return the format of a metric: a value for distances, a score for all others."""
    return "value" if metric.startswith("location_error") else "score"


def verdict(scores: Scores, result: Result | None, *, lead: bool = False, width: float | None = None) -> Text:
    """Return sentences on whether the method is better than the baselines, and on its own accuracy.

    Parameters
    ----------
    scores
        A table of scores.
    result
        The result, if given.
    lead
        Whether to start with what was scored.
    width
        Width of the tissue, for location errors; None if unknown.

    Notes
    -----
    The tone is the worst of the comparison and of each quality, by the thresholds of
    `cellweft.reports.standards`, because a method that is better than a poor baseline may still be poor.
    """
    said, own = _verdict(scores, result), own_method(scores, result)
    if own is not None:
        said = _with_checks(said, checks_of(scores, own, width=width))
    return Text((f"{HEADINGS.get(scores.by, 'Scores')}: ", *said.parts), said.tone) if lead else said


def _with_checks(said: Text, checks: Sequence[Check]) -> Text:
    """Return a verdict with sentences on the scores themselves; its tone is the worst of all."""
    grades: list[Grade] = [check.grade for check in checks]
    parts = list(said.parts)
    for check in checks:
        parts += check.parts
    tone: Tone = said.tone
    if said.tone in ("good", "even", "poor"):
        tone = worst([said.tone, *grades])
    elif "poor" in grades:
        tone = "poor"
    return Text(tuple(parts), tone)


def _verdict(scores: Scores, result: Result | None) -> Text:
    own = own_method(scores, result)
    if own is None:
        return text(
            "This table does not score any of cellweft's own methods, so it says nothing about the result "
            "itself.",
            tone="note",
        )
    place = scores.by == "place"
    comparison = compared(scores, own, metric="location_error" if place else "pearson")
    if comparison is None:
        return text(
            Name(own),
            " was scored without a baseline that has the same scores, so it cannot be compared with a "
            "simple method. Evaluate it together with baselines.",
            tone="note",
        )
    words = {
        "better": " is better than the best simple baseline, ",
        "alike": " is not clearly better or worse than the best simple baseline, ",
        "worse": " is worse than the best simple baseline, ",
    }
    phrase = "places closer" if place else "is better"
    items = "cells" if place else "genes"
    measure = "Its median error is " if place else "Its median correlation with the measurements is "
    parts: list[Part] = [
        Name(own),
        words[comparison.outcome],
        Name(comparison.other),
        f": it {phrase} in ",
        comparison.wins,
        " of ",
        comparison.items,
        f" {items}. {measure}",
        comparison.own_score,
        ", that of ",
        Name(comparison.other),
        " ",
        comparison.other_score,
        ".",
    ]
    if not place:
        parts += _of_levels(scores, own)
    if comparison.outcome != "better":
        parts.append(" Do not trust it more than the simple method.")
    return Text(tuple(parts), _TONES[comparison.outcome])


_TONES: dict[Outcome, Tone] = {"better": "good", "alike": "even", "worse": "poor"}


def _of_levels(scores: Scores, own: str) -> list[Part]:
    """Return a sentence on the squared error, which also depends on levels, unlike correlations."""
    comparison = compared(scores, own, metric="mse")
    if comparison is None:
        return []
    words = {"better": "lower", "alike": "not clearly different", "worse": "higher"}
    return [
        f" Its squared error is {words[comparison.outcome]}: median ",
        comparison.own_score,
        ", against ",
        comparison.other_score,
        " of ",
        Name(comparison.other),
        ".",
    ]
