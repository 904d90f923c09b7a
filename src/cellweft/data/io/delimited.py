"""Tables of cells x genes: .csv, .tsv and .parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellweft._errors import CellweftError, FormatError
from cellweft._text import many, shorten
from cellweft._typing import BoolArray
from cellweft.data.io.columns import plain_name
from cellweft.data.io.dialect import Dialect, dialect_of
from cellweft.data.io.features import annotation_columns, is_cell_column, only_genes
from cellweft.data.io.lazy_input import Input, not_as_named
from cellweft.data.io.obs_table import HeldTable, table_with_text

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_MISSING = ("", "NA", "NaN", "nan")  # a column with only these is numeric, with all values missing


def read_table(path: Path, *, where: str, suffix: str, obs_columns: Iterable[str]) -> Input:
    """Read a table of cells x genes; text, coordinates and ``obs_columns`` become annotation."""
    notes: list[str] = []
    try:
        if suffix == ".parquet":
            table = table_with_text(pd.read_parquet(path), where)
            if isinstance(table.index, pd.MultiIndex) or isinstance(table.columns, pd.MultiIndex):
                raise ValueError("row or column names have several levels: join them")
            if isinstance(table.index, pd.RangeIndex):
                table = _with_names(table)
        else:
            table = _read_text(path, SEPARATORS[suffix], notes)
    except Exception as error:  # errors of pandas, pyarrow, decompression and decoding
        if isinstance(error, CellweftError | ImportError) or (isinstance(error, OSError) and error.errno):
            raise
        raise not_as_named(path, where, str(error)) from error
    _check_header(table, where)
    _check_numbers(table, where, {*obs_columns})
    is_annotation, by_values = annotation_columns(table)
    is_gene = ~is_annotation & ~table.columns.astype(str).isin([*obs_columns])
    if not is_gene.any():
        raise FormatError(
            where,
            expected="a row per cell, names in the first column and a column of numbers per gene",
            got=f"columns {shorten(list(map(str, table.columns))) or '(none)'} without numbers",
            fix=_LONG
            if any(plain_name(name) in _GENES for name in (table.index.name, *table.columns))
            else (
                "Check the separator (comma in .csv, tab in .tsv), and that there is exactly one header "
                "row above the numbers."
            ),
        )
    _refuse_molecules(table, is_gene, where)
    is_numbered = isinstance(table.index, pd.RangeIndex)
    table.index = table.index.astype(str)
    odd = [column for column in by_values if column not in {*obs_columns}]
    if odd:
        notes.append(
            "columns with numbers that are not counts, or with some text, were treated as annotation of "
            f"the cells, not as genes: {shorten(odd)}."
        )
    if is_numbered:
        notes.append("the table has no column with cell names, so cells are numbered from 0.")
    return only_genes(
        Input(
            where=where,
            source=str(path),
            matrix=table.loc[:, is_gene].to_numpy(dtype=np.float32, na_value=np.nan),
            obs=HeldTable(table.loc[:, ~is_gene]),
            var=pd.DataFrame(index=pd.Index([str(name) for name in table.columns[is_gene]])),
            notes=tuple(notes),
        )
    )


def _read_text(path: Path, separator: str, notes: list[str]) -> pd.DataFrame:
    """Return a text table with its cell names as index, and add guesses to ``notes``."""
    dialect = dialect_of(path, separator=separator)
    notes += [f"{'; '.join(dialect.notes)}."] * bool(dialect.notes)
    table = _without_empty(read_rows(path, dialect=dialect), notes)
    if table.index.has_duplicates and (name := _names_column(table)):
        notes.append(
            f"cell names are taken from the column {name!r}, because the first column has duplicates."
        )
        table = table.reset_index(names=table.index.name or "index").set_index(name)
    header = table.index.name
    numbers = pd.Index(pd.to_numeric(table.index.to_series(), errors="coerce"))
    if header is not None and numbers.notna().all() and not _are_names(numbers, str(header)):
        table = table.reset_index(drop=True)
        table.insert(0, str(header), numbers.to_numpy(), allow_duplicates=True)
    return table


_NAMES = (
    "index_level_0", "cell_id", "cellid", "cell", "cells", "cell_name", "cell_names", "barcode", "barcodes",
    "cell_barcode", "entityid", "entity_id", "spot_id", "bin_id", "obs_names",
)  # fmt: skip
"""Names of columns with cell names, with _ for each separator."""


def _names_column(table: pd.DataFrame) -> str | None:
    """Return the column with a name for each cell, judged by its own name and its values, or None."""
    columns = {plain_name(name): name for name in table.columns[~table.columns.duplicated()]}
    names = [columns[candidate] for candidate in _NAMES if candidate in columns]
    return next(
        (candidate for candidate in names if table[candidate].notna().all() and table[candidate].is_unique),
        None,
    )


def _with_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table indexed by cell names: the first column if it is text, or one with a common name."""
    first = table.iloc[:, 0]
    is_text = pd.api.types.is_string_dtype(first)
    name = None if is_text and first.is_unique else _names_column(table)
    if name is not None:
        return table.set_index(name)
    return table.set_index(table.columns[0]) if is_text else table


