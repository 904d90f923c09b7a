"""Reads one gene in all cells from matrices stored by cell; neighbouring genes are cached."""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import h5py
import numpy as np
import scipy.sparse as sp
from anndata.abc import CSCDataset
from numcodecs import Shuffle
from numpy.typing import NDArray

from cellweft._compute import READ_BYTES, row_blocks, rows_within
from cellweft._typing import FloatArray, IntArray, Matrix
from cellweft.data.io.backed_matrix import RowSource, open_rows, stored_by_gene
from cellweft.viewer.cache import StripeCache

T = TypeVar("T")
U = TypeVar("U")

BlockFunction: TypeAlias = Callable[[slice, slice, Matrix], T]
"""Called with cells, genes and the values there, cells x genes, dense or sparse."""

MOST_ROWS = 2**16
"""Largest number of cells in a block of a stripe; positions have two bytes."""

_ROWS = 4096  # rows per piece of a matrix without chunks
_LEAST_ROWS = 512  # fewest rows per piece; several smaller chunks are read together
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
_LOOK = 1000  # cells used to estimate the compression
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Means:
    """Cache and threads for reading matrices.

    Attributes
    ----------
    cache
        Cache of stripes.
    share
        Maximum memory of one stripe, in bytes.
    pool, threads
        Thread pool for decoding, and number of its threads.
    """

    cache: StripeCache
    share: int
    pool: ThreadPoolExecutor
    threads: int


class GeneMatrix(Protocol):
    """A matrix that is read one gene at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""

    def gene(self, number: int) -> FloatArray:
        """Return one gene in all cells, (n_cells,)."""

    def over(self, work: BlockFunction[T]) -> Iterator[T]:
        """Yield the results of a function for the whole matrix, piece by piece."""


@dataclass(frozen=True, eq=False)
class DenseStripe:
    """Values as genes x cells, so that each gene is contiguous."""

    values: FloatArray

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes

    def gene(self, place: int) -> FloatArray:
        """Return the values of one gene, by its position in the stripe."""
        return np.asarray(self.values[place])


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """Some genes in some cells: positions and values of nonzeros, or all values if these need less memory.

    Attributes
    ----------
    rows
        The cells.
    values
        (n_filled,) by gene, or (n_genes, n_rows); in the smallest type that represents them exactly.
    places, starts
        (n_filled,) cell of each value, relative to the first of the block, and (n_genes + 1,) start of each
        gene; None if all values are stored.
    """

    rows: slice
    values: NDArray[Any]
    places: NDArray[np.uint16] | None = None
    starts: IntArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values and their positions."""
        return sum(array.nbytes for array in (self.values, self.places, self.starts) if array is not None)

    def put(self, place: int, into: FloatArray) -> None:
        """Write the values of one gene into an array of all cells, which must be zero."""
        if self.places is None or self.starts is None:
            into[self.rows] = self.values[place]
        else:
            part = slice(int(self.starts[place]), int(self.starts[place + 1]))
            into[self.rows.start + self.places[part].astype(np.int64)] = self.values[part]


@dataclass(frozen=True, eq=False)
class PackedStripe:
    """Genes of a matrix that is read completely, block by block, in compressed form."""

    blocks: Sequence[PackedBlock]
    n_cells: int

    @property
    def nbytes(self) -> int:
        """Bytes of the blocks."""
        return sum(block.nbytes for block in self.blocks)

    def gene(self, place: int) -> FloatArray:
        """Return the values of one gene, by its position in the stripe."""
        values = np.zeros(self.n_cells, dtype=np.float32)
        for block in self.blocks:
            block.put(place, values)
        return values


