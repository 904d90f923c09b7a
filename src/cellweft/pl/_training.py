"""Plots of the training of a model, and of the calibration of its intervals."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from cellweft._errors import InputError, NotFittedError, SettingError, array_of, checks_kinds
from cellweft._typing import BoolArray, DoubleArray
from cellweft.data.gene_names import find_names
from cellweft.data.io.keys import INTERVAL
from cellweft.data.io.lazy_input import Input
from cellweft.pl._axes import INK, SMALL, panel, panels, tidy
from cellweft.pl._colors import palette
from cellweft.pl._inputs import opened, values_of

if TYPE_CHECKING:
    from anndata import AnnData

    from cellweft.impute.imputer import Imputer
    from cellweft.place.placer import Placer

_MOST_LINES = 8  # largest number of lines in a legend
_EPOCHS, _PART = "epoch", "training progress (%)"


@checks_kinds
def calibration(
    truth: ArrayLike | pd.DataFrame,
    bounds: Mapping[float, tuple[ArrayLike, ArrayLike] | AnnData],
    *,
    label: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the observed against the expected share of measurements inside the intervals.

    Parameters
    ----------
    truth
        (n_cells, n_genes) measured log-normalised values of genes that were not used to make the intervals,
        NaN if missing; for a table, the columns are gene names.
    bounds
        For each level, between 0 and 1: (lower, upper), each (n_cells, n_genes); or the AnnData from
        ``impute(genes, interval=level)``, with the same cells as ``truth`` and, if ``truth`` is an array, the
        same genes.
    label
        Name of the line, if you draw several on one ``ax``.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        Observed coverage of all entries against the nominal level, with the diagonal. At each level, a bar
        shows the lower and upper quartiles over genes, because coverage is correct on average over genes, not
        for each gene.

    Raises
    ------
    KeyMissingError
        An AnnData lacks the layers "lower" and "upper", or a gene of the table.
    InputError
        Shapes do not match, or there are no levels or no measured entries.
    SettingError
        A level is not between 0 and 1.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> truth = np.arange(10.0).reshape(10, 1)
    >>> ax = calibration(truth, {0.5: (truth * 0, truth * 0 + 4), 0.9: (truth * 0, truth * 0 + 8)})
    >>> ax.lines[1].get_ydata().tolist()
    [0.5, 0.9]
    """
    names = [str(one) for one in truth.columns] if isinstance(truth, pd.DataFrame) else None
    measured = array_of("truth", truth, fix="Pass the measurements of genes that were held out.")
    levels = _levels(measured, bounds)
    inside = [_coverage(measured, bounds[level], names, f"bounds[{level:g}]") for level in levels]
    ax = panel(ax, size=(4.0, 3.8))
    drawn_before = len(ax.lines)
    if not drawn_before:
        ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (4, 3)), zorder=0)
    color = palette(drawn_before + 1)[drawn_before - 1 if drawn_before else 0]
    ax.plot(levels, [one[0] for one in inside], marker="o", ms=5, lw=1.5, color=color, label=label, zorder=3)
    if measured.shape[1] > 1:
        low, high = np.array([np.nanquantile(one[1], [0.25, 0.75]) for one in inside]).T
        ax.vlines(levels, low, high, color=color, lw=5, alpha=0.25, zorder=2)
    tidy(ax, title=f"{measured.shape[1]:,} held-out genes", x="nominal coverage", y="observed coverage")
    ax.set_aspect("equal")
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.02)
    if label is not None:
        ax.legend(loc="lower right", frameon=False, fontsize=SMALL)
    return ax


def history(
    estimator: Imputer | Placer | Mapping[str, Sequence[float]] | Sequence[float] | Sequence[Sequence[float]],
    *,
    axes: Sequence[Axes] | Axes | NDArray[Any] | None = None,
) -> tuple[Axes, ...]:
    """Plot the training loss.

    Parameters
    ----------
    estimator
        A fitted Imputer or Placer, or its history: a list of losses, one list per encoder, or a mapping from
        stage to list.
    axes
        Axes to draw on, one for each stage; a new figure by default.

    Returns
    -------
    tuple of Axes
        One per stage of training, because their losses differ: two for stImpute, one for other methods. The
        horizontal axis shows epochs for stImpute, and fractions of the training for other methods.

    Raises
    ------
    NotFittedError
        Nothing was trained.
    InputError
        No losses are stored (for example in a model of an earlier version), or the number of axes does not
        match.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> (ax,) = history([3.0, 2.0, 1.5])
    >>> ax.lines[0].get_ydata().tolist()
    [3.0, 2.0, 1.5]
    """
    stages, along = _stages(estimator)
    drawn_on = panels(axes, len(stages), size=(3.6, 2.8))
    for ax, (stage, lines) in zip(drawn_on, stages.items(), strict=True):
        for number, losses in enumerate(lines):
            x = np.arange(1, len(losses) + 1) * (1.0 if along == _EPOCHS else 100.0 / len(losses))
            name = f"encoder {number + 1}" if len(lines) > 1 else None
            dots = "o" if len(losses) < 4 else None
            ax.plot(x, losses, color=palette(number + 1)[-1], lw=1.4, marker=dots, ms=4, label=name)
        every = np.concatenate(lines)
        if every.min() > 0 and every.max() > 30 * every.min():
            ax.set_yscale("log")
        tidy(ax, title=stage, x=along, y="mean loss")
        if along == _EPOCHS:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1:
            handles, names = ax.get_legend_handles_labels()
            if more := len(lines) - _MOST_LINES if len(lines) > _MOST_LINES else 0:
                handles[_MOST_LINES:] = [Line2D([], [], ls="")]
                names[_MOST_LINES:] = [f"and {more:,} more"]
            beside = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0)} if len(lines) > 3 else {}
            look: dict[str, Any] = {"frameon": False, "fontsize": SMALL, **beside}
            ax.legend(handles, names, **look)
    return drawn_on


