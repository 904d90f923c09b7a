"""Reads a table of cell types, the result of an annotation, from memory or a file, and checks it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellweft._errors import InputError, MissingFileError
from cellweft._text import shorten
from cellweft._typing import BoolArray, DoubleArray, PathLike
from cellweft.data.io.damaged import brief, reading
from cellweft.data.io.dialect import EXACT
from cellweft.data.io.keys import CELL, CONFIDENCE_COLUMN, LABEL, PROBABILITY, RECORD, UNKNOWN
from cellweft.data.io.obs_table import table_with_text

KIND = "labels"
"""Kind of such a table in its record."""

_FIX = "Use the table that Imputer.annotate returned, or the file that cellweft annotate wrote."
_ROUNDING = 1e-6  # of a summed probability


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelColumn:
    """The labels of cells from one column of the reference.

    Attributes
    ----------
    name
        Name of the column, from the record or from the prefix of the table's columns.
    prefix
        Prefix of "label", "confidence" and "unknown" in the table.
    labels
        (n_cells,) the most probable label of each cell.
    confidence
        (n_cells,) probability of this label, 0 to 1.
    unknown
        (n_cells,) whether the cell's type seems to be missing from the reference.
    """

    name: str
    prefix: str
    labels: pd.Categorical[Any]
    confidence: DoubleArray
    unknown: BoolArray


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelTable:
    """A table of cell types.

    Attributes
    ----------
    where, name
        Name of the table in errors, and the name of its file ("labels" in memory).
    cells
        (n_cells,) unique names of the cells.
    columns
        The labels, from the column with the fewest to the one with the most; at least one.
    record
        How the table was made and how well it is calibrated; empty if unknown.
    """

    where: str
    name: str
    cells: pd.Index[str]
    columns: tuple[LabelColumn, ...]
    record: dict[str, Any] = field(default_factory=dict)


def holds_labels(columns: Iterable[Any]) -> bool:
    """Return whether columns look like those of a table of cell types, complete or not.

    Examples
    --------
    >>> holds_labels(["cell", "class_label", "class_confidence"]), holds_labels(["method", "value"])
    (True, False)
    """
    names = {str(name) for name in columns}
    return any(
        {prefix + CONFIDENCE_COLUMN, prefix + UNKNOWN} & names or prefix == "" for prefix in _prefixes(names)
    )


def table_columns(path: Path) -> list[str]:
    """Return the names of the columns of a .csv or .parquet file, without reading the rest."""
    if path.suffix == ".csv":
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    import pyarrow.parquet  # imported here because it is slow

    return [str(name) for name in pyarrow.parquet.read_schema(path).names]


def read_cell_labels(labels: pd.DataFrame | PathLike, *, argument: str) -> LabelTable:
    """Return a table of cell types.

    Parameters
    ----------
    labels
        Result of `cellweft.Imputer.annotate`, or the path of the table that ``cellweft annotate`` wrote (.csv
        or .parquet); for a file, the .json next to it is also read if it exists. Names of cells are in the
        column "cell", or in the index if there is no such column.
    argument
        Name of the argument in errors.

    Raises
    ------
    MissingFileError
        The path does not exist.
    FormatError
        The file cannot be read.
    InputError
        It is not a table of cell types, has no cells or duplicate cells, lacks labels, confidence or unknown
        or has other types for them, or its record does not match.
    """
    if isinstance(labels, pd.DataFrame):
        table, record, name, where = labels, labels.attrs.get(RECORD), "labels", argument
        _check_columns(table.columns, where)
    else:
        path = Path(labels).expanduser()
        name, where = path.name, f"{argument} ({os.fspath(labels)})"
        table, record = _read_file(path, where)
    record = _checked_record(record, where)
    cells = _cells_of(table, where)
    names = _column_names(table.columns, record, where)
    columns = tuple(
        _column(table, prefix, name=column_name, where=where) for prefix, column_name in names.items()
    )
    return LabelTable(where=where, name=name, cells=cells, columns=columns, record=record)


def _prefixes(columns: Iterable[Any]) -> list[str]:
    """Return the prefixes of the columns of labels, in order."""
    names = [str(name) for name in columns]
    ends = [name for name in names if name == LABEL or name.endswith(f"_{LABEL}")]
    prefixes = [name.removesuffix(LABEL) for name in ends]
    # a label may end the same way, but its probability column is not a label column
    return [
        prefix
        for prefix in prefixes
        if not any(prefix.startswith(f"{other}{PROBABILITY}") for other in prefixes)
    ]


def _read_file(path: Path, where: str) -> tuple[pd.DataFrame, Any]:
    """Return the required columns of a file, and its record."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing at this path"
        raise MissingFileError(where, expected="a table of cell types", got=got, fix="Check the path.")
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(where, expected="a table of cell types, .csv or .parquet", got=path.name, fix=_FIX)
    with reading(where, expected="a table of cell types", fix=_FIX):
        table = _read_csv(path, where) if path.suffix == ".csv" else _read_parquet(path, where)
    return table, _beside(path, where) or table.attrs.get(RECORD)