def packed(rows: slice, block: Matrix, genes: IntArray | None = None) -> PackedBlock:
    """Pack a block of cells x genes, of at most 65,536 cells, by gene.

    Parameters
    ----------
    rows
        The cells.
    block
        Dense or sparse.
    genes
        (n_kept,) columns of the block to keep; all by default.

    Examples
    --------
    >>> found = packed(slice(0, 3), sp.csr_matrix(np.array([[0.0, 2], [0, 0], [0, 3]])))
    >>> into = np.zeros(3, np.float32)
    >>> found.put(1, into)
    >>> into.tolist(), found.values.dtype
    ([2.0, 0.0, 3.0], dtype('uint8'))
    """
    if not sp.issparse(block):
        values = np.asarray(block).T
        return PackedBlock(rows, _narrow(np.array(values if genes is None else values[genes], order="C")))
    by_gene = sp.csc_matrix(block)
    by_gene = by_gene if genes is None else by_gene[:, genes]
    return PackedBlock(
        rows, _narrow(by_gene.data), by_gene.indices.astype(np.uint16), by_gene.indptr.astype(np.int64)
    )


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in the smallest type that represents them exactly."""
    if values.size and np.isfinite(values).all() and values.min() >= 0:
        top = values.max()
        for kind in (np.uint8, np.uint16):
            if top <= np.iinfo(kind).max:
                short = values.astype(kind)
                if np.array_equal(short, values):
                    return short
                break
    return values.astype(np.float32, copy=False)


def open_genes(matrix: Any, means: Means, *, where: str) -> GeneMatrix:
    """Return a matrix of any kind that AnnData supports, for reading by gene.

    Parameters
    ----------
    matrix
        As in `cellweft.data.io.backed_matrix.open_rows`.
    means
        Cache and threads for reading.
    where
        Name of the matrix in errors.

    Raises
    ------
    InputError, FormatError
        As in `cellweft.data.io.backed_matrix.open_rows`.
    """
    is_array = isinstance(matrix, h5py.Dataset) or type(matrix).__module__.startswith("zarr.core.array")
    if is_array and len(matrix.shape) == 2:
        return ChunkedGenes(Chunks(matrix), means)
    is_held = isinstance(matrix, np.ndarray) and matrix.ndim == 2
    if is_held or isinstance(matrix, sp.csc_matrix | sp.csc_array):
        return HeldGenes(matrix)
    if isinstance(matrix, CSCDataset):
        matrix = matrix.group
    if stored_by_gene(matrix):
        return StoredByGene(matrix)
    return SweptGenes(open_rows(matrix, where=where), means)


def _dense(values: Any) -> FloatArray:
    is_sparse = sp.issparse(values)
    return np.asarray(values.toarray() if is_sparse else values, dtype=np.float32)


class HeldGenes:
    """A matrix in memory: an array, or sparse by gene."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""
        return int(self._matrix.shape[0]), int(self._matrix.shape[1])

    def gene(self, number: int) -> FloatArray:
        """Return one gene in all cells, (n_cells,)."""
        return _dense(self._matrix[:, [number]])[:, 0]

    def over(self, work: BlockFunction[T]) -> Iterator[T]:
        """Yield the results of a function for the whole matrix, some genes at a time."""
        n_cells, n_genes = self.shape
        for genes in row_blocks(n_genes, rows_within(READ_BYTES, 4 * n_cells)):
            yield work(slice(0, n_cells), genes, self._matrix[:, genes])


