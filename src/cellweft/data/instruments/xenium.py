"""Folders of Xenium (10x Genomics), of Onboard Analysis and of Xenium Ranger alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellweft.data.instruments.base import CellTable, Part, check_columns, find_run, joined
from cellweft.data.instruments.tables import open_counts, read_cells
from cellweft.data.io.lazy_input import Input

_COUNTS = Part(names=("cell_feature_matrix",), endings=(".h5", ""))
_CELLS = Part(names=("cells",), endings=(".parquet", ".csv.gz", ".csv"))
_MANIFEST = "experiment.xenium"
_KEY, _X, _Y = "cell_id", "x_centroid", "y_centroid"


@dataclass(frozen=True)
class Xenium:
    """Reads ``cell_feature_matrix.h5`` (or its folder) and ``cells.parquet`` (or ``cells.csv.gz``).

    Centroids are micrometres.
    """

    name: str = "Xenium"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        path = path.parent if path.name == _MANIFEST else path
        marks = (_MANIFEST, "*cell_feature_matrix", "*cell_feature_matrix.h5")
        run = find_run(path, where, sample, name=self.name, counts=(_COUNTS,), cells=(_CELLS,), marks=marks)
        if run is None:
            return None
        counts, table = open_counts(run.counts, where), read_cells(run.cells, where, text=(_KEY,))
        check_columns(table, (_KEY,), f"{where}, {run.cells.name}")
        table = table.set_index(table[_KEY].astype(str)).rename_axis(None)
        cells = CellTable(table=table, x=_X, y=_Y, unit="um", source=run.cells)
        return joined(counts, cells, instrument=self.name)
