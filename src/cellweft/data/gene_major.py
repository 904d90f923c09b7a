"""The reference, stored by gene: all usable cells of some genes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from cellweft._compute import row_blocks
from cellweft._typing import BoolArray, FloatArray, IntArray, Matrix
from cellweft.data.expression_scale import filled_rows
from cellweft.data.side import Side

_BLOCK_ROWS = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneColumns:
    """Log-normalised expression of the reference's usable cells, stored by gene.

    Attributes
    ----------
    matrix
        (n_usable, n_genes) CSC if the input is sparse, otherwise dense; float32.
    usable
        (n_cells,) which reference cells it contains: those with counts.
    """

    matrix: Matrix | sp.csc_matrix
    usable: BoolArray

    @classmethod
    def load(cls, side: Side) -> GeneColumns:
        """Read a side by blocks of rows, with the result and one block in memory."""
        usable = ~side.empty_cells
        cells = np.flatnonzero(usable)
        if sp.issparse(side.block(cells[:0])):
            return cls(matrix=_by_gene(side, cells), usable=usable)
        matrix: Any = np.empty((len(cells), side.n_genes), dtype=np.float32)
        for rows in row_blocks(len(cells), _BLOCK_ROWS):
            matrix[rows] = side.block(cells[rows])
        return cls(matrix=matrix, usable=usable)

    @property
    def n_cells(self) -> int:
        """Number of usable cells."""
        return int(self.matrix.shape[0])

    @property
    def nbytes(self) -> int:
        """Memory of the matrix, in bytes."""
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
    """Return the number of cells in which each gene is not zero, counted unless already known."""
    if side.rows is None:
        return side.gene_cells
    counts = np.zeros(side.n_genes, dtype=np.int64)
    for rows in row_blocks(len(cells), _BLOCK_ROWS):
        counts += filled_rows(side.block(cells[rows]))
    return counts


def _by_gene(side: Side, cells: IntArray) -> sp.csc_matrix:
    """Return blocks of rows stored by gene: (n_cells, n_genes)."""
    starts = np.concatenate([[0], np.cumsum(_filled(side, cells))])
    # All positions have the same type, because scipy would otherwise copy them.
    kind: Any = np.int32 if max(starts[-1], len(cells)) < np.iinfo(np.int32).max else np.int64
    data: Any = np.empty(starts[-1], dtype=np.float32)
    indices: Any = np.empty(starts[-1], dtype=kind)
    free = starts[:-1].copy()  # next position of each gene
    for rows in row_blocks(len(cells), _BLOCK_ROWS):
        by_row = sp.csr_matrix(side.block(cells[rows]))
        by_row.eliminate_zeros()
        part = sp.csc_matrix(by_row)
        filled = np.diff(part.indptr)
        places = np.repeat(free - part.indptr[:-1], filled) + np.arange(part.nnz)
        data[places] = part.data
        indices[places] = part.indices + rows.start
        free += filled
    parts: Any = (data, indices, starts.astype(kind))
    return sp.csc_matrix(parts, shape=(len(cells), side.n_genes))
