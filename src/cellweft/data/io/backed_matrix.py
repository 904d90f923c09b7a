"""Row blocks of a matrix in memory, in an HDF5 file, in a zarr store, or in Dask.

All other code reads matrices through `RowSource`, so that files larger than memory and arrays in memory are
treated alike. A matrix on disk is opened, never loaded; only requested rows are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import h5py
import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray

from cellweft._compute import READ_BYTES, row_blocks
from cellweft._errors import FormatError, InputError, array_of
from cellweft._typing import DoubleArray, IntArray, Matrix
from cellweft.data.io.damaged import reading
from cellweft.data.io.lost_chunks import lost_regions
from cellweft.data.io.reopenable import Reopening
from cellweft.data.io.zarr_store import ArrayWatch

Rows = slice | IntArray

# The overhead of a read equals this many bytes, so rows that are closer are read together...
_GAP_BYTES = 256 * 2**10
# ...up to this many bytes, which limits the memory of a read for any rows.

_BLOCK_STARTS = 2**18  # starts of rows per read


class RowSource(Protocol):
    """A matrix whose rows can be read."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows (cells) and columns (genes)."""

    @property
    def row_bytes(self) -> float:
        """Mean memory of a row, in bytes."""

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        """Return the requested rows and columns, in the requested order.

        Parameters
        ----------
        rows
            A slice, or positions of rows in any order, possibly repeated.
        columns
            Positions of columns in any order, possibly repeated; all by default.

        Returns
        -------
        csr_matrix or ndarray
            float32, (n_rows, n_columns), a copy: sparse if the source is sparse.
        """


