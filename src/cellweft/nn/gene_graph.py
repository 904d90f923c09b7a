"""The gene graph: gene-gene weights by one relation or several (Eq. 4-6 of stImpute), and genes with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cellweft._typing import DoubleArray, FloatArray, IntArray, RelationKind
from cellweft.nn.config import Measure
from cellweft.nn.device import to_device
from cellweft.nn.gene_relations import ExpressionRelation, GeneRelation
from cellweft.nn.neighbors import at_neighbors
from cellweft.nn.similarity import cosine_columns, keep_largest


@dataclass(frozen=True, kw_only=True, eq=False)
class GraphPart:
    """One relation in a gene graph.

    Attributes
    ----------
    name
        Its kind.
    relation
        What it says.
    share
        How much it counts beside the others, above 0.
    """

    name: RelationKind
    relation: GeneRelation
    share: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneGraph:
    """Weights from any gene of the reference to a fixed set of source genes.

    Attributes
    ----------
    sources
        (n_sources,) positions of the genes that messages come from, in the reference.
    source_expression
        (n_cells, n_sources) log-normalised expression of the sources in the reference.
    parts
        The relations that it is made of; without any, all weights are zero: no graph.
    measure
        "similarity", as the paper writes it, or "distance" (1 - similarity), as its release computed it.
    n_neighbors
        Keep so many of the largest weights per gene, by each of the relations; all by default.

    Notes
    -----
    The sources are fixed when a model is fitted, so that a gene's weights do not depend on which other genes
    are asked for. Several relations are put together as the mean of their rows, by their shares; each row is
    first divided by its sum, so that a relation counts alike whatever the number and size of its weights. A
    relation by which a gene has no neighbour leaves the gene to the others.
    """

    sources: IntArray
    source_expression: FloatArray
    parts: tuple[GraphPart, ...] = (GraphPart(name="expression", relation=ExpressionRelation()),)
    measure: Measure = "similarity"
    n_neighbors: int | None = None

    def weights(self, genes: IntArray, expression: FloatArray) -> FloatArray:
        """Return how much every source counts in a gene's neighbourhood.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        expression
            (n_cells, n_genes) their log-normalised expression in the reference.

        Returns
        -------
        (n_genes, n_sources), at least 0; a row sums to 1, or to 0 where a gene has no neighbour. A gene is no
        neighbour of itself.
        """
        if not self.parts:
            return np.zeros((len(genes), len(self.sources)), dtype=np.float32)
        alike = cosine_columns(expression, self.source_expression)  # (5)
        rows = [self._rows(part.relation, genes, alike) for part in self.parts]
        if len(rows) > 1:
            rows = [part.share * _means(one) for part, one in zip(self.parts, rows, strict=True)]
        return _means(np.add.reduce(rows)).astype(np.float32)

    def to(self, device: torch.device) -> GeneGraph:
        """Return a copy for models on a device; it works on the CPU."""
        return to_device(self, device, "source_expression")

    @property
    def is_sparse(self) -> bool:
        """Whether genes may have but a few neighbours among the sources."""
        return self.n_neighbors is not None or any(part.name in ("gene_sets", "edges") for part in self.parts)

    def known_genes(self, n_genes: int) -> dict[RelationKind, int]:
        """Return how many of the reference's ``n_genes`` genes each relation knows."""
        genes = np.arange(n_genes)
        return {part.name: int(part.relation.knows(genes).sum()) for part in self.parts}

    def _rows(self, relation: GeneRelation, genes: IntArray, alike: DoubleArray) -> DoubleArray:
        weights = relation.weights(genes, self.sources, alike)
        if self.measure == "distance":
            weights = 1 - weights
        weights = np.where(genes[:, None] == self.sources, 0, weights.clip(min=0))
        if self.n_neighbors is not None and self.n_neighbors < len(self.sources):
            weights = keep_largest(weights, self.n_neighbors)
        return weights


def _means(weights: DoubleArray) -> DoubleArray:
    """Return rows that sum to 1, or to 0 where they did."""
    total = weights.sum(axis=1, keepdims=True)
    means: DoubleArray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return means


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneFeatures:
    """Inputs of genes in the cells of a block.

    Attributes
    ----------
    own
        (R, B, k) expression of the gene in the k neighbours of every cell.
    neighbors
        (R, B, k) the same, averaged over the gene's neighbours in the graph.
    weights
        (R, S) weights of the sources.
    """

    own: torch.Tensor
    neighbors: torch.Tensor
    weights: torch.Tensor

    def from_sources(self, drawn: torch.Tensor) -> GeneFeatures:
        """Return the same with some of the sources, their weights brought to the same sum again."""
        kept, total = self.weights[:, drawn], self.weights.sum(dim=1, keepdim=True)
        weights = kept * (total / kept.sum(dim=1, keepdim=True).clamp_min(1e-12))
        return GeneFeatures(own=self.own, neighbors=self.neighbors, weights=weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneTable:
    """Some genes of the reference: what block after block gathers from.

    Attributes
    ----------
    expression, aggregated
        (R, n_sc) log-normalised expression, and its mean over each gene's neighbours in the graph. The first
        layer's neighbourhood is linear in the reference, so it is made once here and not per spatial cell.
        By gene, since what cells gather from one gene lies close together in memory.
    weights
        (R, S) weights of the sources.
    is_sparse
        Whether genes may have but a few neighbours, of which a draw of sources would leave next to none.
    """

    expression: torch.Tensor
    aggregated: torch.Tensor
    weights: torch.Tensor
    is_sparse: bool = False

    @classmethod
    def build(
        cls, graph: GeneGraph, genes: IntArray, expression: FloatArray, *, device: torch.device
    ) -> GeneTable:
        """Return the table of genes, given their positions and their (n_sc, R) expression."""
        weights = graph.weights(genes, expression)
        aggregated = weights @ graph.source_expression.T
        tables = {"expression": expression.T, "aggregated": aggregated, "weights": weights}
        made = {name: torch.from_numpy(np.ascontiguousarray(one)).to(device) for name, one in tables.items()}
        return cls(**made, is_sparse=graph.is_sparse)

    def to(self, device: torch.device) -> GeneTable:
        """Return a copy on a device."""
        return to_device(self, device, "expression", "aggregated", "weights")

    def gather(self, neighbors: torch.Tensor, genes: torch.Tensor | None = None) -> GeneFeatures:
        """Return features in the cells of a block.

        Parameters
        ----------
        neighbors
            (B, k) positions of reference cells.
        genes
            Positions of the genes in this table that are wanted; all by default.
        """
        tables = [self.expression, self.aggregated]
        weights = self.weights
        if genes is not None:
            tables, weights = [table[genes] for table in tables], weights[genes]
        own, aggregated = (at_neighbors(table, neighbors) for table in tables)
        return GeneFeatures(own=own, neighbors=aggregated, weights=weights)
