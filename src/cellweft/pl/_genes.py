"""Plots of genes along an axis, and of genes that determine where cells were placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from natsort import natsorted
from numpy.typing import NDArray

from cellweft._errors import (
    InputError,
    KeyMissingError,
    check_all_known,
    check_choice,
    check_range,
    checks_kinds,
)
from cellweft._text import near
from cellweft.data.gene_names import find_names
from cellweft.pl._axes import heat_map, label_legend, panel, panels, tidy
from cellweft.pl._colors import chosen_colors, natural_order, number_map

if TYPE_CHECKING:
    from cellweft.tl._attribution import Attribution
    from cellweft.tl._gene_trends import Trends

_MOST_TRENDS = 6


@checks_kinds
def trends(
    trends: Trends,
    genes: str | Sequence[str] | None = None,
    *,
    types: Sequence[str] | None = None,
    colors: Mapping[str, str] | None = None,
    axis: str = "position",
    axes: Sequence[Axes] | Axes | NDArray[Any] | None = None,
) -> tuple[Axes, ...]:
    """Plot genes along an axis: the fitted mean of each cell type, with a confidence band.

    Parameters
    ----------
    trends
        Result of `cellweft.tl.gene_trends`.
    genes
        One panel for each; by default the six with the smallest p-values.
    types
        Cell types to draw; by default all that were fitted.
    colors
        Colour of each type.
    axis
        Label of the axis, such as "depth (µm)".
    axes
        Axes to draw on, one for each gene; a new figure by default.

    Returns
    -------
    tuple of Axes
        One per gene. The band is for the mean at each single position, not for the whole curve. For genes
        without negative values, such as log-normalised expression, curve and band end at 0.

    Raises
    ------
    GeneError, KeyMissingError
        A gene or type does not exist.
    InputError
        There are no genes, or the number of axes does not match.

    Examples
    --------
    >>> import matplotlib
    >>> import cellweft
    >>> matplotlib.use("agg")
    >>> position = np.linspace(0.0, 1.0, 40)
    >>> found = cellweft.tl.gene_trends(3 * position[:, None], position, genes=np.array(["Rising"]))
    >>> (ax,) = trends(found, "Rising")
    >>> ax.get_title()
    'Rising'
    """
    wanted = [genes] if isinstance(genes, str) else list(_trending(trends) if genes is None else genes)
    fitted = natsorted(trends.fits)
    cell_types = list(fitted) if types is None else [str(cell_type) for cell_type in types]
    expected = "types and genes with fitted trends"
    check_all_known(cell_types, trends.fits, "types", expected=expected)
    if not wanted:
        raise KeyMissingError("genes", expected=expected, got="none", fix=near("", trends.fits))
    curves = {
        (gene, cell_type): _curve(trends, gene, cell_type) for gene in wanted for cell_type in cell_types
    }  # fail before creating a figure
    drawn_on = panels(axes, len(wanted), size=(2.8, 2.5), across=3)
    color_of = chosen_colors(fitted, colors)
    for ax, gene in zip(drawn_on, wanted, strict=True):
        for cell_type in cell_types:
            curve = curves[gene, cell_type]
            at = curve["position"].to_numpy()
            ax.fill_between(at, curve["lower"], curve["upper"], color=color_of[cell_type], alpha=0.2, lw=0)
            ax.plot(at, curve["mean"], color=color_of[cell_type], lw=1.6, label=cell_type)
        tidy(ax, title=str(gene), x=axis, y="mean log-normalised expression")
        ax.margins(x=0.02)
    if len(cell_types) > 1:
        label_legend(
            drawn_on[min(len(drawn_on), 3) - 1], {cell_type: color_of[cell_type] for cell_type in cell_types}
        )
    return drawn_on


@checks_kinds
def attribution(
    attribution: Attribution,
    segments: Sequence[Any] | NDArray[Any] | pd.Series,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 5,
    scale: Literal["none", "gene"] = "none",
    fdr: float = 0.05,
    limit: float | None = None,
    cmap: str = "RdBu_r",
    ax: Axes | None = None,
) -> Axes:
    """Plot which genes determine the segment of the tissue, as a heat map.

    Parameters
    ----------
    attribution
        Result of `cellweft.tl.attribute`.
    segments
        (n_cells,) the segment of every cell, as in `cellweft.tl.dominant_genes`.
    genes
        Genes to draw, in this order; by default the most dominant genes of each segment, in the order of the
        segments.
    n_genes
        Number of genes per segment if you do not name them, at least 1.
    scale
        "none": mean attributions. "gene": mean attributions divided by the gene's largest absolute value in
        any segment, so that genes with small attributions are visible too.
    fdr
        A dot marks genes that are dominant in a segment at this false discovery rate.
    limit
        Absolute value at both ends of the colour scale; by default the largest one. White is 0.
    cmap
        A diverging matplotlib colour map.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        A row per gene, a column per segment.

    Raises
    ------
    GeneError
        A gene that the attribution does not have.
    InputError, SettingError
        As in `cellweft.tl.dominant_genes`.
    """
    from cellweft.tl._dominant_genes import dominant_genes

    check_choice("scale", scale, ("none", "gene"))
    check_range("n_genes", n_genes, low=1, integer=True)
    if limit is not None:
        check_range("limit", limit, low=1e-12)
    tested = dominant_genes(attribution, segments, fdr=fdr)
    means = attribution.mean_by(segments)  # n_segments x n_genes
    gene_names = np.asarray(attribution.genes, dtype=np.str_)
    if genes is None:
        chosen = _most_dominant(tested, n_genes)
    else:
        asked_genes = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
        chosen = [str(gene_names[place]) for place in find_names(asked_genes, gene_names, where="genes")]
    if not chosen:
        raise InputError(
            "genes", expected="at least one gene", got="none", fix="List at least one gene to plot."
        )
    values = means[chosen].to_numpy(dtype=np.float64).T  # n_chosen x n_segments
    if scale == "gene":
        largest = np.abs(values).max(axis=1, keepdims=True)
        values = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    names = natural_order(means.index)
    place = pd.Index(means.index.astype(str)).get_indexer(pd.Index(names))
    means, values = means.iloc[place], values[:, place]
    ax = panel(ax, size=(2.0 + 0.45 * len(names), 1.2 + 0.2 * len(chosen)))
    heat_map(
        ax,
        values,
        rows=chosen,
        columns=names,
        marked=_dominant(tested, chosen, means.index),
        limit=limit,
        cmap=number_map(cmap),
        names=("segment", ""),
        label="mean attribution (part of the mapping weight)"
        if scale == "none"
        else "mean attribution (relative to the gene's largest)",
    )
    return ax


def _curve(trends: Trends, gene: str, cell_type: str) -> pd.DataFrame:
    """Return the fitted mean and its band, clipped at 0 if no value of the gene is negative."""
    curve = trends.curves(gene, cell_type)
    if trends.fits[cell_type].nonnegative[np.flatnonzero(trends.genes == gene)[0]]:
        sides = ["mean", "lower", "upper"]
        curve[sides] = curve[sides].clip(lower=0.0)
    return curve


def _trending(trends: Trends) -> list[str]:
    """Return the genes with the smallest p-values in any type, each once; ties are sorted by F."""
    table = trends.table.sort_values(["p", "f"], ascending=[True, False], kind="stable")
    return [str(gene) for gene in table["gene"].drop_duplicates().head(_MOST_TRENDS)]


def _most_dominant(tested: pd.DataFrame, n_genes: int) -> list[str]:
    """Return the genes with the highest statistic of each segment in turn, each once."""
    best = tested.groupby("segment", observed=True, sort=False).head(n_genes)
    return [str(gene) for gene in best["gene"].drop_duplicates()]


def _dominant(tested: pd.DataFrame, genes: Sequence[str], segments: pd.Index) -> NDArray[np.bool_]:
    """Return which genes are dominant in which segments, (n_genes, n_segments); False for untested ones."""
    dominant = tested[tested["dominant"]]
    marked = pd.crosstab(dominant["gene"], dominant["segment"])
    return marked.reindex(index=pd.Index(genes), columns=segments, fill_value=0).to_numpy(dtype=np.bool_)
