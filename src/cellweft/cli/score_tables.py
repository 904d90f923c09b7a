"""Tables of scores on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

Shown: TypeAlias = dict[str, dict[str, dict[str, float]]]
"""Scores by method, group of the table, and metric."""

_SCORES = (
    ("genes", "median over genes", ("pearson", "spearman", "cosine", "mse")),
    ("gene counts", "median over genes", ("pearson_counts", "spearman_counts", "mse_counts")),
    ("cells", "median over cells", ("pearson", "cosine")),
    ("clusters", "clusters", ("ari", "nmi")),
    ("modules", "modules", ("ari",)),
    ("reliable half", "most reliable half", ("pearson", "cosine")),
)
"""Columns of a table of imputation scores: heading, item of the summary, and its metrics."""

_PLACEMENT_HEADS = ("cells", "types")
"""Headings of a table of placement scores. Groups of cells and types are only in the file and in JSON."""


def shown_scores(scores: pd.DataFrame) -> Shown:
    """Return the scores to show, by method, heading and metric: means over the seeds.

    Scores of a method without each batch of the reference are listed below it, if batches were left out.
    """
    rows: Shown = {}
    batches = _summary(scores, level="batch")
    for method, items in _summary(scores).items():
        rows[method] = _of_groups(items)
        for batch, values in batches.get(method, {}).items():
            rows[f"{method}, without {batch}"] = _of_groups({"median over genes": values})
    return rows


def _of_groups(items: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        head: {metric: items[item][metric] for metric in metrics}
        for head, item, metrics in _SCORES
        if metrics[0] in items.get(item, {})
    }


def score_table(scores: pd.DataFrame, *, title: str) -> ScoreTable:
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
    return ScoreTable(rows=rows, columns=tuple(columns), title=title)


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
    rows: Shown = {}
    for method, items in _summary(scores).items():
        for item, values in items.items():
            # "all types" and "14 most frequent types" share a heading: their metrics differ
            head = item.rpartition(" ")[2] if item.startswith("all ") or " most frequent " in item else item
            rows.setdefault(method, {}).setdefault(head, {}).update(values)
    return rows


def placement_table(scores: pd.DataFrame, *, title: str) -> ScoreTable:
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
    return ScoreTable(rows=rows, columns=tuple(columns), title=title)


def _summary(scores: pd.DataFrame, *, level: str = "summary") -> Shown:
    """Return the rows of a level by method, item and metric, in order, averaged over seeds."""
    rows = scores[scores["level"] == level]
    means: Shown = {}
    for key, value in rows.groupby(["method", "item", "metric"], sort=False)["value"].mean().items():
        method, item, metric = map(str, cast(tuple[str, str, str], key))
        means.setdefault(method, {}).setdefault(item, {})[metric] = float(value)
    return means


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """A table of scores that fits the available width; columns that do not fit are shown below.

    Attributes
    ----------
    rows
        The scores.
    columns
        Group, metric and header of each column.
    title
        Title of the table.
    """

    rows: Shown
    columns: tuple[tuple[str, str, str], ...]
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield as many tables as the width requires, each with the names of the methods."""
        names = max((len(one) for one in self.rows), default=0)
        room = options.max_width - min(max(names, len("method")), _WIDEST_NAME) - _GAP
        parts: list[list[tuple[str, str, str]]] = [[]]
        used = 0
        for one in self.columns:
            width = max(_NUMBER, *map(len, one[2].splitlines())) + _GAP
            if parts[-1] and used + width > room:
                parts.append([])
                used = 0
            if not parts[-1] and one[2].startswith("\n"):  # the group is already in the previous table
                one = (one[0], one[1], f"{one[0]}{one[2]}")
            parts[-1].append(one)
            used += width
        for number, part in enumerate(parts):
            yield _table(self.rows, part, title=self.title if number == 0 else "")


_WIDEST_NAME, _NUMBER, _GAP = 30, 6, 2  # in characters; longer method names are wrapped


def _table(rows: Shown, columns: Sequence[tuple[str, str, str]], *, title: str) -> Table:
    """Return a table of scores. Each column is given as heading, metric and header."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )
    names = max((len(name) for name in rows), default=0)
    table.add_column("\nmethod", overflow="fold", min_width=min(max(names, len("method")), _WIDEST_NAME))
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
