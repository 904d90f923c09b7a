"""Folders of Slide-seq (Broad Institute) and Curio Seeker: counts by bead, and positions of the beads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellweft.data.instruments.base import CellTable, Part, find_run, joined
from cellweft.data.instruments.tables import open_counts, read_cells, read_counts_by_gene, read_header
from cellweft.data.io.lazy_input import Input

_COUNTS = (
    Part(names=("MappedDGEForR",), endings=(".csv", ".csv.gz")),
    Part(names=("MoleculesPerMatchedBead",), endings=(".mtx", ".mtx.gz")),
    Part(names=("digital_expression",), endings=(".txt.gz", ".txt")),
)
_BEADS = Part(
    names=("BeadLocationsForR", "MatchedBeadLocation", "bead_locations"), endings=(".csv", ".csv.gz")
)
_PLACES = (("xcoord", "ycoord"), ("x", "y"))


@dataclass(frozen=True)
class SlideSeq:
    """Reads ``MappedDGEForR.csv`` and ``BeadLocationsForR.csv``.

    For later releases, it reads ``*.digital_expression.txt.gz`` and ``*_bead_locations.csv``; for Curio
    Seeker, ``*_MoleculesPerMatchedBead.mtx``, with ``*_barcodes.tsv`` and ``*_genes.tsv``, and
    ``*_MatchedBeadLocation.csv``. Counts are genes x beads; the first column of the bead table contains their
    names. Positions are in pixels; those of Curio have no unit.
    """

    name: str = "Slide-seq"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        parts = (*_COUNTS[:2], _BEADS)  # Drop-seq also writes the others
        marks = [f"*{name}{ending}" for part in parts for name in part.names for ending in part.endings]
        run = find_run(path, where, sample, name=self.name, counts=_COUNTS, cells=(_BEADS,), marks=marks)
        if run is None:
            return None
        is_curio = ".mtx" in run.counts.name
        if is_curio:
            counts = open_counts(run.counts, where, run.sample)
        else:
            separator = "," if ".csv" in run.counts.name else "\t"
            counts = read_counts_by_gene(run.counts, where, separator=separator)
        key = read_header(run.cells, where)[:1]
        table = read_cells(run.cells, where, text=key)
        table = table.set_index(table[table.columns[0]].astype(str)).rename_axis(None)
        x, y = next((columns for columns in _PLACES if columns[0] in table.columns), _PLACES[0])
        cells = CellTable(table=table.iloc[:, 1:], x=x, y=y, unit="" if is_curio else "px", source=run.cells)
        return joined(counts, cells, instrument="Curio Seeker" if is_curio else self.name)
