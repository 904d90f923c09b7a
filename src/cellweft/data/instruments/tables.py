"""Files in the folders of instruments: tables of cells, and counts of cells x genes."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from pyarrow import csv as arrow_csv

from cellweft._errors import CellweftError, FormatError
from cellweft.data.io.dialect import EXACT
from cellweft.data.io.features import only_genes
from cellweft.data.io.lazy_input import Input, not_as_named
from cellweft.data.io.obs_table import HeldTable, table_with_text
from cellweft.data.io.tenx import open_10x, read_mtx

BLOCK_BYTES = 16 * 2**20
"""Bytes of text to parse at once."""


@contextmanager
def named_as(path: Path, where: str) -> Iterator[None]:
    """Turn the errors of libraries about a file's contents into `FormatError`, but not those of the disk."""
    try:
        yield
    except Exception as error:  # from pandas, pyarrow or decompression
        if isinstance(error, CellweftError | ImportError) or (isinstance(error, OSError) and error.errno):
            raise
        raise not_as_named(path, f"{where}, {path.name}", str(error)) from error


def read_cells(
    path: Path, where: str, *, text: Sequence[str] = (), header: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a table of cells, .parquet, .csv or .csv.gz.

    Parameters
    ----------
    path, where
        The file, and the name of the run in errors.
    text
        Columns with names of cells, which are read as text; missing ones are ignored.
    header
        Names of the columns, if the first line of the file does not contain them.

    Raises
    ------
    FormatError
        The contents of the file do not match its name.
    """
    with named_as(path, where):
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            table = table if table.index.name is None else table.reset_index()
        else:
            names = read_header(path, where) if header is None else list(header)
            kinds = {name: str for name in text if name in names}
            table = pd.read_csv(
                path,
                names=names,
                skiprows=int(header is None),
                dtype=kinds,
                low_memory=False,
                float_precision=EXACT,
            )
            if not isinstance(table.index, pd.RangeIndex) and table.iloc[:, -1].isna().all():
                raise ValueError("rows that end in a comma, so that columns and their names do not match")
    return table_with_text(table, f"{where}, {path.name}")


def read_header(path: Path, where: str, *, separator: str = ",") -> list[str]:
    """Return the first line of a .csv or .csv.gz, as names of columns.

    Parameters
    ----------
    path, where
        The file, and the name of the run in errors.
    separator
        Separator of its columns.

    Raises
    ------
    FormatError
        It is not text, or its columns have another separator.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with named_as(path, where), opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file, delimiter=separator), [])
    other = next((sign for sign in ",;\t" if len(names) == 1 and sign in names[0]), "")
    if other:
        raise FormatError(
            f"{where}, {path.name}",
            expected=f"columns separated by {separator!r}",
            got=f"a header with {other!r}: {names[0][:60]!r}",
            fix="Use the file as the instrument wrote it, or write it in this form, with decimal points.",
        )
    return names


def open_counts(path: Path, where: str, sample: str = "") -> Input:
    """Open counts in a form of 10x Genomics: an .h5 file, or matrix.mtx or its folder.

    Parameters
    ----------
    path, where
        The counts, and the name of the run in errors.
    sample
        The sample in the name of a matrix.mtx.
    """
    if path.is_dir():
        return read_mtx(path, where)
    return (
        open_10x(path, where) if path.suffix == ".h5" else read_mtx(path.parent, where, sample=sample or None)
    )


def read_counts(path: Path, where: str, *, keys: Sequence[str]) -> tuple[Input, pd.DataFrame]:
    """Read a table of cells x genes as a sparse matrix, one block of rows of text at a time.

    Parameters
    ----------
    path, where
        A .csv or .csv.gz, and the name of the run in errors.
    keys
        Columns that are not genes; missing ones are ignored.

    Returns
    -------
    counts : Input
        (n_cells, n_genes) without controls; cells have no names, and a gene may occur twice.
    table : DataFrame
        (n_cells, n_keys) the key columns, as text.

    Raises
    ------
    FormatError
        The contents of the file do not match its name, or are not all numbers.
    """
    names, table, matrix = _read_sparse(path, where, keys=keys, separator=",")
    obs = HeldTable(pd.DataFrame(index=pd.RangeIndex(len(table))))
    var = pd.DataFrame(index=pd.Index(names))
    return only_genes(Input(where=where, source=str(path), matrix=matrix, obs=obs, var=var)), table


def read_counts_by_gene(path: Path, where: str, *, separator: str) -> Input:
    """Read a table of genes x cells, with names in its first column and row, as `read_counts` does.

    Parameters
    ----------
    path, where
        A text table, compressed with gzip or not, and the name of the run in errors.
    separator
        Separator of its columns.

    Returns
    -------
    Input
        (n_cells, n_genes) without controls.

    Raises
    ------
    FormatError
        The contents of the file do not match its name, or are not all numbers.
    """
    key = read_header(path, where, separator=separator)[:1]
    names, table, matrix = _read_sparse(path, where, keys=key, separator=separator)
    obs = HeldTable(pd.DataFrame(index=pd.Index(names)))
    var = pd.DataFrame(index=pd.Index(table.iloc[:, 0].astype(str).to_numpy()))
    return only_genes(Input(where=where, source=str(path), matrix=sp.csr_matrix(matrix.T), obs=obs, var=var))


def _read_sparse(
    path: Path, where: str, *, keys: Sequence[str], separator: str
) -> tuple[list[str], pd.DataFrame, sp.csr_matrix]:
    """Return the names of the other columns of a table, its key columns as text, and the other values."""
    names = read_header(path, where, separator=separator)
    is_key = np.array([name in keys for name in names], dtype=bool)
    places = [str(number) for number in range(len(names))]  # because names may occur twice
    kinds = {
        place: pa.string() if is_text else pa.float32() for place, is_text in zip(places, is_key, strict=True)
    }
    key_places, gene_places = (np.flatnonzero(chosen).tolist() for chosen in (is_key, ~is_key))
    tables, blocks = [], []
    with named_as(path, where):
        reader = arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(column_names=places, skip_rows=1, block_size=BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(delimiter=separator),
            convert_options=arrow_csv.ConvertOptions(column_types=kinds),
        )
        for batch in reader:
            tables.append(batch.select(key_places))
            values = [batch.column(place).to_numpy(zero_copy_only=False) for place in gene_places]
            blocks.append(sp.csr_matrix(np.stack(values, axis=1)))
        matrix = sp.csr_matrix(sp.vstack(blocks, format="csr"))
        table = pa.Table.from_batches(tables).to_pandas()
    table.columns = pd.Index([names[place] for place in key_places])
    return [names[place] for place in gene_places], table, matrix
