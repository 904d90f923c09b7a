"""What is known of how genes belong together: by their expression, proteins, gene sets or a list of edges.

Each kind of knowledge is a relation with one question, asked by the gene graph (`cellweft.nn.gene_graph`):
how much does every source count for a gene? Where a relation does not know a gene, expression answers (Eq.
6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from cellweft._statistics import unit_length
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray
from cellweft.nn.similarity import nearest_rows, replace_where


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
            left, right = (unit_length(self.vectors[self.rows[one]], axis=1) for one in (genes, sources))
            between = left @ right.T  # (4)
        else:
            between = self._nearest(genes, sources, self.nearest)
        return replace_where(expression, between, self.knows(genes), self.knows(sources))  # (6)

    def _nearest(self, genes: IntArray, sources: IntArray, most: int) -> DoubleArray:
        between = np.zeros((len(genes), len(sources)))
        known, known_sources = (np.flatnonzero(self.knows(one)) for one in (genes, sources))
        found = nearest_rows(
            self.vectors[self.rows[genes[known]]],
            self.vectors[self.rows[sources[known_sources]]],
            most=most + 1,  # of which one may be the gene itself
        )
        between[known[:, None], known_sources[found.places]] = found.cosines
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
    """Edges that the user gives, of a protein network, say.

    Attributes
    ----------
    known
        (n_genes,) which genes of the reference the list names.
    edges
        (n_genes, n_genes) weights, at least 0, alike in both directions, 0 where there is no edge.

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
