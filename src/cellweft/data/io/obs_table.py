"""The table of the cells: in memory, or in a file and read column by column on request.

A table of millions of cells may be larger than all other data in memory, and little of it is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import TABLE_ROWS, row_blocks
from cellweft._errors import FormatError
from cellweft._typing import IntArray
from cellweft.data.io.damaged import read_stored, reading
from cellweft.data.io.reopenable import Reopening
from cellweft.data.io.sanitize import storable_column, storable_name
from cellweft.data.io.zarr_store import write_quietly


class Annotation(Protocol):
    """A table with one row per cell, and names of the cells."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns, as text."""

    def __len__(self) -> int: ...

    def __getitem__(self, name: str) -> pd.Series[Any]:
        """Return a column, with cells in order; its index is meaningless."""

    def names(self, rows: IntArray | None = None) -> pd.Index[Any]:
        """Return the names of some cells; all by default."""

    def name_blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the names of all cells, some thousands at a time."""

    def frame(self, rows: IntArray | None = None) -> pd.DataFrame:
        """Return the table of some cells; all by default."""


@dataclass(frozen=True, eq=False)
class HeldTable:
    """A table in memory."""

    table: pd.DataFrame

    @property
    def columns(self) -> list[str]:
        """Names of the columns, as text."""
        return [str(name) for name in self.table.columns]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return self.table.iloc[:, self.columns.index(name)]

    def names(self, rows: IntArray | None = None) -> pd.Index[Any]:
        """Return the names of some cells; all by default."""
        names: pd.Index[Any] = self.table.index
        return names if rows is None else names[rows]

    def name_blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the names of all cells as text, some thousands at a time."""
        for rows in row_blocks(len(self.table), TABLE_ROWS):
            yield self.table.index[rows].astype(str).to_numpy(dtype=object)

    def frame(self, rows: IntArray | None = None) -> pd.DataFrame:
        """Return the table of some cells; all by default."""
        return self.table if rows is None else self.table.iloc[rows]


@dataclass(frozen=True, eq=False)
class StoredTable(Reopening):
    """A table in an HDF5 file or a zarr store.

    Attributes
    ----------
    index
        (n_cells,) element with the names.
    elements
        Elements of the columns by name, in order.
    index_name
        Name of the index, or None.
    where
        Name of the table in errors.
    """

    index: Any
    elements: dict[str, Any]
    index_name: str | None = None
    where: str = "obs"

    @classmethod
    def of_group(cls, group: Any, where: str = "obs") -> Annotation:
        """Return the table that AnnData stored in a group; tables of older layouts are read immediately."""
        with reading(where):
            attributes = dict(group.attrs)
            name = attributes.get("_index")
            encoding = attributes.get("encoding-type"), attributes.get("encoding-version")
            is_table = hasattr(group, "keys") and name in group  # `in` would read a whole array
            index = _stored_names(group[name], where) if is_table else None
            if encoding != ("dataframe", "0.2.0") or index is None or not hasattr(index, "shape"):
                return HeldTable(read_table_of(group, where))
            columns = {str(column): group[str(column)] for column in attributes["column-order"]}
        return cls(index, columns, None if name == "_index" else name, where)

    def __post_init__(self) -> None:
        """Raise `FormatError` if the names are not a list."""
        shape = getattr(self.index, "shape", None)
        if shape is None or len(shape) != 1:
            raise _no_table(self.where, f"names in an array of shape {shape}")

    @property
    def columns(self) -> list[str]:
        """Names of the columns, as text."""
        return list(self.elements)

    def __len__(self) -> int:
        return int(self.index.shape[0])

    def __getitem__(self, name: str) -> pd.Series[Any]:
        if name not in self.elements:
            raise KeyError(name)
        with reading(self.where, f"[{name!r}]"):
            column = pd.Series(read_stored(self.elements[name]))
            if len(column) != len(self):
                raise _no_table(f"{self.where}[{name!r}]", f"{len(column):,} values for {len(self):,} cells")
            return with_text(column, f"{self.where}[{name!r}]")

    def names(self, rows: IntArray | None = None) -> pd.Index[Any]:
        """Return the names of some cells; all by default."""
        with reading(self.where, "_names"):  # a damaged file may claim more than fit into memory
            names = np.empty(len(self), dtype=object)
        for part, block in _located(self.name_blocks()):
            names[part] = block
        with reading(self.where, "_names"):  # pandas chooses the type for text: `object` before pandas 3
            return pd.Index(names if rows is None else names[rows], name=self.index_name)

    def name_blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the names of all cells, some thousands at a time."""
        for rows in row_blocks(len(self), TABLE_ROWS):
            with reading(self.where, "_names"):
                block = np.asarray(self.index[rows]).astype(object)
                block = np.array([as_text(name) for name in block], dtype=object)
            yield block

    def frame(self, rows: IntArray | None = None) -> pd.DataFrame:
        """Return the table of some cells; all by default."""
        columns = {name: self[name].array for name in self.elements}
        with reading(self.where):
            table = pd.DataFrame(columns, index=self.names(), columns=self.columns)
        return table if rows is None else table.iloc[rows]


def _stored_names(element: Any, where: str) -> Any:
    """Return the array with the names; from pandas 3, it is in a group, with a mask of missing names."""
    if dict(element.attrs).get("encoding-type") != "nullable-string-array":
        return element
    names, is_missing = element["values"], element["mask"]
    if names.shape != is_missing.shape:  # check before reading a mask of any size
        raise _no_table(where, f"names of shape {names.shape} with a mask of shape {is_missing.shape}")
    return element if np.any(is_missing[:]) else names


def read_table_of(group: Any, where: str) -> pd.DataFrame:
    """Read a table that AnnData stored in a group.

    Parameters
    ----------
    group
        Group of an HDF5 file or zarr store.
    where
        Name of the table in errors.

    Raises
    ------
    FormatError
        It cannot be read, or is not a table.
    """
    with reading(where):
        table = read_stored(group)
    if not isinstance(table, pd.DataFrame):
        raise _no_table(where, f"a {type(table).__name__}")
    return table_with_text(table, where)


def table_with_text(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a table that pandas can use: bytes as text, numbers in the byte order of this machine.

    Parameters
    ----------
    table
        A table of cells or genes.
    where
        Name of the table in errors, such as ``sc (atlas.h5ad).var``.

    Raises
    ------
    FormatError
        Bytes are not text in UTF-8.

    Examples
    --------
    >>> table_with_text(pd.DataFrame({"symbol": [b"Gad1"]}, index=[b"a"]), "sc.var")
      symbol
    a   Gad1
    """
    parts = [(place, table.iloc[:, place]) for place in range(table.shape[1])]
    texts = {
        place: with_text(column, f"{where}[{column.name!r}]")
        for place, column in parts
        if _is_foreign(column)
    }
    names = pd.Series(table.index, dtype=table.index.dtype)  # pandas 3 must not convert it to its own text
    if texts:
        columns = [texts.get(place, column).array for place, column in parts]
        table = pd.DataFrame(dict(enumerate(columns)), index=table.index).set_axis(table.columns, axis=1)
    if _is_foreign(names):
        table = table.set_axis(pd.Index(with_text(names, f"{where}_names"), name=table.index.name), axis=0)
    return table