def open_rows(matrix: Any, *, where: str = "matrix") -> RowSource:
    """Return a `RowSource` for a matrix of any kind that AnnData supports.

    Parameters
    ----------
    matrix
        (n_cells, n_genes): ndarray, scipy sparse, HDF5 or zarr array, AnnData's sparse group in either (or
        its dataset class), Dask array, or a view of a backed AnnData (its ``X`` is read). A `RowSource` is
        returned unchanged.
    where
        Name of the matrix in errors.

    Raises
    ------
    InputError
        The matrix is of another kind, or not two-dimensional.
    FormatError
        A group on disk does not contain a sparse matrix, or lacks chunks that cannot be zeros.

    Notes
    -----
    Reading rows of a matrix stored by gene (CSC) requires reading all of it each time. Therefore it is loaded
    once and converted to rows; `stored_by_gene` returns whether this is the case.

    Examples
    --------
    >>> source = open_rows(np.eye(3))
    >>> source.read(slice(1, 3), np.array([2, 1]))
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    if hasattr(matrix, "row_bytes"):
        opened: RowSource = matrix
        return opened
    if isinstance(matrix, AnnData):
        return _open_view(matrix, where)
    if isinstance(matrix, CSRDataset | CSCDataset):
        matrix = matrix.group
    if _is_group(matrix):
        with reading(where):
            return _open_group(matrix, where)
    if len(getattr(matrix, "shape", ()) or ()) != 2:  # None: an empty dataset of HDF5
        raise InputError(
            where,
            expected="a two-dimensional matrix, cells x genes",
            got=f"{type(matrix).__name__} of shape {getattr(matrix, 'shape', None)}",
            fix="Pass a matrix with one row per cell and one column per gene.",
        )
    if isinstance(matrix, np.ndarray) and matrix.dtype == object:
        matrix = array_of(where, matrix, fix=_STORE_COUNTS)
    _refuse_kind(matrix, where)
    if sp.issparse(matrix):
        by_row = _canonical(matrix)
        return _MemoryRows(by_row, _sparse_row_bytes(by_row.nnz, by_row.shape[0]))
    if isinstance(matrix, np.ndarray):
        return _MemoryRows(np.asarray(matrix), 4.0 * matrix.shape[1])
    if isinstance(matrix, h5py.Dataset) or _comes_from(matrix, "zarr") or _comes_from(matrix, "dask"):
        return _LazyRows(matrix, 4.0 * int(matrix.shape[1]), where)
    expected = "an array, a scipy sparse matrix, an HDF5 or zarr array, or a Dask array"
    raise InputError(
        where, expected=expected, got=type(matrix).__name__, fix="Convert it to one of these first."
    )


_STORE_COUNTS = "Store counts as whole numbers or float32."


def _refuse_kind(values: Any, where: str) -> None:
    """Raise `InputError` for values that are not real numbers; complex ones would silently lose a part."""
    dtype = getattr(values, "dtype", None)  # Dask arrays may have unknown shapes
    kind = getattr(dtype, "kind", "f")
    if kind not in "biuf":
        words = {"c": "complex numbers", "M": "dates", "m": "durations", "V": "records"}
        got = f"{words.get(kind, 'text')} ({dtype})"
        raise InputError(where, expected="real numbers", got=got, fix=_STORE_COUNTS)


def stored_by_gene(matrix: Any) -> bool:
    """Return whether a matrix on disk is stored by gene (CSC), so that `open_rows` has to load it."""
    return isinstance(matrix, CSCDataset) or (_is_group(matrix) and _encoding(matrix) == "csc")


@dataclass(frozen=True, eq=False)
class _ArrayRows(Reopening):
    array: Any
    row_bytes: float

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.array.shape[0]), int(self.array.shape[1])


class _MemoryRows(_ArrayRows):  # an ndarray, or a csr_matrix without duplicate entries
    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        return _picked(self.array[_plain(rows)], columns)


@dataclass(frozen=True, eq=False)
class _LazyRows(_ArrayRows):  # an h5py.Dataset, zarr.Array, or Dask array with dense or sparse blocks
    where: str  # name in errors
    watch: ArrayWatch = field(init=False)
    _read_again = ("watch",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "watch", ArrayWatch(self.array))

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        def span(start: int, stop: int) -> Matrix:
            place = f", rows {start:,} to {stop - 1:,}"
            with reading(self.where, place), self.watch.reading(self.where):
                part = self.array[start:stop]
                if not hasattr(part, "compute"):
                    return _picked(part, columns, is_own=True)
                # Use threads: inside a task of a cluster, workers could wait for each other.
                part = part.compute(scheduler="threads")
            return _picked(part, columns)

        return _gather(rows, self, span)


@dataclass(frozen=True, eq=False)
class _DiskSparseRows(Reopening):
    data: Any  # (nnz,) h5py.Dataset or zarr.Array, as are the indices
    indices: Any
    starts: Any  # (n_rows + 1,) likewise
    n_columns: int
    where: str  # name in errors
    indptr: NDArray[Any] = field(init=False)  # the starts in memory, with four bytes each if possible
    watch: ArrayWatch = field(init=False)
    _read_again = ("indptr", "watch")

    def __post_init__(self) -> None:
        object.__setattr__(self, "watch", ArrayWatch(self.indices))
        with reading(self.where, ".indptr"):
            self._read_starts()

    def _read_starts(self) -> None:
        """Read the starts of the rows, and check them."""
        _check_parts(self.data, self.indices, self.starts, self.where)
        n_starts = int(self.starts.shape[0])
        fits = not n_starts or int(self.starts[n_starts - 1]) <= np.iinfo(np.uint32).max
        indptr = np.empty(n_starts, dtype=np.uint32 if fits else np.int64)
        n_values, before = min(int(array.shape[0]) for array in (self.data, self.indices)), 0
        for rows in row_blocks(n_starts, _BLOCK_STARTS):
            block = np.asarray(self.starts[rows], dtype=np.int64)
            if block[0] < before or (np.diff(block) < 0).any() or block[-1] > n_values:
                got = f"row starts that decrease, or exceed the {n_values:,} values of data and indices"
                raise _damaged(self.where, "indptr that rises from 0 to the number of values", got)
            indptr[rows], before = block, block[-1]
        if not n_starts or indptr[0] != 0:
            raise _damaged(self.where, "indptr that starts at 0", f"{indptr[0]:,}" if n_starts else "none")
        object.__setattr__(self, "indptr", indptr)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, self.n_columns

    @property
    def row_bytes(self) -> float:
        return _sparse_row_bytes(int(self.indptr[-1]), self.shape[0])

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        def span(start: int, stop: int) -> Matrix:
            low, high = int(self.indptr[start]), int(self.indptr[stop])
            starts = self.indptr[start : stop + 1].astype(np.int64) - low
            place = f", rows {start:,} to {stop - 1:,}"
            with reading(self.where, place), self.watch.reading(self.where):
                indices, values = self.indices[low:high], self.data[low:high]
            _check_indices(indices, self.n_columns, self.where)
            values = (
                values.astype(np.float32) if values.dtype == np.float16 else values
            )  # scipy has no float16
            parts = (values, indices, starts)
            block = sp.csr_matrix(parts, shape=(stop - start, self.n_columns))
            return _picked(block, columns, is_own=True)

        return _gather(rows, self, span)


def _check_indices(indices: NDArray[Any], n_columns: int, where: str) -> None:
    """Raise `FormatError` if indices of a sparse matrix are out of range; compiled code does not check."""
    if indices.dtype.kind not in "iu":
        raise _damaged(where, "indices that are whole numbers", f"{indices.dtype}")
    if len(indices) and not (indices.min() >= 0 and indices.max() < n_columns):
        got = f"{indices.min():,} to {indices.max():,}"
        raise _damaged(where, f"indices from 0 to {n_columns - 1:,}", got)


def _check_parts(data: Any, indices: Any, indptr: Any, where: str) -> None:
    """Raise unless the three arrays of a sparse matrix are one-dimensional and numeric."""
    for name, part in (("data", data), ("indices", indices), ("indptr", indptr)):
        shape = getattr(part, "shape", None)  # also for empty selections
        if shape is None or len(shape) != 1:
            raise _damaged(f"{where}.{name}", "a list of values", f"shape {shape}")
        if name == "data":
            _refuse_kind(part, f"{where}.{name}")
        elif part.dtype.kind not in "iu":
            raise _damaged(f"{where}.{name}", "whole numbers", str(part.dtype))


def _damaged(where: str, expected: str, got: str) -> FormatError:
    fix = "The file is damaged: copy or download it again, or write it again with AnnData."
    return FormatError(where, expected=expected, got=got, fix=fix)


@dataclass(frozen=True, eq=False)
class _PartRows:
    whole: RowSource
    rows: IntArray
    columns: IntArray
    row_bytes: float

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        return self.whole.read(self.rows[rows], self.columns if columns is None else self.columns[columns])


@dataclass(frozen=True, eq=False)
class _ChosenRows:
    whole: RowSource
    rows: IntArray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.whole.shape[1]

    @property
    def row_bytes(self) -> float:
        return self.whole.row_bytes

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        return self.whole.read(self.rows[rows], columns)


def _open_view(view: Any, where: str) -> RowSource:
    """Open a view of a backed AnnData; its own X would load all rows, and cannot be sliced further."""
    data = view._adata_ref
    rows, columns = np.arange(data.n_obs)[view._oidx], np.arange(data.n_vars)[view._vidx]
    whole = open_rows(data.X, where=where)
    return _PartRows(whole, rows.astype(np.int64), columns.astype(np.int64), whole.row_bytes)


def _open_group(group: Any, where: str) -> RowSource:
    encoding = _encoding(group)
    if encoding is None or any(name not in group for name in ("data", "indices", "indptr")):
        raise FormatError(
            where,
            expected="a sparse matrix (data, indices, indptr) or an array",
            got=f"a group with {', '.join(map(repr, list(group))) or 'nothing in it'}",
            fix="Write the file again with AnnData.",
        )
    lost_regions(group, where=where)
    stored = group.attrs["shape"] if "shape" in group.attrs else group.attrs["h5sparse_shape"]
    shape = (int(stored[0]), int(stored[1]))
    if encoding == "csr":
        return _DiskSparseRows(group["data"], group["indices"], group["indptr"], shape[1], where)
    _check_parts(group["data"], group["indices"], group["indptr"], where)
    indices, indptr = group["indices"][:], np.asarray(group["indptr"][:], dtype=np.int64)
    _check_indices(indices, shape[0], where)
    if len(indptr) != shape[1] + 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        got = f"{len(indptr):,} column starts, not all in order"
        raise _damaged(where, f"indptr with {shape[1] + 1:,} entries that rise from 0", got)
    if not indptr[-1] <= min(len(indices), int(group["data"].shape[0])):
        raise _damaged(where, f"{indptr[-1]:,} values, as indptr states", f"{len(indices):,} indices")
    by_gene = sp.csc_matrix((group["data"][:], indices, indptr), shape=shape)
    return open_rows(by_gene, where=where)


def chosen_rows(source: RowSource, rows: IntArray) -> RowSource:
    """Return some rows of a matrix as a matrix, without reading them.

    Parameters
    ----------
    source
        The matrix.
    rows
        (n_rows,) positions of its rows, in any order.
    """
    if len(rows) == source.shape[0] and np.array_equal(rows, np.arange(len(rows))):
        return source
    return _ChosenRows(source, rows)


@dataclass(frozen=True, eq=False)
class WrappedRows:
    """Rows of a matrix that a subclass changes or inspects when they are read; the shape stays the same.

    Attributes
    ----------
    source
        The matrix.
    """

    source: RowSource

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows (cells) and columns (genes)."""
        return self.source.shape

    @property
    def row_bytes(self) -> float:
        """Mean memory of a row, in bytes."""
        return self.source.row_bytes


