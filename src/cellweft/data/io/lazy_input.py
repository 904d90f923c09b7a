"""One input as it was found: matrices that are not read yet, and annotation that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cellweft._errors import FormatError, KeyMissingError, arg, check_known
from cellweft._text import near
from cellweft._typing import IntArray
from cellweft.data.io.obs_table import Annotation

FORMATS = (
    ".h5ad, .zarr (AnnData or SpatialData), 10x .h5, a 10x folder with matrix.mtx, "
    ".csv, .tsv (also .gz) or .parquet"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Input:
    """One input as it was found, nothing of it checked yet.

    Attributes
    ----------
    where, source
        What errors call it, such as "sc (atlas.h5ad)"; and its path, or "AnnData in memory".
    matrix
        X, as `cellweft.data.io.backed_matrix.open_rows` takes it; None where the file has none.
    layers, obsm
        Further matrices, and arrays with a row per cell, read when they are asked for.
    obs, var
        Annotation of the rows, read as it is asked for, and of the columns that are genes.
    uns
        Whatever else the input holds, by name, read when it is asked for.
    columns
        Position in the matrix of each row of ``var``; None where every column is a gene.
    has_raw
        Whether there is a ``raw`` slot too, which is never taken silently.
    """

    where: str
    source: str
    matrix: Any
    obs: Annotation
    var: pd.DataFrame
    layers: Mapping[str, Any] = field(default_factory=dict)
    obsm: Mapping[str, Any] = field(default_factory=dict)
    uns: Mapping[str, Any] = field(default_factory=dict)
    columns: IntArray | None = None
    has_raw: bool = False

    def values(self, layer: str | None, *, argument: str) -> Any:
        """Return X, or the layer that ``argument`` names.

        Raises
        ------
        KeyMissingError
            There is none.
        """
        if layer is not None:
            where, expected = arg(argument, layer), f"a layer of {self.where}"
            check_known(layer, self.layers, where, expected=expected, got="no such layer")
            return self.layers[layer]
        if self.matrix is None:
            fix = "Name a layer with " + arg(argument) + f". {near('counts', self.layers)}"
            raise KeyMissingError(f"{self.where}.X", expected="a matrix of counts", got="none", fix=fix)
        return self.matrix


def not_as_named(path: Path, where: str, reason: str) -> FormatError:
    """Return the error for a file whose content belies its name, saying what it looks like."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(512)
    looks = "a file that cannot be read so"
    if not start:
        looks = "an empty file" if path.is_file() else "a folder that cannot be read so"
    elif start.startswith(b"\x80"):
        looks = "a pickle, which is never read"
    elif start.startswith(b"\x1f\x8b"):
        looks = "a file packed with gzip"
    elif start.startswith(b"\x89HDF"):
        looks = "an HDF5 file that is damaged or not complete"
    elif start.isascii() and b"\0" not in start:
        looks = "a text file"
    brief = " ".join(reason.split())[:120]
    fix = f"Check the name, or download it anew. Formats that are read: {FORMATS}."
    return FormatError(
        where, expected=f"content that matches its name {path.name!r}", got=f"{looks} ({brief})", fix=fix
    )
