"""The plan of an imputation, made before it starts: sizes of blocks, peak memory, size of the output."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cellweft._compute import (
    BLOCK_BYTES,
    BLOCK_GENES,
    CHUNK_BYTES,
    READ_ROWS,
    SPARSE_BYTES,
    parse_memory,
    process_bytes,
    row_blocks,
    rows_within,
)
from cellweft._errors import MemoryBudgetError, check_range
from cellweft._text import NotebookText, enough_bytes, human_bytes, many
from cellweft._typing import DoubleArray, IntArray, PanelValues, ResultScale
from cellweft.data._pair import Pair
from cellweft.data.side import Side
from cellweft.impute.panel_blend import blend_bytes
from cellweft.nn.config import SAMPLE_CELLS, AttentionSettings, StImputeSettings, bytes_per_cell, keys_of

TABLE_GENES = 128
"""Number of genes that stImpute's networks predict at once."""
_MOST_CELLS, _FEWEST_CELLS = 4096, 16  # of a tile
_SHARD_CHUNKS = 16  # per file, which is assembled in memory: 64 MiB before compression
_CELL_BYTES = 100.0  # a spatial cell's name, coordinates, total and annotation
_SEARCHED = 256  # cells per neighbour search
_VALUE_COPIES = 12  # arrays of the size of a block of values, while levels are applied
_WEIGHT_BLOCK_BYTES = 50e6  # blocks of attention's weights
_NETWORK_COPIES = 4  # arrays of a step of stImpute: gradients, and fragmented memory of the C library
_STEP_COPIES = 6  # arrays of the size of a step's weights, including gradients
_MAP_COPIES = 12  # arrays of the size of one of the two maps, including gradients and their moments
_CARRIED_BYTES = 32.0  # a gene in a reference cell, including float64 for its moments
_TILE_COPIES = 5  # arrays of the size of a tile: computed, assembled, and waiting to be written
_BOUND_COPIES = 12  # the same for both bounds of intervals: temporarily float64, and waiting
_COUNT_COPIES = 2  # the same for each matrix of counts, in addition to its logarithms
_BLEND_COPIES = 10  # arrays of the size of the panel in a tile: counts, sizes and means in float64
_LEARNED_COPIES = 16  # the same for the cells used to fit the blend
_SIMILARITY_BYTES = 8.0  # similarity of a cell to the reference, for intervals
_PANEL_COPIES = 8  # arrays of the size of the panel in a tile: read ahead, normalised, embedded
_TABLE_BYTES = 20.0  # a gene in a reference cell: expression and neighbourhood, while computed
_RESULT_BYTES = 16.0  # a transferred value, in float64, and its table
_GIVEN_BYTES = 28.0  # a value of a reference cell: as read, with the minimum subtracted, and in float32
_LOOKED_AT, _LOOKED_AT_ONCE = 1000, 200  # cells used to estimate how many values are kept


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan(NotebookText):
    """Sizes of the tiles of a result, and estimates of memory and size in bytes.

    Attributes
    ----------
    n_cells, n_genes
        Shape of the result.
    cells_per_block, genes_per_block
        Size of a tile. Genes are prepared once for all cells, and cells are read once for these genes.
    peak_bytes
        Estimated peak memory of the whole process.
    output_bytes
        Size of the result before compression, with both bounds of the intervals.
    interval
        Share of measured values that the intervals contain, or None without intervals.
    in_memory
        Whether the result stays in memory, as with `Imputer.impute`, instead of being written tile by tile.
    kept
        Estimated share of its values that a sparse result keeps, 0 to 1; None if it is dense.
    """

    n_cells: int
    n_genes: int
    cells_per_block: int
    genes_per_block: int
    peak_bytes: float
    output_bytes: float
    interval: float | None = None
    in_memory: bool = False
    kept: float | None = None

    def __repr__(self) -> str:
        return f"Plan({self})"

    def __str__(self) -> str:
        bounds = "" if self.interval is None else f" with intervals of level {self.interval:g}"
        size = human_bytes(self.output_bytes)
        return (
            f"{many(self.n_genes, 'gene')} in {many(self.n_cells, 'cell')}{bounds}, "
            f"{many(self.cells_per_block, 'cell')} x {many(self.genes_per_block, 'gene')} at once; "
            f"peak memory about {human_bytes(self.peak_bytes)}, "
            + (f"of which the result takes {size}" if self.in_memory else f"result {size} before compression")
            + ("" if self.kept is None else f", if {self.kept:.0%} of the values reach the threshold")
        )

    def sparse(self, kept: float) -> Plan:
        """Return the plan of a sparse result.

        Parameters
        ----------
        kept
            Estimated share of values that it keeps, 0 to 1.
        """
        saved = (4.0 - SPARSE_BYTES * kept) * self.n_cells * self.n_genes - 4.0 * self.n_cells
        return replace(self, output_bytes=self.output_bytes - saved, kept=kept)

    @property
    def n_values(self) -> int:
        """Number of cells times genes."""
        return self.n_cells * self.n_genes

    @property
    def chunk(self) -> tuple[int, int]:
        """Cells and genes that are compressed together; tiles consist of whole chunks."""
        return self.cells_per_block, min(_chunk_genes(self.cells_per_block), self.genes_per_block)

    @property
    def shard(self) -> tuple[int, int]:
        """Cells and genes in one file: whole chunks. No chunk belongs to two tiles."""
        cells, genes = self.chunk
        n_chunks = math.ceil(self.genes_per_block / genes)
        most = min(n_chunks, _SHARD_CHUNKS)
        if self.genes_per_block < self.n_genes:  # the next tile starts where this one ends
            most = next(count for count in range(most, 0, -1) if n_chunks % count == 0)
        return cells, most * genes