_NO_NUMBER = re.compile(
    r"\s*([-–—_.?*#]+|n\.?[ad]\.?|n/a|none|null|missing|not (detected|available|measured)|#\S+"
    r"|[-+~<>=≤≥]*\s*[.,]?\d[\d.,'’_\s]*(e[-+]?\d+)?\s*(%|counts?|reads|umis?)?)?\s*",
    re.IGNORECASE,
)
"""Placeholders and number formats in numeric columns that pandas does not recognise."""
_WITH_COMMAS = re.compile(r"\s*-?\d{1,3}(,\d{3})+(\.\d+)?\s*|\s*-?\d+,\d+\s*")


_GENES = ("gene", "genes", "feature", "feature_name", "gene_name", "gene_id", "geneid", "target", "symbol")
_LONG = (
    "If each row is one gene in one cell, or one molecule, count by cell first: pandas.pivot_table(table, "
    "index='cell', columns='gene', values='count', aggfunc='sum', fill_value=0), or pandas.crosstab."
)


_FEWEST_COLUMNS = 10  # of genes in a table of cells


def _refuse_molecules(table: pd.DataFrame, is_gene: BoolArray, where: str) -> None:
    """Raise `FormatError` if a column of gene names shows that rows are molecules, not cells."""
    if is_gene.sum() >= _FEWEST_COLUMNS:
        return
    for place in np.flatnonzero(~is_gene).tolist():
        column: pd.Series[Any] = table.iloc[:, place]
        if plain_name(column.name) not in _GENES or not pd.api.types.is_string_dtype(column.dtype):
            continue
        names = column.dropna().unique()
        if is_gene.sum() < len(names) < len(column):
            raise FormatError(
                where,
                expected="a row per cell, and a column of numbers per gene",
                got=(
                    f"a column {str(column.name)!r} with {len(names):,} genes in {len(column):,} rows, as "
                    "if each row were a molecule"
                ),
                fix=_LONG,
            )


