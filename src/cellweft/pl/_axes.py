"""Axes, colour bars, legends and scale bars, with the same style in all plots."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cellweft._errors import InputError, check_choice
from cellweft._typing import DoubleArray
from cellweft.pl._colors import MISSING, UNKNOWN

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colorbar import Colorbar
    from matplotlib.legend import Legend

SMALL, PLAIN = 8.0, 9.0
"""Font sizes in points: for ticks and legends, and for labels and titles."""

INK = "#333333"
"""Colour of lines and text that do not show data."""

_BAR, _LETTER = (0.7, 0.55)  # height of a colour bar in panels, width of a letter in heights
_LEGEND_ROWS, _MOST_NAMES, _LONGEST = 20, 60, 36
_OWN = "cellweft.pl"  # marks figures created here


def panels(
    given: Any, n: int, *, argument: str = "axes", size: tuple[float, float] = (4.0, 3.5), across: int = 4
) -> tuple[Axes, ...]:
    """Return the axes to draw on: the given ones, or those of a new figure.

    Parameters
    ----------
    given
        None, one Axes, or several in a sequence or array.
    n
        Required number of axes.
    argument
        Name of the argument in errors.
    size
        Width and height of a panel of a new figure, in inches.
    across
        Largest number of panels per row.

    Raises
    ------
    InputError
        The number is wrong, or they are not Axes.
    """
    if given is None:
        return _new_panels(n, size=size, across=across)
    axes = [given] if isinstance(given, Axes) else list(np.ravel(np.asarray(given, dtype=object)))
    wrong = [type(ax).__name__ for ax in axes if not isinstance(ax, Axes)]
    if wrong or len(axes) != n:
        raise InputError(
            argument,
            expected="one matplotlib Axes" if n == 1 else f"{n} matplotlib Axes, one for each panel",
            got=f"a {wrong[0]}" if wrong else f"{len(axes)}",
            fix=f"Create them with plt.subplots(1, {n}), or omit {argument}.",
        )
    return tuple(axes)


def panel(given: Any, *, size: tuple[float, float] = (4.0, 3.5)) -> Axes:
    """Return the Axes to draw on: the given one, or that of a new figure of this ``size`` in inches."""
    return panels(given, 1, argument="ax", size=size)[0]


def _new_panels(n: int, *, size: tuple[float, float], across: int) -> tuple[Axes, ...]:
    from matplotlib import pyplot as plt

    columns = min(n, across)
    rows = math.ceil(n / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, layout="compressed"
    )
    figure.set_gid(_OWN)
    for spare in axes.ravel()[n:]:
        figure.delaxes(spare)
    return tuple(axes.ravel()[:n])


def tidy(ax: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Set the texts of an Axes in the common style, and remove the upper and right lines.

    Parameters
    ----------
    ax
        The Axes.
    title, x, y
        Its title, and the names of its axes.
    """
    ax.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(INK)
        ax.spines[side].set_linewidth(0.8)
    ax.tick_params(labelsize=SMALL, color=INK, width=0.8, length=3)
    ax.set_title(title, fontsize=PLAIN)
    ax.set_xlabel(x, fontsize=PLAIN)
    ax.set_ylabel(y, fontsize=PLAIN)


def space_size(places: DoubleArray, *, width: float = 4.0) -> tuple[float, float]:
    """Return width and height in inches for a map of (n_cells, 2) ``places`` with little empty space."""
    extent = np.ptp(places, axis=0)
    ratio = extent[1] / extent[0] if extent[0] > 0 else 1.0
    return width, float(np.clip(0.8 * width * ratio, 0.4 * width, 1.6 * width)) + 0.5


def space_axes(ax: Axes, places: DoubleArray, *, y: str, unit: str | None, pad: float, title: str) -> None:
    """Format an Axes as a map: equal aspect, no ticks, labelled directions, and an optional scale bar.

    Parameters
    ----------
    ax
        The Axes.
    places
        (n_cells, 2) positions that it must show.
    y
        "down" or "up".
    unit
        Unit of the scale bar, or None.
    pad
        Margin, in the unit of the places.
    title
        Its title.
    """
    check_choice("y", y, ("down", "up"))
    (left, low), (right, high) = places.min(axis=0) - pad, places.max(axis=0) + pad
    ax.set_aspect("equal", adjustable="box")
    ax.set_xlim(left, right)
    ax.set_ylim(*((high, low) if y == "down" else (low, high)))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize=PLAIN)
    look: dict[str, Any] = {"fontsize": SMALL, "color": INK}
    ax.set_xlabel("x →", loc="left", **look)
    arrow, at, va = ("y ↓", 1.0, "top") if y == "down" else ("y ↑", 0.0, "bottom")
    ax.set_ylabel(arrow, rotation=0, y=at, ha="right", va=va, **look)
    if unit is not None:
        _scale_bar(ax, unit, left=left, right=right)


def _scale_bar(ax: Axes, unit: str, *, left: float, right: float) -> None:
    """Draw a scale bar with a round length, about a fifth of the width, below the map."""
    about = (right - left) / 5
    power = 10.0 ** math.floor(math.log10(about))
    length = max(step for step in (1, 2, 5) if step * power <= about) * power
    # x in coordinates, y relative to the height
    look: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "color": INK}
    free: dict[str, Any] = {"clip_on": False, "scalex": False, "scaley": False}
    ax.plot([right - length, right], [-0.03, -0.03], lw=2, solid_capstyle="butt", **free, **look)
    ax.text(right - length / 2, -0.05, f"{length:g} {unit}", ha="center", va="top", fontsize=SMALL, **look)


