"""Plots of accuracy: comparison of methods, and reliability against observed scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import rankdata

from cellweft._errors import InputError, KeyMissingError, check_all_known, check_known, checks_kinds
from cellweft._text import near, shorten
from cellweft._typing import DoubleArray, PathLike
from cellweft.data.io.keys import RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER
from cellweft.evaluate.score_table import check_items
from cellweft.pl._axes import INK, PLAIN, SMALL, panel, tidy
from cellweft.pl._inputs import opened

if TYPE_CHECKING:
    from anndata import AnnData


_LEVELS = ("gene", "cell", "type")
_LONG_NAME = 16  # longer method names are split over several lines
_LESS_IS_BETTER = ("mse", "rmse_z", "js", "location_error")
_COLUMNS = ("method", "level", "item", "metric", "value")
_POINTS = "#0072B2"
_BOX = "#BFDDEE"
_MOST_POINTS = 500
_NAMES = {
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "cosine": "cosine similarity",
    "mse": "mean squared error",
    "rmse_z": "root mean squared error of z-scores",
    "ssim": "structural similarity",
    "js": "Jensen-Shannon divergence",
    "location_error": "location error",
    "celltype_pcc": "Pearson correlation of shares",
    "reliability": "expected reliability",
}


@checks_kinds
def methods(
    scores: pd.DataFrame,
    *,
    metric: str = "pearson",
    level: Literal["gene", "cell", "type"] | None = None,
    order: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the scores of methods: all genes (cells, types), their quartiles and medians.

    Parameters
    ----------
    scores
        Table from `cellweft.evaluate_imputation` or `cellweft.evaluate_placement`, or read back from its
        file.
    metric
        One of its metrics, such as "pearson" or "location_error".
    level
        What each point represents: "gene", "cell" or "type". By default the first of these that has the
        metric.
    order
        Methods to draw, from the top; by default all, the best median first.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        One box per method: quartiles, whiskers at the 5 and 95 % quantiles, and the median as a line and a
        number. Points are drawn if a method has at most 500. Several seeds of a method are first averaged
        item by item.

    Raises
    ------
    KeyMissingError
        The metric, level or method is not in the table.
    InputError
        Not a table of scores, or an empty one.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> rows = [("auto", "a", 0.5), ("auto", "b", 0.7), ("mean", "a", 0.0), ("mean", "b", 0.1)]
    >>> scores = pd.DataFrame(rows, columns=["method", "item", "value"]).assign(
    ...     seed=0, fold=-1, level="gene", metric="pearson"
    ... )
    >>> [text.get_text() for text in methods(scores).get_yticklabels()]
    ['auto', 'mean']
    """
    table = _items(scores, metric, level)
    medians = table.groupby("method")["value"].median().sort_values(ascending=metric in _LESS_IS_BETTER)
    names = [str(name) for name in (medians.index if order is None else order)]
    check_all_known(names, medians.index, "order", expected="methods of the table")
    ax = panel(ax, size=(5.0, 0.9 + 0.5 * len(names)))
    for row, method in enumerate(names):
        _draw_box(ax, row, np.sort(table.loc[table["method"] == method, "value"].to_numpy(np.float64)))
    items = {"gene": "genes", "cell": "cells", "type": "types"}[str(table["level"].iloc[0])]
    most = int(table.groupby("method").size().max())
    tidy(ax, title=f"{most:,} {items}", x=_named(metric))
    _annotate(ax, "median", (1.0, 1.0), (4, 2), xycoords="axes fraction", fontsize=SMALL, color=INK)
    # A name with settings, auto:models=1+steps=150, would leave no space for the boxes.
    ax.set_yticks(
        range(len(names)),
        [re.sub("([:+])", r"\1\n", name) if len(name) > _LONG_NAME else name for name in names],
    )
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.margins(x=0.12)
    return ax


