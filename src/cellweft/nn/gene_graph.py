"""The gene graph: gene-gene weights from one or several relations (Eq. 4-6 of stImpute), and gene features.

Expression, proteins, gene sets and lists of edges each define a relation between genes. A relation has one
method that returns the weight of each source for a gene. If a relation does not contain a gene, expression
replaces it (Eq. 6).
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
    """Weights between genes, from one kind of information."""

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which genes of the reference, given by position, the relation contains."""

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return the weight of each source for each gene.

        Parameters
        ----------
        genes, sources
            (n_genes,) and (n_sources,) positions in the reference.
        expression
            (n_genes, n_sources) their similarity of expression (Eq. 5), which is used for genes that the
            relation does not contain (Eq. 6).

        Returns
        -------
        (n_genes, n_sources), with any sum. The weight of a gene for itself is ignored.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpressionRelation:
    """Cosine of the expression in the reference: Eq. 5."""

    def knows(self, genes: IntArray) -> BoolArray:
        """Return True for all ``genes``."""
        return np.ones(len(genes), dtype=bool)

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return ``expression``, which was computed from ``genes`` and ``sources``."""
        return expression


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingRelation:
    """Cosine of protein embeddings: Eq. 4, and Eq. 6 for genes that have none.

    Attributes
    ----------
    vectors
        (n_embedded, n_dim) embeddings, of any length.
    rows
        (n_genes,) row of ``vectors`` for each gene of the reference, -1 for genes without one.
    nearest
        Number of sources with the most similar embedding to use, without the gene itself; all by default.
        With a number, neither the genes x sources matrix nor the vectors are converted to float64.
    """

    vectors: FloatArray
    rows: IntArray
    nearest: int | None = None

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which ``genes`` have an embedding."""
        return self.rows[genes] >= 0

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return weights; for ``genes``, ``sources`` and ``expression`` see `GeneRelation.weights`."""
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
    """Sets that two genes share (GO terms, pathways); rare sets have larger weights.

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
    The weight of two genes is simGIC: the summed information content of the sets that contain both, divided
    by that of the sets that contain either (Pesquita et al., BMC Bioinformatics 2008, 9(Suppl 5):S4); a
    Jaccard index in which the weight of a set is -log(share of genes in it). It is 0 to 1. A gene that shares
    no set with a source uses expression, like a gene without sets.
    """

    known: BoolArray
    members: sp.csr_matrix
    information: DoubleArray

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which ``genes`` are in a set."""
        return self.known[genes]

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return weights; for ``genes``, ``sources`` and ``expression`` see `GeneRelation.weights`."""
        left, right = self.members[genes], self.members[sources]
        shared = (left @ sp.diags(self.information) @ right.T).toarray().astype(np.float64)
        either = (left @ self.information)[:, None] + (right @ self.information)[None, :] - shared
        between = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)
        return _replaced(self, between, genes, sources, expression)


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeRelation:
    """Edges that the user passes, for example from a protein network.

    Attributes
    ----------
    known
        (n_genes,) which genes of the reference are in the list.
    edges
        (n_genes, n_genes) weights, at least 0 and symmetric, 0 without an edge.

    Notes
    -----
    A gene without an edge to any source uses expression, like a gene that is not in the list.
    """

    known: BoolArray
    edges: sp.csr_matrix

    def knows(self, genes: IntArray) -> BoolArray:
        """Return which ``genes`` are in the list."""
        return self.known[genes]

    def weights(self, genes: IntArray, sources: IntArray, expression: DoubleArray) -> DoubleArray:
        """Return weights; for ``genes``, ``sources`` and ``expression`` see `GeneRelation.weights`."""
        between = self.edges[genes][:, sources].toarray().astype(np.float64)
        return _replaced(self, between, genes, sources, expression)


def _replaced(
    relation: GeneRelation, between: DoubleArray, genes: IntArray, sources: IntArray, expression: DoubleArray
) -> DoubleArray:
    """Return Eq. 6 for a sparse relation, in which a gene may be known but have no neighbour.

    DEVIATION: such a gene would receive no messages; it uses expression, like an unknown gene.
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
        The relation itself.
    share
        Its weight relative to the other relations, above 0.
    """

    name: RelationKind
    relation: GeneRelation
    share: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneGraph:
    """Weights between any gene of the reference and a fixed set of source genes.

    Attributes
    ----------
    sources
        (n_sources,) positions, in the reference, of the genes that send messages.
    source_expression
        (n_cells, n_sources) log-normalised expression of the sources in the reference.
    parts
        The relations of the graph; without any, all weights are zero, which means no graph.
    measure
        "similarity", as in the paper, or "distance" (1 - similarity), as in its release.
    n_neighbors
        Number of largest weights to keep per gene and relation; all by default.

    Notes
    -----
    The sources are fixed when a model is fitted, so that a gene's weights do not depend on which other genes
    are requested. Several relations are combined as the weighted mean of their rows. Each row is first
    divided by its sum, so that the influence of a relation does not depend on the number and size of its
    weights. If a gene has no neighbour in a relation, only the other relations are used for it.
    """

    sources: IntArray
    source_expression: FloatArray
    parts: tuple[GraphPart, ...] = (GraphPart(name="expression", relation=ExpressionRelation()),)
    measure: Measure = "similarity"
    n_neighbors: int | None = None

    def weights(self, genes: IntArray, expression: FloatArray) -> FloatArray:
        """Return the weight of each source in a gene's neighbourhood.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        expression
            (n_cells, n_genes) log-normalised expression of these genes in the reference.

        Returns
        -------
        (n_genes, n_sources), at least 0; a row sums to 1, or to 0 if a gene has no neighbour. A gene is not
        its own neighbour.
        """
        if not self.parts:
            return np.zeros((len(genes), len(self.sources)), dtype=np.float32)
        alike = cosine_columns(expression, self.source_expression)  # (5)
        rows = [self._rows(part.relation, genes, alike) for part in self.parts]
        if len(rows) > 1:
            rows = [part.share * _means(values) for part, values in zip(self.parts, rows, strict=True)]
        return _means(np.add.reduce(rows)).astype(np.float32)

    def to(self, device: torch.device) -> GeneGraph:
        """Return a copy for a model on a device; the graph itself stays on the CPU."""
        return to_device(self, device, "source_expression")

    @property
    def is_sparse(self) -> bool:
        """Whether genes may have only a few neighbours among the sources."""
        return self.n_neighbors is not None or any(part.name in ("gene_sets", "edges") for part in self.parts)

    def known_genes(self, n_genes: int) -> dict[RelationKind, int]:
        """Return how many of the reference's ``n_genes`` genes each relation contains."""
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
    """Return rows scaled to a sum of 1; rows with a sum of 0 are unchanged."""
    total = weights.sum(axis=1, keepdims=True)
    means: DoubleArray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return means


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneFeatures:
    """Inputs of the gene network for genes in the cells of a block.

    Attributes
    ----------
    own
        (R, B, k) expression of the gene in the k neighbours of each cell.
    neighbors
        (R, B, k) the same, averaged over the gene's neighbours in the graph.
    weights
        (R, S) weights of the sources.
    """

    own: torch.Tensor
    neighbors: torch.Tensor
    weights: torch.Tensor

    def from_sources(self, drawn: torch.Tensor) -> GeneFeatures:
        """Return the features with only the drawn sources; their weights are scaled to the same sum."""
        drawn_weights, total = self.weights[:, drawn], self.weights.sum(dim=1, keepdim=True)
        weights = drawn_weights * (total / drawn_weights.sum(dim=1, keepdim=True).clamp_min(1e-12))
        return GeneFeatures(own=self.own, neighbors=self.neighbors, weights=weights)


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneTable:
    """Some genes of the reference, from which each block gathers its features.

    Attributes
    ----------
    expression, aggregated
        (R, n_sc) log-normalised expression, and its mean over each gene's neighbours in the graph. The first
        layer's neighbourhood is linear in the reference, so it is computed once here and not per spatial
        cell. Genes are rows, so that the values gathered from one gene are close together in memory.
    weights
        (R, S) weights of the sources.
    is_sparse
        Whether genes may have only a few neighbours; a random draw of sources would omit nearly all of them.
    """

    expression: torch.Tensor
    aggregated: torch.Tensor
    weights: torch.Tensor
    is_sparse: bool = False

    @classmethod
    def build(
        cls, graph: GeneGraph, genes: IntArray, expression: FloatArray, *, device: torch.device
    ) -> GeneTable:
        """Return the table for genes with these positions and (n_sc, R) expression."""
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
            Positions, in this table, of the genes to return; all by default.
        """
        tables = [self.expression, self.aggregated]
        weights = self.weights
        if genes is not None:
            tables, weights = [table[genes] for table in tables], weights[genes]
        own, aggregated = (at_neighbors(table, neighbors) for table in tables)
        return GeneFeatures(own=own, neighbors=aggregated, weights=weights)
