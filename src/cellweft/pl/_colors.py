"""Colours of labels, the same in all plots, and colour maps that are safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import Colormap, is_color_like, to_hex
from natsort import natsorted

from cellweft._errors import InputError, SettingError, check_known, check_range, checks_kinds
from cellweft._text import near, shorten
from cellweft._typing import PathLike
from cellweft.data.io.columns import column_of
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.read import open_input

if TYPE_CHECKING:
    from anndata import AnnData

MISSING = "#D0D0D0"
"""Colour of missing labels and of values that are NaN."""

UNKNOWN = "unknown"
"""Name of missing labels."""

_PALETTE = [
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#0000FF",
    "#4B69FF", "#00FF87", "#691E00", "#690069", "#FF0F5A", "#6900B4", "#69693C", "#A5F0B4",
    "#7896FF", "#C3A54B", "#A5005A", "#D200B4", "#006978", "#C30000", "#FFD2FF", "#FF6987",
    "#B4E15A", "#5A3CFF", "#3C1E87", "#3CB4C3", "#1E4B2D", "#69D278", "#78C3A5", "#D20087",
    "#96692D", "#1ED21E", "#874BD2", "#A569D2", "#2D4B96", "#78961E", "#0000C3", "#B4695A",
    "#876996", "#FF96FF", "#780F1E", "#C3C396", "#963C4B", "#691E5A", "#FF4BFF", "#C3B4E1",
    "#4B3CD2", "#1E6900", "#E1A569", "#5A3C4B", "#C3E1C3", "#B42DF0", "#FF96A5", "#FF78C3",
    "#C3D269", "#1EB43C", "#871E96", "#691EA5",
]  # fmt: skip


def palette(n: int) -> list[str]:
    """Return ``n`` colours for labels, the first ones always the same, as ``"#RRGGBB"``.

    Parameters
    ----------
    n
        Number of colours, at least 0. From the 61st on, they repeat.

    Notes
    -----
    The first seven are those of Okabe and Ito (2008) without black, which are distinguishable for all types
    of colour vision. The others were added one by one, each as far as possible from all previous ones and
    from white, black and the grey of missing values. The distance is measured in CIELAB, as the minimum of
    the distance for normal vision and 1.7 times those for deuteranopia and protanopia (simulated as in
    Machado et al., 2009). The smallest distance between two colours is 26 among the first 20 and 14 among all
    60. Sixty colours cannot be distinguished at a glance: if there are many labels, plot some of them at a
    time.

    Examples
    --------
    >>> palette(2)
    ['#0072B2', '#E69F00']
    """
    check_range("n", n, low=0, high=10**6, integer=True)
    return list(islice(cycle(_PALETTE), n))


@checks_kinds
def label_colors(data: AnnData | PathLike, column: str, *, keep: bool = False) -> dict[str, str]:
    """Return the colour of every label of a column: scanpy's stored colours if there are any.

    Parameters
    ----------
    data
        AnnData or path.
    column
        Column of ``obs`` with labels.
    keep
        Whether to write the colours to ``uns[f"{column}_colors"]`` of the AnnData, where scanpy, squidpy and
        the plots of cellweft look for them. This is the only option of `cellweft.pl` that changes its input.

    Returns
    -------
    dict
        ``"#rrggbb"`` by label in natural order ("Type2" before "Type10"). Ordered categories, and those that
        are not simply sorted as text, keep their order. Missing labels are not included; plots draw them in
        grey.

    Raises
    ------
    KeyMissingError
        No such column.
    InputError
        The values in ``uns`` are not colours, or ``keep`` is used with a view.
    SettingError
        ``keep`` is used with a file.

    Examples
    --------
    >>> from anndata import AnnData
    >>> cells = AnnData(np.zeros((3, 1)), obs=pd.DataFrame({"type": ["b", "a", "b"]}, index=list("123")))
    >>> label_colors(cells, "type", keep=True)
    {'a': '#0072b2', 'b': '#e69f00'}
    >>> cells.uns["type_colors"]
    ['#0072b2', '#e69f00']
    """
    opened = open_input(data, argument="data")
    series = column_of(opened.obs, column, where=opened.where, argument="column")
    colors = kept_colors(opened, column, series)
    if keep:
        _check_writable(data)
        held: Any = data
        held.uns[f"{column}_colors"] = [colors[label] for label in _stored_labels(series)]
    return colors


def categories_of(values: pd.Series[Any] | pd.Categorical) -> list[str]:
    """Return the labels of a column as text, in display order.

    This is the natural order, except for categories with their own order: ordered ones, and those that are
    not simply sorted as text.
    """
    labels = _stored_labels(values)
    is_ordered = isinstance(values.dtype, pd.CategoricalDtype) and bool(values.dtype.ordered)
    return labels if is_ordered else natural_order(labels)


def natural_order(labels: Iterable[Any]) -> list[str]:
    """Return labels as text: in natural order if they are sorted as text, otherwise in their own order.

    Examples
    --------
    >>> natural_order(["L1", "L10", "L2"]), natural_order(["deep", "L2", "L10"])
    (['L1', 'L2', 'L10'], ['deep', 'L2', 'L10'])
    """
    texts = [str(label) for label in labels]
    return list(natsorted(texts)) if texts == sorted(texts) else texts


def _stored_labels(values: pd.Series[Any] | pd.Categorical) -> list[str]:
    """Return the labels of a column in the order of the colours that scanpy stores for them."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [str(label) for label in values.dtype.categories]
    return list(natsorted({str(label) for label in pd.unique(values) if not pd.isna(label)}))