def with_text(column: pd.Series[Any], where: str) -> pd.Series[Any]:
    """Return a column with text in place of bytes (taken to be UTF-8), and numbers in native byte order.

    Parameters
    ----------
    column
        Column of a table; it is not changed.
    where
        Name of the column in errors.

    Raises
    ------
    FormatError
        Bytes are not text in UTF-8.
    """
    if not _is_foreign(column):
        return column
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "V":
        raise _no_table(where, f"values of type {dtype}")
    if isinstance(dtype, np.dtype) and not dtype.isnative:
        return column.astype(dtype.newbyteorder("="))
    categories = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    try:
        texts = [value.decode() if isinstance(value, bytes) else value for value in categories]
    except UnicodeDecodeError as error:
        raise FormatError(
            where,
            expected="text in UTF-8",
            got=f"bytes that are not UTF-8, such as {error.object[:40]!r}",
            fix="Write it again as text: decode it from the encoding it was written in, such as latin-1.",
        ) from error
    if categories is column:
        return pd.Series(texts, index=column.index, name=column.name, dtype=object)
    unique_texts = pd.Index(pd.unique(pd.Series(texts, dtype=object)), dtype=object)  # may look the same
    codes = np.append(unique_texts.get_indexer(pd.Index(texts, dtype=object)), -1)[column.cat.codes]
    values = pd.Categorical.from_codes(codes, categories=unique_texts, ordered=bool(column.cat.ordered))
    return pd.Series(values, index=column.index, name=column.name)


def _is_foreign(column: pd.Series[Any]) -> bool:
    """Whether a column has bytes for text, another byte order, or a type that pandas cannot use."""
    dtype = column.dtype
    is_odd = isinstance(dtype, np.dtype) and (dtype.kind == "V" or not dtype.isnative)
    return is_odd or _has_bytes(column)


def _has_bytes(column: pd.Series[Any]) -> bool:
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if values.dtype != object:
        return getattr(values.dtype, "kind", "") == "S"
    kind = pd.api.types.infer_dtype(values, skipna=True)
    return kind == "bytes" or (kind.startswith("mixed") and any(isinstance(value, bytes) for value in values))


def _no_table(where: str, got: str) -> FormatError:
    fix = "The file is damaged: copy or download it again, or write it again with AnnData."
    return FormatError(where, expected="a table with a name and a value for each row", got=got, fix=fix)


