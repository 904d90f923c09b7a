"""Plots of cells in space: by gene, label, any value, or the uncertainty of an imputed gene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from matplotlib.axes import Axes
from numpy.typing import NDArray

from cellweft._errors import InputError, KeyMissingError, ScaleError, checks_kinds
from cellweft._text import shorten
from cellweft._typing import DoubleArray, IntArray, PathLike
from cellweft.data._pair import Pair
from cellweft.data.gene_names import find_names, other_names, shown_names
from cellweft.data.io.keys import INTERVAL
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.results import result_scale
from cellweft.data.side import names_beside
from cellweft.pl._axes import color_bar, label_legend, panel, panels, space_size
from cellweft.pl._inputs import (
    EXPRESSION,
    Shade,
    flat_values,
    gene_values,
    logged,
    measure_of,
    opened,
    places_of,
    shade_of,
    unit_of,
)
from cellweft.pl._scatter import Limits, Look, Picture, Upward, draw, limits_of, picture

if TYPE_CHECKING:
    from anndata import AnnData

_WIDTH_MAP = "cividis"


@checks_kinds
def spatial(
    data: AnnData | PathLike,
    color: str | NDArray[Any] | pd.Series | None = None,
    *,
    layer: str | None = None,
    coordinates: str | None = None,
    colors: Mapping[str, str] | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "viridis",
    y: Upward = "down",
    unit: str | None = None,
    size: float | None = None,
    most_dots: int = 200_000,
    legend: bool = True,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot cells in space, coloured by a gene, a column of ``obs``, or values.

    Parameters
    ----------
    data
        AnnData (in memory, backed or a view) with coordinates, or its path (.h5ad or .zarr). Only the values
        that are drawn are read.
    color
        A gene, a column of ``obs`` (write ``"gene:NAME"`` or ``"obs:NAME"`` if a name is both), or (n_cells,)
        numbers or labels. With None, all cells have the same colour.
    layer
        Layer to read a gene from, or "raw" for the ``raw`` slot; ``X`` by default. Values are not
        transformed. The layer must exist even if ``color`` is not a gene.
    coordinates
        ``"obsm:KEY"`` or ``"obs:X,Y"``; by default ``obsm["spatial"]`` or columns with recognised names. In
        3-D, the first two dimensions are drawn.
    colors
        Colour of each label, at least one of which must be drawn; by default those of `label_colors`. Missing
        labels are grey.
    limits
        Values of the first and last colour. By default, the smallest value (the 0.005 quantile if there are
        negative values) and the 0.995 quantile, so that a few cells do not dominate the scale; if these are
        equal, the smallest and the largest value. Ends of the colour bar are pointed if values exceed them.
        NaN is grey.
    cmap
        A matplotlib colour map, for numbers.
    y
        Direction of the y axis: "down", as in images, or "up". The plot shows it.
    unit
        Unit of the coordinates, such as "µm", for a scale bar. By default the unit of the data, which is
        known if they (or the tissue of a result) were read from the output folder of an instrument. If the
        unit is unknown, or "", no bar is drawn.
    size
        Diameter of a dot in the unit of the coordinates; by default it depends on the density of the cells.
    most_dots
        Above this number of cells, pixels are drawn instead of dots; see Notes.
    legend
        Whether to draw the legend or the colour bar.
    title
        Title; by default the name of the gene or column.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        Axes with equal aspect. Dots are one collection, rasterised in vector formats; pixels are one image.

    Raises
    ------
    GeneError
        Neither a gene nor a column has this name.
    KeyMissingError
        No coordinates, no such layer.
    InputError
        There is not one value per cell, there are no cells, values are infinite, or a name is both gene and
        column.
    SettingError
        A setting is out of range.

    Notes
    -----
    High values are drawn on top of low ones, and dots with labels in the order of their coordinates, so that
    the plot does not depend on the order of the cells. With more than ``most_dots`` cells, the tissue is
    divided into square pixels with 2.5 cells on average, at most 1,500 along the longer side. Each pixel
    shows the mean of its values, or its most frequent label (the first one in a tie). Empty pixels with
    filled neighbours on five of eight sides show the value of the nearest pixel, to avoid speckle. Means have
    a narrower range than single cells; the default limits are those of the means.

    Examples
    --------
    >>> import cellweft
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
    >>> ax = spatial(tissue.st, "cell_type")
    >>> len(ax.collections[0].get_offsets())
    80
    """
    data_in = opened(data)
    places, unit = places_of(data_in, coordinates), unit_of(data_in, unit, coordinates)
    shade = shade_of(data_in, color, layer=layer, colors=colors)
    look = Look(limits=limits, cmap=cmap, y=y, unit=unit, size=size, most_dots=most_dots)
    ax = panel(ax, size=space_size(places))
    return draw_alone(ax, places, shade, look=look, title=title, legend=legend)


