"""Tables of scores on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Shown: TypeAlias = dict[str, dict[str, dict[str, float]]]
"""Scores by method, group of the table, and metric."""

_SCORES = (
    ("genes", "median over genes", ("pearson", "spearman", "cosine", "mse")),
    ("cells", "median over cells", ("pearson", "cosine")),
    ("clusters", "clusters", ("ari", "nmi")),
    ("modules", "modules", ("ari",)),
    ("reliable half", "most reliable half", ("pearson", "cosine")),
)
"""Columns of a table of imputation scores: heading, item of the summary, and its metrics."""

_PLACEMENT_HEADS = ("cells", "types")
"""Headings of a table of placement scores. Groups of cells and types are only in the file and in JSON."""


def shown_scores(scores: pd.DataFrame) -> Shown:
    """Return the scores to show, by method, heading and metric: means over the seeds."""
    summary = _summary(scores)
    return {
        method: {
            head: {metric: items[item][metric] for metric in metrics}
            for head, item, metrics in _SCORES
            if metrics[0] in items.get(item, {})
        }
        for method, items in summary.items()
    }


def score_table(scores: pd.DataFrame, *, title: str) -> Table:
    """Return the scores to show as a table with one row per method.

    Parameters
    ----------
    scores
        From `cellweft.evaluate_imputation`.
    title
        Title of the table.
    """
    rows = shown_scores(scores)
    columns = [
        (head, metric, f"{head if metric == metrics[0] else ''}\n{metric}")
        for head, _, metrics in _SCORES
        for metric in metrics
        if any(head in row for row in rows.values())
    ]
    return _table(rows, columns, title=title)


def shown_placement(scores: pd.DataFrame) -> Shown:
    """Return the summary of a table of scores, by method, heading and metric: means over the seeds.

    Parameters
    ----------
    scores
        From `cellweft.evaluate_placement`.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"method": "cosine", "level": "summary", "item": "all cells", "metric": "hits@9", "value": 4.0}
    >>> shown_placement(pd.DataFrame([row]))
    {'cosine': {'cells': {'hits@9': 4.0}}}
    """
    shown: Shown = {}
    for method, items in _summary(scores).items():
        for item, values in items.items():
            # "all types" and "14 most frequent types" share a heading: their metrics differ
            head = item.rpartition(" ")[2] if item.startswith("all ") or " most frequent " in item else item
            shown.setdefault(method, {}).setdefault(head, {}).update(values)
    return shown


def placement_table(scores: pd.DataFrame, *, title: str) -> Table:
    """Return the scores of all cells and all types as a table with one row per method.

    Parameters
    ----------
    scores
        From `cellweft.evaluate_placement`.
    title
        Title of the table.
    """
    rows = shown_placement(scores)
    columns = [
        (head, metric, _two_lines(metric))
        for head in _PLACEMENT_HEADS
        for metric in dict.fromkeys(name for row in rows.values() for name in row.get(head, {}))
    ]
    return _table(rows, columns, title=title)


def _summary(scores: pd.DataFrame) -> Shown:
    """Return the summary by method, item and metric, in the order of the table: means over the seeds."""
    rows = scores[scores["level"] == "summary"]
    means: Shown = {}
    for key, value in rows.groupby(["method", "item", "metric"], sort=False)["value"].mean().items():
        method, item, metric = map(str, cast(tuple[str, str, str], key))
        means.setdefault(method, {}).setdefault(item, {})[metric] = float(value)
    return means


def _table(rows: Shown, columns: Sequence[tuple[str, str, str]], *, title: str) -> Table:
    """Return a table of scores. Each column is given as heading, metric and header."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("\nmethod", overflow="fold")
    for _, _, header in columns:
        table.add_column(header, justify="right", no_wrap=True)
    for method, row in rows.items():
        values = [row.get(head, {}).get(metric) for head, metric, _ in columns]
        table.add_row(method, *("-" if value is None else f"{value:.3f}" for value in values))
    return table


def _two_lines(metric: str) -> str:
    r"""Return the name of a metric on two lines, split before its distinguishing part.

    Examples
    --------
    >>> _two_lines("location_error_mean"), _two_lines("hits@25"), _two_lines("celltype_pcc")
    ('location_error\n_mean', 'hits\n@25', '\ncelltype_pcc')
    """
    for ending in ("_mean", "_median"):
        if metric.endswith(ending):
            return f"{metric.removesuffix(ending)}\n{ending}"
    name, at, number = metric.partition("@")
    return f"{name}\n@{number}" if at else f"\n{name}"
