"""Further values of cells, in addition to counts, as columns of numbers that can be averaged.

A column of ``obs``, an array or table of ``obsm``, a layer, or an argument of the caller: all are transferred
between the sides in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellweft._compute import READ_BYTES, row_blocks, rows_within
from cellweft._errors import FormatError, InputError, Placeholder, arg, array_of, check_known, sentence
from cellweft._text import many, shorten
from cellweft._typing import DoubleArray, IntArray
from cellweft.data._pair import Pair
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.columns import column_of, in_order_of, text_labels
from cellweft.data.side import Side

_PROTEINS = re.compile(
    r"prot(ein)?s?([-_. ]|$)|(^|[-_. ])adts?([-_. ]|$)|antibod|cite[-_ ]?seq", re.IGNORECASE
)
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean")


@dataclass(frozen=True, kw_only=True, eq=False)
class CellValues:
    """Columns of numbers with one row per cell of a side, computed or read on request.

    Attributes
    ----------
    n_columns
        Number of columns.
    read
        Returns (n_cells, n_asked) finite numbers for a slice of the columns.
    names
        (n_columns,) names of the columns, or None.
    is_vector
        Whether it is a single column without a second axis.
    """

    n_columns: int
    read: Callable[[slice], DoubleArray]
    names: list[str] | None = None
    is_vector: bool = False

    def table(self, carried: DoubleArray, index: pd.Index[Any]) -> Any:
        """Return the columns transferred to other cells, in the form in which they were given.

        Parameters
        ----------
        carried
            (n_others, n_columns) transferred values.
        index
            (n_others,) names of the other cells.
        """
        if self.names is None:
            return carried[:, 0] if self.is_vector else carried
        return pd.DataFrame(carried, index=index, columns=pd.Index(self.names))


def mean_of(numbers: DoubleArray, carry: Callable[[DoubleArray], DoubleArray]) -> DoubleArray:
    """Return weighted means of columns of numbers, with reduced rounding errors of float32.

    Parameters
    ----------
    numbers
        (n_cells, n_columns) finite.
    carry
        Returns weighted means of the rows of such an array, with weights that sum to 1, in float32.

    Notes
    -----
    The minimum of a column is subtracted first, so that float32 keeps more digits. Means are within the range
    of their column.
    """
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    return np.asarray(np.clip(carry(numbers - low) + low, low, high))


def column_values(side: Side, name: str, *, argument: str) -> CellValues:
    """Return a column of ``obs``: numbers, or, for text, a column of 0 and 1 for each label.

    Parameters
    ----------
    side
        The side of the cells.
    name
        Name of the column.
    argument
        Name of the argument in errors.

    Raises
    ------
    KeyMissingError, InputError
        No such column, or its numbers contain NaN.
    """
    column = column_of(side.obs, name, where=f"the {side.name} data", argument=argument)
    return array_values(column, n_rows=side.n_cells, argument=argument)


def given_values(side: Side, values: Any) -> CellValues:
    """Return values that a caller passes for the cells of a side; parameters and errors as in `array_values`.

    The index of a pandas table or column contains the names of the cells, unless it only counts the rows.
    """
    ordered = in_order_of(values, side.obs_names, argument="values")
    return array_values(ordered, n_rows=side.n_cells)


def array_values(values: Any, *, n_rows: int, argument: str = "values") -> CellValues:
    """Return an array or table with one row per cell; a column of text becomes one column per label.

    Parameters
    ----------
    values
        (n_rows,) numbers or text, (n_rows, n_columns) numbers, dense or sparse, or a DataFrame of numbers or
        of one column of text. Categories are text.
    n_rows
        Number of cells.
    argument
        Name of the argument in errors.

    Raises
    ------
    InputError
        Another shape, text in one of several columns, NaN or infinite numbers, no value in any row.
    """
    if sp.issparse(values):
        values = cast(sp.csr_array, values).toarray()
    fix = "Pass an array, a table or the name of a column."
    if isinstance(values, str):
        fix = sentence("Pass a column of obs as {}.", arg("obs", values))
        raise InputError(argument, expected="an array or table", got=f"text, {values!r}", fix=fix)
    if isinstance(values, pd.DataFrame) and values.shape[1] == 1 and not _holds_numbers(values.iloc[:, 0]):
        values = values.iloc[:, 0]
    array = (
        values.to_numpy()
        if isinstance(values, pd.DataFrame | pd.Series)
        else array_of(argument, values, fix=fix, numbers=False)
    )
    if array.ndim not in (1, 2) or len(array) != n_rows or 0 in array.shape:
        raise InputError(
            argument,
            expected=f"{n_rows:,} rows, in one or more columns",
            got=f"shape {array.shape}",
            fix="Pass values for the cells that you transfer from.",
        )
    if array.dtype.kind == "c" or (array.ndim == 2 and array.dtype.kind in "mM"):
        raise InputError(argument, expected="numbers or text", got=f"values of type {array.dtype}", fix=fix)
    column = values if isinstance(values, pd.Series) else pd.Series(array if array.ndim == 1 else [])
    if array.ndim == 1 and bool(column.isna().all()):
        raise InputError(argument, expected="values of cells", got="no value in any row", fix=fix)
    if array.ndim == 1 and not _holds_numbers(column):
        return label_values(column)
    table = values if isinstance(values, pd.DataFrame) else pd.DataFrame(array.reshape(n_rows, -1))
    texts = [
        str(name) for place, name in enumerate(table.columns) if not _holds_numbers(table.iloc[:, place])
    ]
    if texts:
        raise InputError(
            argument,
            expected="columns of numbers, or one column of text",
            got=f"text in {shorten(texts)} of {table.shape[1]:,} columns",
            fix="Transfer one column of text at a time.",
        )
    numbers = table.to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(numbers).all():
        raise InputError(
            argument,
            expected="finite numbers",
            got=f"NaN or infinity in {many(int((~np.isfinite(numbers)).any(axis=1).sum()), 'row')}",
            fix="Fill or remove missing values.",
        )
    return CellValues(
        n_columns=numbers.shape[1],
        read=lambda columns: numbers[:, columns],
        names=list(map(str, values.columns)) if isinstance(values, pd.DataFrame) else None,
        is_vector=array.ndim == 1,
    )


def _holds_numbers(column: pd.Series[Any]) -> bool:
    """Return whether a column contains numbers, or Python's numbers and missing values."""
    if column.dtype != object:
        return pd.api.types.is_numeric_dtype(column)
    return pd.api.types.infer_dtype(column, skipna=True) in _NUMBERS