def _chunk_genes(cells: int) -> int:
    return rows_within(CHUNK_BYTES, 4 * cells)


def make_plan(
    pair: Pair,
    n_genes: int,
    *,
    settings: StImputeSettings | AttentionSettings,
    memory: str | int,
    interval: float | None = None,
    scale: ResultScale = "log",
    measured: PanelValues = "predict",
    in_memory: bool = False,
    network: float = 0.0,
    trainings: int = 1,
) -> Plan:
    """Plan an imputation within a memory budget.

    Parameters
    ----------
    pair
        The data.
    n_genes
        Number of requested genes.
    settings
        Settings of the method.
    memory
        Budget for the whole process, for example "4 GB".
    interval
        Share of measured values that intervals should contain, 0.01 to 0.999, or None for no intervals.
    scale, measured
        Scale of the values, and values of panel genes, as in `cellweft.Imputer.impute`.
    in_memory
        Whether the result stays in memory instead of being written.
    network
        Bytes of the embeddings, gene sets and edges of the gene graph.
    trainings
        Number of trainings at the same time, on several devices.

    Raises
    ------
    SettingError
        The interval is out of range.
    MemoryBudgetError
        The work does not fit in the budget; the error states the minimum.
    """
    budget, n_cells = parse_memory(memory), pair.st.n_cells
    needs = (
        _attention_needs(pair, settings)
        if isinstance(settings, AttentionSettings)
        else _stimpute_needs(pair, settings)
    )
    result, held = 4.0 * n_cells * n_genes, needs.held + network
    if interval is not None:
        check_range("interval", interval, low=0.01, high=0.999)
        needs = replace(needs, tile_copies=_TILE_COPIES + _BOUND_COPIES)
        result, held = 3 * result, held + _SIMILARITY_BYTES * n_cells
    if scale == "counts":
        n_matrices = 1 if interval is None else 3
        needs = replace(needs, tile_copies=needs.tile_copies + _COUNT_COPIES * n_matrices)
    learning = 0.0
    if measured == "blend":
        n_sample = min(n_cells, SAMPLE_CELLS)
        held += blend_bytes(pair)
        learning = 4.0 * _LEARNED_COPIES * n_sample * needs.panel
        needs = replace(needs, panel_copies=_PANEL_COPIES + _BLEND_COPIES)
    in_result = result * in_memory
    held += in_result
    training = held + trainings * needs.training
    least = max(training, held + learning, held + needs.tile(_FEWEST_CELLS, 1))
    if least > budget:
        fits_on_disk = in_memory and least - in_result <= budget
        way_out = "use impute_to, which writes block by block, " if fits_on_disk else ""
        raise MemoryBudgetError(
            "memory",
            expected=f"at least {enough_bytes(least)} for {n_cells:,} cells x {n_genes:,} genes",
            got=human_bytes(budget),
            fix=f"To continue, {way_out}raise the budget, or use fewer genes or a smaller reference.",
        )
    cells, genes = _tile(needs, n_cells, n_genes, free=budget - held)
    return Plan(
        n_cells=n_cells,
        n_genes=n_genes,
        cells_per_block=cells,
        genes_per_block=genes,
        peak_bytes=max(held + needs.tile(cells, genes), held + learning, training),
        output_bytes=result,
        interval=interval,
        in_memory=in_memory,
    )


