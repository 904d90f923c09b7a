"""Between a pair and a method: what training reads of a pair, and predictions block by block."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from weft._compute import BLOCK_BYTES, READ_ROWS, numpy_stream, row_blocks, rows_within, stratified_rows
from weft._errors import InputError, SettingError, arg
from weft._typing import DoubleArray, FloatArray, IntArray, Progress, RelationKind
from weft.core import stimpute
from weft.core.genegraph import GeneGraph, GeneTable, GraphPart
from weft.core.relations import (
    EdgeRelation,
    EmbeddingRelation,
    ExpressionRelation,
    GeneRelation,
    GeneSetRelation,
)
from weft.core.settings import StImputeSettings, bytes_per_cell
from weft.core.stimpute import StImputeModel
from weft.data.columns import GeneColumns
from weft.data.network import Network
from weft.data.pair import Pair
from weft.plan import TABLE_GENES, uses_all_sources

_TENTHS = 10  # of the cells by their totals


def asked_genes(pair: Pair, genes: Iterable[str] | None) -> IntArray:
    """Return positions in the reference of the genes that are asked for, each once; None and "all": all."""
    if genes is None or (isinstance(genes, str) and genes == "all"):
        return np.arange(pair.sc.n_genes)
    found = pair.find_genes([genes] if isinstance(genes, str) else list(genes))
    return np.array(list(dict.fromkeys(found.tolist())), dtype=np.int64)


def places_of(pair: Pair) -> dict[str, DoubleArray]:
    """Return the coordinates, no copy, as a result carries them in ``obsm``."""
    return {} if pair.coordinates is None else {"spatial": pair.coordinates}


def check_k(settings: StImputeSettings, columns: GeneColumns) -> None:
    """Raise `SettingError` where the reference has fewer usable cells than neighbours are asked for."""
    if settings.k > columns.n_cells:
        raise SettingError(
            arg("settings", key="k"),
            expected=f"at most {columns.n_cells:,}, the reference's cells that have counts",
            got=str(settings.k),
            fix="Set a smaller k.",
        )


def reference_mark(pair: Pair) -> str:
    """Return a text that tells one reference from another: its size, its genes in their order, its scale."""
    genes = zlib.crc32("\n".join(pair.sc.genes.tolist()).encode())
    return (
        f"{pair.sc.n_cells:,} cells x {pair.sc.n_genes:,} genes ({genes:08x}), scaled to {pair.sc.target:.6g}"
    )


def check_data(pair: Pair, *, panel: NDArray[np.str_], reference: str) -> None:
    """Raise `InputError` where a pair has another panel or reference than the ones a model was fitted to."""
    if not np.array_equal(pair.shared_genes, panel):
        n_known = int(np.isin(pair.shared_genes, panel).sum())
        raise InputError(
            "pair",
            expected=f"the panel of {len(panel)} genes that the model was fitted to",
            got=f"{len(pair.shared_genes)} shared genes, {n_known} of them on that panel",
            fix="Pass the pair of the fit, parts of its cells, or other cells with pair.panel(genes).",
        )
    if reference_mark(pair) != reference:
        raise InputError(
            "pair",
            expected=f"the reference that the model was fitted with, {reference}",
            got=f"another one, {reference_mark(pair)}",
            fix="Make the pair with that reference, read in the same way, or fit anew.",
        )


def training_cells(pair: Pair, most: int, seed: int) -> FloatArray:
    """Return the panel in spatial cells that have counts: all, or ``most`` drawn alike from all their kinds.

    Parameters
    ----------
    pair
        The data.
    most
        How many cells at most.
    seed
        Of the draw.

    Returns
    -------
    (n_training, n_panel)

    Notes
    -----
    Kinds are what is known of cells without looking at their genes: slice, label, and tenth of the totals.
    """
    cells = np.flatnonzero(~pair.st.empty_cells)
    if len(cells) > most:
        stream = numpy_stream(seed, "training cells")
        cells = stratified_rows(cells, _kinds(pair, cells), most=most, stream=stream)
    return panel_of(pair, cells)


def _kinds(pair: Pair, cells: IntArray) -> IntArray:
    """Return a number from 0 for the kind of each cell."""
    totals = pair.st.totals[cells]
    kinds = np.searchsorted(np.quantile(totals, np.arange(1, _TENTHS) / _TENTHS), totals)
    for names in (pair.slices, pair.st_labels):
        if names is not None:
            codes, _ = pd.factorize(names[cells])
            kinds = pd.factorize(kinds * (codes.max() + 1) + codes)[0]
    return np.asarray(kinds, dtype=np.int64)


def panel_of(pair: Pair, cells: IntArray) -> FloatArray:
    """Return the panel in some spatial cells, (n_cells, n_panel)."""
    blocks = [pair.st.dense(cells[rows], pair.st_shared) for rows in row_blocks(len(cells), READ_ROWS)]
    return np.concatenate(blocks)


def train_part(
    pair: Pair,
    columns: GeneColumns,
    *,
    graph: GeneGraph,
    settings: StImputeSettings,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> StImputeModel:
    """Train on the panel of a pair; parameters as `weft.core.stimpute.train`."""
    return stimpute.train(
        training_cells(pair, settings.training_cells, seed),
        columns.dense(pair.sc_shared),
        pair.sc_shared,
        graph=graph,
        settings=settings,
        seed=seed,
        device=device,
        progress=progress,
    )


def gene_relations(
    network: Network, genes: NDArray[np.str_], *, settings: StImputeSettings
) -> tuple[GraphPart, ...]:
    """Return the relations that the settings name, over the genes of a reference.

    Parameters
    ----------
    network
        What is known of genes besides expression.
    genes
        (n_genes,) names of the reference's genes.
    settings
        Of the method.

    Raises
    ------
    GeneError
        An embedding table, gene sets or edges with none of the genes.
    """
    found: dict[RelationKind, GeneRelation] = {"expression": ExpressionRelation()}
    if network.embedding is not None:
        places, vectors = network.embedding.match(genes)
        rows = np.full(len(genes), -1)
        rows[places] = np.arange(len(places))
        nearest = settings.graph_neighbors if settings.measure == "similarity" else None
        found["embedding"] = EmbeddingRelation(vectors=vectors, rows=rows, nearest=nearest)
    if network.gene_sets is not None:
        known, members = network.gene_sets.aligned(genes)
        information = network.gene_sets.information
        found["gene_sets"] = GeneSetRelation(known=known, members=members, information=information)
    if network.edges is not None:
        known, edges = network.edges.aligned(genes)
        found["edges"] = EdgeRelation(known=known, edges=edges)
    shares = settings.graph_shares(found)
    return tuple(GraphPart(name=name, relation=found[name], share=share) for name, share in shares.items())


def gene_graph(
    pair: Pair, columns: GeneColumns, *, settings: StImputeSettings, parts: tuple[GraphPart, ...]
) -> GeneGraph:
    """Return the gene graph of some relations, over the pair's reference, with the sources of its panel."""
    sources = np.arange(pair.sc.n_genes) if uses_all_sources(pair, settings) else pair.sc_shared
    return GeneGraph(
        sources=sources,
        source_expression=columns.dense(sources),
        parts=parts,
        measure=settings.measure,
        n_neighbors=settings.graph_neighbors,
    )