def label_values(labels: pd.Series[Any]) -> CellValues:
    """Return one column per label, sorted, with 1 for cells with this label and 0 for the others."""
    names, codes = np.unique(text_labels(labels).astype(str), return_inverse=True)
    every = np.arange(len(names))
    return CellValues(
        n_columns=len(names),
        read=lambda columns: (codes[:, None] == every[columns]).astype(np.float64),
        names=names.tolist(),
    )


def table_values(side: Side, names: Iterable[str], *, argument: str) -> CellValues:
    """Return one or several numeric columns of ``obs``; parameters and errors as in `column_values`."""
    columns, names = {}, list(names)
    if not names:
        fix = sentence("Specify one: {}.", arg(argument, Placeholder("COLUMN")))
        raise InputError(argument, expected="one or more columns of obs", got="none", fix=fix)
    for name in names:
        columns[name] = column_of(side.obs, name, where=f"the {side.name} data", argument=argument)
    return array_values(pd.DataFrame(columns), n_rows=side.n_cells, argument=argument)


def obsm_values(side: Side, key: str) -> CellValues:
    """Return an array or table of ``obsm``.

    Parameters
    ----------
    side
        The side of the cells.
    key
        A key of ``obsm``.

    Raises
    ------
    KeyMissingError, InputError
        No such key, values that are not finite numbers, or negative protein values.
    """
    where = arg("obsm", key)
    check_known(key, side.obsm, where, expected=f"a key of obsm of the {side.name} side", got="no such key")
    table = side.obsm[key]
    values = array_values(table, n_rows=side.n_cells, argument=where)
    if _PROTEINS.search(key):
        numbers = values.read(slice(0, values.n_columns))
        below = np.flatnonzero((numbers < 0).any(axis=0))
        if len(below):
            column = below[0] if values.names is None else repr(values.names[below[0]])
            raise InputError(
                where,
                expected="protein abundances of 0 or more",
                got=f"values below zero in {many(len(below), 'column')}, down to {numbers.min():g} "
                f"(the first column is {column})",
                fix=sentence(
                    "Pass the counts. If the values are centred or background-corrected (CLR, dsb), they "
                    "may be negative: pass them as {}.",
                    arg("values"),
                ),
            )
    return values


def layer_values(pair: Pair, layer: str, genes: IntArray) -> CellValues:
    """Return genes in a layer of the reference, with unchanged values.

    Parameters
    ----------
    pair
        The pair with the reference.
    layer
        Name of the layer.
    genes
        (n_genes,) positions in the reference.

    Raises
    ------
    KeyMissingError, FormatError, InputError
        No such layer, a layer of another shape, or NaN or infinite values when they are read.
    """
    where, side = arg("layer", layer), pair.sc
    check_known(layer, side.layers, where, expected="a layer of the reference", got="no such layer")
    matrix = open_rows(side.layers[layer], where=where)
    if matrix.shape != side.matrix.shape:
        (cells, columns), (n_cells, n_columns) = side.matrix.shape, matrix.shape
        raise FormatError(
            where,
            expected=f"{cells:,} cells x {columns:,} genes, the shape of the reference's matrix",
            got=f"{n_cells:,} x {n_columns:,}",
            fix="Create the layer again for the same cells and genes as X.",
        )
    places = side.columns[genes]

    def read(columns: slice) -> DoubleArray:
        values = np.empty((side.n_cells, len(places[columns])))
        size = rows_within(READ_BYTES, max(matrix.row_bytes, 8.0 * values.shape[1]))
        for rows in row_blocks(side.n_cells, size):
            block = matrix.read(rows if side.rows is None else side.rows[rows], places[columns])
            values[rows] = block.toarray() if sp.issparse(block) else block
        n_bad = int((~np.isfinite(values)).any(axis=1).sum())
        if n_bad:
            raise InputError(
                where,
                expected="finite numbers",
                got=f"NaN or infinity in {many(n_bad, 'cell')}",
                fix="Fill or remove missing values.",
            )
        return values

    return CellValues(n_columns=len(genes), read=read, names=list(map(str, side.genes[genes])))
