"""Whether a method is better than simple baselines, in a plain sentence that the scores bear out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cellweft._typing import PlacerPreset, Preset
from cellweft.reports.document import Name, Number, Part, Text, Tone, text
from cellweft.reports.formatting import HEADINGS, base_of, lower_is_better
from cellweft.reports.inputs import Result, Scores

Outcome = Literal["better", "alike", "worse"]

_OWN = {*get_args(Preset), *get_args(PlacerPreset)}
_CERTAIN = 0.05  # of the sign test


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method beside the best baseline, item by item.

    Attributes
    ----------
    own, other
        The method, and the baseline.
    own_score, other_score
        Their medians.
    wins, items
        Items in which the method is ahead, and all.
    outcome
        What the medians and a sign test both say; "alike" where they do not agree.
    """

    own: str
    other: str
    own_score: Number
    other_score: Number
    wins: Number
    items: Number
    outcome: Outcome


def own_method(scores: Scores, result: Result | None) -> str | None:
    """Return which method of a table made the result; None where there is none of cellweft's own."""
    own = [name for name in scores.methods if base_of(name) in _OWN]
    preset = None if result is None else result.record.get("preset")
    return next((name for name in own if base_of(name) == preset), own[0] if own else None)


def compared(scores: Scores, own: str, *, metric: str) -> Comparison | None:
    """Return a method beside the baseline of the best median; None where there is nothing to compare.

    Parameters
    ----------
    scores
        Of genes, or of places.
    own
        The method.
    metric
        "pearson" or "mse" of genes, "location_error" of cells.

    Notes
    -----
    The sign test counts the items in which one of the two is ahead, ties left out. Neighbouring cells err
    together, so that for cells it is too sure of small differences.
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
    """Return how a metric is written: a distance as a value, all else as a score."""
    return "value" if metric.startswith("location_error") else "score"


def verdict(scores: Scores, result: Result | None, *, lead: bool = False) -> Text:
    """Return a plain sentence that says whether the method is better than the baselines.

    Parameters
    ----------
    scores
        A table of scores.
    result
        What was made, if given.
    lead
        Whether to say before what was scored.
    """
    said = _verdict(scores, result)
    return Text((f"{HEADINGS.get(scores.by, 'Scores')}: ", *said.parts), said.tone) if lead else said


def _verdict(scores: Scores, result: Result | None) -> Text:
    own = own_method(scores, result)
    if own is None:
        return text(
            "This table scores none of cellweft's own methods, so that it says nothing of the result itself.",
            tone="note",
        )
    place = scores.by == "place"
    found = compared(scores, own, metric="location_error" if place else "pearson")
    if found is None:
        return text(
            Name(own),
            " was scored without a baseline that gives the same scores, so that nothing can be said of "
            "whether it is better than a simple method. Evaluate it beside baselines.",
            tone="note",
        )
    words = {
        "better": " is better than the best simple baseline, ",
        "alike": " is not clearly better or worse than the best simple baseline, ",
        "worse": " is worse than the best simple baseline, ",
    }
    what = "places nearer" if place else "is ahead"
    items = "cells" if place else "genes"
    measure = "Its median error is " if place else "Its median correlation with the measurements is "
    parts: list[Part] = [
        Name(own),
        words[found.outcome],
        Name(found.other),
        f": it {what} in ",
        found.wins,
        " of ",
        found.items,
        f" {items}. {measure}",
        found.own_score,
        ", that of ",
        Name(found.other),
        " ",
        found.other_score,
        ".",
    ]
    if not place:
        parts += _of_levels(scores, own)
    if found.outcome != "better":
        parts.append(" Build on it no further than you would on the simple method.")
    return Text(tuple(parts), _TONES[found.outcome])


_TONES: dict[Outcome, Tone] = {"better": "good", "alike": "even", "worse": "poor"}


def _of_levels(scores: Scores, own: str) -> list[Part]:
    """Return what the squared error adds to the correlations: whether levels are right too."""
    found = compared(scores, own, metric="mse")
    if found is None:
        return []
    words = {"better": "lower", "alike": "not clearly different", "worse": "higher"}
    return [
        f" Its squared error is {words[found.outcome]}: median ",
        found.own_score,
        ", against ",
        found.other_score,
        " of ",
        Name(found.other),
        ".",
    ]