def points_per_unit(ax: Axes, places: DoubleArray, *, pad: float) -> float:
    """Return the approximate number of points (1/72 inch) per unit of the coordinates.

    Parameters
    ----------
    ax
        The panel of the map.
    places
        (n_cells, 2) positions that it shows.
    pad
        Margin, in the unit of the places.
    """
    figure: Any = ax.get_figure(root=True)
    room = np.array(figure.get_size_inches()) * 72 * np.array(ax.get_position().size)
    return float((room / (np.ptp(places, axis=0) + 2 * pad)).min())


def color_bar(
    drawn: ScalarMappable, axes: Axes | Sequence[Axes], *, label: str, extend: str = "neither"
) -> Colorbar:
    """Draw a colour bar next to one or several panels.

    Parameters
    ----------
    drawn
        The drawn object with the colours.
    axes
        The panels of the colour bar.
    label
        Label with the unit; not empty.
    extend
        Which ends are pointed because values exceed them: "neither", "min", "max" or "both".
    """
    beside = [axes] if isinstance(axes, Axes) else list(axes)
    figure: Any = beside[0].get_figure()
    bar: Colorbar = figure.colorbar(drawn, ax=beside, extend=extend, shrink=_BAR, aspect=22, pad=0.02)
    lines = textwrap.wrap(label, _letters(beside[0]), break_long_words=False, break_on_hyphens=False)
    bar.set_label("\n".join(lines), fontsize=PLAIN)
    bar.ax.tick_params(labelsize=SMALL, color=INK, width=0.8, length=3)
    outline: Any = bar.outline
    outline.set_visible(False)
    return bar


def _letters(ax: Axes) -> int:
    """Return roughly how many letters fit along a colour bar next to a panel."""
    figure: Any = ax.get_figure()
    place, (width, height) = ax.get_position(original=True), figure.bbox.size / figure.dpi
    tall = float(place.height * height)
    if ax.get_aspect() == 1:  # at most the width of the panel
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        tall = min(tall, float(place.width * width) * abs((top - bottom) / (right - left)))
    return max(round(_BAR * tall / (_LETTER * PLAIN / 72)), 20)


def label_legend(ax: Axes, colors: Mapping[str, str], *, title: str = "", missing: bool = False) -> Legend:
    """Draw a legend of labels to the right of a panel; with more than 60, the first ones and a count.

    Parameters
    ----------
    ax
        The panel.
    colors
        Colour of each label.
    title
        Title of the legend.
    missing
        Whether to include missing labels.
    """
    entries = list(colors.items())[:_MOST_NAMES] + ([(UNKNOWN, MISSING)] if missing else [])
    handles = [
        Line2D([], [], ls="", marker="o", ms=6, mew=0, color=color, label=_shortened(label))
        for label, color in entries
    ]
    if len(colors) > _MOST_NAMES:
        handles.append(Line2D([], [], ls="", label=f"and {len(colors) - _MOST_NAMES:,} more"))
    legend = ax.legend(
        handles=handles,
        title=title or None,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=SMALL,
        title_fontsize=SMALL,
        handletextpad=0.3,
        labelspacing=0.35,
        columnspacing=1.0,
        ncols=math.ceil(len(handles) / _LEGEND_ROWS),
    )
    legend.set_alignment("left")
    figure: Any = ax.get_figure(root=True)
    if figure.get_gid() == _OWN:  # created here: add space for the legend, so that the panel keeps its size
        width, height = figure.get_size_inches()
        needed = legend.get_window_extent().height / figure.dpi + 0.6
        figure.set_size_inches(width + legend.get_window_extent().width / figure.dpi, max(height, needed))
    return legend


def _shortened(name: str) -> str:
    """Return a name that fits in a legend, without a leading "_", which would exclude it."""
    short_name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    return f" {short_name}" if short_name.startswith("_") else short_name


def heat_map(
    ax: Axes,
    values: NDArray[Any],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    marked: NDArray[np.bool_],
    limit: float | None,
    cmap: Any,
    names: tuple[str, str],
    label: str,
) -> None:
    """Draw a table as a heat map with names and a colour bar; colours are symmetric around 0.

    Parameters
    ----------
    ax
        The panel.
    values
        (n_rows, n_columns) values, NaN if missing.
    rows, columns
        Names of rows and columns.
    marked
        (n_rows, n_columns) fields with a dot, which is white on dark fields.
    limit
        Absolute value at both ends of the colour scale, above 0; by default the largest one.
    cmap
        A diverging colour map.
    names, label
        Labels of the columns and rows, and of the values.
    """
    size = np.abs(values[np.isfinite(values)])
    most = float(size.max(initial=0.0)) or 1.0 if limit is None else float(limit)
    image = ax.imshow(values, cmap=cmap, vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    tidy(ax, x=names[0], y=names[1])
    ax.spines[:].set_visible(False)
    turned = max(map(len, columns), default=0) * len(columns) > 40
    look: dict[str, Any] = {"rotation": 0, "ha": "center", "rotation_mode": "default"}
    look = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else look
    ax.set_xticks(range(len(columns)), columns, **look)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", lw=1.0)
    ax.tick_params(which="minor", length=0)
    row, column = np.nonzero(marked)
    dark = np.abs(values[row, column]) > 0.6 * most
    ax.scatter(column, row, s=9, c=np.where(dark, "white", INK), lw=0)
    color_bar(image, ax, label=label, extend="both" if (size > most).any() else "neither")
