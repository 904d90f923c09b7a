"""One opened input: matrices that are not read yet, and annotation."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cellweft._errors import FormatError, KeyMissingError, arg, check_known
from cellweft._text import near
from cellweft._typing import IntArray
from cellweft.data.io.damaged import reading, system_error
from cellweft.data.io.obs_table import Annotation

FORMATS = (
    ".h5ad, .zarr (AnnData or SpatialData), .h5mu, .loom, 10x .h5, a 10x folder with matrix.mtx, "
    "the folder of an instrument's run, .gem, .csv, .tsv (also .gz) or .parquet"
)

RAW = "raw"
"""Name of the ``raw`` slot as a layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Input:
    """One opened input, not checked yet.

    Attributes
    ----------
    where, source
        Name of the input in errors, such as "sc (atlas.h5ad)"; and its path, or "AnnData in memory".
    matrix
        X, as in `cellweft.data.io.backed_matrix.open_rows`; None if the file has none.
    layers, obsm
        Other matrices, and arrays with one row per cell, read on request.
    obs, var
        Annotation of the rows, read on request, and of the columns that are genes.
    uns
        All other elements of the input by name, read on request.
    columns
        Position, in the matrix, of each row of ``var``; None if all columns are genes.
    has_raw
        Whether there is also a ``raw`` slot, which is never used silently.
    unit
        Unit of ``obsm["spatial"]``, such as "um" or "px"; empty if the input does not say.
    instrument
        The instrument that wrote the folder; empty for other inputs.
    cells_left_out
        Cells of the file that are not in ``obs``, for example "3 cells outside tissue".
    open_raw
        Returns the matrix of ``raw`` and its own table of genes; None without ``raw``.
    left_out
        Names of features that are not genes, by kind, such as "negative control".
    notes
        What was guessed when the input was read, as sentences.
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
    unit: str = ""
    instrument: str = ""
    cells_left_out: tuple[str, ...] = ()
    open_raw: Callable[[], tuple[Any, pd.DataFrame]] | None = None
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def values(self, layer: str | None, *, argument: str) -> Any:
        """Return X, or a layer; ``argument`` is its name in errors.

        Raises
        ------
        KeyMissingError
            It does not exist.
        """
        if layer is not None:
            where, expected = arg(argument, layer), f"a layer of {self.where}"
            layer_names = [*self.layers, *([RAW] if self.has_raw else [])]
            check_known(layer, layer_names, where, expected=expected, got="no such layer")
            return self.layers[layer]
        if self.matrix is None:
            there = [*self.layers, *([RAW] if self.has_raw else [])]
            fix = "Choose a layer with " + arg(argument) + f". {near('counts', there)}"
            raise KeyMissingError(f"{self.where}.X", expected="a matrix of counts", got="none", fix=fix)
        return self.matrix


def with_raw(data: Input) -> Input:
    """Return an input with the genes of its ``raw`` slot, and "raw" as its only layer."""
    if data.open_raw is None:
        return data
    matrix, var = data.open_raw()
    return replace(data, matrix=None, layers={RAW: matrix}, var=var, columns=None, left_out={})


def not_opened(path: Path, where: str, error: OSError) -> FormatError:
    """Return the error for a file that the system cannot open or read, regardless of its contents.

    Parameters
    ----------
    path, where
        The file, and its name in errors.
    error
        The error of the system. HDF5 states its number in the text.
    """
    return system_error(where, error) or not_as_named(path, where, str(error))


_UNPACK = "Unpack it first ({}), and pass the file or folder inside."
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x80", "a pickle, which cellweft never reads", ""),
    (b"\x1f\x8b", "a gzip-compressed file", _UNPACK.format("gunzip")),
    (b"PK\x03\x04", "a zip archive", _UNPACK.format("unzip")),
    (b"\x89HDF", "an HDF5 file that is damaged or incomplete", ""),
    (b"<!doctype", "a web page", "Download the file itself: the address leads to a page about it."),
    (b"<html", "a web page", "Download the file itself: the address leads to a page about it."),
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file", "Fetch the file: git lfs pull."),
)
"""First bytes of files, the format they suggest, and the next step, if there is one."""


def not_as_named(path: Path, where: str, reason: str) -> FormatError:
    """Return the error for a file with contents that do not match its name, with the suspected format."""
    start = b""
    if path.is_file():
        with reading(where), path.open("rb") as file:
            start = file.read(512)
    matches = [(looks, fix) for begins, looks, fix in _BEGINNINGS if start.lower().startswith(begins.lower())]
    looks, fix = matches[0] if matches else ("a file that cannot be read in this format", "")
    if not start:
        looks = "an empty file" if path.is_file() else "a folder that cannot be read in this format"
    elif start.startswith(b"\x1f\x8b") and path.suffix.lower() == ".gz":
        looks, fix = "a gzip file that is damaged or incomplete", ""
    elif not matches and ("codec can't decode" in reason or "invalid UTF8" in reason):
        is_wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        looks = f"text that is not UTF-8{' but UTF-16' * is_wide}"
        fix = f"Convert it: iconv -f {'UTF-16' if is_wide else 'WINDOWS-1252'} -t UTF-8 OLD > NEW."
    elif not matches and start.isascii() and b"\0" not in start:
        looks = "a text file"
    brief = " ".join(reason.split())[:120]
    return FormatError(
        where,
        expected=f"content that matches its name {path.name!r}",
        got=f"{looks} ({brief})",
        fix=fix or f"Check the name, or download the file again. Supported formats: {FORMATS}.",
    )
