"""Columns of ``obs`` and keys of ``obsm`` by their usual names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import arg, check_known
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
"""Columns of `obs` (in any case) that hold coordinates; the third may be missing."""
SLICE_KEYS: tuple[str, ...] = (
    "section", "slice", "slice_id", "section_id", "brain_section_label", "library_id", "sample",
    "sample_id", "bregma",
)  # fmt: skip
LABEL_KEYS: tuple[str, ...] = (
    "cell_type", "celltype", "cell_types", "celltypes", "cell_type_original", "celltype_original",
    "cell_class", "subclass", "subclass_label", "class_label", "annotation", "cluster", "clusters",
    "leiden", "louvain",
)  # fmt: skip


def column_of(
    table: pd.DataFrame | Annotation, name: str, *, where: str, argument: str, slot: str = "obs"
) -> pd.Series[Any]:
    """Return a column, or raise `KeyMissingError` that names the near ones."""
    expected = f"a column of {slot} of {where}"
    check_known(name, table.columns, arg(argument, name), expected=expected, got="no such column")
    return table[name]


def text_labels(values: pd.Series[Any]) -> NDArray[np.str_]:
    """Return values as text, those that are missing as "unknown".

    Each text is held once, however many cells have it: the array refers to it, at eight bytes per cell.
    """
    codes, kinds = pd.factorize(values)  # a missing one has code -1
    text: NDArray[Any] = np.array([*map(str, pd.Series(kinds)), "unknown"], dtype=object)
    same: dict[str, str] = {}
    text[:] = [same.setdefault(one, one) for one in text]
    return text[codes]


def usual_columns(obs: Annotation) -> list[str] | None:
    """Return the columns that by their names hold coordinates, or None."""
    known = {name.lower(): name for name in reversed(obs.columns)}  # the first where several are alike
    for x, y, z in OBS_KEYS:
        if x in known and y in known:
            columns = [known[x], known[y]]
            deep = known.get(z)
            # A z that stands still is a plane's number, and makes no third dimension.
            if deep and pd.api.types.is_numeric_dtype(obs[deep]) and len(obs[deep].unique()) > 1:
                columns.append(deep)
            return columns
    return None