def _levels(measured: DoubleArray, bounds: Mapping[float, Any]) -> list[float]:
    """Return the levels in order, after checking that there are measurements."""
    if not bounds:
        raise InputError(
            "bounds", expected="at least one level", got="none", fix="Pass {0.9: (lower, upper)}."
        )
    if measured.ndim != 2 or np.isnan(measured).all():
        raise InputError(
            "truth",
            expected="measured values (cells x genes), at least one of them",
            got=f"shape {measured.shape}" if measured.ndim != 2 else "no values, or only NaN",
            fix="Pass the measurements of genes that were held out.",
        )
    levels: list[Any] = list(bounds)
    wrong = [level for level in levels if not isinstance(level, numbers.Real) or not 0 < float(level) < 1]
    if wrong:
        raise SettingError(
            "bounds", expected="levels between 0 and 1", got=repr(wrong[0]), fix="For example {0.9: ...}."
        )
    return sorted(bounds)


def _coverage(
    truth: DoubleArray, bounds: Any, names: list[str] | None, where: str
) -> tuple[float, DoubleArray]:
    """Return the share of measured entries inside the bounds, overall and for each gene."""
    if isinstance(bounds, tuple | list):
        lower, upper = (np.asarray(bound, dtype=np.float64) for bound in bounds)
    else:
        data = opened(bounds, where)
        lower, upper = (_layer(data, end, names) for end in INTERVAL)
    if lower.shape != truth.shape or upper.shape != truth.shape:
        raise InputError(
            where,
            expected=f"lower and upper bounds of shape {truth.shape}, like the truth",
            got=f"shapes {lower.shape} and {upper.shape}",
            fix="Pass the bounds for the same cells and genes.",
        )
    is_known: BoolArray = ~np.isnan(truth)
    inside = is_known & (truth >= lower) & (truth <= upper)
    n = is_known.sum(axis=0)
    of_gene = np.divide(inside.sum(axis=0), n, out=np.full(len(n), np.nan), where=n > 0)
    return float(inside.sum() / n.sum()), of_gene


def _layer(data: Input, name: str, genes: list[str] | None) -> DoubleArray:
    gene_names = data.var.index.astype(str).to_numpy(dtype=np.str_)
    columns = np.arange(len(gene_names)) if genes is None else find_names(genes, gene_names, where=data.where)
    return values_of(data, columns, layer=name)


def _stages(estimator: Any) -> tuple[dict[str, list[DoubleArray]], str]:
    """Return the losses of each stage of training, as one or several lines, and the label of the x axis."""
    recorded = estimator
    if hasattr(estimator, "fit"):
        saved = getattr(estimator, "_restored", None)  # loaded, without data yet
        if getattr(estimator, "model_", None) is None and saved is None:
            raise NotFittedError(
                "estimator", expected="a fitted model", got="an unfitted model", fix="Call fit first."
            )
        recorded = saved.config.get("history", ()) if saved is not None else estimator.model_.history
    if isinstance(recorded, Mapping):
        stages = {str(name): _lines(losses) for name, losses in recorded.items()}
    else:
        stages = {"training": _lines(recorded)}
    if not stages or any(not lines for lines in stages.values()):
        raise InputError(
            "estimator",
            expected="losses of the training",
            got="none",
            fix="Models saved by an earlier version have none: fit again to plot them.",
        )
    return stages, _EPOCHS if isinstance(recorded, Mapping) else _PART


def _lines(losses: Any) -> list[DoubleArray]:
    several = [np.atleast_1d(np.asarray(line, dtype=np.float64)) for line in losses]
    if all(np.ndim(line) == 0 for line in losses):
        several = [np.concatenate(several)] if several else []
    return [line for line in several if len(line)]
