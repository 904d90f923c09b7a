"""One of the two inputs after its checks: genes, cells, scale, and blocks of normalised values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray, Matrix, Scale
from cellweft.data.expression_scale import Judgement
from cellweft.data.io.backed_matrix import Rows, RowSource, per_row
from cellweft.data.io.obs_table import Annotation
from cellweft.data.io.reopenable import LazyMapping
from cellweft.data.io.sanitize import GENE_NAMES

SideName = Literal["reference", "spatial"]


@dataclass(frozen=True, kw_only=True, eq=False)
class CellBatches:
    """The donor, technology or atlas of each reference cell.

    Attributes
    ----------
    column
        Column of ``obs`` with the batches.
    names
        (n_batches,) names of the batches.
    codes
        (n_cells,) index of each cell's batch, from 0.
    """

    column: str
    names: NDArray[np.str_]
    codes: IntArray

    def of_each_cell(self) -> NDArray[np.str_]:
        """Return the name of each cell's batch, (n_cells,); each text is stored once."""
        each: NDArray[Any] = self.names.astype(object)[self.codes]
        return each

    def of_cells(self, cells: IntArray) -> Self:
        """Return the batches of some cells; the names of all batches stay."""
        return dataclasses.replace(self, codes=self.codes[cells])


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceBatches(CellBatches):
    """Batches of a reference, and the factors that equalise the levels of their genes.

    Attributes
    ----------
    levels
        (n_batches, n_genes) factors on normalised counts, above 0: 1 for the batch to which the others are
        adjusted, and for batches with too few cells to be compared.
    depths
        (n_batches,) additional factors, above 0, with which each batch keeps its own depth.
    compared
        (n_batches,) whether a batch had enough cells.
    """

    levels: FloatArray
    depths: DoubleArray
    compared: BoolArray

    def multiply(self, values: Matrix, rows: Rows, genes: IntArray | None) -> Matrix:
        """Multiply normalised counts of some cells and genes by levels and depths, in place."""
        levels = self.levels if genes is None else self.levels[:, genes]
        codes = self.codes[rows]
        if sp.issparse(values):
            values.data *= levels[np.repeat(codes, np.diff(values.indptr)), values.indices]
        else:
            values *= levels[codes]
        return per_row(values, self.depths[codes])

    def of_genes(self, genes: IntArray) -> Self:
        """Return the batches with only some genes."""
        return dataclasses.replace(self, levels=self.levels[:, genes])

    def at_one_depth(self) -> Self:
        """Return the batches with the same depth for all, that of the side."""
        return dataclasses.replace(self, depths=np.ones_like(self.depths))


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One of the two inputs: a matrix that is read by blocks, with properties of its cells and genes.

    Attributes
    ----------
    name, source
        Name of the side, and path of the input, or "AnnData in memory".
    matrix
        The values, read by rows, as stored in the input, except that some logarithms and roots are inverted;
        see `cellweft.data.expression_scale.SCALES`.
    table
        Annotation of the cells of ``matrix``; it stays in the file if the input is a file.
    genes
        (n_genes,) names. Reference genes that the tissue also has are spelled as in the tissue.
    input_names
        (n_genes,) names in the input.
    columns, rows
        Position, in ``matrix``, of each gene and of each cell; None if the cells are all rows.
    scale
        Scale of ``matrix``: "raw" counts, "normalised" counts, or their natural "log".
    judgement
        Detected scale of the input, and whether it is certain; a scale given by the user is.
    totals
        (n_cells,) size of each cell: its sum over all genes of the input, or the given size factor.
    target
        Median total of the cells with counts, to which raw counts are normalised. A subset keeps it.
    depth
        Depth of the cells relative to ``target``: 1, except for a tissue normalised to the target of another.
    has_sizes
        Whether the totals are size factors given by the user.
    sparsity
        Share of zeros in the input, 0 to 1.
    empty_cells
        (n_cells,) which cells have no counts.
    gene_cells
        (n_genes,) number of cells of ``matrix`` with counts of each gene.
    symbols, gene_ids
        (n_genes,) other names of the genes, empty if the input does not contain them.
    arrays, uns
        Contents of ``obsm``, with a row for each cell of the input, and of ``uns``; not checked.
    layers
        Other matrices of the input by name, with the rows and columns of ``matrix``; not checked.
    divided_by_sum
        Whether values of any scale are divided by ``totals``, the sums of this side's own genes: see
        `cellweft.data.hold_out`.
    batches
        For a reference with batches, the factors that equalise their levels; otherwise None.

    Notes
    -----
    The values that `block` returns are those of the published normalisation: ``log1p(x / total * target)``
    for raw counts (natural logarithm); ``log1p(x)`` for normalised counts, divided by size factors only if
    these were given; unchanged logarithms. With ``divided_by_sum``, ``log1p(x / total * target)`` for all,
    where x is ``expm1`` of a logarithm. Empty cells are zeros. With ``batches``, the argument of the
    logarithm is multiplied by the level of the gene in the cell's batch, and by the depth of the batch.
    """

    name: SideName
    source: str
    matrix: RowSource
    table: Annotation
    genes: NDArray[np.str_]
    input_names: NDArray[np.str_]
    columns: IntArray
    rows: IntArray | None
    scale: Scale
    judgement: Judgement
    totals: DoubleArray
    target: float
    has_sizes: bool
    sparsity: float
    empty_cells: BoolArray
    gene_cells: IntArray
    symbols: NDArray[np.str_]
    gene_ids: NDArray[np.str_]
    arrays: Mapping[str, Any] = field(default_factory=dict)
    uns: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    divided_by_sum: bool = False
    batches: ReferenceBatches | None = None
    depth: float = 1.0

    @property
    def n_cells(self) -> int:
        """Number of cells of this side."""
        return len(self.totals)

    @property
    def n_genes(self) -> int:
        """Number of genes of this side."""
        return len(self.genes)

    @property
    def empty_genes(self) -> BoolArray:
        """(n_genes,) which genes have no counts in the whole input."""
        return np.asarray(self.gene_cells == 0)

    @property
    def obs(self) -> pd.DataFrame:
        """Annotation of the cells, read each time if the input is a file."""
        return self.table.frame(self.rows)

    @property
    def obs_names(self) -> pd.Index[Any]:
        """Names of the cells, read each time if the input is a file."""
        return self.table.names(self.rows)

    @property
    def obsm(self) -> Mapping[str, Any]:
        """Arrays with one row per cell of this side, each read and copied on request."""
        return _RowsOf(self.arrays, self.rows)

    def __repr__(self) -> str:
        return (
            f"Side({self.name}: {self.n_cells:,} cells x {self.n_genes:,} genes, {self.scale}, {self.source})"
        )

    def block(self, rows: Rows, genes: IntArray | None = None) -> Matrix:
        """Return normalised values of some cells.

        Parameters
        ----------
        rows
            A slice, or positions of cells in any order, possibly repeated.
        genes
            Positions in `genes`, in any order, possibly repeated; all by default.

        Returns
        -------
        csr_matrix or ndarray
            float32, (n_rows, n_genes), at least zero and without NaN; sparse if the input is sparse.
        """
        values = self.stored(rows, genes)
        if self.scale == "log" and not self.divided_by_sum and self.batches is None:
            return values
        if self.scale == "log":
            logarithms = values.data if sp.issparse(values) else values
            np.expm1(logarithms, out=logarithms)
        if is_divided(self):
            values = per_row(values, self._factors(rows))
        if self.batches is not None:
            values = self.batches.multiply(values, rows, genes)
        logarithms = values.data if sp.issparse(values) else values
        np.log1p(logarithms, out=logarithms)
        return values

    def stored(self, rows: Rows, genes: IntArray | None = None) -> Matrix:
        """Return values of some cells as stored in ``matrix``; parameters and result as in `block`."""
        columns = self.columns if genes is None else self.columns[genes]
        whole = len(columns) == self.matrix.shape[1] and bool((columns == np.arange(len(columns))).all())
        places = rows if self.rows is None else self.rows[rows]
        return self.matrix.read(places, None if whole else columns)

    def dense(self, rows: Rows, genes: IntArray | None = None) -> FloatArray:
        """Return the result of `block` as an array, for any input."""
        values = self.block(rows, genes)
        return np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float32)

    def subset(self, cells: IntArray) -> Side:
        """Return this side with some of its cells, in the requested order, and the same normalisation.

        Parameters
        ----------
        cells
            (n_kept,) positions of cells, or (n_cells,) booleans.
        """
        positions = np.arange(self.n_cells, dtype=np.int64)[np.asarray(cells)]
        return dataclasses.replace(
            self,
            rows=positions if self.rows is None else self.rows[positions],
            totals=self.totals[positions],
            empty_cells=self.empty_cells[positions],
            batches=None if self.batches is None else self.batches.of_cells(positions),
        )

    def _factors(self, rows: Rows) -> DoubleArray:
        totals = self.totals[rows]
        return np.divide(self.target, totals, out=np.zeros_like(totals), where=totals > 0)


@dataclass(frozen=True, eq=False)
class _RowsOf(LazyMapping):
    """Some rows of arrays, which are read on request."""

    rows: IntArray | None

    def __getitem__(self, key: str) -> Any:
        array = self.held[key]
        if self.rows is None:
            return array.copy()
        return array.iloc[self.rows] if isinstance(array, pd.DataFrame) else array[self.rows]


def is_divided(side: Side) -> bool:
    """Return whether the values of a cell are divided by its size."""
    return side.scale == "raw" or side.divided_by_sum or (side.has_sizes and side.scale != "log")


def names_beside(side: Side) -> tuple[NDArray[np.str_], ...]:
    """Return other names of the genes of a side, each (n_genes,): names in the input, symbols, and IDs."""
    return side.input_names, side.symbols, side.gene_ids


def gene_table(side: Side, genes: IntArray) -> pd.DataFrame:
    """Return a table of some genes, by position: other names, indexed by the names in the pair.

    Columns are ``symbol``, ``gene_id`` and ``reference_name``, the name in the side's input.
    """
    columns = (side.symbols[genes], side.gene_ids[genes], side.input_names[genes])
    names = {name: values.astype(object) for name, values in zip(GENE_NAMES, columns, strict=True)}
    return pd.DataFrame(names, index=pd.Index(side.genes[genes].astype(str)))


def relative_sizes(side: Side) -> DoubleArray:
    """Return each cell's size divided by the target, (n_cells,), used to normalise; 0 for empty cells.

    Counts are ``expm1`` of the values of `Side.block`, times this size.
    """
    return np.where(side.empty_cells, 0.0, side.totals / side.target)