@checks_kinds
def gene(
    imputed: AnnData | PathLike,
    gene: str,
    *,
    measured: AnnData | Pair | PathLike | NDArray[Any] | None = None,
    uncertainty: bool | None = None,
    coordinates: str | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "viridis",
    y: Upward = "down",
    unit: str | None = None,
    size: float | None = None,
    most_dots: int = 200_000,
    axes: Sequence[Axes] | NDArray[Any] | None = None,
) -> tuple[Axes, ...]:
    """Plot a gene in space: measured and imputed values on one colour scale, and the uncertainty.

    Parameters
    ----------
    imputed
        Result of `cellweft.Imputer.impute`, or its path.
    gene
        Name of the gene in it.
    measured
        Measurements of the same cells, in the same order: AnnData or path (normalised over all its genes as
        in `cellweft.pair`), a Pair, or (n_cells,) values on the scale of the imputed values, NaN if missing.
        With None, this panel is omitted.
    uncertainty
        Whether to draw the width of the interval (layers "lower" and "upper"); by default if these layers
        exist.
    coordinates, limits, cmap, y, unit, size, most_dots
        As in `spatial`. The measured and the imputed panel share the limits.
    axes
        One for each panel (measured, imputed, width); a new figure by default.

    Returns
    -------
    tuple of Axes
        The panels that were drawn, in this order. Measured and imputed share one colour bar; the width has
        its own.

    Raises
    ------
    GeneError
        The gene was not imputed, or not measured.
    KeyMissingError
        No coordinates; ``uncertainty=True`` without the layers.
    InputError
        The cells differ, or the number of axes does not match.
    ScaleError
        The result contains counts, but the measurements are not counts.

    Examples
    --------
    >>> import cellweft
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
    >>> left, right = gene(tissue.truth, "Gene02", measured=tissue.truth)
    >>> left.collections[0].get_clim() == right.collections[0].get_clim()
    True
    """
    data = opened(imputed, "imputed")
    places, unit = places_of(data, coordinates), unit_of(data, unit, coordinates)
    widths = _has_bounds(data) if uncertainty is None else uncertainty
    place = find_names([gene], _names(data), where=data.where, others=other_names(data.var))[0]
    name, shown_name = str(data.var.index[place]), shown_names(data.var)[place]
    shades = [Shade(name=f"{shown_name}, imputed", numbers=gene_values(data, name))]
    if measured is not None:
        values = _measured(measured, name, data)
        shades.insert(0, Shade(name=f"{shown_name}, measured", numbers=values))
    width = Shade(name=f"{shown_name}, width of interval", numbers=_widths(data, name)) if widths else None
    look = Look(limits=limits, cmap=cmap, y=y, unit=unit, size=size, most_dots=most_dots)
    drawn_on = panels(axes, len(shades) + widths, size=space_size(places), across=3)
    pictures = [picture(places, shade, most_dots=most_dots) for shade in shades]
    same = limits_of([plot.drawn for plot in pictures], limits)
    draw_alike(drawn_on[: len(shades)], pictures, look=look, same=same, label=EXPRESSION[result_scale(data)])
    if width is not None:
        own = Look(cmap=_WIDTH_MAP, y=y, unit=unit, size=size, most_dots=most_dots)
        draw_alone(drawn_on[-1], places, width, look=own, bar=_width(data))
    return drawn_on


