"""The scores of placements, as the commands show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_HEADS = ("cells", "types")
"""What the table shows; the groups of cells and of types are in the file and in JSON."""


def shown_placement(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return the summary of a table of scores: method, what is scored, metric; means over the seeds.

    Parameters
    ----------
    scores
        As `weft.evaluate_placement` makes them.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"method": "cosine", "level": "summary", "item": "all cells", "metric": "hits@9", "value": 4.0}
    >>> shown_placement(pd.DataFrame([row]))
    {'cosine': {'cells': {'hits@9': 4.0}}}
    """
    summary = scores[scores["level"] == "summary"]
    found = summary.groupby(["method", "item", "metric"], sort=False)["value"].mean()
    shown: dict[str, dict[str, dict[str, float]]] = {}
    for place, value in found.items():
        method, item, metric = map(str, cast(tuple[str, str, str], place))
        # "all types" and "14 most frequent types" stand in one group: the metric tells them apart
        head = item.rpartition(" ")[2] if item.startswith("all ") or " most frequent " in item else item
        shown.setdefault(method, {}).setdefault(head, {})[metric] = float(value)
    return shown


def placement_table(scores: pd.DataFrame, *, title: str) -> Table:
    """Return the scores of all cells and all types as a table with a row for each method.

    Parameters
    ----------
    scores
        As `weft.evaluate_placement` makes them.
    title
        What stands above.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = shown_placement(scores)
    columns = [
        (head, metric)
        for head in _HEADS
        for metric in dict.fromkeys(name for row in rows.values() for name in row.get(head, {}))
    ]
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("\nmethod", overflow="fold")
    for _, metric in columns:
        table.add_column("\n".join(_two_lines(metric)), justify="right", no_wrap=True)
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