def _without_empty(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return a table without rows that have neither a name nor values, and add a note."""
    is_empty = (table.index.to_series().str.strip() == "").to_numpy() & table.isna().all(axis=1).to_numpy()
    if is_empty.any():
        notes.append(f"{many(int(is_empty.sum()), 'empty row')} left out.")
    return table[~is_empty] if is_empty.any() else table


def _check_header(table: pd.DataFrame, where: str) -> None:
    """Raise `FormatError` if there are numbers instead of a header, or the header is repeated in the rows."""
    names = table.columns.astype(str)
    is_number = pd.to_numeric(names.to_series(), errors="coerce").notna()
    if len(names) > 3 and is_number.all() and names.has_duplicates:
        raise FormatError(
            f"{where}, first row",
            expected="names of genes",
            got=f"numbers, with duplicates: {shorten(names[:9].tolist(), most=4)}",
            fix="Add a header row with the column names.",
        )
    is_text = [place for place, kind in enumerate(table.dtypes) if pd.api.types.is_string_dtype(kind)]
    again = table.iloc[:, is_text[:3]].eq(names[is_text[:3]]).all(axis=1) if is_text else np.array([False])
    if again.any():
        raise FormatError(
            f"{where}, row {str(table.index[int(np.argmax(again))])!r}",
            expected="column names only in the first row",
            got="the same names again, as when tables are concatenated",
            fix="Remove this row, and check for duplicate cell names.",
        )


def _are_names(index: pd.Index[Any], header: str) -> bool:
    """Return whether the first column of a table contains cell names, and not counts of a gene."""
    if not pd.api.types.is_numeric_dtype(index) or header.strip().lower() in ("", "index", "id", "name"):
        return True
    return index.is_unique and (is_cell_column(header) or bool((index == np.rint(index)).all()))


def _check_numbers(table: pd.DataFrame, where: str, other: set[str]) -> None:
    """Raise `FormatError` if placeholders in a numeric column make a gene look like annotation."""
    texts_at = [
        not pd.api.types.is_numeric_dtype(kind) and not hasattr(kind, "unit") for kind in table.dtypes
    ]
    for place in np.flatnonzero(texts_at).tolist():
        name, column = str(table.columns[place]), table.iloc[:, place].reset_index(drop=True)
        numbers: pd.Series[Any] = pd.to_numeric(column, errors="coerce")
        texts = column[numbers.isna() & column.notna()].astype(str)
        if name in other or is_cell_column(name) or not len(texts):
            continue
        odd = _NO_NUMBER if numbers.notna().any() else _WITH_COMMAS
        if all(odd.fullmatch(text) for text in texts.unique()):
            raise FormatError(
                f"{where}, column {name!r}",
                expected="a number for every cell",
                got=(
                    f"{texts.iloc[0]!r} for cell {str(table.index[texts.index[0]])!r}, one of "
                    f"{len(texts):,} such values"
                ),
                fix=(
                    "Write 0 where nothing was counted, and write numbers with a decimal point and no "
                    "other symbols."
                ),
            )


def read_rows(path: Path, *, dialect: Dialect) -> pd.DataFrame:
    r"""Read a text table with a header, and the names of the rows in its first column.

    Names and other text are not converted. By default, pandas would read a gene called ``NA`` or a label
    ``None`` as missing, and a cell called ``007`` as a number. In text columns, only an empty field is
    missing; in numeric columns, all that pandas reads as missing.

    Parameters
    ----------
    path
        The file, compressed or not.
    dialect
        Its separator, encoding and decimal sign.

    Returns
    -------
    The other columns by name, with duplicate names unchanged, and the names of the rows as text in the index.

    Raises
    ------
    ValueError, IndexError
        Raised by pandas: this is not such a table.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cells.csv")
    ...     written = path.write_text("cell,NA,type\n001,5,None\n002,6,\n")
    ...     table = read_rows(path, dialect=dialect_of(path, separator=","))
    >>> table.index.tolist(), table["NA"].tolist(), table["type"].tolist()
    (['001', '002'], [5, 6], ['None', nan])
    """
    # pandas appends a suffix to equal names, which would hide duplicate genes
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **dialect.options)
    names = header.iloc[0].tolist()
    if dialect.ends_in_separator:
        fields = range(len(names) + 1)
        table = pd.read_csv(path, header=0, names=fields, index_col=0, **dialect.options)
        if table.pop(len(names)).notna().any():
            raise ValueError("some rows have one field more than the header")
        table.index.name = names[0] or None
    else:
        table = pd.read_csv(path, index_col=0, **dialect.options)
    table.columns = pd.Index([str(name) for name in names[-table.shape[1] :]][: table.shape[1]])
    is_number = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    may_be_text = ~np.array(is_number, dtype=bool) | table.isna().all().to_numpy()
    columns = [0, *(np.flatnonzero(may_be_text) + 1).tolist()]
    text = pd.read_csv(
        path,
        header=0,
        names=range(table.shape[1] + 1),  # R omits the first name in the header
        usecols=columns,
        index_col=False,
        dtype=str,
        keep_default_na=False,
        **dialect.options,
    )
    for column in columns[1:]:
        words = text[column]
        if not (is_number[column - 1] and words.isin(_MISSING).all()):
            table.isetitem(column - 1, words.where(words != "").to_numpy(dtype=object))
    named: pd.DataFrame = table.set_index(pd.Index(text[0], dtype=object, name=table.index.name))
    return named
