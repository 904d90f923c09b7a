"""Columns of ``obs`` and keys of ``obsm`` with common names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import InputError, arg, check_known
from cellweft._text import shorten
from cellweft.data.io.obs_table import Annotation

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
"""Columns of `obs` (in any case) with coordinates; the third may be missing."""
SLICE_KEYS: tuple[str, ...] = (
    "section", "slice", "slice_id", "section_id", "brain_section_label", "library_id", "sample",
    "sample_id", "bregma",
)  # fmt: skip
SECTION_KEYS: tuple[str, ...] = (
    "batch", "batch_id", "orig_ident", "sample_name", "slide", "slide_id", "slide_name", "slideid",
    "section_name", "slice_name", "library", "library_name", "capture_area", "puck", "puck_id", "chip",
    "chip_id",
)  # fmt: skip
"""Columns of `obs` (``_`` for any separator) that usually contain sections."""
REGION_KEYS: tuple[str, ...] = (
    "region", "region_id", "region_name", "roi", "core", "core_id", "animal", "animal_id", "mouse",
    "mouse_id", "donor", "donor_id", "patient", "patient_id", "subject", "replicate", "run", "run_id",
    "dataset", "dataset_id", "experiment", "fov", "fov_id",
)  # fmt: skip
"""Columns of `obs` that contain sections, or parts of a section; this depends on the coordinates."""
BATCH_KEYS: tuple[str, ...] = (
    "dataset", "dataset_id", "dataset_name", "study", "study_id", "source", "batch", "batch_id", "tech",
    "technology", "platform", "assay", "chemistry", "protocol", "method", "library_id",
    "sample", "sample_id", "sample_name", "orig_ident", "library",
    "donor", "donor_id", "patient", "patient_id", "subject", "subject_id", "animal",
    "animal_id", "mouse", "mouse_id", "replicate", "run", "run_id", "experiment",
)  # fmt: skip
"""Columns of `obs` (``_`` for any separator) with the origin of the cells of a reference."""
SECTION_WORDS = re.compile(
    r"(^|_)(sections?|slices?|slides?|coverslips?|samples?|specimens?|batch|librar(y|ies)|images?|scans?"
    r"|blocks?|arrays?|wells?|lanes?|cores?|tma|chips?|pucks?|cartridges?|panels?|regions?|areas?|rois?"
    r"|donors?|animals?|mouse|individuals?|patients?|case|cohort|biops(y|ies)|embryos?|subjects?"
    r"|replicates?|runs?|experiments?|datasets?|fovs?|tissue|condition|treatment|group|genotype|disease"
    r"|diagnosis|status|age|day|dpi|time|timepoint|stage|z|z_level|z_plane|plane|hemisphere)"
    r"_?(ids?|names?|labels?|numbers?|no|nr|num|index|code|keys?|sets?|versions?)?$"
)
"""Other names (``_`` for any separator) of columns of `obs` that may contain sections."""
LABEL_KEYS: tuple[str, ...] = (
    "cell_type", "celltype", "cell_types", "celltypes", "cell_type_original", "celltype_original",
    "cell_class", "subclass", "subclass_label", "class_label", "annotation", "cluster", "clusters",
    "leiden", "louvain",
)  # fmt: skip


def column_of(
    table: pd.DataFrame | Annotation, name: str, *, where: str, argument: str, slot: str = "obs"
) -> pd.Series[Any]:
    """Return a column, or raise `KeyMissingError` with similar names."""
    expected = f"a column of {slot} of {where}"
    check_known(name, table.columns, arg(argument, name), expected=expected, got="no such column")
    n_alike = [str(column) for column in table.columns].count(str(name))
    if n_alike > 1:
        raise InputError(
            arg(argument, name),
            expected=f"a single column of {slot} of {where} with this name",
            got=f"{n_alike}",
            fix="Rename all but one of them.",
        )
    return table[name]


def text_labels(values: pd.Series[Any]) -> NDArray[np.str_]:
    """Return values as text; missing ones become "unknown".

    Each distinct text is stored once; the array contains references, with eight bytes per cell.
    """
    codes, kinds = pd.factorize(values)  # missing values have code -1
    text: NDArray[Any] = np.array([*map(str, pd.Series(kinds)), "unknown"], dtype=object)
    same: dict[str, str] = {}
    text[:] = [same.setdefault(value, value) for value in text]
    return text[codes]


def in_order_of(values: Any, names: pd.Index[Any], *, argument: str) -> Any:
    """Return a pandas table or column with its rows in the order of cells; other values are unchanged.

    Parameters
    ----------
    values
        Values for the cells. The index of a table or column contains their names, in any order, and may
        contain other names. If the index only counts the rows, the order is that of the cells.
    names
        (n_cells,) names of the cells.
    argument
        Name of the argument in errors.

    Raises
    ------
    InputError
        The index contains other cells, or duplicate cells.

    Examples
    --------
    >>> in_order_of(pd.Series([1, 2], index=["b", "a"]), pd.Index(["a", "b"]), argument="values").tolist()
    [2, 1]
    """
    if not isinstance(values, pd.DataFrame | pd.Series) or values.index.equals(names):
        return values
    row_names, cells = values.index.astype(str), names.astype(str)
    if np.array_equal(values.index, np.arange(len(values))) or row_names.equals(cells):
        return values
    if row_names.is_unique and cells.is_unique and cells.isin(row_names).all():
        return values.iloc[row_names.get_indexer(cells)]
    n_known = int(cells.isin(row_names).sum())
    raise InputError(
        argument,
        expected=f"an index with the names of the {len(cells):,} cells, each once",
        got=f"an index that has {n_known:,} of them, such as {shorten(row_names[:3].tolist())}",
        fix="If the rows are in the order of the cells, pass them without the index: values.to_numpy().",
    )


NO_VALUE = {"", "nan", "<na>", "na", "n/a", "none", "null"}
"""Texts that mean a missing value, in any case."""
_NO_TYPE = NO_VALUE | {
    "unknown", "unassigned", "not assigned", "unlabelled", "unlabeled", "undefined",
}  # fmt: skip
"""Texts that mean a cell without a type, in any case."""


def type_labels(values: pd.Series[Any]) -> NDArray[np.str_]:
    """Return cell types as text, "unknown" for cells without one.

    Parameters
    ----------
    values
        (n_cells,)

    Notes
    -----
    Spaces around a name are ignored. Whole numbers that pandas stores as floats, because some are missing,
    become whole again. Names in `_NO_TYPE` mean no type.

    Examples
    --------
    >>> type_labels(pd.Series(["B cell ", "B cell", "Unassigned", None])).tolist()
    ['B cell', 'B cell', 'unknown', 'unknown']
    >>> type_labels(pd.Series([0.0, 12.0, np.nan])).tolist()
    ['0', '12', 'unknown']
    """
    codes, kinds = pd.factorize(values)  # missing values have code -1
    is_whole = kinds.dtype.kind == "f" and bool((np.asarray(kinds) % 1 == 0).all())
    names = [str(int(kind)) if is_whole else str(kind).strip() for kind in pd.Series(kinds)]
    names = ["unknown" if name.lower() in _NO_TYPE else name for name in names]
    return text_labels(pd.Series(np.array([*names, "unknown"], dtype=object)[codes]))


_FEWEST_GROUPED = 20  # number of cells from which single-cell groups are not groups


def most_groups(n_cells: int, values: pd.Series[Any]) -> int:
    """Return the largest number of distinct values in a column of groups, such as types or slices.

    Columns with a name per cell, or with measurements, have more.
    """
    if n_cells < _FEWEST_GROUPED:
        return n_cells
    is_measured = pd.api.types.is_float_dtype(values.dtype) and bool((values.dropna() % 1 != 0).any())
    return n_cells // (10 if is_measured else 2)


def check_groups(values: pd.Series[Any], where: str, *, what: str) -> None:
    """Raise `InputError` if a column for groups has different values in nearly all cells.

    Parameters
    ----------
    values
        (n_cells,)
    where
        Name of the column in errors.
    what
        Name of the groups: "cell type".
    """
    kinds = pd.unique(values.dropna())
    some = shorten([*map(str, kinds[:9])], most=3)
    if len(kinds) > most_groups(len(values), values):
        raise InputError(
            where,
            expected=f"a {what} that several cells share",
            got=(
                f"{len(kinds):,} different values for {len(values):,} cells ({some}), which look like "
                "names or measurements"
            ),
            fix=f"Choose a column in which all cells of a {what} have the same value.",
        )


def cell_types(values: pd.Series[Any], where: str) -> NDArray[np.str_]:
    """Return the cell types in a column, as `type_labels` does; parameters as in `check_groups`."""
    check_groups(values, where, what="cell type")
    return type_labels(values)


def usual_columns(obs: Annotation) -> list[str] | None:
    """Return the columns with names of coordinates, or None."""
    by_name = {name.lower(): name for name in reversed(obs.columns)}  # the first of several equal names
    for x, y, z in OBS_KEYS:
        if x in by_name and y in by_name:
            columns = [by_name[x], by_name[y]]
            deep = by_name.get(z)
            # A constant z is the number of a plane, not a third dimension.
            if deep and pd.api.types.is_numeric_dtype(obs[deep]) and len(obs[deep].unique()) > 1:
                columns.append(deep)
            return columns
    return None


_PLACE_WORDS = re.compile(r"spatial|coord|position|location|centroid|(^|_)xy(z)?(_|$)", re.IGNORECASE)
_LOCAL = re.compile(r"local|fov", re.IGNORECASE)
_NO_PLACE = re.compile(r"umap|tsne|t-sne|pca|phate|embed|latent|neighbor|network|graph", re.IGNORECASE)


def plain_name(name: object) -> str:
    """Return a name in lower case, with one ``_`` for each run of separators."""
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def likely_coordinates(obs: Annotation, obsm: Mapping[str, Any]) -> list[str]:
    """Return columns and keys that look like coordinates, in the form of the argument ``coordinates``.

    Parameters
    ----------
    obs, obsm
        Tables of the spatial side.

    Returns
    -------
    For example ``["obsm:spatial_um", "obs:x_slide_mm,y_slide_mm"]``; bounds of cells, ``min_x``, and
    positions within a field of view, ``CenterX_local_px``, are last.

    Examples
    --------
    >>> from cellweft.data.io.obs_table import HeldTable
    >>> obs = HeldTable(pd.DataFrame({"xcoord": [1.0], "ycoord": [2.0], "max_intensity": [3.0]}))
    >>> likely_coordinates(obs, {"X_umap": 0})
    ['obs:xcoord,ycoord']
    """
    arrays = [f"obsm:{key}" for key in obsm if _PLACE_WORDS.search(key) and not _NO_PLACE.search(key)]
    names = {name for name in obs.columns if not _NO_PLACE.search(name)}
    pairs = []
    for name in obs.columns:
        partner = (
            next((candidate for candidate in _partners(name) if candidate in names), None)
            if name in names
            else None
        )
        if partner is None or not all(
            pd.api.types.is_numeric_dtype(obs[candidate]) for candidate in (name, partner)
        ):
            continue
        pairs.append(f"obs:{name},{partner}")
    bounds = re.compile(r"^obs:(min|max)|[-_. ](min|max)[-_. ,]", re.IGNORECASE)
    ranked = sorted(
        pairs, key=lambda candidate: 2 * bool(bounds.search(candidate)) + bool(_LOCAL.search(candidate))
    )
    return sorted([*arrays, *ranked], key=lambda candidate: bool(_LOCAL.search(candidate)))


def _partners(name: str) -> list[str]:
    """Return possible names of the second coordinate, given the first."""
    partners = [
        name[: match.start()] + ("y" if match[0] == "x" else "Y") + name[match.end() :]
        for match in re.finditer("x", name, re.IGNORECASE)
    ]
    partners += [
        re.sub(old, new, name) for old, new in (("col", "row"), ("Col", "Row"), ("COL", "ROW")) if old in name
    ]
    number = re.fullmatch(r"(.*)([01])", name)
    if number and _PLACE_WORDS.search(name):
        partners.append(f"{number[1]}{int(number[2]) + 1}")
    return partners