@dataclass(frozen=True, eq=False)
class ExtendedTable:
    """A table with additional columns, which replace those with the same name.

    Attributes
    ----------
    table
        The table to extend.
    more
        Arrays with one row per cell, by name.
    """

    table: Annotation
    more: Mapping[str, NDArray[Any]]

    @property
    def columns(self) -> list[str]:
        """Names of the columns, as text."""
        return [*(name for name in self.table.columns if name not in self.more), *self.more]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> pd.Series[Any]:
        return pd.Series(self.more[name]) if name in self.more else self.table[name]

    def names(self, rows: IntArray | None = None) -> pd.Index[Any]:
        """Return the names of some cells; all by default."""
        return self.table.names(rows)

    def name_blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the names of all cells, some thousands at a time."""
        return self.table.name_blocks()

    def frame(self, rows: IntArray | None = None) -> pd.DataFrame:
        """Return the table of some cells; all by default."""
        more = {name: values if rows is None else values[rows] for name, values in self.more.items()}
        return self.table.frame(rows).assign(**more)


def write_table(store: Any, key: str, table: Annotation) -> None:
    """Write a table as AnnData does, column by column, without loading it.

    Parameters
    ----------
    store
        HDF5 or zarr group to write into.
    key
        Name of the new element.
    table
        Table of the cells. Values that AnnData cannot store become text.
    """
    group = store.create_group(key)
    written: list[str] = []
    write_names(group, "_index", table)
    for name in table.columns:
        stored = storable_name(name, key, written)
        values = storable_column(table[name])
        if isinstance(values, pd.arrays.NumpyExtensionArray):
            values = values.to_numpy()
        write_quietly(group, stored, values)
        written.append(stored)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    is_hdf5 = isinstance(store, h5py.Group)
    group.attrs["column-order"] = np.array(written, dtype=h5py.string_dtype()) if is_hdf5 else written


def write_names(store: Any, key: str, table: Annotation) -> None:
    """Write the names of all cells as AnnData does, some thousands at a time.

    Parameters
    ----------
    store
        HDF5 or zarr group to write into.
    key
        Name of the new element.
    table
        Table of the cells.
    """
    n_cells = len(table)
    chunk = (min(TABLE_ROWS, max(n_cells, 1)),)
    if isinstance(store, h5py.Group):
        packing = {"chunks": chunk, "compression": "gzip", "compression_opts": 1} if n_cells else {}
        names = store.create_dataset(key, (n_cells,), dtype=h5py.string_dtype(), **packing)
    else:
        names = store.create_array(key, shape=(n_cells,), dtype=str, chunks=chunk)
    names.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    for part, block in _located(table.name_blocks()):
        names[part] = np.array([str(name) for name in block], dtype=object)


def _located(blocks: Iterable[NDArray[Any]]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield blocks of an array with their positions."""
    start = 0
    for block in blocks:
        yield slice(start, start + len(block)), block
        start += len(block)


def as_text(name: Any) -> str:
    """Return a stored name as text."""
    return name.decode() if isinstance(name, bytes) else str(name)


def repeated(blocks: Callable[[], Iterable[NDArray[np.uint64]]], n_values: int) -> IntArray:
    """Return the positions of values that occur more than once, with a single copy of the values in memory.

    Parameters
    ----------
    blocks
        Function that yields the values in order, some at a time; called a second time if some are equal.
    n_values
        Number of values.

    Examples
    --------
    >>> repeated(lambda: [np.array([7, 5], dtype=np.uint64), np.array([7], dtype=np.uint64)], 3)
    array([0, 2])
    """
    values = np.empty(n_values, dtype=np.uint64)
    for part, block in _located(blocks()):
        values[part] = block
    values.sort()
    twice = np.unique(values[1:][values[1:] == values[:-1]])
    if not len(twice):
        return np.empty(0, dtype=np.int64)
    # By sorting, because the table that numpy 2.0.0 uses for small values overflows beyond 2^63.
    positions = [
        part.start + np.flatnonzero(np.isin(block, twice, kind="sort")) for part, block in _located(blocks())
    ]
    return np.concatenate(positions)


def names_twice(table: Annotation) -> list[str]:
    """Return the names that occur more than once, in order, with eight bytes of memory per cell.

    Parameters
    ----------
    table
        Table of the cells.

    Examples
    --------
    >>> names_twice(HeldTable(pd.DataFrame(index=["a", "b", "a"])))
    ['a']
    """

    def hashes() -> Iterator[NDArray[np.uint64]]:
        for block in table.name_blocks():
            yield pd.util.hash_array(block, categorize=False)

    places = repeated(hashes, len(table))
    if not len(places):
        return []
    suspects: list[str] = []
    for part, block in _located(table.name_blocks()):
        block_places = places[(places >= part.start) & (places < part.stop)]
        suspects += [str(name) for name in block[block_places - part.start]]
    return [name for name, times in Counter(suspects).items() if times > 1]