def columns_at_once(
    pair: Pair, n_columns: int, *, settings: StImputeSettings | AttentionSettings, memory: str | int
) -> int:
    """Return how many columns of reference values to transfer to the tissue at once.

    Parameters
    ----------
    pair
        The data.
    n_columns
        Number of requested columns; the result stays in memory.
    settings
        Settings of the method.
    memory
        Budget for the whole process, for example "4 GB".

    Raises
    ------
    MemoryBudgetError
        Not even one column fits in addition to the result; the error states the minimum.
    """
    if isinstance(settings, AttentionSettings):
        needs = _attention_needs(pair, settings)
    else:
        needs = _stimpute_needs(pair, settings)
    n_cells, budget = pair.st.n_cells, parse_memory(memory)
    of_result = _RESULT_BYTES * n_cells * n_columns
    held = needs.held + of_result + needs.tile(min(READ_ROWS, n_cells), 1)
    per_column = _GIVEN_BYTES * pair.sc.n_cells + 4.0 * READ_ROWS
    if held + per_column > budget:
        raise MemoryBudgetError(
            "memory",
            expected=f"at least {enough_bytes(held + per_column)}, of which {human_bytes(of_result)} for "
            f"{n_columns:,} columns in {n_cells:,} cells",
            got=human_bytes(budget),
            fix="Raise the budget, or request fewer columns or genes at once.",
        )
    return rows_within(budget - held, per_column, most=n_columns)


def _tile(needs: _Needs, n_cells: int, n_genes: int, *, free: float) -> tuple[int, int]:
    """Return the numbers of cells and genes of a tile: all genes, or as many as fit."""
    cells, most = min(_MOST_CELLS, max(n_cells, 1)), max(n_genes, 1)
    while cells > _FEWEST_CELLS and needs.tile(cells, min(most, _chunk_genes(cells))) > free:
        cells //= 2
    genes, width = most, _chunk_genes(cells)
    while genes > 1 and needs.tile(cells, genes) > free:
        genes = genes // 2 if genes <= 2 * width else genes // 2 // width * width
    if genes < most and genes > width:  # equal passes instead of a short last one
        n_passes = math.ceil(most / genes)
        genes = min(genes, math.ceil(most / n_passes / width) * width)
    return cells, genes


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """Memory of a method, in bytes."""

    held: float  # throughout
    training: float  # in addition, during training
    block: Callable[[int, int], float]  # in addition, while computing a tile (cells, genes)
    per_gene: float  # of a tile
    ready: float  # of a gene during its preparation
    panel: int  # number of genes read per cell
    tile_copies: int = _TILE_COPIES
    panel_copies: int = _PANEL_COPIES

    def tile(self, cells: int, genes: int) -> float:
        """Return the memory of a tile, including its prepared genes."""
        values = 4.0 * cells * (self.tile_copies * genes + self.panel_copies * self.panel)
        return (
            self.block(cells, genes) + self.per_gene * genes + self.ready * min(genes, BLOCK_GENES) + values
        )


def _stimpute_needs(pair: Pair, settings: StImputeSettings) -> _Needs:
    n_sc, n_sources = pair.sc.n_cells, n_sources_of(pair, settings)

    def block(cells: int, genes: int) -> float:
        per_cell = bytes_per_cell(settings, n_sources, min(genes, TABLE_GENES))
        return max(per_cell, min(BLOCK_BYTES, per_cell * cells)) + 8.0 * min(cells, _SEARCHED) * n_sc

    sources, search = 16.0 * n_sc * n_sources, 24.0 * n_sc * settings.latent
    return _Needs(
        held=_held_bytes(pair) + sources + search,
        training=_training_bytes(pair, settings),
        block=block,
        per_gene=8.0 * n_sc,
        ready=_TABLE_BYTES * n_sc,
        panel=len(pair.shared_genes),
    )


