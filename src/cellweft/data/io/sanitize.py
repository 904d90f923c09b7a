"""Converts tables and mappings to types that AnnData's formats support, so that results can be written."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

GENE_NAMES = ("symbol", "gene_id", "reference_name")
"""Columns with other gene names: always text, even if names repeat, such as empty ones."""

_LONGEST_NAME = 200  # bytes; file names may have 255, and zarr appends to them
_TAKEN = ("_index", "zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")  # by the formats

logger = logging.getLogger("cellweft")


def storable(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a table with types that AnnData's formats support; the input is not changed.

    Parameters
    ----------
    frame
        Any table. Repeated or missing strings become categories, and the index becomes strings. Unsupported
        values become text, and unsupported names are replaced; this is logged.
    where
        Name of the table in messages.

    Returns
    -------
    DataFrame
        The table to write.

    Examples
    --------
    >>> storable(pd.DataFrame({"type": ["B", None]}, index=[7, 8]), "obs").index.tolist()
    ['7', '8']
    """
    columns: dict[str, Any] = {}
    for place, name in enumerate(frame.columns):
        columns[storable_name(name, where, columns)] = storable_column(frame.iloc[:, place])
    names = [_plain_text(str(name)) for name in frame.index]  # astype(str) of pandas 3 refuses surrogates
    return pd.DataFrame(columns, index=pd.Index(names, dtype=object))


def storable_name(name: Any, where: str, taken: Collection[str]) -> str:
    """Return the name with which a column is written; a change is logged.

    Parameters
    ----------
    name, where
        Name of the column, and name of the table in messages.
    taken
        Names of earlier columns.

    Examples
    --------
    >>> [storable_name(name, "obs", ["a"]) for name in ("T/NK", "", ".", "a")]
    ['T_NK', 'unnamed', 'unnamed', 'a_1']
    """
    text = str(name)
    plain = _plain_text(text).replace("/", "_").encode()[:_LONGEST_NAME].decode(errors="ignore")
    plain = plain if plain.strip(". ") else "unnamed"
    key, number = plain, 1
    while key in taken or key in _TAKEN:
        key, number = f"{plain}_{number}", number + 1
    if key != text:
        logger.warning(
            "%s: column %r is written as %r, because the format does not allow its name.", where, name, key
        )
    return key


def storable_column(column: pd.Series[Any]) -> Any:
    """Return the values of a column in a type that AnnData's formats support; see `storable`.

    Parameters
    ----------
    column
        Column of any type.
    """
    return plain_column(column)[0]


def plain_column(column: pd.Series[Any]) -> tuple[Any, str]:
    """Return the values of a column in a supported type, and their former type if converted to text.

    Parameters
    ----------
    column
        Column of any type.

    Examples
    --------
    >>> values, kind = plain_column(pd.Series([True, None]))
    >>> values.tolist(), kind
    ([True, <NA>], '')
    >>> plain_column(pd.Series(pd.to_datetime(["2026-01-01"]).as_unit("s")))
    (array(['2026-01-01 00:00:00'], dtype=object), 'datetime64[s]')
    """
    kind = column.dtype
    if isinstance(kind, pd.ArrowDtype):
        column = column.convert_dtypes(dtype_backend="numpy_nullable")
        kind = column.dtype
    if isinstance(kind, pd.SparseDtype):
        column = pd.Series(np.asarray(column), name=column.name)
        kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return _plain_categories(column)
    if isinstance(kind, np.dtype) and kind.kind in "biuf" and kind.itemsize <= 8:
        return column.array, ""
    if isinstance(kind, pd.Float32Dtype | pd.Float64Dtype) or kind in (np.longdouble,):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), ""
    if pd.api.types.is_integer_dtype(kind) or pd.api.types.is_bool_dtype(kind):
        return column.array, ""  # with missing values
    inferred = str(kind)
    if pd.api.types.is_object_dtype(kind) or isinstance(kind, pd.StringDtype):
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        if inferred in ("string", "empty"):
            return _plain_texts(column), ""
        numbers = _numbers(column, inferred)
        if numbers is not None:
            return numbers, ""
        inferred = "objects of several kinds" if inferred.startswith("mixed") else f"{inferred} objects"
    return _plain_texts(column), inferred


