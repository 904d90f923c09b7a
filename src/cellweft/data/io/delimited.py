"""Tables of cells x genes: .csv, .tsv and .parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft.data.io.features import annotation_columns, is_cell_column, only_genes
from cellweft.data.io.lazy_input import Input, not_as_named
from cellweft.data.io.obs_table import HeldTable

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_table(path: Path, *, where: str, suffix: str, obs_columns: Iterable[str]) -> Input:
    """Read a table of cells x genes; text, coordinates and ``obs_columns`` become annotation."""
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
            if isinstance(table.index, pd.RangeIndex) and pd.api.types.is_string_dtype(table.iloc[:, 0]):
                table = table.set_index(table.columns[0])
        else:
            sep = SEPARATORS[suffix]
            table = pd.read_csv(path, sep=sep, index_col=0)
            first = table.index
            # pandas tells equal names apart by a suffix, which would hide genes that stand twice
            header = pd.read_csv(path, sep=sep, header=None, nrows=1, dtype=str, keep_default_na=False)
            names = [str(name) for name in header.iloc[0]]
            table.columns = pd.Index(names[-table.shape[1] :][: table.shape[1]])
            if len(names) > table.shape[1] and not _are_names(table.index, names[0]):
                table = table.reset_index(drop=True)
                table.insert(0, names[0], first.to_numpy(), allow_duplicates=True)
    except (ValueError, IndexError) as error:  # of pandas, pyarrow and the decoding of text alike
        raise not_as_named(path, where, str(error)) from error
    _check_numbers(table, where, {*obs_columns})
    is_annotation, by_values = annotation_columns(table)
    is_gene = ~is_annotation & ~table.columns.astype(str).isin([*obs_columns])
    if not is_gene.any():
        raise FormatError(
            where,
            expected="a row per cell, names in the first column and a column of numbers per gene",
            got=f"columns {shorten(list(map(str, table.columns))) or '(none)'} without numbers",
            fix="Check the separator (comma in .csv, tab in .tsv) and the header.",
        )
    is_numbered = isinstance(table.index, pd.RangeIndex)
    table.index = table.index.astype(str)
    notes = [one for one in by_values if one not in {*obs_columns}]
    said = (
        f"columns whose numbers are not counts were taken as annotation of cells, not as genes: "
        f"{shorten(notes)}."
    )
    return only_genes(
        Input(
            where=where,
            source=str(path),
            matrix=table.loc[:, is_gene].to_numpy(dtype=np.float32, na_value=np.nan),
            obs=HeldTable(table.loc[:, ~is_gene]),
            var=pd.DataFrame(index=pd.Index([str(name) for name in table.columns[is_gene]])),
            notes=(said,) * bool(notes) + (_NUMBERED,) * is_numbered,
        )
    )


_NUMBERED = "the table has no column with names of cells, so they are numbered from 0."
_NO_NUMBER = re.compile(
    r"\s*([-–—_.?*#]+|n\.?[ad]\.?|n/a|none|null|missing|not (detected|available|measured)"
    r"|[<>]\s*[\d.]+|#\S+|-?\d+,\d+|-?\d{1,3}(,\d{3})+(\.\d+)?)?\s*",
    re.IGNORECASE,
)
"""Placeholders and ways to write numbers that stand among the numbers of a column, and are none to pandas."""


def _are_names(index: pd.Index[Any], header: str) -> bool:
    """Say whether the first column of a table holds names of cells, and not the counts of a gene."""
    if not pd.api.types.is_numeric_dtype(index) or header.strip().lower() in ("", "index", "id", "name"):
        return True
    return index.is_unique and (is_cell_column(header) or bool((index == np.rint(index)).all()))


def _check_numbers(table: pd.DataFrame, where: str, other: set[str]) -> None:
    """Raise `FormatError` where placeholders among its numbers would make a gene look like annotation."""
    texts_at = [
        not pd.api.types.is_numeric_dtype(kind) and not hasattr(kind, "unit") for kind in table.dtypes
    ]
    for place in np.flatnonzero(texts_at):
        name, column = str(table.columns[place]), table.iloc[:, place].reset_index(drop=True)
        numbers = pd.to_numeric(column, errors="coerce")
        if name in other or is_cell_column(name) or not numbers.notna().any():
            continue
        texts = column[numbers.isna() & column.notna()].astype(str)
        if len(texts) and all(_NO_NUMBER.fullmatch(text) for text in texts.unique()):
            raise FormatError(
                f"{where}, column {name!r}",
                expected="a number for every cell",
                got=f"{texts.iloc[0]!r} for cell {str(table.index[texts.index[0]])!r}, "
                f"and {len(texts):,} of that kind in all",
                fix="Write 0 where nothing was counted, and numbers with a decimal point and no other signs.",
            )
