"""Tables in the types that AnnData's formats hold."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from weft._errors import InputError

logger = logging.getLogger("weft")


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
        key = str(name).replace("/", "_")
        if key in columns:
            raise InputError(
                where,
                expected="distinct column names",
                got=f"{key!r} twice",
                fix="Rename one of the columns.",
            )
        if "/" in str(name):
            logger.warning("%s: column %r is written as %r, as names may not hold '/'.", where, name, key)
        columns[key] = _storable_column(column, f"{where}[{name!r}]")
    return pd.DataFrame(columns, index=frame.index.astype(str).astype(object).rename(None))


def _storable_column(column: pd.Series[Any], where: str) -> Any:
    if isinstance(column.dtype, pd.CategoricalDtype) or not (
        column.dtype == object or isinstance(column.dtype, pd.StringDtype)
    ):
        return column.array
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in ("string", "empty"):
        raise InputError(
            where,
            expected="one type of values",
            got=f"{kind} objects",
            fix=f"Convert the column, such as with {where}.astype(str), or drop it.",
        )
    if column.isna().any() or column.nunique() < len(column):
        return pd.Categorical(column.astype(object))
    return column.to_numpy(dtype=object)
