"""Data that plots read from their inputs: positions, genes, labels, values. Inputs are not changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import GeneError, InputError, arg, array_of
from cellweft._text import near, shown_unit
from cellweft._typing import DoubleArray, IntArray, PathLike
from cellweft.data.gene_names import find_names, other_names
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.columns import in_order_of
from cellweft.data.io.keys import INTERVAL, PREFIX
from cellweft.data.io.lazy_input import RAW, Input, with_raw
from cellweft.data.io.results import coordinate_unit, gene_columns, open_result, result_kind, result_scale
from cellweft.data.side import Side
from cellweft.data.spatial import find_coordinates
from cellweft.data.validation import ReadOptions, counts_in, gene_names, make_side
from cellweft.pl._colors import UNKNOWN, categories_of, chosen_colors, kept_colors

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, kw_only=True, eq=False)
class Shade:
    """Values for colouring cells: numbers or labels.

    Attributes
    ----------
    name
        Name of the values.
    numbers
        (n_cells,) numbers, NaN if missing; None for labels.
    codes
        (n_cells,) index of the label, -1 if missing; None for numbers. Without both, all cells have the same
        colour.
    colors
        Colour of each label, in the order of the codes.
    measure
        Label of the colour bar: the quantity, with its unit in brackets if there is one.
    """

    name: str
    numbers: DoubleArray | None = None
    codes: IntArray | None = None
    colors: dict[str, str] | None = None
    measure: str = ""


_DISTANCE = "{unit}"  # instead of the unit of the coordinates
_MEASURES = {
    "confidence": "confidence (0 to 1)",
    "weight": "weight of the best spot (0 to 1)",
    "spread": f"spread ({_DISTANCE})",
    "similarity": "similarity to the reference (1: identical)",
}
"""Labels of the numbers that cellweft writes to ``obs``, with their units."""


def opened(data: AnnData | PathLike, argument: str = "data") -> Input:
    """Open an AnnData or a path with at least one cell.

    Parameters
    ----------
    data, argument
        As in `cellweft.data.io.results.open_result`.

    Raises
    ------
    InputError
        There are no cells.
    """
    result = open_result(data, argument=argument)
    if len(result.obs) == 0:
        raise InputError(
            f"{result.where}.obs", expected="at least one cell", got="no cell", fix="Pass cells."
        )
    return result


def places_of(data: Input, coordinates: str | None) -> DoubleArray:
    """Return the first two coordinates of each cell, (n_cells, 2).

    Parameters
    ----------
    data
        An opened input.
    coordinates
        ``"obsm:KEY"`` or ``"obs:X,Y"``, or None for the default coordinates.

    Raises
    ------
    KeyMissingError
        There are no coordinates.
    InputError
        They are not numbers, NaN or infinite, or "none" was requested.
    """
    places, _ = find_coordinates(data.obs, data.obsm, coordinates, where=data.where)
    if places is None:
        fix = "Specify them: " + arg("coordinates", "obsm:KEY") + "."
        raise InputError("coordinates", expected="positions to plot", got="'none'", fix=fix)
    return places[:, :2]


def unit_of(data: Any, unit: str | None, coordinates: str | None = None) -> str | None:
    """Return the unit of a scale bar, or None for none.

    Parameters
    ----------
    data
        The input to draw, opened, or a Placement.
    unit
        The requested unit; "" means none.
    coordinates
        As in `places_of`; the unit is only known for the default coordinates.
    """
    if unit is not None:
        return unit or None
    if isinstance(data, Input):
        stored_unit = coordinate_unit(data) if coordinates is None else ""
    else:
        stored_unit = data.pair.findings["coordinates"]["unit"]
    return shown_unit(stored_unit) or None


def flat_places(places: Any, n: int, where: str) -> DoubleArray:
    """Return given positions as (n, 2) numbers.

    Parameters
    ----------
    places
        (n, 2 or 3)
    n
        Required number of rows.
    where
        Name of the argument in errors.

    Raises
    ------
    InputError
        The shape is wrong, or values are NaN or infinite.
    """
    array = array_of(where, places, fix="Pass a position for every plotted cell, in their order.")
    if array.ndim != 2 or len(array) != n or array.shape[1] not in (2, 3) or not np.isfinite(array).all():
        raise InputError(
            where,
            expected=f"finite coordinates, {n:,} rows of 2 or 3",
            got=f"shape {array.shape}" if array.ndim != 2 or len(array) != n else "NaN, or more columns",
            fix="Pass a position for every plotted cell, in their order.",
        )
    return array[:, :2]


def flat_values(values: Any, n: int, *, where: str) -> DoubleArray:
    """Return given values as (n,) numbers, NaN if missing.

    Parameters
    ----------
    values
        (n,)
    n
        Required number of values.
    where
        Name of the argument in errors.

    Raises
    ------
    InputError
        The number of values is wrong, or they are infinite or not numbers.
    """
    series = _series(values, n, where, fix="Pass values in the order of the cells.")
    if not _is_number(series):
        raise InputError(where, expected="numbers", got=str(series.dtype), fix="Pass numbers, or NaN.")
    return _finite(series.to_numpy(np.float64, na_value=np.nan), where)


def of_layer(data: Input, layer: str | None) -> Input:
    """Return an input with the genes of a layer; ``raw`` may have other genes.

    Parameters
    ----------
    data
        An opened input.
    layer
        The layer, or None.

    Raises
    ------
    KeyMissingError
        There is no such layer.
    """
    if layer is not None:
        data = with_raw(data) if layer == RAW and RAW not in data.layers else data
        data.values(layer, argument="layer")
    return data


def gene_values(data: Input, gene: str, layer: str | None = None) -> DoubleArray:
    """Return a gene as stored in ``X`` or a layer, (n_cells,).

    Parameters
    ----------
    data
        An opened input.
    gene
        Its name, in any case.
    layer
        The layer, or None.

    Raises
    ------
    GeneError
        There is no such gene.
    KeyMissingError
        There is no such layer.
    """
    names = data.var.index.astype(str).to_numpy(dtype=np.str_)
    place = find_names([gene], names, where=data.where, others=other_names(data.var))
    return gene_columns(data, place, layer=layer)[:, 0].astype(np.float64)


def values_of(data: Input, genes: IntArray, *, layer: str | None = None) -> DoubleArray:
    """Return some genes of all cells as stored in ``X`` or a layer, (n_cells, n_genes).

    Parameters
    ----------
    data
        An opened input.
    genes
        (n_genes,) rows of the genes in ``var``.
    layer
        The layer, or None.

    Raises
    ------
    KeyMissingError
        There is no such layer.
    """
    source = open_rows(data.values(layer, argument="layer"), where=data.where)
    block: Any = source.read(slice(0, source.shape[0]), genes)
    return np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)


def logged(data: Input) -> Side:
    """Return an input with log-normalised values, as in `cellweft.pair` for the spatial side.

    Raises
    ------
    InputError, ScaleError, GeneError
        As in `cellweft.pair`.
    """
    data, wish = counts_in(data, ReadOptions(name="spatial", duplicates="first"))
    genes = gene_names(data, wish)
    return make_side(data, genes, wish, panel=np.arange(len(genes.names)))[0]


def shade_of(
    data: Input, color: Any, *, layer: str | None = None, colors: Mapping[str, str] | None = None
) -> Shade:
    """Return the values for colouring cells.

    Parameters
    ----------
    data
        An opened input.
    color
        A gene or a column of ``obs``, each optionally with its slot and a colon as a prefix; (n_cells,)
        values; or None.
    layer
        Layer of a gene.
    colors
        Colours of labels, or None for stored colours or the palette.

    Raises
    ------
    GeneError
        Neither a gene nor a column has this name.
    KeyMissingError
        There is no such layer, for any ``color``.
    InputError
        A name is both; there is not one value per cell; values are infinite.
    """
    data = of_layer(data, layer)
    if color is None:
        return Shade(name="")
    if not isinstance(color, str):
        ordered = in_order_of(color, data.obs.names(), argument="color")
        return given_shade(ordered, len(data.obs), colors=colors)
    slot, name = _slot(data, color, layer)
    if slot == "gene":
        values = _finite(gene_values(data, name, layer), f"color={color!r}")
        return Shade(name=name, numbers=values, measure=f"{name} ({_scale_of(data, values, layer)})")
    series = data.obs[name]
    saved_colors = kept_colors(data, name, series) if not _is_number(series) else {}
    return _shade(series, name, colors, saved_colors)


def given_shade(
    values: Any, n_cells: int, *, name: str | None = None, colors: Mapping[str, str] | None = None
) -> Shade:
    """Return the shade of given values.

    Parameters
    ----------
    values
        (n_cells,) numbers or labels.
    n_cells
        Required number of values.
    name
        Name of the values; by default that of a series.
    colors
        Colours of labels, or None.

    Raises
    ------
    InputError
        The number of values is wrong, or values are infinite.
    """
    fix = "Pass the name of a gene or column, or values in the order of the cells."
    series = _series(values, n_cells, "color", fix=fix)
    own = str(values.name) if isinstance(values, pd.Series) and values.name is not None else ""
    return _shade(series, name or own, colors)


def _series(values: Any, n_cells: int, where: str, *, fix: str) -> pd.Series[Any]:
    """Return values as a series, after checking that there is one per cell."""
    if np.shape(values) != (n_cells,):
        expected, got = f"one value for each of the {n_cells:,} cells", f"shape {np.shape(values)}"
        raise InputError(where, expected=expected, got=got, fix=fix)
    if np.iscomplexobj(values):
        raise InputError(where, expected="numbers or labels", got="complex numbers", fix=fix)
    return values if isinstance(values, pd.Series) else pd.Series(values)


def _shade(
    series: pd.Series[Any],
    name: str,
    colors: Mapping[str, str] | None,
    saved_colors: Mapping[str, str] | None = None,
) -> Shade:
    if _is_number(series):
        numbers = _finite(series.to_numpy(np.float64, na_value=np.nan), f"color={name!r}")
        measure = _MEASURES.get(name.removeprefix(PREFIX), name or "value")
        return Shade(name=name, numbers=numbers, measure=measure)
    labels = categories_of(series)
    known_labels = [label for label in labels if label != UNKNOWN]
    codes, kinds = pd.factorize(series)  # missing values have code -1
    number = np.append(pd.Index(known_labels).get_indexer(pd.Index([str(label) for label in kinds])), -1)
    return Shade(
        name=name,
        codes=number[codes].astype(np.int64),
        colors=chosen_colors(known_labels, colors, kept=saved_colors),
    )


def measure_of(shade: Shade, unit: str | None) -> str:
    """Return the label of a colour bar for numbers; distances have the unit of the coordinates.

    Parameters
    ----------
    shade
        The numbers.
    unit
        Unit of the coordinates, or None if unknown.
    """
    return shade.measure.replace(_DISTANCE, unit or "unit of the coordinates")


EXPRESSION = {"log": "log-normalised expression", "counts": "counts"}
"""Names of imputed values, by the scale of the result."""


def _scale_of(data: Input, values: DoubleArray, layer: str | None) -> str:
    """Return the name of the scale of a gene's values, if known."""
    if result_kind(data) == "imputed" and layer in (None, *INTERVAL):
        measure = EXPRESSION[result_scale(data)]
        return measure if layer is None else f"{layer} bound, {measure}"
    there = values[~np.isnan(values)]
    if len(there) and (there >= 0).all() and (there == np.round(there)).all():
        return "counts"
    return "as stored in X" if layer is None else f"as stored in layer {layer!r}"


