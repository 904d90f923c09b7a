"""The truth for scoring a placement: positions of the cells, and composition of the spots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import InputError, KeyMissingError, SettingError, arg, check_array, check_known
from cellweft._text import shorten
from cellweft._typing import BoolArray, DoubleArray
from cellweft.data._pair import Pair, coordinates_of
from cellweft.data.io.columns import column_of
from cellweft.data.spatial import find_coordinates
from cellweft.data.synthetic.pseudospots import BOX_WIDTH, in_boxes

_CAUGHT = "caught"  # column of obs from `pseudo_spots`: whether a cell's counts are in a spot


def true_places(pair: Pair, truth: str | NDArray[Any] | pd.DataFrame) -> DoubleArray:
    """Return the true positions of the reference cells, (n_cells, 2 or 3).

    Parameters
    ----------
    pair
        Cells, and spots with coordinates in the same unit.
    truth
        ``"obsm:KEY"``, ``"obs:X,Y"`` or ``"obs:X,Y,Z"`` of the reference; or an array in the order of its
        cells, or a table with their names.

    Raises
    ------
    KeyMissingError
        There is no such key or column in the reference, or the spots have no coordinates.
    SettingError
        The text has another form.
    InputError
        A cell does not have one finite number per dimension of the spots' coordinates.

    Examples
    --------
    >>> import anndata as ad, pandas as pd
    >>> from cellweft.data._pair import pair
    >>> genes = pd.DataFrame(index=["Gad1", "Sst"])
    >>> sc, st = (ad.AnnData(np.ones((2, 2), dtype="float32"), var=genes) for _ in range(2))
    >>> sc.obsm["lived"] = st.obsm["spatial"] = np.array([[0.0, 1.0], [2.0, 3.0]])
    >>> true_places(pair(sc, st), "obsm:lived")
    array([[0., 1.],
           [2., 3.]])
    """
    where = arg("truth", truth) if isinstance(truth, str) else "truth"
    if isinstance(truth, str):
        places = _named_places(pair, truth, where)
    elif isinstance(truth, pd.DataFrame):
        places = _numbers(_aligned(truth, pair.sc.obs_names, "cells", where).to_numpy(), where)
    else:
        places = _numbers(truth, where)
    shape = (pair.sc.n_cells, coordinates_of(pair).shape[1])
    if places.shape != shape:
        raise InputError(
            where,
            expected=f"{shape[0]:,} cells x {shape[1]} coordinates, like the spots",
            got=f"shape {places.shape}",
            fix="Pass the true positions of the reference cells, in the unit of the spots' coordinates.",
        )
    return places


def true_composition(pair: Pair, truth: str | pd.DataFrame) -> pd.DataFrame:
    """Return the true composition of spots, (n_spots, n_types); rows sum to 1, or to 0 if unknown.

    Parameters
    ----------
    pair
        Cells and spots.
    truth
        ``"obsm:KEY"`` of the spatial side: a table, or an array with the names of its columns in ``uns[KEY +
        "_names"]``; or a table with one row per spot and one column per type.

    Raises
    ------
    KeyMissingError
        There is no such key, or no names of the types.
    SettingError
        The text has another form.
    InputError
        Values are negative, NaN or infinite; spots or names do not match; a type occurs twice.
    """
    where = arg("truth_composition", truth) if isinstance(truth, str) else "truth_composition"
    table = _named_table(pair, truth, where) if isinstance(truth, str) else truth
    table = _aligned(table, pair.st.obs_names, "spots", where)
    values = _numbers(table.to_numpy(), where)
    if (values < 0).any():
        raise InputError(
            where, expected="non-negative proportions", got="negative values", fix="Correct the table."
        )
    types = table.columns.astype(str)
    if types.has_duplicates:
        twice = sorted(set(types[types.duplicated()]))
        raise InputError(
            where, expected="each type once", got=f"{shorten(twice)} twice", fix="Sum these columns."
        )
    total = values.sum(axis=1, keepdims=True)
    return pd.DataFrame(values / np.where(total > 0, total, 1.0), index=pair.st.obs_names, columns=types)


def caught_cells(pair: Pair, caught: str | NDArray[Any] | None, true: DoubleArray) -> BoolArray | None:
    """Return which reference cells are in a spot, (n_cells,); None if unknown.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    caught
        ``"obs:COLUMN"``, ``"boxes"``, ``"boxes:WIDTH"`` (a fraction of the spots' grid spacing, above 0 and
        at most 1), or booleans. None uses the column "caught" if it contains booleans.
    true
        (n_cells, 2) true positions of the cells.

    Raises
    ------
    KeyMissingError
        No such column.
    SettingError
        The text has another form, or the width is out of range.
    InputError
        There is not one boolean per cell, or the spots are not on a two-dimensional grid.

    Notes
    -----
    The spacing of a grid along an axis is the smallest distance of two grid lines.
    """
    where = arg("caught", caught) if isinstance(caught, str) else "caught"
    if caught is None:
        column = pair.sc.obs.get(_CAUGHT)
        if column is None or not pd.api.types.is_bool_dtype(column) or column.isna().any():
            return None
        return column.to_numpy(dtype=np.bool_)
    if isinstance(caught, str):
        slot, _, key = caught.partition(":")
        if slot == "boxes":
            return _in_boxes(pair, key, true, where)
        if slot != "obs" or not key:
            raise _other_form(where, "'obs:COLUMN', 'boxes' or 'boxes:0.55'", arg("caught", "boxes"))
        source = f"the reference ({pair.sc.source})"
        caught = column_of(pair.sc.obs, key, where=source, argument="caught").to_numpy()
    values = np.asarray(caught)
    if values.dtype != np.bool_ or values.shape != (pair.sc.n_cells,):
        raise InputError(
            where,
            expected=f"True or False for each of {pair.sc.n_cells:,} cells",
            got=f"{values.dtype} values of shape {values.shape}",
            fix="Pass booleans in the order of the reference cells.",
        )
    return values


def _in_boxes(pair: Pair, width: str, true: DoubleArray, where: str) -> BoolArray:
    try:
        share = float(width) if width else BOX_WIDTH
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        expected = "a width above 0 and at most 1, as a fraction of the grid spacing"
        fix = "Write " + arg("caught", "boxes:0.55") + "."
        raise SettingError(where, expected=expected, got=repr(width), fix=fix)
    middles = coordinates_of(pair)
    gaps = [np.diff(np.unique(axis)) for axis in middles.T]
    extent = np.ptp(middles, axis=0).max()
    gaps = [gap[gap > 1e-6 * extent] for gap in gaps]  # rounding must not create separate lines
    if middles.shape[1] != 2 or not all(len(gap) for gap in gaps):
        lines = " and ".join(str(len(gap) + 1) for gap in gaps)
        raise InputError(
            where,
            expected="spots on a two-dimensional grid",
            got=f"{middles.shape[1]} dimensions, with spots on {lines} lines along each",
            fix="Specify a column of the reference instead: " + arg("caught", "obs:COLUMN") + ".",
        )
    sides = share * np.array([gap.min() for gap in gaps])
    members = in_boxes(middles, true, np.arange(len(true)), sides=sides)
    return np.bincount(members.indices, minlength=len(true)) > 0


def _named_places(pair: Pair, truth: str, where: str) -> DoubleArray:
    slot, _, key = truth.partition(":")
    if slot not in ("obs", "obsm") or not key or (slot == "obs" and key.count(",") not in (1, 2)):
        raise _other_form(where, "'obs:X,Y', 'obs:X,Y,Z' or 'obsm:KEY'", arg("truth", "obsm:spatial"))
    source = f"the reference ({pair.sc.source})"
    places, _ = find_coordinates(pair.sc.obs, pair.sc.obsm, truth, where=source, argument="truth")
    return np.asarray(places)


def _named_table(pair: Pair, truth: str, where: str) -> pd.DataFrame:
    slot, _, key = truth.partition(":")
    if slot != "obsm" or not key:
        raise _other_form(
            where, "'obsm:KEY' of the spatial data", arg("truth_composition", "obsm:celltype_prop")
        )
    expected = f"a key of obsm of the spatial data ({pair.st.source})"
    check_known(key, pair.st.obsm, where, expected=expected, got="no such key")
    values, names = pair.st.obsm[key], f"{key}_names"
    if isinstance(values, pd.DataFrame):
        return values
    if names not in pair.st.uns:
        raise KeyMissingError(
            where,
            expected=f"the cell types of its columns, in uns[{names!r}] of the spatial data",
            got="none",
            fix="Write their names there, or pass a DataFrame.",
        )
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    types = np.asarray(pair.st.uns[names]).astype(str)
    if values.ndim != 2 or types.shape != values.shape[1:]:
        raise InputError(
            where,
            expected=f"a column for each of the {types.size} names in uns[{names!r}]",
            got=f"shape {values.shape}",
            fix="Name each column once, in order.",
        )
    return pd.DataFrame(values, index=pair.st.obs_names, columns=pd.Index(types.tolist()))


def _aligned(table: pd.DataFrame, names: pd.Index, kind: str, where: str) -> pd.DataFrame:
    """Return the rows of a table by their names."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(
            where,
            expected=f"a string or a table of {kind}",
            got=type(table).__name__,
            fix="Pass a DataFrame.",
        )
    lost = names.difference(table.index)
    if len(lost) or table.index.has_duplicates:
        got = f"none for {shorten(list(map(str, lost)))}" if len(lost) else "duplicate names"
        raise InputError(
            where,
            expected=f"one row for each of the {len(names):,} {kind}, by name",
            got=got,
            fix=f"Use the names of the {kind} as the index of the table.",
        )
    return table.loc[names]


def _numbers(values: Any, where: str) -> DoubleArray:
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            where, expected="numbers", got=f"values that are not numbers ({error})", fix="Correct them."
        ) from error
    check_array(where, numbers, expected="finite numbers", fix="Remove these rows, or correct them.")
    return numbers


def _other_form(where: str, expected: str, example: str) -> SettingError:
    return SettingError(
        where, expected=expected, got="a value in another format", fix="For example, use " + example + "."
    )
