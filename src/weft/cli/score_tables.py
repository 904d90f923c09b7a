"""Tables of scores, as the commands show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_SCORES = (
    ("genes", "median over genes", ("pearson", "spearman", "cosine", "mse")),
    ("cells", "median over cells", ("pearson", "cosine")),
    ("clusters", "clusters", ("ari", "nmi")),
    ("modules", "modules", ("ari",)),
    ("reliable half", "most reliable half", ("pearson", "cosine")),
)
"""Columns of a table of scores: what is scored, the item of the summary, and its metrics."""

_HEADS = ("cells", "types")
"""What the table shows; the groups of cells and of types are in the file and in JSON."""


_Rows: TypeAlias = dict[str, dict[str, dict[str, float]]]


def _means(scores: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """Return the summary by method, item and metric: means over the seeds."""
    summary = scores[scores["level"] == "summary"]
    means: Any = summary.groupby(["method", "item", "metric"], sort=False)["value"].mean()
    return {place: float(value) for place, value in means.items()}


def shown_scores(scores: pd.DataFrame) -> _Rows:
    """Return the scores that are shown: method, what is scored, metric; means over the seeds."""
    means = _means(scores)
    return {
        method: {
            title: {metric: means[method, item, metric] for metric in metrics}
            for title, item, metrics in _SCORES
            if (method, item, metrics[0]) in means
        }
        for method in dict.fromkeys(method for method, _, _ in means)
    }


def score_table(scores: pd.DataFrame, *, title: str) -> Table:
    """Return the scores that are shown as a table with a row for each method.

    Parameters
    ----------
    scores
        As `weft.evaluate` makes them.
    title
        What stands above.
    """
    rows = shown_scores(scores)
    columns = [
        (head, metric)
        for head, _, metrics in _SCORES
        for metric in metrics
        if any(head in row for row in rows.values())
    ]
    firsts = {head: number for number, (head, _) in reversed(list(enumerate(columns)))}
    heads = [
        f"{head if firsts[head] == number else ''}\n{metric}" for number, (head, metric) in enumerate(columns)
    ]
    return _table(rows, columns, heads, title)


def shown_placement(scores: pd.DataFrame) -> _Rows:
    """Return the summary of a table of scores: method, what is scored, metric; means over the seeds.

    Parameters
    ----------
    scores
        As `weft.evaluate` makes them by place.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"method": "cosine", "level": "summary", "item": "all cells", "metric": "hits@9", "value": 4.0}
    >>> shown_placement(pd.DataFrame([row]))
    {'cosine': {'cells': {'hits@9': 4.0}}}
    """
    shown: _Rows = {}
    for (method, item, metric), value in _means(scores).items():
        # "all types" and "14 most frequent types" stand in one group: the metric tells them apart
        head = item.rpartition(" ")[2] if item.startswith("all ") or " most frequent " in item else item
        shown.setdefault(method, {}).setdefault(head, {})[metric] = value
    return shown


def placement_table(scores: pd.DataFrame, *, title: str) -> Table:
    """Return the scores of all cells and all types as a table with a row for each method.

    Parameters
    ----------
    scores
        As `weft.evaluate` makes them by place.
    title
        What stands above.
    """
    rows = shown_placement(scores)
    columns = [
        (head, metric)
        for head in _HEADS
        for metric in dict.fromkeys(name for row in rows.values() for name in row.get(head, {}))
    ]
    return _table(rows, columns, ["\n".join(_two_lines(metric)) for _, metric in columns], title)


def _table(rows: _Rows, columns: Sequence[tuple[str, str]], heads: Sequence[str], title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("\nmethod", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for method, row in rows.items():
        values = [row.get(head, {}).get(metric) for head, metric in columns]
        table.add_row(method, *("-" if value is None else f"{value:.3f}" for value in values))
    return table


def _two_lines(metric: str) -> tuple[str, str]:
    """Return the name of a metric cut before the part that tells it from its like.

    Examples
    --------
    >>> _two_lines("location_error_mean"), _two_lines("hits@25"), _two_lines("celltype_pcc")
    (('location_error', '_mean'), ('hits', '@25'), ('', 'celltype_pcc'))
    """
    for ending in ("_mean", "_median"):
        if metric.endswith(ending):
            return metric.removesuffix(ending), ending
    name, at, number = metric.partition("@")
    return (name, at + number) if at else ("", name)
