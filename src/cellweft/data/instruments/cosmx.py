"""Folders of CosMx (NanoString, Bruker): flat files from AtoMx, and those of public releases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cellweft.data.instruments.base import CellTable, Part, check_columns, find_run, joined
from cellweft.data.instruments.tables import read_cells, read_counts
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable

_COUNTS = Part(names=("exprMat_file",), endings=(".csv", ".csv.gz"))
_CELLS = Part(names=("metadata_file",), endings=(".csv", ".csv.gz", ".parquet"))
_FOV, _CELL = "fov", "cell_ID"
_NO_GENES = (_FOV, _CELL, "cell", "cell_id", "slide_ID", "slide_ID_numeric", "Run_Tissue_name", "version")
_PLACES = (("CenterX_global_px", "CenterY_global_px", "px"), ("x_slide_mm", "y_slide_mm", "mm"))
_NUMBER = r"^(?:[Ff](?:OV)?)?0*(\d+)(?:\.0+)?$"
"""How tools write the number of a cell, or of a field of view: 3, 3.0, 003, F003."""


@dataclass(frozen=True)
class Cosmx:
    """Reads ``*_exprMat_file.csv`` and ``*_metadata_file.csv``.

    The name of a cell consists of its number and that of its field of view, for example ``3_1``; cell 0 of a
    field contains the transcripts outside cells. Centres are in pixels of the whole slide.
    """

    name: str = "CosMx"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        marks = ("*exprMat_file.csv", "*exprMat_file.csv.gz", "*metadata_file.csv", "*metadata_file.csv.gz")
        run = find_run(path, where, sample, name=self.name, counts=(_COUNTS,), cells=(_CELLS,), marks=marks)
        if run is None:
            return None
        counts, keys = read_counts(run.counts, where, keys=_NO_GENES)
        names = _names(keys, f"{where}, {run.counts.name}")
        table = read_cells(run.cells, where, text=(_FOV, _CELL))
        is_none = keys[_CELL].str.fullmatch(r"0+(\.0+)?").to_numpy(dtype=bool)
        x, y, unit = next((place for place in _PLACES if place[0] in table.columns), _PLACES[0])
        return joined(
            dataclasses.replace(counts, obs=HeldTable(pd.DataFrame(index=names))),
            CellTable(
                table=table.set_index(_names(table, f"{where}, {run.cells.name}")),
                x=x,
                y=y,
                unit=unit,
                source=run.cells,
            ),
            no_cells={"numbered 0, for transcripts outside cells": is_none},
            instrument=self.name,
        )


def _names(table: pd.DataFrame, where: str) -> pd.Index[str]:
    check_columns(table, (_FOV, _CELL), where)
    cell, fov = (
        table[name].astype(str).str.strip().str.replace(_NUMBER, r"\1", regex=True) for name in (_CELL, _FOV)
    )
    return pd.Index(cell + "_" + fov)
