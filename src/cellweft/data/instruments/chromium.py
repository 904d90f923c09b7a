"""Folders of dissociated cells (10x Genomics), as Cell Ranger writes them: counts without coordinates."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cellweft.data.instruments.base import chosen_sample
from cellweft.data.instruments.tables import open_counts
from cellweft.data.instruments.visium import COUNTS
from cellweft.data.io.lazy_input import Input


@dataclass(frozen=True)
class Chromium:
    """Reads ``filtered_feature_bc_matrix.h5`` (or its folder), for a run without tissue."""

    name: str = "Chromium"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        files = COUNTS.files(path) if path.is_dir() else {}
        if not files:
            return None
        file = files[chosen_sample(files, sample, where=where, name=self.name)]
        # If coordinates are requested, the error names the file that would contain them.
        where = f"{where}, {file.name} without spatial/tissue_positions.csv"
        return dataclasses.replace(open_counts(file, where), instrument=self.name)
