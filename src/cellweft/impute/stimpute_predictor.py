"""Between a pair and a method: what training reads of a pair, and predictions block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellweft._compute import BLOCK_BYTES, row_blocks, rows_within
from cellweft._errors import SettingError, arg
from cellweft._typing import FloatArray, IntArray, RelationKind
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.genes.network import Network
from cellweft.impute.planning import TABLE_GENES, uses_all_sources
from cellweft.nn import stimpute
from cellweft.nn.config import StImputeSettings, bytes_per_cell
from cellweft.nn.gene_graph import GeneGraph, GeneTable, GraphPart
from cellweft.nn.gene_relations import (
    EdgeRelation,
    EmbeddingRelation,
    ExpressionRelation,
    GeneRelation,
    GeneSetRelation,
)
from cellweft.nn.stimpute import StImputeModel


def check_k(settings: StImputeSettings, columns: GeneColumns) -> None:
    """Raise `SettingError` where the reference has fewer usable cells than neighbours are asked for."""
    if settings.k > columns.n_cells:
        raise SettingError(
            arg("settings", key="k"),
            expected=f"at most {columns.n_cells:,}, the reference's cells that have counts",
            got=str(settings.k),
            fix="Set a smaller k.",
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
    """Some genes of the reference, ready for stImpute's networks: see `cellweft.impute.base.Predictor`.

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
        made = (
            GeneTable.build(model.graph, part, columns.dense(part), device=model.device) for part in parts
        )
        return cls(model=model, tables=tuple(made), cells=rows_within(BLOCK_BYTES, per_cell))

    def values(self, measured: FloatArray) -> FloatArray:
        """See `cellweft.impute.base.Predictor`."""
        near = stimpute.find_neighbors(self.model, measured)
        found = np.empty((len(near), sum(len(table.weights) for table in self.tables)), dtype=np.float32)
        for rows in row_blocks(len(near), self.cells):
            found[rows] = stimpute.predict_block(self.model, near[rows], self.tables)
        return found
