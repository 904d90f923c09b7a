"""Folders of MERSCOPE (Vizgen), from the instrument or from its post-processing tool."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cellweft.data.instruments.base import CellTable, Part, find_run, joined
from cellweft.data.instruments.tables import read_cells, read_counts, read_header
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable

_COUNTS = Part(names=("cell_by_gene",), endings=(".csv", ".csv.gz"))
_CELLS = Part(names=("cell_metadata",), endings=(".csv", ".csv.gz", ".parquet"))
_KEYS = ("EntityID", "cell", "cell_id", "id")
_X, _Y = "center_x", "center_y"


@dataclass(frozen=True)
class Merscope:
    """Reads ``cell_by_gene.csv`` and ``cell_metadata.csv``.

    Centres are in micrometres. The first column of both tables contains the names of the cells, with any
    header, unless the second table has a column ``EntityID``.
    """

    name: str = "MERSCOPE"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        marks = ("*cell_by_gene*.csv", "*cell_by_gene*.csv.gz")
        run = find_run(path, where, sample, name=self.name, counts=(_COUNTS,), cells=(_CELLS,), marks=marks)
        if run is None:
            return None
        number, *others = read_header(run.counts, where) or [""]
        # a first column without a name may only number the rows, as pandas writes them
        key = next((name for name in others[:1] if number == "" and name in _KEYS), number)
        counts, keys = read_counts(run.counts, where, keys=[key, number])
        counts = dataclasses.replace(counts, obs=HeldTable(keys[[key]].set_index(key).rename_axis(None)))
        first = [] if run.cells.suffix == ".parquet" else read_header(run.cells, where)[:1]
        table = read_cells(run.cells, where, text=(*first, *_KEYS))
        headers = (_KEYS[0], *first, *_KEYS)
        if first == [""] and len(table.columns) > 1 and table.columns[1] in _KEYS:
            headers = (_KEYS[0], *_KEYS)
        key = next((name for name in headers if name in table.columns), table.columns[0])
        table = table.set_index(table[key].astype(str)).rename_axis(None).drop(columns=key)
        return joined(
            counts, CellTable(table=table, x=_X, y=_Y, unit="um", source=run.cells), instrument=self.name
        )
