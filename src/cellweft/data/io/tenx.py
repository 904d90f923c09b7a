"""Files of 10x Genomics: the .h5 of Cell Ranger and Xenium, and folders with matrix.mtx."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._errors import FormatError, KeyMissingError, Message, arg
from cellweft._text import near, shorten
from cellweft.data.io.backed_matrix import transposed_rows
from cellweft.data.io.damaged import group_in, open_hdf5, reading
from cellweft.data.io.dialect import Dialect, dialect_of
from cellweft.data.io.features import only_genes
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable, StoredTable

_PARTS = ("matrix.mtx", "barcodes.tsv", "features.tsv (or genes.tsv)")
_KINDS = tuple(
    re.compile(rf"(?<![a-z])(?:{words})(?![a-z])", re.IGNORECASE)
    for words in (
        "matri(?:x|ces)|counts?|dge|molecules_?per_?matched_?bead",
        "barcodes?|cell_?(?:ids?|names|metadata)|cells|colnames",
        "features?|gene_?names|genes?|rownames",
    )
)
"""Words in the names of the three files that identify them."""
_HEADERS = (
    "x", "v1", "0", "barcode", "barcodes", "cell", "cells", "cell_id", "cell_barcode", "index", "gene",
    "genes", "gene_id", "gene_ids", "gene_name", "gene_symbol", "feature", "features", "feature_id", "id",
    "name", "names", "ensembl_id", "symbol", "bc_wells",
)  # fmt: skip
"""Header names of a column of names."""
_NO_NAME = {"matrix", "count", "counts", "sparse", "umi", "dge", "mtx", "tsv", "csv", "txt", "gz", "all"}
"""Words in file names that do not identify a sample."""


def open_10x(path: Path, where: str, *, sample: str | None = None, argument: str = "sample") -> Input:
    """Open a 10x file of Cell Ranger 3 and later (also Xenium's), or of an earlier one.

    Parameters
    ----------
    path, where
        The file, and its name in errors.
    sample, argument
        The genome to read if the file contains several, and the name of this argument in errors.
    """
    file = open_hdf5(path)
    group = file["matrix"] if "matrix" in file else _genome_of(file, where, sample, argument)
    elements = set(group) if isinstance(group, h5py.Group) else set()  # `in` would read a whole array
    if group is None or not elements >= {"data", "barcodes", "indptr"}:
        raise FormatError(
            where,
            expected="a 10x file with a matrix and its barcodes",
            got=f"an HDF5 file with {shorten(sorted(file)) or 'nothing in it'}",
            fix="If AnnData wrote it, its name must end in .h5ad.",
        )
    features = group_in(group, "features", where)
    if features:
        names = _texts(features["name" if "name" in features else "id"])
        columns = {"gene_ids": "id", "feature_types": "feature_type", "genome": "genome"}
        parts = {column: _texts(features[key]) for column, key in columns.items() if key in features}
    else:
        parts, names = {"gene_ids": _texts(group["genes"])}, _texts(group["gene_names"])
    data = Input(
        where=where,
        source=str(path),
        matrix=transposed_rows(
            group["data"], group["indices"], group["indptr"], n_genes=len(names), where=f"{where}.X"
        ),
        obs=StoredTable(group["barcodes"], {}, where=f"{where}.obs"),
        var=pd.DataFrame(parts, index=pd.Index(names)),
    )
    return _of_genome(only_genes(data), sample, argument) if "matrix" in file else only_genes(data)


def _genome_of(file: h5py.File, where: str, sample: str | None, argument: str) -> h5py.Group | None:
    """Return the group of the requested genome, or the only one, in a file of Cell Ranger 2."""
    genomes = [name for name, group in file.items() if isinstance(group, h5py.Group) and "barcodes" in group]
    if not genomes:
        return None
    return file[chosen_name(genomes, sample, where=where, argument=argument, what="genome")]


def _of_genome(data: Input, sample: str | None, argument: str) -> Input:
    """Return the genes of the requested genome; a note is added if several are combined."""
    genomes = data.var.pop("genome") if "genome" in data.var else pd.Series(dtype=str)
    names = sorted(set(genomes) - {""})
    if sample is not None:
        chosen = chosen_name(names, sample, where=data.where, argument=argument, what="genome")
        is_other = (genomes != chosen).to_numpy()
        others = tuple(data.var.index[is_other])
        kinds = data.var.get("feature_types", pd.Series("Gene Expression", index=data.var.index))
        data.var["feature_types"] = kinds.where(~is_other, f"genes other than of {chosen}")
        return only_genes(data) if others else data
    if len(names) < 2:
        return data
    said = (
        f"genes of several genomes ({shorten(names)}) all contribute to a cell's total count. Select one "
        "with "
    )
    return replace(data, notes=(*data.notes, said + arg(argument, names[0]) + "."))


def chosen_name(names: list[str], sample: str | None, *, where: str, argument: str, what: str) -> str:
    """Return the requested name, or the only one; raise an error that lists all names otherwise.

    Parameters
    ----------
    names, sample
        Existing names, and the requested one, or words of it.
    where, argument, what
        Names of the file and of the argument in errors, and what the names refer to.
    """
    if sample in names:
        return str(sample)
    if sample is not None:
        words = _words(sample)
        having = [name for name in names if words and words <= _words(name)]
        if len(having) == 1:  # the first word of a long name, such as GSM1
            return having[0]
        fix = near(sample, [name for name in names if name])
        if names == [""]:
            fix = f"The files of its only {what} have no name: leave " + arg(argument) + " out."
        raise KeyMissingError(
            arg(argument, sample), expected=f"a {what} of {where}", got=f"no such {what}", fix=fix
        )
    if len(names) == 1:
        return names[0]
    raise FormatError(
        where,
        expected=f"a single {what}",
        got=f"{len(names)}: {shorten(names, most=12)}",
        fix="Choose one: " + arg(argument, names[0]) + ".",
    )


@dataclass(eq=False)
class _Sample:
    """The files of one sample in a folder: matrix, cell names and feature names."""

    words: frozenset[str]
    name: str
    parts: list[Path | None] = field(default_factory=lambda: [None, None, None])

    @property
    def missing(self) -> list[str]:
        """Which of the three files are missing."""
        return [name for name, part in zip(_PARTS, self.parts, strict=True) if part is None]


def has_mtx(folder: Path) -> bool:
    """Return whether a folder contains Matrix Market files, as 10x writes them."""
    return any(_files(folder))


def has_names(folder: Path) -> bool:
    """Return whether a folder contains names of cells and features, as 10x writes them next to a matrix."""
    return {1, 2} <= {number for number, _ in _parts_of(folder)}


def read_mtx(path: Path, where: str, *, sample: str | None = None, argument: str = "sample") -> Input:
    """Read a 10x folder: matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv) of one sample.

    Parameters
    ----------
    path, where
        The folder, and its name in errors.
    sample, argument
        The sample if the folder contains several, as the common part of the names of its three files
        (``GSM1_matrix.mtx``); and the name of this argument in errors.

    Raises
    ------
    FormatError
        Several samples, or a missing file of a sample.
    KeyMissingError
        No such sample.
    """
    from scipy.io import mmread

    values, cells, features = _sample_of(path, where, sample, argument)
    with reading(where, f", {values.name}", expected="a matrix of Matrix Market"):
        matrix = sp.csr_matrix(mmread(values).T)  # stored genes x cells
    table, barcodes = (_names_in(entry, where, matrix.shape) for entry in (features, cells))
    if matrix.shape == (len(table), len(barcodes)) != (len(barcodes), len(table)):
        matrix = sp.csr_matrix(matrix.T)  # stored cells x genes, as kallisto does
    if matrix.shape != (len(barcodes), len(table)):
        raise FormatError(
            where,
            expected=f"{len(barcodes):,} cells x {len(table):,} genes, as barcodes and features say",
            got=f"a matrix of {matrix.shape[0]:,} cells x {matrix.shape[1]:,} genes in {values.name}",
            fix="Use the three files from the same run.",
        )
    ids, symbols = table[0].to_numpy(), table[min(1, table.shape[1] - 1)].to_numpy()
    if _are_ids(symbols) and not _are_ids(ids):  # for example if var of an AnnData was written
        ids, symbols = symbols, ids
    var = pd.DataFrame({"gene_ids": ids}, index=pd.Index(symbols))
    if table.shape[1] > 2:
        var["feature_types"] = table[2].to_numpy()
    obs = HeldTable(pd.DataFrame(index=pd.Index(barcodes[0].to_numpy())))
    below = [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and has_mtx(entry)]
    notes = [f"its folders contain further matrices, which were not read: {shorten(below)}."] * bool(below)
    if matrix.shape[0] == matrix.shape[1]:
        notes.append(
            "there are as many cells as genes. The matrix is read as genes x cells, as 10x writes it."
        )
    return only_genes(
        Input(where=where, source=str(path), matrix=matrix, obs=obs, var=var, notes=tuple(notes))
    )


def _are_ids(names: NDArray[Any]) -> bool:
    """Return whether most names are Ensembl IDs."""
    return bool(len(names)) and bool(pd.Series(names).str.match(r"ENS[A-Z]*G\d{6,}").mean() > 0.5)


def _names_in(path: Path, where: str, shape: tuple[int, int]) -> pd.DataFrame:
    """Read the names of cells or features, without a header and without row numbers written by R.

    Parameters
    ----------
    path, where
        The file, and the name of the folder in errors.
    shape
        Shape of the matrix. A possible header is recognised if there is one name too many.
    """
    promised = "," if ".csv" in path.name.lower() else "\t"
    with reading(where, f", {path.name}", expected="a table of names"):
        dialect = dialect_of(path, separator=promised)
        is_odd = dialect.separator == " " and not _is_quoted(path, dialect)  # names with spaces
        table = pd.read_csv(
            path,
            header=None,
            names=range(1 if is_odd else max(dialect.n_columns, 1)),
            dtype=str,
            keep_default_na=False,
            **dialect.options | {"sep": promised if is_odd else dialect.separator},
        )
    return _names_alone(table.apply(lambda column: column.str.strip()), shape)


def _is_quoted(path: Path, dialect: Dialect) -> bool:
    """Return whether all fields of the second line are quoted, as R writes text."""
    options = dialect.options | {"sep": "\t", "quoting": csv.QUOTE_NONE}
    lines = pd.read_csv(path, header=None, nrows=2, dtype=str, **options)
    return bool(re.fullmatch(r'"[^"]*"( "[^"]*")+', str(lines.iloc[-1, 0])))


def _names_alone(table: pd.DataFrame, shape: tuple[int, int]) -> pd.DataFrame:
    """Return a table of names without row numbers, and without a header if there is one line too many."""
    first = table.iloc[:1].apply(lambda column: column.str.lower())
    is_short = bool(first.isna().any(axis=None))  # R does not name the column of row names
    is_header = is_short or bool(first.iloc[:, :2].isin(["", *_HEADERS]).any(axis=None))
    if is_header and len(table) - 1 in shape:
        table = table.iloc[1:]
    numbers = [range(start, start + len(table)) for start in (0, 1)]
    if table.shape[1] > 1 and table[0].tolist() in [[*map(str, numbering)] for numbering in numbers]:
        table = table.iloc[:, 1:]
    return table.fillna("").set_axis(range(table.shape[1]), axis=1)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the matrices of a folder; if there are several, those named matrix or counts."""
    matrices = [path for path in sorted(folder.iterdir()) if ".mtx" in path.suffixes and path.is_file()]
    named = [path for path in matrices if _KINDS[0].search(path.name)]
    yield from named or matrices