def _attention_needs(pair: Pair, settings: AttentionSettings) -> _Needs:
    n_sc, n_panel = pair.sc.n_cells, len(pair.shared_genes)
    n_keys = keys_of(n_sc, most=settings.most_keys)
    inputs, sample = min(n_panel, settings.most_inputs), min(pair.st.n_cells, SAMPLE_CELLS)
    cells = min(pair.st.n_cells, settings.training_cells)
    held = _held_bytes(pair) + 4.0 * (n_sc + sample) * inputs
    weights = max(
        settings.batch_cells * settings.batch_reference, settings.fold_cells * settings.fold_reference
    )
    values = 4.0 * n_panel * (2 * n_sc + 2 * cells + 6 * sample) + 8.0 * inputs * (n_sc + cells)

    def block(cells: int, genes: int) -> float:
        carried = min(BLOCK_BYTES, 4.0 * _VALUE_COPIES * cells * genes)
        return carried + min(_WEIGHT_BLOCK_BYTES, 12.0 * cells * n_keys)

    return _Needs(
        held=held,
        training=4.0 * _STEP_COPIES * weights + values + 4.0 * _MAP_COPIES * inputs**2,
        block=block,
        per_gene=4.0 * n_keys,
        ready=_CARRIED_BYTES * n_sc + 32.0 * sample,
        panel=n_panel,
    )


def _held_bytes(pair: Pair) -> float:
    """Return the bytes of this process with the spatial cells, and of the reference stored by gene."""
    process = process_bytes() + _CELL_BYTES * pair.st.n_cells
    return process + min(16.0 * (1 - pair.sc.sparsity), 8.0) * pair.sc.n_cells * pair.sc.n_genes


def _training_bytes(pair: Pair, settings: StImputeSettings) -> float:
    """Return the memory of a training step and of the training cells."""
    n_panel = len(pair.shared_genes)
    genes = min(n_panel, settings.batch_genes)
    sources = min(n_sources_of(pair, settings), settings.batch_sources)
    cells = min(pair.st.n_cells, settings.training_cells)
    batch = min(settings.batch, settings.cells_per_epoch, cells)
    step = _NETWORK_COPIES * bytes_per_cell(settings, sources, genes) * batch
    return step + 4.0 * cells * (3 * n_panel + 2 * settings.k) + _TABLE_BYTES * pair.sc.n_cells * n_panel


def n_sources_of(pair: Pair, settings: StImputeSettings) -> int:
    """Return the number of source genes of the graph."""
    return pair.sc.n_genes if uses_all_sources(pair, settings) else len(pair.shared_genes)


def uses_all_sources(pair: Pair, settings: StImputeSettings) -> bool:
    """Return whether all genes of the reference are sources, or only the panel."""
    is_small = pair.sc.n_genes <= settings.most_sources
    return settings.sources == "all" or (settings.sources == "auto" and is_small)


def share_kept(pair: Pair, genes: IntArray, cut: float) -> float:
    """Estimate, before the fit, the share of imputed values that a sparse result keeps.

    Parameters
    ----------
    pair
        The data.
    genes
        (n_genes,) positions in the reference.
    cut
        Threshold below which values are omitted.

    Returns
    -------
    0 to 1: the share of genes with a mean of at least ``cut``, over spatial cells for panel genes, and over
    reference cells for others.

    Notes
    -----
    A rough estimate: with a threshold of .05 on the data in benchmarks/results/output_size.md, it is .8 to
    1.7 times the true share.
    """
    if not cut or not len(genes):
        return 1.0
    means = _means(pair.sc, genes)
    places = {int(gene): column for gene, column in zip(pair.sc_shared, pair.st_shared, strict=True)}
    on_panel = np.isin(genes, pair.sc_shared)
    means[on_panel] = _means(
        pair.st, np.array([places[int(position)] for position in genes[on_panel]], dtype=np.int64)
    )
    return float(np.mean(means >= cut))


def _means(side: Side, genes: IntArray) -> DoubleArray:
    """Return the means of genes over some cells of a side."""
    cells = np.unique(np.linspace(0, side.n_cells - 1, min(side.n_cells, _LOOKED_AT)).astype(np.int64))
    total = np.zeros(len(genes))
    for rows in row_blocks(len(cells), _LOOKED_AT_ONCE):
        total += np.asarray(side.block(cells[rows], genes).sum(axis=0, dtype=np.float64)).ravel()
    return total / len(cells)