def kept_colors(opened: Input, column: str, values: pd.Series[Any]) -> dict[str, str]:
    """Return the colours stored in an input for a column, or those of the palette, by label.

    Parameters
    ----------
    opened
        The input.
    column
        Column of its ``obs``.
    values
        The column itself.

    Raises
    ------
    InputError
        The stored values are not colours.
    """
    key = f"{column}_colors"
    stored_value, labels, stored = opened.uns.get(key), categories_of(values), _stored_labels(values)
    if isinstance(stored_value, Mapping):
        stored_colors = [str(stored_value[one]) for one in stored if one in stored_value]
    else:
        stored_colors = (
            []
            if stored_value is None
            else [_text(one) for one in np.atleast_1d(np.asarray(stored_value, dtype=object))]
        )
    if len(stored_colors) < len(stored):  # as in scanpy: too few colours are from another column
        return dict(zip(labels, map(to_hex, palette(len(labels))), strict=True))
    wrong = [one for one in stored_colors if not is_color_like(one)]
    if wrong:
        raise InputError(
            f"{opened.where}.uns[{key!r}]",
            expected="a colour for each label",
            got=repr(wrong[0]),
            fix=f"Correct or delete uns[{key!r}].",
        )
    color_of = dict(zip(stored, stored_colors, strict=False))
    return {label: to_hex(color_of[label]) for label in labels}


def chosen_colors(
    labels: Sequence[str], colors: Mapping[str, str] | None, *, kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return a colour for each label: the given ones, which are checked, and the palette for others.

    Parameters
    ----------
    labels
        Labels in order.
    colors
        Colours by label, or None. There may be colours of other labels, used in other plots.
    kept
        Colours by label, for labels without one in ``colors``.

    Raises
    ------
    SettingError
        The value for a label is not a colour, or none of the labels has one in ``colors``.
    """
    own_colors = {str(label): color for label, color in (colors or {}).items()}
    if own_colors and labels and not own_colors.keys() & set(labels):
        some = next(iter(own_colors))
        raise SettingError(
            "colors",
            expected="colours of labels in the plot",
            got=shorten(list(own_colors)),
            fix=near(some, labels),
        )
    color_of = {**(kept or {}), **own_colors}
    for label in labels:
        if label in color_of and not is_color_like(color_of[label]):
            where, fix = f"colors[{label!r}]", "For example '#0072B2'."
            raise SettingError(where, expected="a colour", got=repr(color_of[label]), fix=fix)
    plain = dict(zip(labels, palette(len(labels)), strict=True))
    return {label: to_hex(color_of.get(label, plain[label])) for label in labels}


def number_map(name: str) -> Colormap:
    """Return a colour map that draws NaN in grey; raise `SettingError` if the name is unknown."""
    check_known(name, colormaps, "cmap", expected="a matplotlib colour map", error=SettingError)
    return colormaps[name].with_extremes(bad=MISSING)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _check_writable(data: Any) -> None:
    if not hasattr(data, "uns"):
        raise SettingError(
            "keep",
            expected="an AnnData to write colours to",
            got=f"the path {str(data)!r}",
            fix="Open the file, keep the colours in the AnnData, and write it.",
        )
    if data.is_view:
        raise InputError(
            "data",
            expected="an AnnData that is not a view, to write colours to",
            got="a view",
            fix="Copy it first: data = data.copy().",
        )