def _read_csv(path: Path, where: str) -> pd.DataFrame:
    """Return the required columns; the first column contains the names of cells if its header is empty."""
    head = table_columns(path)
    has_index = len(head) > 0 and head[0] == "Unnamed: 0"
    _check_columns(head, where, cells=not has_index)
    wanted = _wanted(head, cells=not has_index)
    texts = [name for name in wanted if name == CELL or name.endswith(LABEL)]
    absent = {name: ["", "nan"] for name in wanted if name not in texts}
    names = [head[0]] if has_index else []
    types = dict.fromkeys([*names, *texts], str)
    reading_as: Any = {"dtype": types, "keep_default_na": False, "na_values": absent}
    reading_as["float_precision"] = EXACT
    table: pd.DataFrame = pd.read_csv(path, usecols=[*names, *wanted], **reading_as)
    return table.set_index(names[0]) if has_index else table


def _read_parquet(path: Path, where: str) -> pd.DataFrame:
    import pyarrow.parquet  # imported here because it is slow

    schema = pyarrow.parquet.read_schema(path)
    has_index = CELL not in schema.names and any(
        isinstance(index_column, str)
        for index_column in (schema.pandas_metadata or {}).get("index_columns", [])
    )
    _check_columns(schema.names, where, cells=not has_index)
    table = pd.read_parquet(path, columns=_wanted(schema.names, cells=not has_index))
    return table_with_text(table, where)


def _wanted(columns: Iterable[Any], *, cells: bool) -> list[str]:
    """Return the columns to read, including the one with the names of cells if it exists."""
    ends = (LABEL, CONFIDENCE_COLUMN, UNKNOWN)
    return [*([CELL] * cells), *(prefix + end for prefix in _prefixes(columns) for end in ends)]