@checks_kinds
def uncertainty(
    imputed: AnnData | PathLike,
    gene: str,
    *,
    coordinates: str | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "cividis",
    y: Upward = "down",
    unit: str | None = None,
    size: float | None = None,
    most_dots: int = 200_000,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the width of the interval of an imputed gene in every cell.

    Parameters
    ----------
    imputed
        Result of `cellweft.Imputer.impute` with ``interval=``, or its path.
    gene
        Name of the gene.
    coordinates, limits, cmap, y, unit, size, most_dots, title, ax
        As in `spatial`.

    Returns
    -------
    Axes
        Colours show ``upper - lower``, in units of log-normalised expression, or in counts.

    Raises
    ------
    GeneError
        The gene was not imputed.
    KeyMissingError
        No layers "lower" and "upper", or no coordinates.
    """
    data = opened(imputed, "imputed")
    places, unit = places_of(data, coordinates), unit_of(data, unit, coordinates)
    shade = Shade(name=f"{gene}, width of interval", numbers=_widths(data, gene))
    look = Look(limits=limits, cmap=cmap, y=y, unit=unit, size=size, most_dots=most_dots)
    ax = panel(ax, size=space_size(places))
    return draw_alone(ax, places, shade, look=look, title=title, bar=_width(data))


def draw_alone(
    ax: Axes,
    places: DoubleArray,
    shade: Shade,
    *,
    look: Look,
    title: str | None = None,
    legend: bool = True,
    bar: str = "",
) -> Axes:
    """Draw one panel of cells with its own legend or colour bar.

    Parameters
    ----------
    ax
        The panel.
    places
        (n_cells, 2)
    shade
        Values for colouring the cells.
    look
        Drawing options.
    title
        Title; by default the name of the shade.
    legend
        Whether to draw the legend or the colour bar.
    bar
        Label of the colour bar; by default that of the shade.
    """
    plot = picture(places, shade, most_dots=look.most_dots)
    color_limits = limits_of([plot.drawn], look.limits) if shade.numbers is not None else None
    title = shade.name if title is None else title
    mappable = draw(
        ax, plot, look=look, limits=None if color_limits is None else color_limits.limits, title=title
    )
    if legend and color_limits is not None:
        color_bar(mappable, ax, label=bar or measure_of(shade, look.unit), extend=color_limits.extend)
    if legend and shade.codes is not None:
        shade_legend(ax, shade, shade.codes)
    return ax


def draw_alike(
    axes: Sequence[Axes], pictures: Sequence[Picture], *, look: Look, same: Limits, label: str
) -> None:
    """Draw panels of numbers with the same colour scale, and one colour bar for all.

    Parameters
    ----------
    axes, pictures
        The panels, and the picture of each.
    look
        Drawing options.
    same
        Common limits of the colours.
    label
        Label of the colour bar.
    """
    for ax, plot in zip(axes, pictures, strict=True):
        mappable = draw(ax, plot, look=look, limits=same.limits, title=plot.shade.name)
    color_bar(mappable, axes, label=label, extend=same.extend)


def shade_legend(ax: Axes, shade: Shade, codes: IntArray, *, title: str = "") -> None:
    """Draw a legend of the labels in the ``codes`` of drawn cells."""
    there = np.unique(codes)
    colors = [entry for number, entry in enumerate((shade.colors or {}).items()) if number in there]
    label_legend(ax, dict(colors), title=title, missing=bool(there[0] < 0))


def _names(data: Input) -> NDArray[np.str_]:
    return data.var.index.astype(str).to_numpy(dtype=np.str_)


def _has_bounds(data: Input) -> bool:
    return all(name in data.layers for name in INTERVAL)


def _widths(data: Input, gene: str) -> DoubleArray:
    if not _has_bounds(data):
        raise KeyMissingError(
            f"{data.where}.layers",
            expected="the layers 'lower' and 'upper'",
            got=shorten(sorted(map(str, data.layers))) or "none",
            fix="Impute with an interval: imputer.impute(genes, interval=0.9).",
        )
    lower, upper = (gene_values(data, gene, layer) for layer in INTERVAL)
    return upper - lower


def _width(data: Input) -> str:
    """Return the label of the colour bar for widths of intervals."""
    return f"upper - lower ({EXPRESSION[result_scale(data)]})"


def _measured(measured: Any, gene: str, imputed: Input) -> DoubleArray:
    """Return measurements of a gene for the cells of a result, on the scale of the result."""
    n_cells = len(imputed.obs)
    if isinstance(measured, Pair):
        side, columns = measured.st, measured.st_shared[measured.find_shared([gene], where="measured")]
    elif hasattr(measured, "obs_names") or isinstance(measured, str) or hasattr(measured, "__fspath__"):
        side = logged(opened(measured, "measured"))
        columns = find_names([gene], side.genes, where="measured", others=names_beside(side))
    else:
        return flat_values(measured, n_cells, where="measured")
    names = imputed.obs.names()
    if side.n_cells != n_cells or not (side.obs_names.astype(str) == names.astype(str)).all():
        raise InputError(
            "measured",
            expected=f"the {n_cells:,} cells of the imputed result, in the same order",
            got=f"{side.n_cells:,} cells"
            if side.n_cells != n_cells
            else "different names, or a different order",
            fix="Use the same cells for both: measured[imputed.obs_names].",
        )
    if result_scale(imputed) == "log":
        return np.asarray(side.dense(slice(0, n_cells), columns)[:, 0], dtype=np.float64)
    if side.scale != "raw":
        raise ScaleError(
            "measured",
            expected="counts, like the imputed result",
            got="values that are not counts",
            fix="Pass the counts of these cells.",
        )
    stored = side.stored(slice(0, n_cells), columns)
    return np.asarray(stored.toarray() if sp.issparse(stored) else stored, dtype=np.float64)[:, 0]