def _sample_of(folder: Path, where: str, sample: str | None, argument: str) -> list[Path]:
    """Return the three files of the requested sample of a folder, or of the only one."""
    samples = _samples(folder)
    names = [candidate.name for candidate in samples]
    if len(samples) > 1 or (sample is not None and sample not in names):
        complete = [candidate.name for candidate in samples if not candidate.missing]
        if sample is None:
            lacking = [
                f"{candidate.name!r} lacks {' and '.join(candidate.missing)}"
                for candidate in samples
                if candidate.missing
            ]
            fix: str | Message = (
                "Complete the files of the sample, and use the same words in all three names, such as "
                "S1_matrix.mtx, S1_barcodes.tsv and S1_features.tsv."
            )
            if complete:
                fix = "Choose one: " + arg(argument, next(filter(None, complete), "")) + "."
            got = f"{len(samples)}: {shorten(names, most=12)}" + "; ".join(["", *lacking[:3]])
            raise FormatError(where, expected="the files of a single sample", got=got, fix=fix)
        sample = chosen_name(names, sample, where=where, argument=argument, what="sample")
    chosen = samples[0] if sample is None else samples[names.index(sample)]
    if chosen.missing:
        there = shorten(sorted(entry.name for entry in folder.iterdir()))
        raise FormatError(
            where,
            expected=f"{', '.join(_PARTS[:-1])} and {_PARTS[-1]} of one sample",
            got=f"a folder without {' and '.join(chosen.missing)}: {there}",
            fix="Add the missing file, or rename it if it has another name.",
        )
    return [path for path in chosen.parts if path is not None]


