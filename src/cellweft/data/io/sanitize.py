"""Tables in the types that AnnData's formats hold."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import pandas as pd

from cellweft._errors import InputError

GENE_NAMES = ("symbol", "gene_id", "reference_name")
"""Columns with other names of genes: text, also where genes share one, as the empty one."""

logger = logging.getLogger("cellweft")


def storable(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a table in the types that AnnData's formats hold; the one that came is not changed.

    Parameters
    ----------
    frame
        Any table. Strings that repeat or are missing become categories, the index becomes strings; ``/`` in a
        column's name becomes ``_``, which is logged.
    where
        What the table is, for messages.

    Returns
    -------
    DataFrame
        The table to write.

    Raises
    ------
    InputError
        A column of mixed objects, or two columns of one name.

    Examples
    --------
    >>> storable(pd.DataFrame({"type": ["B", None]}, index=[7, 8]), "obs").index.tolist()
    ['7', '8']
    """
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        key = storable_name(name, where, columns)
        columns[key] = storable_column(column, f"{where}[{name!r}]")
    return pd.DataFrame(columns, index=frame.index.astype(str).astype(object).rename(None))


def storable_name(name: Any, where: str, taken: Collection[str]) -> str:
    """Return the name that a column is written under, without ``/``; a change is logged.

    Parameters
    ----------
    name, where
        Of the column, and what the table is, for messages.
    taken
        Names of the columns before it.

    Raises
    ------
    InputError
        The name is taken.
    """
    key = str(name).replace("/", "_")
    if key in taken:
        raise InputError(
            where, expected="distinct column names", got=f"{key!r} twice", fix="Rename one of the columns."
        )
    if "/" in str(name):
        logger.warning("%s: column %r is written as %r, as names may not hold '/'.", where, name, key)
    return key


def storable_column(column: pd.Series[Any], where: str) -> Any:
    """Return the values of a column in a type that AnnData's formats hold: see `storable`.

    Parameters
    ----------
    column, where
        The column, and what it is, for messages.

    Raises
    ------
    InputError
        Mixed objects.
    """
    if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
        return column.array
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in ("string", "empty"):
        fix = f"Convert the column, such as with {where}.astype(str), or drop it."
        raise InputError(where, expected="one type of values", got=f"{kind} objects", fix=fix)
    if column.isna().any() or (column.name not in GENE_NAMES and column.nunique() < len(column)):
        return pd.Categorical(column.astype(object))
    return column.to_numpy(dtype=object)
