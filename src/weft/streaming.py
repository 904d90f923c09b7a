"""Between a pair and a method: what training reads of a pair, and predictions block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from weft._compute import numpy_stream
from weft._errors import InputError, SettingError
from weft._typing import DoubleArray, FloatArray, IntArray, Progress, silent
from weft.core import stimpute
from weft.core.genegraph import GeneGraph, GeneTable
from weft.core.settings import StImputeSettings
from weft.core.stimpute import StImputeModel
from weft.data.columns import GeneColumns
from weft.data.embeddings import EmbeddingTable
from weft.data.pair import Pair
from weft.data.stream import row_blocks
from weft.plan import Plan, make_plan, uses_all_sources

_READ_ROWS = 4096  # cells that are read, and written, at once


def asked_genes(pair: Pair, genes: Iterable[str] | None) -> IntArray:
    """Return positions of the genes that are asked for, in the reference; None and "all" mean every one."""
    if genes is None or genes == "all":
        return np.arange(pair.sc.n_genes)
    return pair.find_genes([genes] if isinstance(genes, str) else list(genes))


def places_of(pair: Pair) -> dict[str, DoubleArray]:
    """Return the coordinates as a result carries them in ``obsm``."""
    return {} if pair.coordinates is None else {"spatial": pair.coordinates}


def check_k(settings: StImputeSettings, columns: GeneColumns) -> None:
    """Raise `SettingError` where the reference has fewer usable cells than neighbours are asked for."""
    if settings.k > columns.n_cells:
        raise SettingError(
            "k",
            expected=f"at most {columns.n_cells:,}, the reference's cells that have counts",
            got=str(settings.k),
            fix="Set a smaller k (settings={'k': ...}; on the command line --set k=...).",
        )


def check_panel(model: StImputeModel, pair: Pair) -> None:
    """Raise `InputError` where a pair has another panel than the model was fitted to."""
    n_panel = model.autoencoder.encoder.in_features
    if n_panel != len(pair.shared_genes):
        raise InputError(
            "pair",
            expected=f"the panel of {n_panel} genes that the model was fitted to",
            got=f"{len(pair.shared_genes)} shared genes",
            fix="Pass the pair of the fit, or parts of its cells.",
        )


def training_cells(pair: Pair, settings: StImputeSettings, seed: int) -> FloatArray:
    """Return the panel in spatial cells that have counts: all, or a draw of ``settings.training_cells``."""
    cells = np.flatnonzero(~pair.st.empty_cells)
    if len(cells) > settings.training_cells:
        drawn = numpy_stream(seed, "training cells").choice(cells, settings.training_cells, replace=False)
        cells = np.sort(drawn)
    blocks = [pair.st.dense(cells[rows], pair.st_shared) for rows in row_blocks(len(cells), _READ_ROWS)]
    return np.concatenate(blocks)


def gene_graph(
    pair: Pair, columns: GeneColumns, *, settings: StImputeSettings, embedding: EmbeddingTable | None
) -> GeneGraph:
    """Return the gene graph that the settings name, over the pair's reference."""
    sources = np.arange(pair.sc.n_genes) if uses_all_sources(pair, settings) else pair.sc_shared
    vectors, rows = None, None
    if embedding is not None:
        places, vectors = embedding.match(pair.sc.genes)
        rows = np.full(pair.sc.n_genes, -1)
        rows[places] = np.arange(len(places))
    return GeneGraph.build(
        sources,
        columns.dense(sources),
        embedding=vectors,
        embedding_row=rows,
        measure=settings.measure,
        n_neighbors=settings.graph_neighbors,
        is_empty=settings.graph == "none",
    )


def predictions(
    model: StImputeModel,
    columns: GeneColumns,
    pair: Pair,
    *,
    genes: IntArray,
    plan: Plan,
    progress: Progress,
) -> Iterator[tuple[slice, slice, FloatArray]]:
    """Yield blocks of predictions, and where they lie: cells by genes of the request."""
    if not len(genes):
        return
    neighbors = np.concatenate(
        [
            stimpute.find_neighbors(model, pair.st.dense(rows, pair.st_shared))
            for rows in row_blocks(pair.st.n_cells, _READ_ROWS)
        ]
    )
    chunks = list(row_blocks(len(genes), plan.genes_per_block))
    done = 0
    for places in chunks:
        table = GeneTable.build(model.graph, genes[places], columns.dense(genes[places]), device=model.device)
        for rows in row_blocks(pair.st.n_cells, _READ_ROWS):
            parts = [
                stimpute.predict_block(model, neighbors[rows][part], table)
                for part in row_blocks(rows.stop - rows.start, plan.cells_per_block)
            ]
            yield rows, places, np.concatenate(parts)
            done += (rows.stop - rows.start) * (places.stop - places.start)
            progress("impute", done, pair.st.n_cells * len(genes))


def predict_genes(model: StImputeModel, columns: GeneColumns, pair: Pair, *, genes: IntArray) -> FloatArray:
    """Return predictions of some genes in all spatial cells of a pair: (n_cells, n_genes), held in memory."""
    plan = make_plan(pair, len(genes), settings=model.settings, memory="1 TB")
    result = np.empty((pair.st.n_cells, len(genes)), dtype=np.float32)
    for rows, places, block in predictions(model, columns, pair, genes=genes, plan=plan, progress=silent):
        result[rows, places] = block
    return result