def _samples(folder: Path) -> list[_Sample]:
    """Return the samples of a folder, by the common words of their file names.

    A single file of features is used for all samples if its name has no other words, or only those of the
    series. A file without a matrix is not a sample if all matrices have their files.
    """
    samples: dict[frozenset[str], _Sample] = {}
    for number, path in _parts_of(folder):
        label = _label(path, _KINDS[number])
        words = _words(label)
        sample = samples.setdefault(words, _Sample(words=words, name=label))
        sample.parts[number] = sample.parts[number] or path
    lone = [sample for sample in samples.values() if sample.parts[0] is None and len(sample.missing) == 2]
    whole = [sample for sample in samples.values() if sample not in lone]
    for sample in whole:
        shared = [
            other
            for other in lone
            if all(word.startswith("gse") or word in sample.words for word in other.words)
        ]
        shared = [other for other in shared if other.parts[2] is not None]
        if sample.parts[2] is None and len(shared) == 1:
            sample.parts[2] = shared[0].parts[2]
    is_whole = not any(sample.missing for sample in whole if sample.parts[0])
    return sorted(whole if is_whole else [*whole, *lone], key=lambda sample: sample.name)


def _words(label: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", label.lower())) - _NO_NAME - {""}


def _parts_of(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the files of a folder with their kind: 0 for a matrix, 1 for cell names, 2 for features."""
    yield from ((0, file) for file in _files(folder))
    for path in sorted(folder.iterdir(), key=lambda entry: ("metadata" in entry.name.lower(), entry)):
        if not path.is_file() or not {".tsv", ".csv", ".txt"} & {*path.suffixes}:
            continue
        places = {
            number: max((match.end() for match in _KINDS[number].finditer(_stem(path))), default=0)
            for number in (1, 2)
        }
        kind = max(places, key=places.__getitem__)  # the last word is the kind of file
        if places[kind]:
            yield kind, path


def _stem(path: Path) -> str:
    """Return the name of a file without its endings."""
    return re.sub(r"(\.(mtx|tsv|csv|txt|gz|bz2))+$", "", path.name, flags=re.IGNORECASE)


def _label(path: Path, kind: re.Pattern[str]) -> str:
    """Return the words of a file's name without those for its kind."""
    stem = _stem(path)
    last = [*kind.finditer(stem)][-1:]
    parts = [stem[: last[0].start()], stem[last[0].end() :]] if last else [stem]
    return "_".join(
        text for text in (part.strip("-_. ") for part in parts) if text.lower() not in {"", *_NO_NAME}
    )


def _texts(dataset: Any) -> list[str]:
    """Return names as text; raise `ValueError` if they are lists: as text, a million of them take minutes."""
    values = dataset[:]
    if values.ndim != 1 or isinstance(next(iter(values), None), np.ndarray | np.void):
        raise ValueError(f"names of shape {values.shape} and type {dataset.dtype}")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
