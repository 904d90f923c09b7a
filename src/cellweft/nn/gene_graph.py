"""The gene graph: gene-gene weights by one relation or several (Eq. 4-6 of stImpute), and genes with them.

What is known of how genes belong together, by their expression, proteins, gene sets or a list of edges, is a
relation each with one question: how much does every source count for a gene? Where a relation does not know a
gene, expression answers (Eq. 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch

from cellweft._statistics import unit_length
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray, RelationKind
from cellweft.nn.config import Measure
from cellweft.nn.device import to_device
from cellweft.nn.neighbors import at_neighbors
from cellweft.nn.similarity import cosine_columns, keep_largest, nearest_rows, replace_where


class GeneRelation(Protocol):
    """How much genes count for each other, by one kind of knowledge."""

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which genes of the reference, given by position, the relation knows at all."""

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return how much every source counts for every gene.

        Parameters
        ----------
        genes, sources
            (n_genes,) and (n_sources,) positions in the reference.
        expression
            (n_genes, n_sources) their likeness by expression (Eq. 5), which stands where the relation does
            not know a gene (Eq. 6).

        Returns
        -------
        (n_genes, n_sources), of any sum, and of no meaning between a gene and itself.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpressionRelation:
    """Cosine of the expression in the reference: Eq. 5."""

    def knows(self, genes: IntArray) -> BoolArray:
        """Return that it knows all ``genes``."""
        return np.ones(len(genes), dtype=bool)

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return ``expression``, which was made of ``genes`` and ``sources``."""
        return expression


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingRelation:
    """Cosine of protein embeddings: Eq. 4, and Eq. 6 for genes that have none.

    Attributes
    ----------
    vectors
        (n_embedded, n_dim) embeddings, of any length.
    rows
        (n_genes,) row of ``vectors`` of every gene of the reference, -1 where it has none.
    nearest
        Take only so many sources with the most similar embedding, the gene itself not counted; all by
        default. Then no matrix of genes x sources is made in float64, nor are the vectors.
    """

    vectors: FloatArray
    rows: IntArray
    nearest: int | None = None

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which ``genes`` have an embedding."""
        return self.rows[genes] >= 0

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return weights as `GeneRelation.weights`; ``genes``, ``sources`` and ``expression`` as there."""
        if self.nearest is None:
            left, right = (
                unit_length(self.vectors[self.rows[positions]], axis=1) for positions in (genes, sources)
            )
            between = left @ right.T  # (4)
        else:
            between = self._nearest(genes, sources, self.nearest)
        return replace_where(expression, between, self.knows(genes), self.knows(sources))  # (6)

    def _nearest(self, genes: IntArray, sources: IntArray, most: int) -> DoubleArray:
        between = np.zeros((len(genes), len(sources)))
        known_genes, known_sources = (np.flatnonzero(self.knows(positions)) for positions in (genes, sources))
        nearest = nearest_rows(
            self.vectors[self.rows[genes[known_genes]]],
            self.vectors[self.rows[sources[known_sources]]],
            most=most + 1,  # one of them may be the gene itself
        )
        between[known_genes[:, None], known_sources[nearest.places]] = nearest.cosines
        return between


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneSetRelation:
    """What sets two genes share, the rarer the more: GO terms, pathways.

    Attributes
    ----------
    known
        (n_genes,) which genes of the reference are in any set.
    members
        (n_genes, n_sets) 1 where a gene is in a set.
    information
        (n_sets,) information content of the sets, at least 0.

    Notes
    -----
    The weight of two genes is simGIC: the summed information content of the sets that both are in, divided by
    that of the sets that either is in (Pesquita et al., BMC Bioinformatics 2008, 9(Suppl 5):S4); a Jaccard
    index in which a set counts by -log(share of the genes that are in it). It is 0 to 1. A gene that shares
    no set with a source takes expression, as one that is in none.
    """

    known: BoolArray
    members: sp.csr_matrix
    information: DoubleArray

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which ``genes`` are in a set."""
        return self.known[genes]

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return weights as `GeneRelation.weights`; ``genes``, ``sources`` and ``expression`` as there."""
        left, right = self.members[genes], self.members[sources]
        shared = (left @ sp.diags(self.information) @ right.T).toarray().astype(np.float64)
        either = (left @ self.information)[:, None] + (right @ self.information)[None, :] - shared
        between = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
        return _replaced(self, between, genes, sources, expression)


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeRelation:
    """Edges that the user passes, for example of a protein network.

    Attributes
    ----------
    known
        (n_genes,) which genes of the reference the list names.
    edges
        (n_genes, n_genes) weights, at least 0, alike in both directions, 0 if there is no edge.

    Notes
    -----
    A gene that has no edge to a source takes expression, as one that the list does not name.
    """

    known: BoolArray
    edges: sp.csr_matrix

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which ``genes`` the list names."""
        return self.known[genes]

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return weights as `GeneRelation.weights`; ``genes``, ``sources`` and ``expression`` as there."""
        between = self.edges[genes][:, sources].toarray().astype(np.float64)
        return _replaced(self, between, genes, sources, expression)


def _replaced(
    relation: GeneRelation, between: DoubleArray, genes: IntArray, sources: IntArray, expression: DoubleArray
) -> DoubleArray:
    """Return Eq. 6 for a relation that is sparse, where a gene that is known may have no neighbour at all.

    DEVIATION: such a gene would hear from nobody; it takes expression, as one that is not known.
    """
    has_neighbor = ((between > 0) & (genes[:, None] != sources)).any(axis=1)
    return replace_where(expression, between, relation.knows(genes) & has_neighbor, relation.knows(sources))


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
    are requested. Several relations are put together as the mean of their rows, by their shares; each row is
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
        (n_genes, n_sources), at least 0; a row sums to 1, or to 0 if a gene has no neighbour. A gene is no
        neighbour of itself.
        """
        if not self.parts:
            return np.zeros((len(genes), len(self.sources)), dtype=np.float32)
        alike = cosine_columns(expression, self.source_expression)  # (5)
        rows = [self._rows(part.relation, genes, alike) for part in self.parts]
        if len(rows) > 1:
            rows = [part.share * _means(values) for part, values in zip(self.parts, rows, strict=True)]
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
    """Return rows that sum to 1, or to 0 if they did."""
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
        drawn_weights, total = self.weights[:, drawn], self.weights.sum(dim=1, keepdim=True)
        weights = drawn_weights * (total / drawn_weights.sum(dim=1, keepdim=True).clamp_min(1e-12))
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
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in tables.items()
        }
        return cls(**tensors, is_sparse=graph.is_sparse)

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
