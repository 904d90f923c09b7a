"""Plots of placed cells, and of the composition of spots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from numpy.typing import NDArray

from cellweft._errors import (
    InputError,
    KeyMissingError,
    SettingError,
    array_of,
    check_all_known,
    check_choice,
    check_range,
    checks_kinds,
)
from cellweft._text import shorten
from cellweft._typing import DoubleArray, PathLike
from cellweft.data.io.keys import PLACES, PROPORTIONS
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable
from cellweft.data.spatial import find_coordinates, find_labels, place_hashes, spot_spacing
from cellweft.pl._axes import INK, SMALL, label_legend, panels, space_axes, space_size
from cellweft.pl._colors import MISSING, chosen_colors, natural_order
from cellweft.pl._inputs import Shade, flat_places, opened, places_of, shade_of, unit_of
from cellweft.pl._rasterize import cell_width
from cellweft.pl._scatter import Look, Upward, limits_of, picture
from cellweft.pl._spatial import draw_alike, draw_alone

if TYPE_CHECKING:
    from anndata import AnnData

    from cellweft.place.placement import Placement

_MOST_PANELS = 8
_ARC = 12  # points of a wedge's arc
_LEAST_SHARE = 1e-3  # smallest share drawn in a pie


@checks_kinds
def placed(
    placement: Placement | AnnData | PathLike,
    color: str | NDArray[Any] | pd.Series | None = None,
    *,
    truth: str | NDArray[Any] | pd.DataFrame | None = None,
    kind: Literal["beside", "lines"] = "beside",
    colors: Mapping[str, str] | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "viridis",
    y: Upward = "down",
    unit: str | None = None,
    size: float | None = None,
    most_dots: int = 200_000,
    most_lines: int = 2_000,
    axes: Sequence[Axes] | Axes | NDArray[Any] | None = None,
) -> tuple[Axes, ...]:
    """Plot placed cells in space, next to their true positions if these are known.

    Parameters
    ----------
    placement
        A Placement, or the AnnData (or its path) that `cellweft.Placement.to_anndata` returns.
    color
        As in `cellweft.pl.spatial`. For a Placement, a column of the cells' ``obs`` or of `Placement.table`
        (such as "confidence"), or values. For an AnnData, a column of ``obs`` (such as
        "cellweft_confidence"), a gene, or values. By default the cell types, if there are any.
    truth
        True positions of the cells: ``"obsm:KEY"`` or ``"obs:X,Y"``, (n_cells, 2 or 3) values, or a table
        with the cell names as the index. With None, only the placed cells are drawn.
    kind
        If the truth is known: "beside" draws true and placed positions side by side, on the same scale;
        "lines" draws both in one panel, with a line from the true to the placed position of each cell.
    colors, limits, cmap, y, unit, size, most_dots
        As in `cellweft.pl.spatial`.
    most_lines
        Maximum number of lines, for cells that are spread evenly over the tissue. The median error is that of
        all cells.
    axes
        Axes to draw on, one for each panel; a new figure by default.

    Returns
    -------
    tuple of Axes
        The panel of the placed cells, and with "beside" that of the true positions before it.

    Raises
    ------
    GeneError, KeyMissingError, InputError, SettingError
        As in `cellweft.pl.spatial`; the truth is for other cells.

    Examples
    --------
    >>> import cellweft
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
    >>> true, found = placed(tissue.st, "cell_type", truth="obsm:spatial")
    >>> true.get_xlim() == found.get_xlim()
    True
    """
    check_choice("kind", kind, ("beside", "lines"))
    check_range("most_lines", most_lines, low=0, integer=True)
    data, places = _placed_cells(placement)
    unit = unit_of(placement if hasattr(placement, "pair") else data, unit)
    look = Look(limits=limits, cmap=cmap, y=y, unit=unit, size=size, most_dots=most_dots)
    if color is None:
        color = find_labels(data.obs, None, where=data.where, argument="color")[1] or None
    shade = shade_of(data, color, colors=colors)
    lived = None if truth is None else _true_places(data, truth)
    beside = lived is not None and kind == "beside"
    every = places if lived is None else np.concatenate([lived, places])
    drawn_on = panels(axes, 1 + beside, size=space_size(every), across=2)
    where = "placed" + (f", {shade.name}" if shade.name else "")
    if lived is None:
        draw_alone(drawn_on[0], places, shade, look=look, title=where)
        return drawn_on
    error = float(np.median(np.linalg.norm(places - lived, axis=1)))
    where += f"; median error {error:.3g}{f' {unit}' if unit else ''}"
    if beside:
        draw_alone(drawn_on[0], lived, shade, look=look, title="true positions", legend=False)
    draw_alone(drawn_on[-1], places, shade, look=look, title=where)
    for ax in drawn_on:
        space_axes(ax, every, y=y, unit=None, pad=cell_width(every), title=ax.get_title())
    if not beside:
        _draw_lines(drawn_on[0], lived, places, most=most_lines)
    return drawn_on


@checks_kinds
def composition(
    spots: AnnData | Placement | PathLike | pd.DataFrame,
    *,
    kind: Literal["map", "pies"] = "map",
    labels: Sequence[str] | None = None,
    places: NDArray[Any] | None = None,
    coordinates: str | None = None,
    colors: Mapping[str, str] | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "viridis",
    y: Upward = "down",
    unit: str | None = None,
    size: float | None = None,
    axes: Sequence[Axes] | Axes | NDArray[Any] | None = None,
) -> tuple[Axes, ...]:
    """Plot the composition of spots.

    Parameters
    ----------
    spots
        AnnData of spots (or its path) with ``obsm["cellweft_proportions"]``, from
        ``Placement.to_anndata(of="spots")``; a Placement, which is deconvolved; or a table of spots x types
        together with ``places``.
    kind
        "map": one panel per type, coloured by its share, all on the same scale. "pies": one panel with a pie
        chart for each spot.
    labels
        Types to draw, in this order. By default, "map" draws the eight most frequent types, and "pies" all.
        In pies, the types that are not drawn are summed as "other", in grey.
    places
        (n_spots, 2 or 3) coordinates, for a table.
    coordinates
        As in `cellweft.pl.spatial`, for an AnnData.
    colors
        Colour of each type, for "pies".
    limits, cmap, y, unit, size
        As in `cellweft.pl.spatial`. By default, the limits are 0 and the largest share that is drawn.
    axes
        Axes to draw on, one for each panel; a new figure by default.

    Returns
    -------
    tuple of Axes
        One per type with "map", one with "pies". The last map shows how many types are not drawn.

    Raises
    ------
    KeyMissingError
        ``obsm["cellweft_proportions"]`` or coordinates are missing, or a type is not in it.
    InputError
        Shares are negative, there are no spots, or the number of positions or axes does not match.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> shares = pd.DataFrame({"neuron": [0.2, 1.0], "glia": [0.8, 0.0]})
    >>> (ax,) = composition(shares, kind="pies", places=np.array([[0.0, 0.0], [1.0, 0.0]]))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['neuron', 'glia']
    """
    check_choice("kind", kind, ("map", "pies"))
    table, at, unit = _shares_of(spots, places, coordinates, unit)
    look = Look(limits=limits, cmap=cmap, y=y, unit=unit, size=size)
    types = natural_order(table.columns)
    table = table[types]
    color_of = chosen_colors(types, colors)
    shown_types = _shown_types(table, labels, most=_MOST_PANELS if kind == "map" else None)
    if kind == "pies":
        (ax,) = panels(axes, 1, size=space_size(at))
        return (_draw_pies(ax, table[shown_types], at, colors=color_of, look=look),)
    drawn_on = panels(axes, len(shown_types), size=space_size(at, width=2.6))
    most = float(table[shown_types].to_numpy().max())
    shades = [Shade(name=label, numbers=table[label].to_numpy()) for label in shown_types]
    pictures = [picture(at, shade, most_dots=look.most_dots) for shade in shades]
    same = limits_of([table[shown_types].to_numpy().ravel()], limits or (0.0, most if most > 0 else 1.0))
    draw_alike(drawn_on, pictures, look=look, same=same, label="share of the spot (0 to 1)")
    if labels is None and len(types) > len(shown_types):
        more = f"and {len(types) - len(shown_types):,} more types"
        last = drawn_on[-1]
        last.text(
            0.5, -0.03, more, transform=last.transAxes, ha="center", va="top", fontsize=SMALL, color=INK
        )
    return drawn_on


def _placed_cells(placement: Any) -> tuple[Input, DoubleArray]:
    """Return the data of the placed cells, and their positions in two dimensions."""
    if not hasattr(placement, "deconvolve"):
        data = opened(placement, "placement")
        return data, places_of(data, f"obsm:{PLACES}" if PLACES in data.obsm else None)
    cells, table = placement.pair.sc, placement.table()
    obs = pd.concat([cells.obs.drop(columns=table.columns, errors="ignore"), table], axis=1)
    data = Input(
        where=f"the placed cells ({cells.source})",
        source=cells.source,
        matrix=None,
        layers={},
        obs=HeldTable(obs),
        var=pd.DataFrame(),
        obsm=cells.obsm,
        uns=cells.uns,
    )
    return data, placement.coordinates()[:, :2]


def _true_places(data: Input, truth: Any) -> DoubleArray:
    """Return the true positions of the cells, (n_cells, 2)."""
    n_cells = len(data.obs)
    if isinstance(truth, pd.DataFrame):
        names = data.obs.names().astype(str)
        by_name = truth.set_axis(truth.index.astype(str), axis=0)
        lost = names.difference(by_name.index)
        if len(lost) or by_name.index.has_duplicates:
            raise InputError(
                "truth",
                expected="one row for each of the placed cells, by name",
                got=f"none for {shorten(list(lost))}" if len(lost) else "duplicate names",
                fix="Use the cell names as the index of the table.",
            )
        return flat_places(by_name.loc[names].to_numpy(), n_cells, "truth")
    if not isinstance(truth, str):
        return flat_places(truth, n_cells, "truth")
    places, _ = find_coordinates(data.obs, data.obsm, truth, where=data.where, argument="truth")
    return flat_places(places, n_cells, "truth")


def _draw_lines(ax: Axes, lived: DoubleArray, places: DoubleArray, *, most: int) -> None:
    """Draw lines from true to predicted positions, for cells sampled by position, not by order."""
    drawn = np.argsort(place_hashes(np.hstack([lived, places])), kind="stable")[:most]
    ends = np.stack([lived[drawn], places[drawn]], axis=1).tolist()
    look: dict[str, Any] = {"alpha": 0.35, "zorder": 0.5, "rasterized": len(drawn) > 500}
    ax.add_collection(LineCollection(ends, colors=INK, linewidths=0.5, **look), autolim=False)


_PLACES_OF = {
    "places": "Specify those of the AnnData: coordinates='obsm:KEY'.",
    "coordinates": "Pass places=, one for each row of the table.",
}


def _shares_of(
    spots: Any, places: Any, coordinates: str | None, unit: str | None
) -> tuple[pd.DataFrame, DoubleArray, str | None]:
    """Return the composition of spots, with columns as text, their positions, and the unit of these."""
    is_table, is_placement = isinstance(spots, pd.DataFrame), hasattr(spots, "deconvolve")
    for name, value, unused in (
        ("places", places, not is_table),
        ("coordinates", coordinates, is_table or is_placement),
    ):
        if value is not None and unused:
            kind = "a table" if is_table else "a placement" if is_placement else "an AnnData"
            fix = f"Leave {name} out." if is_placement else _PLACES_OF[name]
            raise SettingError(name, expected=f"none with {kind}", got=type(value).__name__, fix=fix)
    if is_table:
        if places is None:
            raise InputError(
                "places",
                expected="the coordinates of the spots, because a table has none",
                got="none",
                fix="Pass places=spots.obsm['spatial'].",
            )
        table, at = spots, flat_places(places, len(spots), "places")
    elif is_placement:
        table, at = spots.deconvolve(), flat_places(spots.pair.coordinates, len(spots.spots), "places")
        unit = unit_of(spots, unit)
    else:
        data = opened(spots, "spots")
        table, at, unit = _stored_shares(data), places_of(data, coordinates), unit_of(data, unit, coordinates)
    shares = array_of("spots", table, fix="Pass the composition of the spots, as numbers.")
    table = pd.DataFrame(shares, index=table.index, columns=table.columns.astype(str))
    if table.empty or (table.to_numpy() < 0).any() or np.isinf(table.to_numpy()).any():
        raise InputError(
            "spots",
            expected="finite proportions of 0 or more, for at least one type and one spot",
            got="none" if table.empty else "values below 0, or infinite",
            fix="Pass the composition of the spots, such as placement.deconvolve().",
        )
    return table, at, unit or None


def _stored_shares(data: Input) -> pd.DataFrame:
    if PROPORTIONS not in data.obsm:
        raise KeyMissingError(
            f"{data.where}.obsm",
            expected=f"the composition of the spots, {PROPORTIONS!r}",
            got=shorten(sorted(map(str, data.obsm))) or "nothing",
            fix="Write it with placement.to_anndata(of='spots'), or pass a table and places=.",
        )
    shares = data.obsm[PROPORTIONS]
    if isinstance(shares, pd.DataFrame):
        return shares
    values = np.asarray(shares.toarray() if hasattr(shares, "toarray") else shares)
    key = f"{PROPORTIONS}_names"
    names = data.uns[key] if key in data.uns else [f"type {n + 1}" for n in range(values.shape[1])]
    return pd.DataFrame(values, columns=pd.Index([str(name) for name in names]))


def _shown_types(table: pd.DataFrame, labels: Sequence[str] | None, *, most: int | None) -> list[str]:
    types = [str(label) for label in table.columns]
    if labels is None:
        # chosen by total share, but drawn in their own order
        rank = np.argsort(-table.mean(axis=0).to_numpy(), kind="stable")[:most]
        return [types[number] for number in sorted(rank)]
    wanted = [labels] if isinstance(labels, str) else [str(label) for label in labels]
    check_all_known(wanted, types, "labels", expected="cell types in the spots")
    return wanted


def _draw_pies(
    ax: Axes, table: pd.DataFrame, at: DoubleArray, *, colors: Mapping[str, str], look: Look
) -> Axes:
    """Draw a pie chart for each spot; a remainder up to 1 is grey."""
    shares = np.nan_to_num(table.to_numpy())  # n_spots x n_shown
    rest = np.clip(1 - shares.sum(axis=1), 0, None)
    whole = np.column_stack([shares, rest]) / np.maximum(shares.sum(axis=1) + rest, 1e-12)[:, None]
    width = cell_width(at)
    across = look.size if look.size is not None else 0.95 * min(spot_spacing(at) or width, width)
    space_axes(ax, at, y=look.y, unit=look.unit, pad=max(across, width) * 0.75, title="composition")
    ends = 2 * np.pi * np.cumsum(whole, axis=1)
    named = {label: colors[label] for label in table.columns}
    has_rest = bool((whole[:, -1] > 0.01).any())
    for number, color in enumerate([*named.values(), MISSING]):
        there = np.flatnonzero(whole[:, number] > _LEAST_SHARE)
        begin, end = (ends - 2 * np.pi * whole)[there, number], ends[there, number]
        angle = begin[:, None] + (end - begin)[:, None] * np.linspace(0, 1, _ARC + 2)
        rim = at[there, None] + across / 2 * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        wedges = np.concatenate([at[there, None], rim], axis=1)  # n x (n_arc + 1) x 2
        ax.add_collection(
            PolyCollection(wedges.tolist(), facecolors=color, edgecolors="none", antialiaseds=True),
            autolim=False,
        )
    label_legend(ax, named | ({"other": MISSING} if has_rest else {}))
    return ax