@dataclass(frozen=True, eq=False)
class ZeroedRows(WrappedRows):
    """Rows of a matrix in which NaN means not measured, and is read as zero.

    Attributes
    ----------
    source
        The matrix.
    """

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        """Return some rows; see `RowSource.read`."""
        block = self.source.read(rows, columns)
        values = block.data if sp.issparse(block) else block
        values[np.isnan(values)] = 0
        return block


def transposed_rows(
    data: Any, indices: Any, indptr: Any, *, n_genes: int, where: str = "matrix"
) -> RowSource:
    """Return the rows of a 10x matrix, which is stored as genes x cells by cell, or cells x genes by row."""
    return _DiskSparseRows(data, indices, indptr, n_genes, where)


def _gather(rows: Rows, source: RowSource, span: Callable[[int, int], Matrix]) -> Matrix:
    """Read rows in any order from a source that reads spans, in few reads of limited size."""
    n_rows = source.shape[0]
    if isinstance(rows, slice):
        start, stop, step = rows.indices(n_rows)
        if step == 1:
            return span(start, max(start, stop))
        rows = np.arange(start, stop, step)
    rows = np.where(np.asarray(rows) < 0, np.asarray(rows) + n_rows, rows).astype(np.int64)
    if len(rows) == 0:
        return span(0, 0)
    wanted, place = np.unique(rows, return_inverse=True)
    gap, longest = (max(int(size // source.row_bytes), 1) for size in (_GAP_BYTES, READ_BYTES))
    is_break = (np.diff(wanted) > gap) | (np.diff(wanted // longest) > 0)
    runs = np.split(wanted, np.flatnonzero(is_break) + 1)
    parts = [span(int(run[0]), int(run[-1]) + 1)[run - run[0]] for run in runs]
    whole = parts[0]
    if len(parts) > 1:
        is_sparse = sp.issparse(whole)
        whole = sp.csr_matrix(sp.vstack(parts, format="csr")) if is_sparse else np.concatenate(parts)
    ordered: Matrix = whole if np.array_equal(place, np.arange(len(wanted))) else whole[place]
    return ordered


def _picked(block: Any, columns: IntArray | None, *, is_own: bool = False) -> Matrix:
    """Return the columns of a block as float32, copied unless the block is already our own."""
    values = _canonical(block) if sp.issparse(block) else np.asarray(block)
    if columns is not None:
        values = values[:, columns]
        if sp.issparse(values):
            values.sort_indices()  # unsorted requested columns give unsorted indices
    # Values that are too large become infinite, and the scan reports them.
    with np.errstate(over="ignore", invalid="ignore"):
        converted: Matrix = values.astype(np.float32, copy=not is_own and columns is None)
    return converted


def _plain(rows: Rows) -> Rows:
    """Convert consecutive positions to a slice, which is much faster to read."""
    if isinstance(rows, slice) or len(rows) == 0:
        return rows
    first, last = int(rows[0]), int(rows[-1])
    if first >= 0 and last - first + 1 == len(rows) and bool((np.diff(rows) == 1).all()):
        return slice(first, last + 1)
    return rows


def _canonical(values: Any) -> sp.csr_matrix:
    """Return the matrix by rows, with duplicate entries summed; the input is never changed."""
    matrix: sp.csr_matrix = sp.csr_matrix(values)  # shares the arrays if it is already CSR
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _sparse_row_bytes(n_values: int, n_rows: int) -> float:
    return 8.0 * n_values / max(n_rows, 1) + 8


def _is_group(matrix: Any) -> bool:
    return isinstance(matrix, h5py.Group) or (_comes_from(matrix, "zarr") and not hasattr(matrix, "shape"))


def _encoding(group: Any) -> str | None:
    """Return "csr" or "csc", from the attributes of current or very old versions of AnnData."""
    text = str(group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", "")))
    return next((kind for kind in ("csr", "csc") if text.startswith(kind)), None)


def _comes_from(value: Any, package: str) -> bool:
    return type(value).__module__.split(".")[0] == package


def per_row(matrix: Matrix, factors: DoubleArray) -> Matrix:
    """Multiply every row by its factor, in place, and return the matrix.

    Parameters
    ----------
    matrix
        (n_cells, n_genes), float32, the caller's own.
    factors
        (n_cells,)
    """
    if sp.issparse(matrix):
        matrix.data *= np.repeat(factors.astype(np.float32), np.diff(matrix.indptr))
    else:
        matrix *= factors.astype(np.float32)[:, None]
    return matrix
