"""Folders of instruments with images and shapes, read by spatialdata-io.

`cellweft.data.instruments` reads only counts and coordinates, without that package.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from cellweft._errors import FormatError, MissingFileError, check_choice, checks_kinds, require
from cellweft._text import shorten
from cellweft._typing import PathLike

Platform: TypeAlias = Literal["xenium", "merscope", "cosmx", "visium", "visium_hd"]

_EXTRA = "platforms"
# What the reader of a platform reads in addition to cells or spots by default.
_MORE_THAN_CELLS = {"xenium": ("nucleus_boundaries", "cells_labels", "nucleus_labels")}

# Names of the image arguments of each reader.
_IMAGES = {"xenium": ("morphology_mip", "morphology_focus", "aligned_images"), "merscope": ("mosaic_images",)}

# Files in the folder of each platform.
_FILES = {
    "xenium": ("experiment.xenium",),
    "merscope": ("cell_by_gene.csv", "cell_metadata.csv"),
    "cosmx": ("*_exprMat_file.csv*", "*_metadata_file.csv*"),
    "visium": ("*filtered_feature_bc_matrix.h5", "spatial"),
    "visium_hd": ("*feature_slice.h5",),
}


@checks_kinds
def read_platform(
    platform: Platform,
    folder: PathLike,
    *,
    images: bool = False,
    transcripts: bool = False,
    bin_size: int | None = None,
) -> Any:
    """Read the output folder of an instrument or its vendor's software.

    Parameters
    ----------
    platform
        "xenium", "merscope", "cosmx", "visium" or "visium_hd".
    folder
        The vendor's output folder.
    images, transcripts
        Whether to also read images and single molecules, which cellweft does not need. Images of CosMx,
        Visium and Visium HD are always opened, but not loaded.
    bin_size
        For Visium HD, the side of the bins in micrometres: 2, 8 or 16; by default 8.

    Returns
    -------
    SpatialData
        You can pass it to `cellweft.pair`, and save it with its ``write``. The positions in
        ``obsm["spatial"]`` of the table are in micrometres for Xenium and MERSCOPE, pixels of the full image
        for Visium and Visium HD, and pixels of the whole slide for CosMx (those within a field of view are in
        ``obsm["local"]``).

    Raises
    ------
    MissingFileError
        No such folder.
    FormatError
        It does not contain the files of the platform, or they cannot be read.
    SettingError
        No such platform.
    MissingExtraError
        The package spatialdata-io is not installed.

    Notes
    -----
    The folder is read by spatialdata-io. See its documentation for the files that each platform requires.
    """
    check_choice("platform", platform, tuple(_FILES))
    path = Path(folder).expanduser()
    where = f"folder ({path})"
    if not path.is_dir():
        raise MissingFileError(
            where, expected="a folder", got="no folder at this path", fix="Check the path."
        )
    lacking = [name for name in _FILES[platform] if not any(path.glob(name))]
    if lacking:
        raise FormatError(
            where,
            expected=f"the output of {platform}, with {shorten(_FILES[platform])}",
            got=f"no {lacking[0]!r} among {shorten(sorted(one.name for one in path.iterdir())) or 'nothing'}",
            fix="Pass the folder that contains it, or choose the right platform.",
        )
    reader = getattr(require("spatialdata_io", _EXTRA), platform)
    left_out = [*_MORE_THAN_CELLS.get(platform, ()), *(() if images else _IMAGES.get(platform, ()))]
    options: dict[str, Any] = dict.fromkeys(left_out, False) | {"transcripts": transcripts}
    if platform == "xenium":
        options["cells_as_circles"] = True
    if platform in ("xenium", "merscope"):
        options["cells_boundaries"] = (path / "cell_boundaries.parquet").exists()
    if platform == "visium_hd":
        options |= {"bin_size": bin_size or 8, "load_segmentations_only": False}
    if platform == "visium" and (path / "filtered_feature_bc_matrix.h5").exists():
        options["dataset_id"] = path.resolve().name  # otherwise the start of that file's name
    parameters = inspect.signature(reader).parameters
    try:
        data = reader(path, **{name: value for name, value in options.items() if name in parameters})
    except (LookupError, ValueError, TypeError, OSError, AssertionError, AttributeError) as error:
        raise FormatError(
            where,
            expected=f"a folder that spatialdata-io reads as {platform}",
            got=f"the error: {' '.join(str(error).split())[:200] or type(error).__name__}",
            fix="Check that the folder is complete and from a software version that spatialdata-io supports.",
        ) from error
    for table in data.tables.values():
        _put_places(table)
    return data


def _put_places(table: Any) -> None:
    """Set ``obsm["spatial"]`` to positions on the whole slide, if it contains those in a field of view."""
    if "global" in table.obsm and "spatial" in table.obsm:
        table.obsm["local"] = table.obsm["spatial"]
        table.obsm["spatial"] = np.asarray(table.obsm["global"], dtype=np.float64)
