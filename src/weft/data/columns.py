"""The reference by gene: all usable cells of some genes at once, as the gene networks read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from weft._typing import BoolArray, FloatArray, IntArray, Matrix
from weft.data.side import Side
from weft.data.stream import row_blocks

_BLOCK_ROWS = 4096


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
        """Read a side once, by blocks of rows."""
        usable = ~side.empty_cells
        cells = np.flatnonzero(usable)
        blocks: list[Any] = [side.block(cells[rows]) for rows in row_blocks(len(cells), _BLOCK_ROWS)]
        if sp.issparse(blocks[0]):
            return cls(matrix=sp.csc_matrix(sp.vstack(blocks, format="csr")), usable=usable)
        return cls(matrix=np.concatenate(blocks), usable=usable)

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
