"""Draws cells in space: as dots, or very many cells as pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba, to_rgba_array
from numpy.typing import NDArray

from cellweft._errors import SettingError, check_choice, check_range
from cellweft._typing import BoolArray, DoubleArray
from cellweft.pl._axes import points_per_unit, space_axes
from cellweft.pl._colors import MISSING, number_map
from cellweft.pl._inputs import Shade
from cellweft.pl._rasterize import Grid, cell_width, grid_of, pixel_means, pixel_modes

Upward: TypeAlias = Literal["down", "up"]
"""Direction of increasing y: down, as in images and in the files of all imaging platforms, or up."""

_HIGHEST = 0.995  # quantile of the values for the last colour
_DOT = 0.95  # relative to the width available per cell
_SMALLEST, _LARGEST = 0.4, 14.0  # diameters of dots, in points


@dataclass(frozen=True, kw_only=True)
class Look:
    """Drawing options, as in `cellweft.pl.spatial`; they are checked here."""

    limits: tuple[float, float] | None = None
    cmap: str = "viridis"
    y: Upward = "down"
    unit: str | None = None
    size: float | None = None
    most_dots: int = 200_000

    def __post_init__(self) -> None:
        check_choice("y", self.y, ("down", "up"))
        check_range("most_dots", self.most_dots, low=0, integer=True)
        if self.size is not None:
            check_range("size", self.size, low=1e-12)
        number_map(self.cmap)
        if self.limits is not None:
            check_limits(self.limits)


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """The objects to draw: all cells, or pixels instead of cells.

    Attributes
    ----------
    places
        (n_cells, 2)
    shade
        Values for colouring the cells.
    grid
        Grid of pixels; None if all cells are drawn.
    image, shown
        Means or labels of the pixels, and which pixels to draw.
    """

    places: DoubleArray
    shade: Shade
    grid: Grid | None = None
    image: NDArray[Any] | None = None
    shown: BoolArray | None = None

    @property
    def drawn(self) -> NDArray[Any]:
        """The drawn numbers, one-dimensional; codes for labels."""
        if self.image is not None and self.shown is not None:
            return np.asarray(self.image[self.shown])
        return np.asarray(self.shade.codes if self.shade.numbers is None else self.shade.numbers)


@dataclass(frozen=True)
class Limits:
    """Values of the first and last colour, and the ends of the colour bar that values exceed."""

    limits: tuple[float, float]
    extend: str


def check_limits(limits: tuple[float, float]) -> None:
    """Raise `SettingError` unless ``limits`` are two finite numbers, the smaller first."""
    try:
        low, high = (float(limit) for limit in limits)
        is_ordered = hasattr(limits, "__getitem__") and not isinstance(limits, str | bytes | Mapping)
        right = is_ordered and np.isfinite([low, high]).all() and low < high
    except (TypeError, ValueError):
        right = False
    if not right:
        raise SettingError(
            "limits", expected="two numbers, the smaller first", got=repr(limits), fix="Write limits=(0, 3)."
        )


def limits_of(values: Sequence[NDArray[Any]], given: tuple[float, float] | None = None) -> Limits:
    """Return common limits of colours for all values.

    Parameters
    ----------
    values
        Arrays of numbers, NaN if missing.
    given
        Requested limits, or None.
    """
    there = np.concatenate([array[~np.isnan(array)] for array in values])
    least, most = (float(there.min()), float(there.max())) if len(there) else (0.0, 1.0)
    if given is not None:
        low, high = map(float, given)
    else:
        ends_at = np.quantile(there, [1 - _HIGHEST, _HIGHEST]) if len(there) else (0.0, 1.0)
        low, high = least if least >= 0 else float(ends_at[0]), float(ends_at[1])
        low, high = (low, high) if high > low else (least, most)
        high = high if high > low else low + 1.0
    ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    return Limits((low, high), ends[least < low, most > high])


def picture(places: DoubleArray, shade: Shade, *, most_dots: int) -> Picture:
    """Return the picture of cells.

    Parameters
    ----------
    places
        (n_cells, 2)
    shade
        Values for colouring the cells.
    most_dots
        Largest number of cells to draw as dots instead of pixels.
    """
    if len(places) <= most_dots:
        return Picture(places=places, shade=shade)
    grid = grid_of(places)
    codes = np.zeros(len(places), dtype=np.int64) if shade.codes is None else shade.codes
    image, shown = pixel_modes(grid, codes) if shade.numbers is None else pixel_means(grid, shade.numbers)
    return Picture(places=places, shade=shade, grid=grid, image=image, shown=shown)


def draw(
    ax: Axes, one: Picture, *, look: Look, limits: tuple[float, float] | None = None, title: str = ""
) -> Any:
    """Draw a picture as a map, and return its collection of dots, or its image.

    Parameters
    ----------
    ax
        The panel.
    one
        The picture.
    look
        Drawing options.
    limits
        Values of the first and last colour; None for labels.
    title
        Title of the panel.
    """
    width = cell_width(one.places) if look.size is None else look.size
    space_axes(ax, one.places, y=look.y, unit=look.unit, pad=width, title=title)
    if one.grid is not None:
        return _draw_pixels(ax, one, look=look, limits=limits)
    points = points_per_unit(ax, one.places, pad=width) * width * _DOT
    dot = points**2 if look.size is not None else float(np.clip(points, _SMALLEST, _LARGEST)) ** 2
    order = _order(one)
    x, y = one.places[order].T
    same: dict[str, Any] = {"s": dot, "linewidths": 0, "rasterized": True}
    numbers = one.shade.numbers
    if numbers is None:
        return ax.scatter(x, y, c=_label_colors(one.shade)[_codes(one)[order]], **same)
    low, high = limits or limits_of([numbers]).limits
    return ax.scatter(
        x, y, c=numbers[order], cmap=number_map(look.cmap), vmin=low, vmax=high, plotnonfinite=True, **same
    )


def _draw_pixels(ax: Axes, plot: Picture, *, look: Look, limits: tuple[float, float] | None) -> Any:
    grid, image, shown = plot.grid, np.asarray(plot.image), np.asarray(plot.shown)
    if grid is None:
        return None
    frame: dict[str, Any] = {"extent": grid.extent, "origin": "lower", "interpolation": "nearest"}
    spans = ax.get_xlim(), ax.get_ylim()
    if plot.shade.numbers is None:
        colored = _label_colors(plot.shade)[image]  # n_rows x n_columns x 4
        colored[~shown] = 0.0  # transparent
        drawn: Any = ax.imshow((colored * 255).round().astype(np.uint8), **frame)
    else:
        low, high = limits or limits_of([plot.drawn]).limits
        # masked values are hidden, NaN are grey; an array cannot express both, so grey is drawn below
        ax.imshow(np.where(shown[..., None], to_rgba(MISSING), 0.0), **frame)
        means = np.ma.masked_array(image, mask=~shown | np.isnan(image))
        plain = number_map(look.cmap).with_extremes(bad=(0.0, 0.0, 0.0, 0.0))
        drawn = ax.imshow(means, cmap=plain, vmin=low, vmax=high, **frame)
    ax.set_xlim(spans[0])
    ax.set_ylim(spans[1])
    return drawn


def _codes(plot: Picture) -> NDArray[np.int64]:
    codes = plot.shade.codes
    return np.zeros(len(plot.places), dtype=np.int64) if codes is None else codes


def _label_colors(shade: Shade) -> DoubleArray:
    """Return the colour of each code, the last one for missing labels; (n_labels + 1, 4)."""
    colors = list((shade.colors or {}).values()) or ["#56708A"]
    return np.asarray(to_rgba_array([*colors, MISSING]))


def _order(plot: Picture) -> NDArray[np.intp]:
    """Return the drawing order of dots: by value or position, missing values first."""
    x, y = plot.places.T
    numbers = plot.shade.numbers
    if numbers is None:
        codes = _codes(plot)
        return np.lexsort((codes, x, y, codes >= 0))
    missing = np.isnan(numbers)
    return np.lexsort((x, y, np.where(missing, 0.0, numbers), ~missing))
