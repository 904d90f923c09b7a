"""Folders of Visium HD (10x Genomics): bins of one size from Space Ranger, or cells."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft._typing import DoubleArray
from cellweft.data.instruments.base import CellTable, Part, find_run, joined
from cellweft.data.instruments.tables import named_as, open_counts
from cellweft.data.instruments.visium import Visium
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.tenx import chosen_name

_BINNED, _SEGMENTED = "binned_outputs", "segmented_outputs"
_COUNTS = Part(names=("filtered_feature_cell_matrix", "raw_feature_cell_matrix"), endings=(".h5", ""))
_CELLS = Part(names=("cell_segmentations", "graphclust_annotated_cell_segmentations"), endings=(".geojson",))
_MARKS = ("*_feature_cell_matrix.h5", "*cell_segmentations.geojson")
_USUAL = 8  # um; the size analysed by Space Ranger


@dataclass(frozen=True)
class VisiumHD:
    """Reads ``binned_outputs/square_008um``, or the folder of another size, or of cells, if requested.

    Coordinates are in pixels of the full image: centres of bins, centroids of cells. Bins with ``in_tissue``
    0 are left out.
    """

    name: str = "Visium HD"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        size = _bin_size(path) if path.is_dir() else None
        if size is not None:
            run = Visium(name=self.name).open(path, where, sample)
            return run and dataclasses.replace(run, instrument=f"{self.name}, bins of {size} um")
        cells = self._open_cells(path, where, sample)
        if cells is not None:
            return cells
        binned = path if path.name == _BINNED else path / _BINNED
        sizes = {} if not binned.is_dir() else {_bin_size(entry): entry for entry in sorted(binned.iterdir())}
        sizes.pop(None, None)
        if sample is not None and sizes:
            folders = {entry.name: entry for entry in sizes.values()}
            argument = f"{where.partition(' ')[0]}_sample"
            name = chosen_name([*folders], sample, where=where, argument=argument, what="size of bins")
            return self.open(folders[name], where)
        if not sizes:
            if not any(path.glob("*feature_slice.h5")):
                return None
            there = shorten(sorted(entry.name for entry in path.iterdir()), most=8)
            raise FormatError(
                where,
                expected=f"a run of {self.name}, with {_BINNED}/square_{_USUAL:03}um",
                got=f"a folder without {_BINNED}/: {there}",
                fix="Copy the missing folder into it.",
            )
        if len(sizes) > 1 and _USUAL not in sizes:
            raise FormatError(
                where,
                expected=f"bins of {_USUAL} um, or bins of a single size",
                got=f"bins of {_listed(sizes)}",
                fix=f"Pass the folder of one size: {str(next(iter(sizes.values())))!r}.",
            )
        size = _USUAL if _USUAL in sizes else next(iter(sizes))
        run = Visium(name=self.name).open(sizes.pop(size), where)
        others = f"; others in the folder: {_listed(sizes)}" if sizes else ""
        if (binned.parent / _SEGMENTED).is_dir():
            others += f"; its cells are in {_SEGMENTED}"
        return run and dataclasses.replace(run, instrument=f"{self.name}, bins of {size} um{others}")

    def _open_cells(self, path: Path, where: str, sample: str | None) -> Input | None:
        """Open the cells of a run if their folder is requested; parameters as in `Instrument.open`."""
        inside = path / _SEGMENTED
        if inside.is_dir() and (sample == _SEGMENTED or not (path / _BINNED).is_dir()):
            path, sample = inside, None
        run = find_run(
            path, where, sample, name=f"{self.name}, cells", counts=(_COUNTS,), cells=(_CELLS,), marks=_MARKS
        )
        if run is None:
            return None
        cells = CellTable(table=_read_centroids(run.cells, where), x="x", y="y", unit="px", source=run.cells)
        return joined(open_counts(run.counts, where, run.sample), cells, instrument=f"{self.name}, cells")


def _read_centroids(path: Path, where: str) -> pd.DataFrame:
    """Read positions and areas of the cells of a GeoJSON, in pixels, by the names in the counts."""
    with named_as(path, where):
        features = json.loads(path.read_bytes())["features"]
        numbers = [feature["properties"]["cell_id"] for feature in features]
        table = _centroids([_outline(feature["geometry"]) for feature in features])
    return table.set_axis(
        [number if isinstance(number, str) else f"cellid_{number:09}-1" for number in numbers]
    )


def _outline(geometry: Mapping[str, Any]) -> DoubleArray:
    """Return the closed outline of a polygon, the longest of several: (n_corners, 2)."""
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    corners = np.array(max((part[0] for part in parts), key=len), dtype=np.float64)[:, :2]
    return np.concatenate([corners, corners[:1]])


def _centroids(outlines: Sequence[DoubleArray]) -> pd.DataFrame:
    """Return the centroids of closed polygons, x and y, and their areas, ``cell_area``."""
    lengths = [*map(len, outlines)]
    first = np.stack([outline[0] for outline in outlines])
    x, y = (np.concatenate(outlines) - np.repeat(first, lengths, axis=0)).T
    # Twice the area between a side and the first corner; 0 between two cells, as both ends are first corners.
    twice = np.append(x[:-1] * y[1:] - x[1:] * y[:-1], 0.0)
    moments = [twice, *(np.append(coordinate[:-1] + coordinate[1:], 0.0) * twice for coordinate in (x, y))]
    area, x_moment, y_moment = np.add.reduceat(moments, np.cumsum([0, *lengths[:-1]]), axis=1)
    thrice = 3 * np.where(area == 0, 1.0, area)  # a line or point is at its first corner
    table = {"x": first[:, 0] + x_moment / thrice, "y": first[:, 1] + y_moment / thrice}
    return pd.DataFrame(table | {"cell_area": np.abs(area) / 2})


def _bin_size(path: Path) -> int | None:
    """Return the size of the bins in micrometres, from the name of a folder."""
    match = re.fullmatch(r"square_(\d+)um", path.resolve().name)
    return None if match is None else int(match[1])


def _listed(sizes: dict[int | None, Path]) -> str:
    return ", ".join(f"{size} um" for size in sizes)