def _slot(data: Input, color: str, layer: str | None) -> tuple[str, str]:
    """Return whether a name is that of a gene or a column, and the name without the slot."""
    genes, columns = data.var.index.astype(str), data.obs.columns
    slot, _, rest = color.partition(":")
    if (slot == "gene" and rest) or (slot == "obs" and rest in columns):
        return slot, rest
    is_gene, is_column = color in genes, color in columns
    if is_gene and is_column and layer is None:
        raise InputError(
            f"color={color!r}",
            expected="the name of a gene or of a column of obs",
            got="a name that both have",
            fix=f"Write color='gene:{color}' or color='obs:{color}'.",
        )
    if not is_gene and not is_column:
        raise GeneError(
            f"color={color!r}",
            expected=f"a gene or a column of obs of {data.where}",
            got="neither",
            fix=near(rest if slot == "obs" else color, [*columns, *genes]),
        )
    return ("gene", color) if is_gene and (layer is not None or not is_column) else ("obs", color)


def _is_number(series: pd.Series[Any]) -> bool:
    is_truth = pd.api.types.is_bool_dtype(series)
    return bool(pd.api.types.is_numeric_dtype(series)) and not is_truth


def _finite(values: NDArray[Any], where: str) -> DoubleArray:
    if np.isinf(values).any():
        raise InputError(
            where, expected="finite values, or NaN", got="infinity", fix="Replace infinite values by NaN."
        )
    return values