def network_record(graph: GeneGraph, network: Network, n_genes: int) -> dict[str, dict[str, Any]]:
    """Return what a gene graph is made of, as plain values that every format stores.

    Parameters
    ----------
    graph
        The graph.
    network
        What its relations were made from.
    n_genes
        Genes of the reference.

    Returns
    -------
    For each relation its ``share``, its ``source``, and ``known_genes``, how many of the genes it knows.
    """
    known = graph.known_genes(n_genes)
    return {
        part.name: {
            "share": float(part.share),
            "source": network.sources.get(part.name, "reference"),
            "known_genes": known[part.name],
        }
        for part in graph.parts
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkGenes:
    """Some genes of the reference, ready for stImpute's networks: see `weft.imputing.Predictor`.

    Attributes
    ----------
    model
        A trained model.
    tables
        The genes, a few of them a table: so many as a block of cells has room for.
    cells
        Cells of a block.
    """

    model: StImputeModel
    tables: tuple[GeneTable, ...]
    cells: int

    @classmethod
    def of(cls, model: StImputeModel, columns: GeneColumns, genes: IntArray) -> NetworkGenes:
        """Make genes ready.

        Parameters
        ----------
        model, columns
            A trained model, and its reference by gene.
        genes
            (n_genes,) positions in the reference.
        """
        parts = [genes[places] for places in row_blocks(len(genes), TABLE_GENES)]
        per_cell = bytes_per_cell(model.settings, len(model.sources.weights), min(len(genes), TABLE_GENES))
        return cls(
            model=model,
            tables=tuple(
                GeneTable.build(model.graph, part, columns.dense(part), device=model.device) for part in parts
            ),
            cells=rows_within(BLOCK_BYTES, per_cell),
        )

    def values(self, measured: FloatArray) -> FloatArray:
        """See `weft.imputing.Predictor`."""
        near = stimpute.find_neighbors(self.model, measured)
        found = np.empty((len(near), sum(len(table.weights) for table in self.tables)), dtype=np.float32)
        for rows in row_blocks(len(near), self.cells):
            found[rows] = stimpute.predict_block(self.model, near[rows], self.tables)
        return found