@checks_kinds
def reliability(
    expected: AnnData | PathLike | pd.DataFrame | pd.Series | None,
    scores: pd.DataFrame,
    *,
    metric: str = "pearson",
    method: str | None = None,
    name_worst: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Plot the reliability of genes against their observed scores.

    Parameters
    ----------
    expected
        Result of `cellweft.Imputer.impute` (or its path, or its ``var``) with ``var["reliability"]``, or a
        series by gene. With None, the metric "reliability" in the scores is used (from
        `cellweft.evaluate_imputation` with ``reliability=True``); this is the fairest comparison, because it
        comes from the same folds.
    scores
        Table of `cellweft.evaluate_imputation`; genes without a score are left out.
    metric
        The score that the reliability predicts: "pearson" with "auto", "cosine" with "stimpute".
    method
        The method whose scores are plotted; may be omitted if there is only one, or if one is "auto".
    name_worst
        Number of genes to name: those whose score is farthest below the expected one.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        One point per gene, with the interval of the expected score as a bar, if known; the diagonal; and the
        Spearman correlation of expected and observed scores, with the number of genes.

    Raises
    ------
    KeyMissingError
        There is no reliability, or the metric or method is not in the table.
    InputError
        No gene has both an expected and an observed score.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> scores = pd.DataFrame({"item": ["a", "b", "c"], "value": [0.2, 0.4, 0.9]}).assign(
    ...     method="auto", seed=0, fold=-1, level="gene", metric="pearson"
    ... )
    >>> ax = reliability(pd.Series({"a": 0.3, "b": 0.5, "c": 0.8}), scores)
    >>> ax.texts[0].get_text()
    'Spearman 1.00, 3 genes'
    """
    method = _one_method(scores, method, metric)
    reached, predicted = _scores_of_genes(scores, metric, method), _expected(expected, scores, method)
    genes = [gene for gene in reached.index if gene in predicted.index]
    both = predicted.loc[genes].assign(score=reached.loc[genes]).dropna(subset=[RELIABILITY, "score"])
    if both.empty:
        raise InputError(
            "scores",
            expected="a gene with both a reliability and a score",
            got=f"{len(predicted):,} genes with one, {len(reached):,} with the other, none with both",
            fix="Pass the scores and the result of the same genes.",
        )
    ax = panel(ax, size=(4.2, 4.0))
    x, y = both[RELIABILITY].to_numpy(np.float64), both["score"].to_numpy(np.float64)
    if RELIABILITY_LOWER in both:
        bars = both[[RELIABILITY_LOWER, RELIABILITY_UPPER]].to_numpy(np.float64).T
        ax.hlines(y, *bars, color=_POINTS, lw=0.8, alpha=0.25, zorder=1)
    ax.scatter(x, y, s=16, color=_POINTS, lw=0, alpha=0.8, zorder=2)
    ends = [min(x.min(), y.min(), 0.0), max(x.max(), y.max(), 1.0)]
    ax.plot(ends, ends, color=INK, lw=0.8, ls=(0, (4, 3)), zorder=0)
    tidy(ax, x="expected reliability", y=f"{_named(metric)} on held-out genes")
    ax.set_aspect("equal", adjustable="datalim")
    rho = _spearman(x, y)
    said = "Spearman not defined" if np.isnan(rho) else f"Spearman {rho:.2f}"
    ax.text(0.03, 0.97, f"{said}, {len(both):,} genes", transform=ax.transAxes, va="top", fontsize=SMALL)
    worst: Any = np.argsort(y - x, kind="stable")[:name_worst] if name_worst > 0 else []
    for place in worst:
        _annotate(ax, str(both.index[place]), (x[place], y[place]), (4, -2), fontsize=SMALL, va="top")
    return ax


def _annotate(ax: Axes, text: str, place: tuple[float, float], apart: tuple[int, int], **look: Any) -> None:
    """Write a text at a distance (in points) from a position."""
    ax.annotate(text, place, xytext=apart, textcoords="offset points", **look)


def _named(metric: str) -> str:
    less = " (lower is better)" if metric in _LESS_IS_BETTER else ""
    return _NAMES.get(metric, metric) + less


def _checked(scores: pd.DataFrame) -> pd.DataFrame:
    lost = [column for column in _COLUMNS if column not in getattr(scores, "columns", ())]
    if lost or len(scores) == 0:
        raise InputError(
            "scores",
            expected=f"a table of scores, with the columns {shorten(_COLUMNS)}",
            got=f"none named {lost[0]!r}" if lost else "no rows",
            fix="Pass the result of cellweft.evaluate_imputation or cellweft.evaluate_placement, or "
            "pandas.read_csv('scores.csv').",
        )
    check_items(scores, "scores")
    return scores


def _items(scores: pd.DataFrame, metric: str, level: str | None) -> pd.DataFrame:
    """Return the scores of single genes, cells or types: one row per method and item, averaged over seeds."""
    scores = _checked(scores)
    single = scores[scores["level"].isin(_LEVELS)]
    of_metric = single[single["metric"] == metric]
    if of_metric.empty:
        raise KeyMissingError(
            "metric",
            expected="a metric in the table for single genes, cells or types",
            got=repr(metric),
            fix=near(str(metric), single["metric"].unique()),
        )
    there = [name for name in _LEVELS if name in set(of_metric["level"])]
    if level is not None:
        check_known(level, there, "level", expected=f"a level with {metric!r}")
    rows = of_metric[of_metric["level"] == (level or there[0])]
    means: pd.DataFrame = (
        rows.groupby(["method", "level", "item"], observed=True)["value"].mean().reset_index()
    )
    return means.dropna(subset=["value"])


def _draw_box(ax: Axes, row: int, values: DoubleArray) -> None:
    """Draw one method: quartiles, tails, the median as text, and points if there are few."""
    if len(values) == 0:
        return
    low, first, median, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    ax.hlines(row, low, high, color=INK, lw=0.8, zorder=1)
    ax.barh(row, third - first, left=first, height=0.5, color=_BOX, lw=0, zorder=2)
    if len(values) <= _MOST_POINTS:
        # jitter by the golden ratio over the sorted values: even, and independent of the order
        apart = (np.arange(len(values)) * 0.6180339887 % 1 - 0.5) * 0.4
        ax.scatter(values, row + apart, s=6, color=_POINTS, alpha=0.6, lw=0, zorder=3)
    ax.vlines(median, row - 0.25, row + 0.25, color=INK, lw=2, zorder=4)
    look: dict[str, Any] = {"va": "center", "fontsize": PLAIN, "color": INK, "annotation_clip": False}
    _annotate(ax, f"{median:.3g}", (1.0, row), (4, 0), xycoords=("axes fraction", "data"), **look)


def _one_method(scores: pd.DataFrame, method: str | None, metric: str) -> str:
    method_names = [str(name) for name in _items(scores, metric, "gene")["method"].unique()]
    if method is None and (len(method_names) == 1 or "auto" in method_names):
        return method_names[0] if len(method_names) == 1 else "auto"
    check_known(method, method_names, "method", expected="the method whose reliability is shown")
    return str(method)


def _scores_of_genes(scores: pd.DataFrame, metric: str, method: str) -> pd.Series[Any]:
    items = _items(scores, metric, "gene")
    items = items[items["method"] == method]
    values: pd.Series[Any] = items.set_index(items["item"].astype(str))["value"]
    return values


def _expected(expected: Any, scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the reliability of genes, by name."""
    if expected is None:
        table = _scores_of_genes(scores, RELIABILITY, method).to_frame(RELIABILITY)
    elif isinstance(expected, pd.Series):
        table = expected.to_frame(RELIABILITY)
    else:
        table = expected if isinstance(expected, pd.DataFrame) else opened(expected, "expected").var
    if RELIABILITY not in table:
        raise KeyMissingError(
            "expected",
            expected="var['reliability'], which an Imputer writes with reliability=True",
            got=shorten([str(column) for column in table.columns]) or "no columns",
            fix="Impute with reliability, or pass a series by gene.",
        )
    bars = [RELIABILITY_LOWER, RELIABILITY_UPPER]
    columns = [RELIABILITY, *(bars if all(column in table for column in bars) else [])]
    table = table[columns].set_axis(table.index.astype(str), axis=0)
    return table[~table.index.duplicated()]


def _spearman(x: DoubleArray, y: DoubleArray) -> float:
    if any(len(np.unique(values)) < 2 for values in (x, y)):
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
