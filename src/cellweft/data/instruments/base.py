"""The interface of instrument readers, and shared functions: finding files, joining tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cellweft._errors import FormatError, KeyMissingError, arg
from cellweft._text import many, shorten
from cellweft._typing import BoolArray, DoubleArray, IntArray
from cellweft.data.io.backed_matrix import chosen_rows, open_rows
from cellweft.data.io.columns import OBSM_KEYS
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable
from cellweft.data.io.tenx import chosen_name, has_mtx

UNASSIGNED = "unassigned"
"""Name, in any case, that segmentation programs use for transcripts outside cells."""
_NO_ROW, _NO_PLACE = "without a row in {}", "without coordinates"
_PACKED = re.compile(r"\.(tar|tar\.gz|tgz)$")
_EDGES = "_-. "  # separators between sample name and file name


class Instrument(Protocol):
    """The reader of one instrument's folders."""

    @property
    def name(self) -> str:
        """Name of the instrument."""

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open the run that a folder contains, or that a file is part of.

        Parameters
        ----------
        path
            Path of an existing folder or file.
        where
            Name of the input in errors.
        sample
            The sample to read if a folder contains several: the common part of its file names.

        Returns
        -------
        Input or None
            Cells with coordinates in ``obsm["spatial"]``; None if this is not a run of the instrument.

        Raises
        ------
        FormatError
            It is a run of the instrument, but a file is missing or has other contents, or there are several
            samples.
        KeyMissingError
            No such sample.
        """


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file that each run of an instrument contains.

    Attributes
    ----------
    names
        Possible starts of its name, without the name of a sample, the best one first.
    endings
        Possible endings, the best one first; "" is a folder.
    folder
        Subfolder of the run that contains it, "" for the run's own folder.
    """

    names: tuple[str, ...]
    endings: tuple[str, ...]
    folder: str = ""

    def __str__(self) -> str:
        return f"{self.folder}{'/' * bool(self.folder)}{self.names[0]}{self.endings[0] or '/'}"

    def sample_of(self, path: Path) -> str | None:
        """Return the sample in a file's name, such as "GSM1"; None if it is not this part."""
        edge, samples = f"[{re.escape(_EDGES)}]", []
        for name, ending in self._spellings():
            spelling = rf"(|.*{edge}){re.escape(name)}(|{edge}.*){re.escape(ending)}"
            match = re.fullmatch(spelling, path.name)
            if match and path.is_dir() == (not ending):
                samples.append(" ".join(text.strip(_EDGES) for text in match.groups()).strip())
        return min(samples, key=len, default=None)  # the most informative part of the name

    def files(self, folder: Path) -> dict[str, Path]:
        """Return the files of a run's folder that may be this part, by sample ("" without one)."""
        inside = folder / self.folder
        there = sorted(inside.iterdir()) if inside.is_dir() else []
        paths: dict[str, Path] = {}
        for name, ending in self._spellings():
            only = replace(self, names=(name,), endings=(ending,))
            for path in there:
                sample = only.sample_of(path)
                if sample is not None:
                    paths.setdefault(sample, path)
        return paths

    def _spellings(self) -> Iterator[tuple[str, str]]:
        return ((name, ending) for name in self.names for ending in self.endings)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The files of a run: its counts, and the table with the coordinates of its cells.

    ``sample`` is the rest of their names, around those of the parts; it may be empty.
    """

    counts: Path
    cells: Path
    sample: str


def find_run(
    path: Path,
    where: str,
    sample: str | None,
    *,
    name: str,
    counts: tuple[Part, ...],
    cells: tuple[Part, ...],
    marks: Iterable[str],
) -> Run | None:
    """Find the files of a run.

    Parameters
    ----------
    path, where, sample
        As in `Instrument.open`.
    name
        Name of the instrument.
    counts, cells
        Possible files of the counts, and of the table with coordinates; the first existing one is used.
    marks
        Patterns of names. A folder with such a file belongs to this instrument, even if other files are
        missing.

    Returns
    -------
    Run or None
        None if the folder has none of the marks and no such table, or a file is not part of a complete run.

    Raises
    ------
    FormatError
        A part is missing, or there are several samples.
    KeyMissingError
        No such sample.
    """
    named = next((part for part in (*counts, *cells) if part.sample_of(path) is not None), None)
    if named is None and not path.is_dir():
        return None
    folder = path if named is None else path.parent.parent if named.folder else path.parent
    files_by_sample = [_merged(part.files(folder) for part in parts) for parts in (counts, cells)]
    if named is not None:
        return _run_of_file(
            path, named.sample_of(path) or "", is_counts=named in counts, found=files_by_sample
        )
    has_cells = "" in files_by_sample[1] and not has_mtx(folder)  # a table may also describe their cells
    if not has_cells and not any(any(folder.glob(mark)) for mark in marks):
        return None
    sample = chosen_sample(files_by_sample[0] or files_by_sample[1], sample, where=where, name=name)
    parts = [_of_sample(files, sample) for files in files_by_sample]
    if parts[0] is None or parts[1] is None:
        lacking = [choices for choices, file in zip((counts, cells), parts, strict=True) if file is None]
        there = shorten(sorted(entry.name for entry in folder.iterdir()), most=8)
        lacking_text = " and ".join(" or ".join(map(str, choices)) for choices in lacking)
        under = f", under the name of the sample, {sample!r}" if sample else ""
        packed = [
            str(entry)
            for entry in sorted(folder.iterdir())
            if _PACKED.search(entry.name)
            and any(word in entry.name for parts in lacking for part in parts for word in _words_of(part))
        ]
        raise FormatError(
            where,
            expected=f"a run of {name}, with {counts[0]} and {cells[0]}",
            got=f"a folder without {lacking_text}: {there}",
            fix=f"Unpack {packed[0]!r}." if packed else f"Copy the missing file into it{under}.",
        )
    return Run(counts=parts[0], cells=parts[1], sample=sample)


def _words_of(part: Part) -> list[str]:
    """Return words that the name of an archive with this part may contain."""
    return [*filter(None, (part.names[0], part.folder))]


def chosen_sample(files: Mapping[str, Path], asked: str | None, *, where: str, name: str) -> str:
    """Return the sample to read: the requested one, or the only one; "" if file names contain none.

    Parameters
    ----------
    files
        Counts by sample.
    asked
        A sample, or unique words of its name, or None.
    where, name
        Names of the folder and of the instrument in errors.
    """
    argument = f"{where.partition(' ')[0]}_sample"
    samples = sorted(files)
    if asked and samples == [""]:
        raise KeyMissingError(
            arg(argument, asked),
            expected=f"a sample of {where}",
            got="files without a sample in their names",
            fix="This is the folder of a single run: leave " + arg(argument) + " out.",
        )
    if asked is not None:
        return chosen_name(samples, asked, where=where, argument=argument, what="sample")
    if len(samples) > 1:
        raise FormatError(
            where,
            expected=f"the folder of one run of {name}",
            got=f"several samples: {shorten([files[sample_name].name for sample_name in samples])}",
            fix="Choose one, "
            + arg(argument, samples[-1])
            + f", or its counts: {str(files[samples[-1]])!r}.",
        )
    return samples[0] if samples else ""


def _run_of_file(path: Path, sample: str, *, is_counts: bool, found: list[dict[str, Path]]) -> Run | None:
    """Return the run that contains a given file; None if its other part is missing."""
    other = _of_sample(found[1 if is_counts else 0], sample)
    if other is None:
        return None
    parts = (path, other) if is_counts else (other, path)
    return Run(counts=parts[0], cells=parts[1], sample=sample)


def _merged(files: Iterable[Mapping[str, Path]]) -> dict[str, Path]:
    merged: dict[str, Path] = {}
    for paths in files:
        merged = {**paths, **merged}
    return merged


def _of_sample(files: Mapping[str, Path], sample: str) -> Path | None:
    """Return the file of a sample; a file without a sample name belongs to the only sample."""
    return files.get(sample, files.get(""))


@dataclass(frozen=True, kw_only=True)
class CellTable:
    """The table of a run's cells.

    Attributes
    ----------
    table
        Its columns; the index contains the names of the cells, as in the counts.
    x, y
        Columns with the coordinates.
    unit
        Unit of the coordinates: "um" or "px".
    source
        The file, for errors.
    left_out
        Objects that are not cells, or cells outside the tissue: (n_cells,) booleans by their description.
    """

    table: pd.DataFrame
    x: str
    y: str
    unit: str
    source: Path
    left_out: Mapping[str, BoolArray] = field(default_factory=dict)


def _refuse_repeated(table: pd.DataFrame, where: str) -> None:
    """Raise if a cell occurs twice in a table."""
    if not table.index.is_unique:
        twice = table.index[table.index.duplicated()].unique().tolist()
        raise FormatError(
            where,
            expected="one row for every cell",
            got=f"duplicate cells ({len(twice):,}): {shorten(twice)}",
            fix="Use the file of a single run.",
        )


def joined(
    counts: Input, cells: CellTable, *, instrument: str, no_cells: Mapping[str, BoolArray] | None = None
) -> Input:
    """Return counts with the coordinates and the annotation of their cells.

    Parameters
    ----------
    counts
        Cells x genes, with names of the cells.
    cells
        The table of the cells, in any order.
    instrument
        The instrument.
    no_cells
        Rows of the counts that are not cells: booleans by their description.

    Returns
    -------
    Input
        The cells with both counts and coordinates, in the order of the counts; ``cells_left_out`` contains
        the number of other cells, and the reason.

    Raises
    ------
    FormatError
        A column is missing; a cell occurs twice in the table; or no cell of the counts is in it.
    """
    table, where = cells.table, f"{counts.where}, {cells.source.name}"
    check_columns(table, (cells.x, cells.y), where)
    _refuse_repeated(table, where)
    names = counts.obs.names().astype(str)
    row_of, how = _rows_of(names, table.index)
    if how:
        said = f"its cells have other names in {cells.source.name} and were matched {how}."
        counts = replace(counts, notes=(*counts.notes, said))
    places = table[[cells.x, cells.y]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    _refuse_text(cells, places, where)
    reasons = {f"called {UNASSIGNED!r}": names.str.lower().isin([UNASSIGNED]), **(no_cells or {})}
    reasons |= {why: is_out[row_of] & (row_of >= 0) for why, is_out in cells.left_out.items()}
    reasons[_NO_ROW.format(cells.source.name)] = row_of < 0
    reasons[_NO_PLACE] = (row_of >= 0) & ~np.isfinite(places).all(axis=1)[row_of]
    is_in, notes = np.ones(len(names), dtype=bool), []
    for why, is_out in reasons.items():
        n_out = int((is_out & is_in).sum())
        is_in &= ~is_out
        notes += [f"{many(n_out, 'cell')} {why}"] if n_out else []
    rows = np.flatnonzero(is_in)
    if not len(rows) and (row_of >= 0).any():
        raise FormatError(
            where,
            expected="cells with a position in the tissue",
            got="; ".join(notes),
            fix="Correct the columns that exclude these cells.",
        )
    if not len(rows):
        raise FormatError(
            where,
            expected=f"cells of the counts, such as {shorten(names.tolist(), most=3) or 'none'}",
            got=f"{shorten(table.index.tolist(), most=3) or 'no cell'}"
            + (f" ({'; '.join(notes)})" if notes else ""),
            fix="Use both files from the same run.",
        )
    n_lost = sum(int(reasons[why].sum()) for why in (_NO_ROW.format(cells.source.name), _NO_PLACE))
    if n_lost > len(names) / 2:
        said = (
            f"{n_lost:,} of {len(names):,} cells, more than half, have no position in {cells.source.name} "
            "and are left out. Check that both files are complete and from the same run."
        )
        counts = replace(counts, notes=(*counts.notes, said))
    annotation = table.loc[:, table.columns != ""].iloc[row_of[rows]]  # row numbers have no column name
    return replace(
        counts,
        matrix=chosen_rows(open_rows(counts.matrix, where=counts.where), rows),
        obs=HeldTable(annotation.set_axis(names[rows], axis=0)),
        obsm={OBSM_KEYS[0]: places[row_of[rows]]},
        unit=cells.unit,
        instrument=instrument,
        cells_left_out=tuple(notes),
    )


def _refuse_text(cells: CellTable, places: DoubleArray, where: str) -> None:
    """Raise `FormatError` if coordinates, (n_cells, 2), are NaN because they contain text."""
    values = cells.table[[cells.x, cells.y]]
    is_text = np.isnan(places) & values.notna().to_numpy()
    if is_text.any():
        row, column = np.argwhere(is_text)[0]
        raise FormatError(
            f"{where}, column {(cells.x, cells.y)[column]!r}",
            expected="numbers",
            got=(
                f"{values.iloc[row, column]!r} for cell {str(values.index[row])!r}, one of "
                f"{int(is_text.sum()):,} such values"
            ),
            fix="Write numbers with a decimal point and no other symbols, and leave unknown positions empty.",
        )


def check_columns(table: pd.DataFrame, names: Iterable[str], where: str) -> None:
    """Raise `FormatError` if a table lacks a column."""
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise FormatError(
            where,
            expected=f"a column {lacking[0]!r}",
            got=f"columns {shorten(list(map(str, table.columns)), most=8) or '(none)'}",
            fix="Use the file as the instrument wrote it.",
        )


def _rows_of(names: pd.Index, known_names: pd.Index) -> tuple[IntArray, str]:
    """Return the positions of cell names among known names, -1 if missing, and how they were matched.

    If none matches, numbers after barcodes (``ACGT-1``) are ignored, if names stay unique.
    """
    rows = _positions(names, known_names)
    if (rows >= 0).any():
        return rows, ""
    short = [index.astype(str).str.replace(r"[-.]\d+$", "", regex=True) for index in (names, known_names)]
    if not all(index.is_unique for index in short):
        return rows, ""
    positions = _positions(*short)
    how = "by name, without the number at the end"
    first = int(np.argmax(positions >= 0))
    return positions, f"{how} ({names[first]!r}, {known_names[positions[first]]!r})" if (
        positions >= 0
    ).any() else ""


def _positions(names: pd.Index, known_names: pd.Index) -> IntArray:
    """Return the positions of names among known names, -1 if missing; with Arrow, which needs less memory."""
    first, second = (pa.array(index, type=pa.large_string()) for index in (names, known_names))
    positions = pc.index_in(first, value_set=second).fill_null(-1)
    return np.asarray(positions.to_numpy(zero_copy_only=False), dtype=np.int64)
