"""Folders of Visium (10x Genomics), as Space Ranger writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cellweft.data.instruments.base import CellTable, Part, check_columns, find_run, joined
from cellweft.data.instruments.tables import open_counts, read_cells, read_header
from cellweft.data.io.lazy_input import Input

COUNTS = Part(names=("filtered_feature_bc_matrix", "raw_feature_bc_matrix"), endings=(".h5", ""))
"""Counts of a run of Space Ranger or Cell Ranger: those of cells, otherwise those of all barcodes."""
_MATRIX = Part(names=("matrix",), endings=(".mtx.gz", ".mtx"))
_NAMES, _ENDINGS = ("tissue_positions", "tissue_positions_list"), (".csv", ".csv.gz", ".parquet")
_CELLS = (Part(names=_NAMES, endings=_ENDINGS, folder="spatial"), Part(names=_NAMES, endings=_ENDINGS))
_MARKS = (
    "spatial/*tissue_positions*", "spatial/*scalefactors_json.json*", "spatial/*tissue_*res_image.png*",
    "*tissue_positions*.csv*", "*tissue_positions*.parquet", "*spatial.tar*", "*spatial.tgz",
)  # fmt: skip
_COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")


@dataclass(frozen=True)
class Visium:
    """Reads ``filtered_feature_bc_matrix.h5`` (or its folder) and the table of positions in ``spatial/``.

    Coordinates are in pixels of the full image. Spots with ``in_tissue`` 0 are left out.
    """

    name: str = "Visium"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        path = path.parent if path.is_dir() and path.name == "spatial" else path
        run = find_run(
            path, where, sample, name=self.name, counts=(COUNTS, _MATRIX), cells=_CELLS, marks=_MARKS
        )
        if run is None:
            return None
        table = _positions(run.cells, where)
        cells = CellTable(
            table=table,
            x="pxl_col_in_fullres",
            y="pxl_row_in_fullres",
            unit="px",
            source=run.cells,
            left_out={"outside tissue (in_tissue 0)": (table["in_tissue"] == 0).to_numpy()},
        )
        return joined(open_counts(run.counts, where, run.sample), cells, instrument=self.name)


def _positions(path: Path, where: str) -> pd.DataFrame:
    """Read a table of positions; before version 2, Space Ranger wrote it without a header."""
    has_header = path.suffix == ".parquet" or _COLUMNS[0] in read_header(path, where)
    table = read_cells(path, where, text=_COLUMNS[:1], header=None if has_header else _COLUMNS)
    check_columns(table, _COLUMNS, f"{where}, {path.name}")
    return table.set_index(table[_COLUMNS[0]].astype(str)).rename_axis(None).drop(columns=_COLUMNS[0])
