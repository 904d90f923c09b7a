"""The thresholds of the verdicts, and the evaluation of scores by these thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from cellweft.data.io.keys import PLACES
from cellweft.reports.document import Form, Number, Part, Table
from cellweft.reports.inputs import Given, Scores
from cellweft.reports.provenance import findings_of

Grade: TypeAlias = Literal["good", "even", "poor"]
"""Grade of a quality, and tone of its text: good, moderate, poor."""

SOURCE = "cellweft.reports.standards"


@dataclass(frozen=True, kw_only=True)
class Standard:
    """The values at which a quality is good, and beyond which it is poor.

    Attributes
    ----------
    said
        What is measured.
    good, poor
        The worst good value, and the worst value that is not poor.
    form
        Format of its values.
    less
        Whether lower is better.
    """

    said: str
    good: float
    poor: float
    form: Form
    less: bool = False

    def grade(self, value: float) -> Grade:
        """Return the grade of a value; values at a threshold have the better grade."""
        sign = -1.0 if self.less else 1.0
        if sign * value >= sign * self.good:
            return "good"
        return "even" if sign * value >= sign * self.poor else "poor"


STANDARDS = {
    "correlation": Standard(
        said="median correlation of a held-out gene with its measurement", good=0.4, poor=0.15, form="score"
    ),
    "coverage": Standard(
        said="difference between the observed and the nominal coverage of the intervals",
        good=0.03,
        poor=0.1,
        form="share",
        less=True,
    ),
    "error": Standard(
        said="median location error, as a share of the tissue's width",
        good=0.1,
        poor=0.25,
        form="share",
        less=True,
    ),
    "hits": Standard(
        said="true neighbours among the nearest cells, as a share", good=0.3, poor=0.1, form="share"
    ),
    "calibration": Standard(
        said="calibration error of cell types, in held-out cells",
        good=0.05,
        poor=0.1,
        form="score",
        less=True,
    ),
    "unknown": Standard(said="share of unknown cells", good=0.15, poor=0.3, form="share", less=True),
}
"""The thresholds. Random positions in a square have a mean error of half its width. The threshold for unknown
cells marks up to a tenth of cells with types in the reference; clearly more suggest missing types."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A quality of a method, compared with its standard.

    Attributes
    ----------
    grade
        Grade of the quality.
    parts
        Sentence about it.
    """

    grade: Grade
    parts: tuple[Part, ...]


def check_of(name: str, value: Number, *said: Part) -> Check:
    """Return the comparison of a quality with its standard.

    Parameters
    ----------
    name
        One of `STANDARDS`.
    value
        Value of the quality.
    said
        Start of the sentence about it.
    """
    standard = STANDARDS[name]
    grade = standard.grade(value.value)
    word = {"good": "good", "even": "moderate", "poor": "poor"}[grade]
    border = Number(standard.good, standard.form, f"{SOURCE}, {name}")
    side = "at most " if standard.less else "at least "
    end: tuple[Part, ...] = (f": {word}.",) if grade == "good" else (f": {word}; good is {side}", border, ".")
    return Check(grade=grade, parts=(" ", *said, *end))


def checks_of(scores: Scores, method: str, *, width: float | None) -> list[Check]:
    """Return the checks of a method's scores, without comparison to other methods.

    Parameters
    ----------
    scores
        Scores of positions, or of genes.
    method
        Its name in the table.
    width
        Width of the tissue, to express location errors as a share; None if unknown.
    """
    checks = _place_checks(scores, method, width) if scores.by == "place" else _gene_checks(scores, method)
    return [check for check in checks if check is not None]


def worst(grades: Sequence[Grade]) -> Grade:
    """Return the worst of at least one grade."""
    return max(grades, key=("good", "even", "poor").index)


def _gene_checks(scores: Scores, method: str) -> list[Check | None]:
    table = scores.each("gene", "pearson")
    checks: list[Check | None] = []
    if method in table.columns and table[method].notna().any():
        number = scores.number(
            float(table[method].median()), f"pearson of each gene, median of {method}", "score"
        )
        checks.append(check_of("correlation", number, "Its own median correlation is ", number))
    for metric in _metrics(scores, "coverage@"):
        checks.append(coverage_check(scores, method, metric))
    return checks


def coverage_check(scores: Scores, method: str, metric: str) -> Check | None:
    """Return the check of a method's intervals, from a metric ``coverage@LEVEL``; None without one."""
    value, level = scores.summary("all values", metric, method=method), float(metric.partition("@")[2])
    if not np.isfinite(value):
        return None
    return coverage_beside(scores.number(value, f"summary of {method}, {metric}", "share"), level)


def coverage_beside(share: Number, level: float) -> Check:
    """Return the check of the share of values inside their intervals against the nominal share.

    Parameters
    ----------
    share
        The share.
    level
        The nominal share.
    """
    apart = Number(abs(share.value - level), "share", f"{share.source}, minus the nominal share")
    stated = Number(level, "share", "the level of the intervals")
    side = "too narrow" if share.value < level else "too wide"
    said: tuple[Part, ...] = (
        "Its intervals contain ",
        share,
        " of the values, while ",
        stated,
        " are expected",
    )
    if STANDARDS["coverage"].grade(apart.value) != "good":
        said = (*said, f", so they are {side} by ", apart)
    return check_of("coverage", apart, *said)


def _place_checks(scores: Scores, method: str, width: float | None) -> list[Check | None]:
    checks: list[Check | None] = []
    error = scores.summary("all cells", "location_error_median", method=method)
    if np.isfinite(error) and width:
        share = scores.number(error / width, f"median error of {method} / width of the tissue", "share")
        checks.append(check_of("error", share, "Its median error is ", share, " of the tissue's width"))
    hits = _metrics(scores, "hits@")
    if hits:
        nearest = max(int(metric.partition("@")[2]) for metric in hits)
        mean = scores.summary("all cells", f"hits@{nearest}", method=method)
        if np.isfinite(mean):
            share = scores.number(mean / nearest, f"hits@{nearest} of {method} / {nearest}", "share")
            number = scores.number(nearest, "nearest cells of hits")
            said = (
                "Of the ",
                number,
                " truly nearest cells, ",
                share,
                " are also nearest at the predicted positions",
            )
            checks.append(check_of("hits", share, *said))
    return checks


def _metrics(scores: Scores, start: str) -> list[str]:
    rows = scores.table[scores.table["level"] == "summary"]
    return [str(metric) for metric in rows["metric"].unique() if str(metric).startswith(start)]


def tissue_width(given: Given) -> float | None:
    """Return the longer side of the tissue, from the check or from the placed cells, if known."""
    findings, _ = findings_of(given)
    extent = (findings.get("coordinates") or {}).get("extent") if findings else None
    if not extent and given.placed is not None and PLACES in given.placed.data.obsm:
        extent = np.ptp(np.asarray(given.placed.data.obsm[PLACES], dtype=np.float64), axis=0).tolist()
    width = max(map(float, extent[:2])) if extent else 0.0
    return width if width > 0 else None


def standards_table(names: Sequence[str]) -> Table:
    """Return the thresholds of some standards as a table.

    Parameters
    ----------
    names
        Names in `STANDARDS` to show.
    """
    rows = []
    for name in names:
        standard = STANDARDS[name]
        good, poor = (
            Number(value, standard.form, f"{SOURCE}, {name}") for value in (standard.good, standard.poor)
        )
        rows.append((f"{standard.said}{' (lower is better)' * standard.less}", good, poor))
    return Table(
        caption=("Thresholds of the verdicts",),
        heads=("", "limit for good", "limit for poor"),
        rows=tuple(rows),
    )
