"""Chunks of a dense matrix on disk, decoded by several threads at once."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import h5py
import numpy as np
from numcodecs import Shuffle
from numpy.typing import NDArray

from cellweft._compute import row_blocks

T = TypeVar("T")
U = TypeVar("U")

_ROWS = 4096  # of a piece of a matrix that is not stored in chunks
_LEAST_ROWS = 512  # of a piece; chunks that are lower are read several at a time
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}


def spread(pool: Executor, work: Callable[[T], U], items: Iterable[T], *, ahead: int) -> Iterator[U]:
    """Yield what a function makes of items, in their order, worked on by the threads of a pool.

    Parameters
    ----------
    pool
        Whose threads work.
    work
        Called with each item.
    items
        Taken as they are needed.
    ahead
        Items that are worked on, or done, before they are asked for; this bounds the memory.

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
        for one in waiting:
            one.cancel()


class Chunks:
    """The pieces of a dense matrix that are decoded at once.

    Parameters
    ----------
    array
        (n_cells, n_genes) HDF5 dataset or zarr array.

    Attributes
    ----------
    rows, columns
        Cells and genes of a piece: of a chunk, or of several low ones; of a matrix without chunks, some
        thousand cells in all genes.

    Notes
    -----
    zarr decodes outside of Python's lock. HDF5 does not, so that chunks packed by gzip, as cellweft writes
    them, are taken from the file as they are and unpacked here; any other packing is left to HDF5.
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
        """Return the values of one piece, cells x genes, in the type of the file.

        Parameters
        ----------
        rows, columns
            From `row_pieces` and `column_pieces`.
        """
        if self._unpacks:
            found = self._unpacked(rows, columns)
            if found is not None:
                return found
        return np.asarray(self.array[rows, columns])

    def _unpacked(self, rows: slice, columns: slice) -> NDArray[Any] | None:
        """Unpack a chunk; None where it was never written, or is packed otherwise than the others."""
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
