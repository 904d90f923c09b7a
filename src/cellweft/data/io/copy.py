"""Copies a matrix from one store to another by blocks of rows, unchanged or without its zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp

from cellweft._compute import CHUNK_BYTES, READ_BYTES, row_blocks, rows_within
from cellweft._typing import Matrix, Progress, no_progress
from cellweft.data.io.backed_matrix import RowSource
from cellweft.data.io.zarr_store import write_quietly


def blocks_of(source: RowSource, progress: Progress = no_progress) -> Iterator[tuple[slice, Matrix]]:
    """Yield all rows of a matrix, about 32 MiB at a time, with their positions.

    Parameters
    ----------
    source
        (n_cells, n_genes), as `cellweft.data.io.backed_matrix.open_rows` opens it.
    progress
        Called with ("rows", done, total) after each block.

    Yields
    ------
    rows : slice Rows of the matrix. block : csr_matrix or ndarray
        float32, (n_rows, n_genes): sparse if the source is sparse.
    """
    for rows in row_blocks(source.shape[0], block_rows(source.shape)):
        yield rows, source.read(rows)
        progress("rows", rows.stop, source.shape[0])


def block_rows(shape: tuple[int, int]) -> int:
    """Return the number of rows per read: as many as fit in 32 MiB, at least one."""
    return rows_within(READ_BYTES, 4 * shape[1])


def chunk_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of a chunk: all rows of a block, and as many genes as fit in about 4 MiB."""
    rows = max(min(block_rows(shape), shape[0]), 1)
    return rows, max(rows_within(CHUNK_BYTES, 4 * rows, most=shape[1]), 1)


def zero_share(source: RowSource) -> float:
    """Return the share of zeros in a matrix, 0 to 1, reading it once by blocks; 0 for an empty matrix.

    Examples
    --------
    >>> from cellweft.data.io.backed_matrix import open_rows
    >>> zero_share(open_rows(np.array([[0.0, 1.0], [0.0, 0.0]])))
    0.75
    """
    n_values = source.shape[0] * source.shape[1]
    blocks = (block.data if sp.issparse(block) else block for _, block in blocks_of(source))
    filled = sum(map(np.count_nonzero, blocks))
    return 1.0 - int(filled) / n_values if n_values else 0.0


def copy_matrix(source: RowSource, group: Any, key: str, *, progress: Progress = no_progress) -> None:
    """Write a matrix unchanged, sparse or dense, as AnnData stores it in zarr.

    Parameters
    ----------
    source
        (n_cells, n_genes)
    group, key
        zarr group to write into, and name of the new element.
    progress
        As in `blocks_of`.
    """
    if sp.issparse(source.read(slice(0, 0))):
        copy_sparse(source, group, key, progress=progress)
        return
    array = group.create_array(
        key, shape=source.shape, dtype="float32", chunks=chunk_of(source.shape), fill_value=0
    )
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    for rows, block in blocks_of(source, progress):
        array[rows] = block


def copy_sparse(source: RowSource, group: Any, key: str, *, progress: Progress = no_progress) -> None:
    """Write a matrix without its zeros, as AnnData stores it by rows (CSR), with one block in memory.

    Parameters
    ----------
    source
        (n_cells, n_genes)
    group, key
        HDF5 or zarr group to write into, and name of the new element.
    progress
        As in `blocks_of`.
    """
    stored: Any = None
    for _, block in blocks_of(source, progress):
        rows = sp.csr_matrix(block)
        rows.eliminate_zeros()
        if stored is None:
            # Positions among all values may exceed 2**31, even if those of the first block do not.
            rows.indptr = rows.indptr.astype(np.int64)
            write_quietly(group, key, rows)
            stored = anndata.io.sparse_dataset(group[key])
        else:
            stored.append(rows)
    if stored is None:
        write_quietly(group, key, sp.csr_matrix(np.zeros(source.shape, dtype=np.float32)))