class StoredByGene:
    """A sparse matrix on disk, stored by gene (CSC)."""

    def __init__(self, group: Any) -> None:
        self._data, self._indices = group["data"], group["indices"]
        self._starts = np.asarray(group["indptr"][:], dtype=np.int64)
        stored = group.attrs["shape"] if "shape" in group.attrs else group.attrs["h5sparse_shape"]
        self._shape = int(stored[0]), int(stored[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""
        return self._shape

    def gene(self, number: int) -> FloatArray:
        """Return one gene in all cells, (n_cells,)."""
        return _dense(self._read(slice(number, number + 1)))[:, 0]

    def over(self, work: BlockFunction[T]) -> Iterator[T]:
        """Yield the results of a function for the whole matrix, some genes at a time."""
        n_cells, n_genes = self._shape
        for genes in row_blocks(n_genes, rows_within(READ_BYTES, 8 * n_cells)):
            yield work(slice(0, n_cells), genes, self._read(genes))

    def _read(self, genes: slice) -> Any:
        starts = self._starts[genes.start : genes.stop + 1]
        part = slice(int(starts[0]), int(starts[-1]))
        parts = (self._data[part], self._indices[part], starts - starts[0])
        return sp.csc_matrix(parts, shape=(self._shape[0], genes.stop - genes.start))


class ChunkedGenes:
    """A dense matrix on disk, in chunks; the chunks of a gene also contain its neighbours, which are kept.

    Parameters
    ----------
    chunks
        Chunks of the matrix.
    means
        Cache and threads for reading.
    """

    def __init__(self, chunks: Chunks, means: Means) -> None:
        self._chunks, self._means, self._number = chunks, means, next(_numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""
        n_cells, n_genes = self._chunks.array.shape
        return int(n_cells), int(n_genes)

    def gene(self, number: int) -> FloatArray:
        """Return one gene in all cells, (n_cells,)."""
        genes = self._stripe(number)
        stripe = self._means.cache.get((self._number, genes.start), lambda: self._load(genes))
        return stripe.gene(number - genes.start)

    def over(self, work: BlockFunction[T]) -> Iterator[T]:
        """Yield the results of a function for the whole matrix, chunk by chunk, with several threads."""
        pieces = (
            (rows, genes) for genes in self._chunks.column_pieces() for rows in self._chunks.row_pieces()
        )

        def one(piece: tuple[slice, slice]) -> T:
            return work(*piece, self._chunks.read(*piece))

        return spread(self._means.pool, one, pieces, ahead=2 * self._means.threads)

    def _stripe(self, number: int) -> slice:
        """Return the genes to keep together with a gene: those of its chunks, or as many as fit."""
        n_cells, n_genes = self.shape
        chunk = number // self._chunks.columns * self._chunks.columns
        width = rows_within(self._means.share, 4 * n_cells, most=self._chunks.columns)
        start = chunk + (number - chunk) // width * width
        return slice(start, min(start + width, chunk + self._chunks.columns, n_genes))

    def _load(self, genes: slice) -> DenseStripe:
        chunk = genes.start // self._chunks.columns * self._chunks.columns
        columns = slice(chunk, min(chunk + self._chunks.columns, self.shape[1]))
        values = np.empty((genes.stop - genes.start, self.shape[0]), dtype=np.float32)

        def fill(rows: slice) -> None:
            block = self._chunks.read(rows, columns)
            values[:, rows] = block[:, genes.start - chunk : genes.stop - chunk].T

        for _ in spread(self._means.pool, fill, self._chunks.row_pieces(), ahead=2 * self._means.threads):
            pass
        return DenseStripe(values)


class SweptGenes:
    """A matrix that can only be read by cells: once, for as many genes as fit in memory.

    Parameters
    ----------
    source
        The matrix.
    means
        Cache and threads for reading.
    columns
        (n_genes,) columns of the source; all by default.
    """

    def __init__(self, source: RowSource, means: Means, *, columns: IntArray | None = None) -> None:
        self._source, self._means, self._number = source, means, next(_numbers)
        self._columns = columns
        self._n_genes = source.shape[1] if columns is None else len(columns)
        self._width: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and genes."""
        return self._source.shape[0], self._n_genes

    def gene(self, number: int) -> FloatArray:
        """Return one gene in all cells, (n_cells,)."""
        start = number // self.width * self.width
        stripe = self._means.cache.get((self._number, start), lambda: self._load(start))
        return stripe.gene(number - start)

    def over(self, work: BlockFunction[T]) -> Iterator[T]:
        """Yield the results of a function for the whole matrix, some cells at a time."""
        genes = slice(0, self._n_genes)
        for rows in self._rows():
            yield work(rows, genes, self._source.read(rows, self._columns))

    @property
    def width(self) -> int:
        """Number of genes to read, and keep, at once."""
        if self._width is None:
            n_cells, n_genes = self.shape
            rows = slice(0, min(_LOOK, n_cells))
            bytes_a_cell = packed(rows, self._source.read(rows, self._columns)).nbytes / max(rows.stop, 1)
            fitting = self._means.share * n_genes / max(bytes_a_cell * n_cells, 1)
            self._width = min(max(int(fitting), 1), max(n_genes, 1))
        return self._width

    def keep(self, blocks: Sequence[PackedBlock]) -> None:
        """Store the first `width` genes in all cells as already read.

        Parameters
        ----------
        blocks
            Blocks of these genes.
        """
        self._means.cache.get((self._number, 0), lambda: PackedStripe(blocks, self.shape[0]))

    def _rows(self) -> Iterator[slice]:
        size = rows_within(READ_BYTES, self._source.row_bytes, most=MOST_ROWS)
        return row_blocks(self._source.shape[0], size)

    def _load(self, start: int) -> PackedStripe:
        columns = self._columns
        if self.width < self._n_genes:
            every = np.arange(self._n_genes) if columns is None else columns
            columns = every[start : start + self.width]
        blocks = [packed(rows, self._source.read(rows, columns)) for rows in self._rows()]
        return PackedStripe(blocks, self.shape[0])


def spread(pool: Executor, work: Callable[[T], U], items: Iterable[T], *, ahead: int) -> Iterator[U]:
    """Yield the results of a function for each item, in order, computed by the threads of a pool.

    Parameters
    ----------
    pool
        The thread pool.
    work
        Called with each item.
    items
        Items, consumed on demand.
    ahead
        Largest number of items in progress or finished before they are requested; limits memory.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(spread(pool, lambda number: number**2, range(4), ahead=2))
    [0, 1, 4, 9]
    """
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class Chunks:
    """The pieces of a dense matrix, each decoded at once.

    Parameters
    ----------
    array
        (n_cells, n_genes) HDF5 dataset or zarr array.

    Attributes
    ----------
    rows, columns
        Numbers of cells and genes of a piece: a chunk, several chunks with few rows, or, without chunks, a
        few thousand cells in all genes.

    Notes
    -----
    zarr releases Python's lock when it decodes; HDF5 does not. Therefore chunks compressed with gzip, as
    written by cellweft, are read raw and decompressed here; other compression is left to HDF5.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        n_rows, n_columns = array.shape
        stored = array.chunks
        rows, columns = (_ROWS, n_columns) if stored is None else stored
        low = max(_LEAST_ROWS // max(rows, 1), 1)
        self.rows, self.columns = max(min(rows * low, n_rows), 1), max(min(columns, n_columns), 1)
        self._unpacks = low == 1 and _is_unpacked_here(array)

    def row_pieces(self) -> list[slice]:
        """Return the cells of the pieces, in order."""
        return list(row_blocks(self.array.shape[0], self.rows))

    def column_pieces(self) -> list[slice]:
        """Return the genes of the pieces, in order."""
        return list(row_blocks(self.array.shape[1], self.columns))

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Return the values of one piece, cells x genes, in the data type of the file.

        Parameters
        ----------
        rows, columns
            Elements of `row_pieces` and `column_pieces`.
        """
        if self._unpacks:
            block = self._unpacked(rows, columns)
            if block is not None:
                return block
        return np.asarray(self.array[rows, columns])

    def _unpacked(self, rows: slice, columns: slice) -> NDArray[Any] | None:
        """Decompress a chunk; None if it was never written, or is compressed differently from the others."""
        dataset, corner = self.array, (rows.start, columns.start)
        place = dataset.id.get_chunk_info_by_coord(corner)
        if place.byte_offset is None or place.filter_mask:
            return None
        _, packed = dataset.id.read_direct_chunk(corner)
        values = zlib.decompress(packed)
        if dataset.shuffle:
            values = Shuffle(dataset.dtype.itemsize).decode(values)
        whole: NDArray[Any] = np.frombuffer(values, dtype=dataset.dtype).reshape(dataset.chunks)
        return whole[: rows.stop - rows.start, : columns.stop - columns.start]


def _is_unpacked_here(array: Any) -> bool:
    if not isinstance(array, h5py.Dataset) or array.chunks is None or array.compression != "gzip":
        return False
    packing = array.id.get_create_plist()
    filters = [packing.get_filter(number)[0] for number in range(packing.get_nfilters())]
    return set(filters) <= _FILTERS and filters[-1] == h5py.h5z.FILTER_DEFLATE and array.dtype.kind == "f"