def _beside(path: Path, where: str) -> Any:
    """Return the record in the file next to a table; None if there is none."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        return json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"{where}, its record {beside.name}",
            expected="the .json file that cellweft annotate wrote next to the table",
            got=brief(error),
            fix="Copy the file again, or annotate again.",
        ) from error


def _check_columns(columns: Iterable[Any], where: str, *, cells: bool = False) -> None:
    """Raise `InputError` if the columns are not those of a table of cell types."""
    names = [str(name) for name in columns]
    prefixes = _prefixes(names)
    if not prefixes:
        expected = f"a table of cell types, with the columns {LABEL!r}, {CONFIDENCE_COLUMN!r} and {UNKNOWN!r}"
        got = f"a table with {shorten(names)}" if names else "a table without columns"
        raise InputError(where, expected=expected, got=got, fix=_FIX)
    wanted = _wanted(names, cells=cells)
    missing = [name for name in wanted if name not in names]
    twice = [name for name in [CELL, *wanted[cells:]] if names.count(name) > 1]
    if missing or twice:
        got = f"none of {shorten(missing)}" if missing else f"several columns {shorten(twice)}"
        raise InputError(where, expected=f"the columns {shorten(wanted, most=9)}", got=got, fix=_FIX)


def _checked_record(record: Any, where: str) -> dict[str, Any]:
    """Return the record of a table of cell types; empty if there is none."""
    if record is None:
        return {}
    of_labels = isinstance(record, Mapping) and record.get("kind") == KIND
    if of_labels and isinstance(record["labels"], Mapping) and record["labels"]:
        return dict(record)
    kind = record.get("kind", "something else") if isinstance(record, Mapping) else type(record).__name__
    raise InputError(
        f"{where}, its record",
        expected="the record of a table of cell types",
        got="a record without label columns" if of_labels else f"the record of {kind}",
        fix="Keep the .json file that cellweft annotate wrote next to the table, or annotate again.",
    )


def _column_names(columns: Iterable[Any], record: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the columns of the reference by their prefix in the table."""
    prefixes = _prefixes(columns)
    recorded_names = [str(name) for name in record.get("labels", {})]
    if not record:
        return {prefix: prefix.removesuffix("_") or LABEL for prefix in prefixes}
    named = (
        {"": recorded_names[0]} if len(recorded_names) == 1 else {f"{name}_": name for name in recorded_names}
    )
    if set(named) != set(prefixes):
        raise InputError(
            f"{where}, its record",
            expected=f"labels of {shorten([f'{prefix}{LABEL}' for prefix in prefixes])}, as in the table",
            got=f"labels of {shorten([f'{prefix}{LABEL}' for prefix in named])}",
            fix="Keep the table and its .json file from the same run together, or annotate again.",
        )
    return named


def _cells_of(table: pd.DataFrame, where: str) -> pd.Index[str]:
    in_column = CELL in table.columns
    names = table[CELL] if in_column else table.index.to_series()
    at = f"{where}[{CELL!r}]" if in_column else f"{where}, its index"
    if not len(names):
        raise InputError(at, expected="at least one cell", got="no rows", fix=_FIX)
    texts = names.astype(object)
    blank = texts.isna() | (texts == "")
    if blank.any():
        got = f"{int(blank.sum()):,} rows without a name"
        raise InputError(at, expected="a cell name in every row", got=got, fix=_FIX)
    cells: pd.Index[str] = pd.Index(texts.astype(str).to_numpy(dtype=object))
    if not cells.is_unique:
        same = cells[cells.duplicated()].unique().tolist()
        got = f"several rows for {shorten(same)}"
        raise InputError(at, expected="each cell once", got=got, fix=_FIX)
    return cells


def _column(table: pd.DataFrame, prefix: str, *, name: str, where: str) -> LabelColumn:
    label, confidence, unknown = (table[prefix + end] for end in (LABEL, CONFIDENCE_COLUMN, UNKNOWN))
    texts = label.astype(object)
    blank = texts.isna() | (texts == "")
    if blank.any():
        _refuse(label, "a label in every row", f"{int(blank.sum()):,} rows without a label", where)
    if not pd.api.types.is_numeric_dtype(confidence) or pd.api.types.is_bool_dtype(confidence):
        _refuse(confidence, "probabilities, from 0 to 1", _some(confidence), where)
    values = confidence.to_numpy(dtype=np.float64, na_value=np.nan)
    outside = ~((values >= -_ROUNDING) & (values <= 1 + _ROUNDING))
    if outside.any():
        got = f"{int(outside.sum()):,} other values, such as {values[outside][0]:g}"
        _refuse(confidence, "probabilities, from 0 to 1", got, where)
    if not pd.api.types.is_bool_dtype(unknown) or unknown.isna().any():
        _refuse(unknown, "True or False in every row", _some(unknown), where)
    return LabelColumn(
        name=name,
        prefix=prefix,
        labels=pd.Categorical(texts.astype(str)),
        confidence=np.clip(values, 0.0, 1.0),
        unknown=unknown.to_numpy(dtype=np.bool_),
    )


def _some(column: pd.Series[Any]) -> str:
    return f"{column.dtype} ({shorten(column.drop_duplicates().head(3).astype(str).tolist())})"


def _refuse(column: pd.Series[Any], expected: str, got: str, where: str) -> None:
    raise InputError(f"{where}[{column.name!r}]", expected=expected, got=got, fix=_FIX)
