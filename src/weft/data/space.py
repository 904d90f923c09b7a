"""Where the cells of a tissue lie: finding their coordinates, slices and labels, and their spacing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weft._errors import InputError, KeyMissingError, SettingError, near, shorten
from weft._typing import DoubleArray

OBSM_KEYS = ("spatial", "X_spatial")

OBS_KEYS = (
    ("x", "y", "z"),
    ("x_centroid", "y_centroid", "z_centroid"),
    ("center_x", "center_y", "center_z"),
    ("x_global", "y_global", "z_global"),
    ("x_global_px", "y_global_px", "z_global_px"),
    ("centerx_global_px", "centery_global_px", "centerz_global_px"),
    ("x_um", "y_um", "z_um"),
    ("coord_x", "coord_y", "coord_z"),
    ("x_coord", "y_coord", "z_coord"),
    ("spatial_x", "spatial_y", "spatial_z"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres", ""),
    ("imagecol", "imagerow", ""),
    ("array_col", "array_row", ""),
)
"""Columns of `obs` (in any case) that hold coordinates; the third may be missing."""

SLICE_KEYS: tuple[str, ...] = (
    "section",
    "slice",
    "slice_id",
    "section_id",
    "brain_section_label",
    "library_id",
    "sample",
    "sample_id",
    "bregma",
)

LABEL_KEYS: tuple[str, ...] = (
    "cell_type",
    "celltype",
    "cell_types",
    "celltypes",
    "cell_type_original",
    "celltype_original",
    "cell_class",
    "subclass",
    "subclass_label",
    "class_label",
    "annotation",
    "cluster",
    "clusters",
    "leiden",
    "louvain",
)

_MOST_QUERIES = 100_000  # cells whose neighbour is looked up for the spacing: a median needs no more


def find_coordinates(
    obs: pd.DataFrame,
    obsm: Mapping[str, Any],
    asked: str | None,
    *,
    where: str = "st",
    hint: str = "",
) -> tuple[DoubleArray | None, str]:
    """Return the coordinates of the cells, and where they were found.

    Parameters
    ----------
    obs, obsm
        The spatial side's.
    asked
        ``"obsm:KEY"``, ``"obs:X,Y"`` or ``"obs:X,Y,Z"``, ``"none"`` to go on without; None looks in the usual
        places.
    where
        What errors call this side.
    hint
        A sentence for the error where there are no coordinates.

    Returns
    -------
    coordinates : ndarray or None
        (n_cells, 2 or 3), float64, in the unit of the file.
    found : str
        Such as ``"obsm['spatial']"``.

    Raises
    ------
    KeyMissingError
        No coordinates, or none under the key.
    InputError
        Not 2 or 3 columns, NaN or infinite values, or no numbers.
    SettingError
        ``asked`` has another form.

    Examples
    --------
    >>> obs = pd.DataFrame({"X": [0.0, 1.0], "Y": [0.0, 2.0]})
    >>> find_coordinates(obs, {}, None)
    (array([[0., 0.],
           [1., 2.]]), "obs['X', 'Y']")
    """
    if asked == "none":
        return None, "none, as asked"
    if asked is not None:
        return _asked_coordinates(obs, obsm, asked, where)
    for key in OBSM_KEYS:
        if key in obsm:
            return _checked(obsm[key], f"{where}.obsm[{key!r}]"), f"obsm[{key!r}]"
    columns = _usual_columns(obs)
    if columns is not None:
        return _from_obs(obs, columns, where)
    raise KeyMissingError(
        where,
        expected="coordinates of the cells, in obsm['spatial'] or in obs columns such as 'x' and 'y'",
        got=f"obsm with {shorten(sorted(map(str, obsm))) or 'nothing'}, "
        f"obs with {shorten(list(map(str, obs.columns)), most=8) or 'nothing'}",
        fix="Name them, coordinates='obsm:KEY' or coordinates='obs:X,Y', or do without: coordinates='none'."
        + (f" {hint}" if hint else ""),
    )


def find_slices(
    obs: pd.DataFrame, asked: str | None, *, where: str = "st"
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the slice of every cell and the column of `obs` it stands in; None where there is one slice.

    Parameters
    ----------
    obs
        The spatial side's.
    asked
        A column; None looks for a usual one that holds several values, few of them alone.
    where
        What errors call the input.

    Raises
    ------
    KeyMissingError
        No such column.
    """
    if asked is not None:
        return text_labels(column_of(obs, asked, where=where, argument="slices")), asked
    known = {str(name).lower(): str(name) for name in obs.columns}
    for key in SLICE_KEYS:
        if key in known:
            values = text_labels(obs[known[key]])
            if 1 < len(np.unique(values)) <= max(len(values) // 10, 2):
                return values, known[key]
    return None, ""


def find_labels(
    obs: pd.DataFrame,
    asked: str | None,
    *,
    where: str,
    argument: str,
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the type of every cell and the column of `obs` it stands in; None where no usual one is there.

    Parameters
    ----------
    obs
        The side's.
    asked
        A column; None looks for a usual one (in any case) with at least two values, and not one for every
        cell.
    where, argument
        What errors call the side and the argument.

    Raises
    ------
    KeyMissingError
        No such column.
    """
    if asked is not None:
        return text_labels(column_of(obs, asked, where=where, argument=argument)), asked
    known = {str(name).lower(): str(name) for name in obs.columns}
    for key in LABEL_KEYS:
        if key in known:
            values = text_labels(obs[known[key]])
            if 1 < len(np.unique(values)) < len(values):
                return values, known[key]
    return None, ""


def spot_spacing(coordinates: DoubleArray, slices: NDArray[np.str_] | None = None) -> float | None:
    """Return the median distance of a cell to its nearest neighbour in the same slice.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3)
    slices
        (n_cells,) slice of every cell; one slice by default.

    Returns
    -------
    float or None
        In the unit of the coordinates. Cells at the very same place count as one; None where no slice has two
        places.

    Examples
    --------
    >>> spot_spacing(np.array([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0]]))
    5.0
    """
    groups = [slice(None)] if slices is None else [slices == one for one in np.unique(slices)]
    stride = max(len(coordinates) // _MOST_QUERIES, 1)
    distances = []
    for group in groups:
        places = np.unique(coordinates[group], axis=0)
        if len(places) > 1:
            nearest = np.asarray(cKDTree(places).query(places[::stride], k=2)[0])
            distances.append(nearest[:, 1])  # the first column is the place itself
    return float(np.median(np.concatenate(distances))) if distances else None


def column_of(table: pd.DataFrame, name: str, *, where: str, argument: str, slot: str = "obs") -> pd.Series:
    """Return a column, or raise `KeyMissingError` that names the near ones."""
    if name not in table.columns:
        raise KeyMissingError(
            f"{argument}={name!r}",
            expected=f"a column of {slot} of {where}",
            got="no such column",
            fix=near(name, map(str, table.columns)),
        )
    return table[name]


def text_labels(values: pd.Series) -> NDArray[np.str_]:
    """Return values as text, those that are missing as "unknown"."""
    missing = values.isna().to_numpy()
    text = ["unknown" if gone else str(value) for value, gone in zip(values, missing, strict=True)]
    return np.array(text, dtype=np.str_)


def _asked_coordinates(
    obs: pd.DataFrame, obsm: Mapping[str, Any], asked: str, where: str
) -> tuple[DoubleArray | None, str]:
    slot, _, key = asked.partition(":")
    names = [name.strip() for name in key.split(",")]
    if slot == "obsm" and key:
        if key not in obsm:
            raise KeyMissingError(
                f"coordinates={asked!r}",
                expected=f"a key of obsm of {where}",
                got="no such key",
                fix=near(key, obsm),
            )
        return _checked(obsm[key], f"{where}.obsm[{key!r}]"), f"obsm[{key!r}]"
    if slot == "obs" and len(names) in (2, 3):
        for name in names:
            column_of(obs, name, where=where, argument="coordinates")
        return _from_obs(obs, names, where)
    raise SettingError(
        "coordinates",
        expected="'obsm:KEY', 'obs:X,Y', 'obs:X,Y,Z' or 'none'",
        got=repr(asked),
        fix="Write for example coordinates='obsm:spatial'.",
    )


def _usual_columns(obs: pd.DataFrame) -> list[str] | None:
    known = {str(name).lower(): str(name) for name in obs.columns}
    for x, y, z in OBS_KEYS:
        if x in known and y in known:
            columns = [known[x], known[y]]
            deep = known.get(z)
            # A z that stands still is a plane's number, and makes no third dimension.
            if deep and pd.api.types.is_numeric_dtype(obs[deep]) and len(obs[deep].unique()) > 1:
                columns.append(deep)
            return columns
    return None


def _from_obs(obs: pd.DataFrame, columns: list[str], where: str) -> tuple[DoubleArray, str]:
    found = f"obs[{', '.join(map(repr, columns))}]"
    return _checked(obs[columns], f"{where}.{found}"), found


def _checked(values: Any, where: str) -> DoubleArray:
    """Return coordinates as numbers, after the checks that `find_coordinates` promises."""
    if isinstance(values, pd.DataFrame):
        values = values.to_numpy()
    if hasattr(values, "toarray"):  # a sparse matrix
        values = values.toarray()
    try:
        coordinates = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            where, expected="numbers", got=f"values that are none ({error})", fix="Correct the coordinates."
        ) from error
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise InputError(
            where,
            expected="2 or 3 columns, one row per cell",
            got=f"shape {coordinates.shape}",
            fix="Keep the columns that are coordinates, or name others: coordinates='obs:X,Y'.",
        )
    bad = np.flatnonzero(~np.isfinite(coordinates).all(axis=1))
    if len(bad):
        raise InputError(
            where,
            expected="a finite number for every cell",
            got=f"NaN or infinity for {len(bad):,} of {len(coordinates):,} cells, the first at row {bad[0]}",
            fix="Drop these cells, or go on without coordinates: coordinates='none'.",
        )
    return coordinates
