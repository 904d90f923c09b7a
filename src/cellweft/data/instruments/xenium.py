"""Folders of Xenium (10x Genomics), from Onboard Analysis or Xenium Ranger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellweft.data.instruments.base import CellTable, Part, check_columns, find_run, joined
from cellweft.data.instruments.tables import open_counts, read_cells
from cellweft.data.io.features import only_genes
from cellweft.data.io.lazy_input import Input, not_as_named
from cellweft.data.io.obs_table import HeldTable

_ZARR = ".zarr.zip"
_COUNTS = Part(names=("cell_feature_matrix",), endings=(".h5", "", _ZARR))
_CELLS = Part(names=("cells",), endings=(".parquet", ".csv.gz", ".csv", _ZARR))
_MANIFEST = "experiment.xenium"
_KEY, _X, _Y = "cell_id", "x_centroid", "y_centroid"
_SUMMARY = (
    "cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x", "nucleus_centroid_y",
    "nucleus_area", "z_level", "nucleus_count",
)  # fmt: skip
"""Columns of ``cell_summary`` in ``cells.zarr.zip``, if the file does not name them."""


@dataclass(frozen=True)
class Xenium:
    """Reads ``cell_feature_matrix.h5`` (or its folder) and ``cells.parquet`` (or ``cells.csv.gz``).

    If these are missing, it reads the archives of Xenium Explorer, ``cell_feature_matrix.zarr.zip`` and
    ``cells.zarr.zip``. Centroids are in micrometres.
    """

    name: str = "Xenium"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        path = path.parent if path.name == _MANIFEST else path
        marks = (_MANIFEST, *(f"*cell_feature_matrix{ending}" for ending in _COUNTS.endings))
        run = find_run(path, where, sample, name=self.name, counts=(_COUNTS,), cells=(_CELLS,), marks=marks)
        if run is None:
            return None
        is_zarr = [file.name.endswith(_ZARR) for file in (run.counts, run.cells)]
        counts = _zarr_counts(run.counts, where) if is_zarr[0] else open_counts(run.counts, where)
        table = _zarr_cells(run.cells, where) if is_zarr[1] else read_cells(run.cells, where, text=(_KEY,))
        check_columns(table, (_KEY,), f"{where}, {run.cells.name}")
        table = table.set_index(table[_KEY].astype(str)).rename_axis(None)
        cells = CellTable(table=table, x=_X, y=_Y, unit="um", source=run.cells)
        return joined(counts, cells, instrument=self.name)


@contextmanager
def _archive(path: Path, where: str) -> Iterator[Any]:
    """Open a zipped zarr store; missing or damaged elements raise `FormatError`."""
    import zarr

    if not is_zipfile(path):
        raise not_as_named(path, f"{where}, {path.name}", "its list of contents is missing")
    try:
        with zarr.storage.ZipStore(path, mode="r") as store:
            yield zarr.open_group(store, mode="r")
    except (BadZipFile, LookupError, ValueError, TypeError) as error:
        raise not_as_named(path, f"{where}, {path.name}", str(error)) from error


def _zarr_counts(path: Path, where: str) -> Input:
    """Read ``cell_feature_matrix.zarr.zip``, whose sparse matrix is features x cells."""
    with _archive(path, where) as store:
        group = store["cell_features"]
        attributes = dict(group.attrs)
        names, ids, kinds = (attributes[f"feature_{key}"] for key in ("keys", "ids", "types"))
        cells = _cell_names(group["cell_id"][:])
        parts = tuple(group[key][:] for key in ("data", "indices", "indptr"))
        matrix = sp.csr_matrix(parts, shape=(len(names), len(cells))).T.tocsr()
    var = pd.DataFrame({"gene_ids": ids, "feature_types": kinds}, index=pd.Index(names))
    obs = HeldTable(pd.DataFrame(index=pd.Index(cells)))
    return only_genes(Input(where=where, source=str(path), matrix=matrix, obs=obs, var=var))


def _zarr_cells(path: Path, where: str) -> pd.DataFrame:
    """Read ``cells.zarr.zip``, with column names as in ``cells.parquet``."""
    with _archive(path, where) as store:
        summary = store["cell_summary"]
        columns = list(summary.attrs.get("column_names", _SUMMARY))[: summary.shape[1]]
        table = pd.DataFrame(summary[:, : len(columns)], columns=columns)
        table.insert(0, _KEY, _cell_names(store["cell_id"][:]))
    return table.rename(columns={"cell_centroid_x": _X, "cell_centroid_y": _Y})


def _cell_names(numbers: Any) -> list[str]:
    """Return names of cells, such as ``ffkpbaba-1``: eight hexadecimal digits, a to p, and the dataset."""
    if numbers.ndim == 1 or numbers.shape[1] == 1:
        return [str(number) for number in np.ravel(numbers)]
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return [f"{f'{cell:08x}'.translate(letters)}-{dataset}" for cell, dataset in numbers.tolist()]