def _numbers(column: pd.Series[Any], inferred: str) -> Any:
    """Return numbers or booleans with missing values from a column of objects; otherwise None."""
    kinds: dict[str, Any] = {
        "boolean": "boolean",
        "integer": "Int64",
        "floating": "float64",
        "mixed-integer-float": "float64",
    }
    try:
        return column.astype(kinds[inferred]).array if inferred in kinds else None
    except (OverflowError, TypeError, ValueError):  # for example integers beyond 64 bits
        return None


def _plain_categories(column: pd.Series[Any]) -> tuple[Any, str]:
    categories = column.cat.categories
    if isinstance(categories.dtype, np.dtype) and categories.dtype.kind in "biuf":
        return column.array, ""
    texts = [_plain_text(str(category)) for category in categories]
    is_text = pd.api.types.infer_dtype(categories) in ("string", "empty")
    if is_text and texts == list(categories):
        return column.array, ""
    unique_texts = list(dict.fromkeys(texts))  # different values may look the same
    places = np.array([unique_texts.index(category) for category in texts] + [-1])
    values = pd.Categorical.from_codes(
        places[column.cat.codes],
        categories=pd.Index(unique_texts, dtype=object),
        ordered=bool(column.cat.ordered),
    )
    return values, "" if is_text else f"categories of {categories.dtype}"


def _plain_texts(column: pd.Series[Any]) -> Any:
    """Return values as text, or as categories if they repeat or some are missing."""
    missing = column.isna().to_numpy()
    texts = [None if gone else _as_text(value) for value, gone in zip(column, missing, strict=True)]
    values = pd.Series(texts, dtype=object)
    if missing.any() or (column.name not in GENE_NAMES and values.nunique() < len(values)):
        return pd.Categorical(values)
    return values.to_numpy(dtype=object)


def _as_text(value: Any) -> str:
    return _plain_text(value.decode(errors="replace") if isinstance(value, bytes) else str(value))


def _plain_text(text: str) -> str:
    """Return text that UTF-8 and HDF5 support: without NUL, and with ? for surrogates."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode(errors="replace").decode()


def changes_of(columns: Collection[str], table: pd.DataFrame | None) -> list[str]:
    """Return descriptions of the changes that `storable` makes to a table, one per column.

    Parameters
    ----------
    columns
        Names of the columns.
    table
        The table, if it may contain unsupported values; None if it is from a file in these formats.
    """
    said, keys = [], list[str]()
    logger.disabled, before = True, logger.disabled
    try:
        for place, name in enumerate(columns):
            key = storable_name(name, "", keys)
            keys.append(key)
            kind = "" if table is None else plain_column(table.iloc[:, place])[1]
            words = [f"{kind} as text"] * bool(kind) + [f"under the name {key!r}"] * (key != str(name))
            if words:
                said.append(f"{str(name)!r} ({', '.join(words)})")
    finally:
        logger.disabled = before
    return said


def _are_texts(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | tuple) and all(
        isinstance(text, str) for text in np.array(value, dtype=object).ravel()
    )


def storable_mapping(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a copy of a mapping with the values that AnnData's formats support; others are logged.

    Parameters
    ----------
    value
        A mapping of mappings, arrays, tables, numbers and texts.
    where
        Name of the mapping in messages.
    """
    stored: dict[str, Any] = {}
    for name, part in value.items():
        place = f"{where}[{name!r}]"
        if isinstance(part, Mapping):
            stored[storable_name(name, where, stored)] = storable_mapping(part, place)
        elif isinstance(part, pd.DataFrame):
            stored[storable_name(name, where, stored)] = storable(part, place)
        elif isinstance(part, np.ndarray) and part.dtype.kind in "biufUS":
            stored[storable_name(name, where, stored)] = part.copy()
        elif _are_texts(part):
            stored[storable_name(name, where, stored)] = np.array(part, dtype=object)
        elif isinstance(part, str | bool | int | float | np.generic) and not isinstance(part, np.void):
            stored[storable_name(name, where, stored)] = _plain_text(part) if isinstance(part, str) else part
        else:
            logger.warning("%s is left out: a result cannot contain %s.", place, type(part).__name__)
    return stored
