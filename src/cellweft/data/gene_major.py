"""The reference by gene: all usable cells of some genes at once, as the gene networks read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from cellweft._compute import row_blocks
from cellweft._typing import BoolArray, FloatArray, IntArray, Matrix
from cellweft.data.side import Side

_BLOCK_ROWS = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneColumns:
    """Log-normalised expression of the reference's usable cells, held by gene.

    Attributes
    ----------
    matrix
        (n_usable, n_genes) CSC where the input is sparse, else dense; float32.
    usable
        (n_cells,) which cells of the reference are in it: those with any count.
    """

    matrix: Matrix | sp.csc_matrix
    usable: BoolArray

    @classmethod
    def load(cls, side: Side) -> GeneColumns:
        """Read a side by blocks of rows, holding the result and one block."""
        usable = ~side.empty_cells
        cells = np.flatnonzero(usable)
        blocks: Iterator[Any] = (side.block(cells[rows]) for rows in row_blocks(len(cells), _BLOCK_ROWS))
        first = side.block(cells[:0])
        if sp.issparse(first):
            return cls(matrix=_by_gene(blocks, len(cells), counts=_filled(side, cells)), usable=usable)
        matrix, start = np.empty((len(cells), side.n_genes), dtype=np.float32), 0
        for block in blocks:
            matrix[start : start + block.shape[0]] = block
            start += block.shape[0]
        return cls(matrix=matrix, usable=usable)

    @property
    def n_cells(self) -> int:
        """Usable cells."""
        return int(self.matrix.shape[0])

    @property
    def nbytes(self) -> int:
        """Memory that the matrix takes."""
        if isinstance(self.matrix, np.ndarray):
            return self.matrix.nbytes
        return int(self.matrix.data.nbytes + self.matrix.indices.nbytes + self.matrix.indptr.nbytes)

    def dense(self, genes: IntArray) -> FloatArray:
        """Return some genes in all usable cells.

        Parameters
        ----------
        genes
            (n_asked,) positions of genes, in any order.

        Returns
        -------
        (n_usable, n_asked)
        """
        columns = self.matrix[:, genes]
        return np.ascontiguousarray(columns.toarray() if sp.issparse(columns) else columns, dtype=np.float32)


def _filled(side: Side, cells: IntArray) -> IntArray:
    """Return in how many of the cells each gene is not zero: known of a whole input, else counted."""
    if side.rows is None:
        return side.gene_cells
    counts = np.zeros(side.n_genes, dtype=np.int64)
    for rows in row_blocks(len(cells), _BLOCK_ROWS):
        counts += np.bincount(_without_zeros(side.block(cells[rows])).indices, minlength=side.n_genes)
    return counts


def _by_gene(blocks: Iterable[Any], n_cells: int, *, counts: IntArray) -> sp.csc_matrix:
    """Put blocks of rows into their place by gene: (n_cells, n_genes), whose filled entries are counted."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    # One type for all positions, as scipy would otherwise copy them into one.
    kind: Any = np.int32 if max(starts[-1], n_cells) < np.iinfo(np.int32).max else np.int64
    data: Any = np.empty(starts[-1], dtype=np.float32)
    cells: Any = np.empty(starts[-1], dtype=kind)
    free, above = starts[:-1].copy(), 0  # where each gene goes on, and cells of earlier blocks
    for block in blocks:
        part = sp.csc_matrix(_without_zeros(block))
        filled = np.diff(part.indptr)
        places = np.repeat(free - part.indptr[:-1], filled) + np.arange(part.nnz)
        data[places] = part.data
        cells[places] = part.indices + above
        free += filled
        above += part.shape[0]
    parts: Any = (data, cells, starts.astype(kind))
    return sp.csc_matrix(parts, shape=(n_cells, len(counts)))


def _without_zeros(block: Any) -> sp.csr_matrix:
    """Return a block of our own without entries that are there and zero."""
    by_row = sp.csr_matrix(block)
    by_row.eliminate_zeros()
    return by_row
