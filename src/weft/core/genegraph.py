"""Gene-gene weights from protein embeddings or from expression (Eq. 4-6 of stImpute), and genes with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from weft._typing import BoolArray, DoubleArray, FloatArray, IntArray
from weft.core.neighbors import unit_rows
from weft.core.settings import Measure


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneGraph:
    """Weights from any gene of the reference to a fixed set of source genes.

    Attributes
    ----------
    sources
        (n_sources,) positions of the genes that messages come from, in the reference.
    source_expression
        (n_cells, n_sources) log-normalised expression of the sources in the reference.
    embedding
        (n_embedded, n_dim) protein embeddings, of any length, or None for expression alone.
    embedding_row
        (n_genes,) row of ``embedding`` of every gene of the reference, -1 where it has none.
    measure
        "similarity", as the paper writes it, or "distance" (1 - similarity), as its release computed it.
    n_neighbors
        Keep so many of the largest weights per gene; all by default.
    is_empty
        Whether all weights are zero: no graph.

    Notes
    -----
    The sources are fixed when a model is fitted, so that a gene's weights do not depend on which other genes
    are asked for.
    """

    sources: IntArray
    source_expression: FloatArray
    embedding: FloatArray | None = None
    embedding_row: IntArray | None = None
    measure: Measure = "similarity"
    n_neighbors: int | None = None
    is_empty: bool = False

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
        if self.is_empty:
            return np.zeros((len(genes), len(self.sources)), dtype=np.float32)
        weights = cosine_columns(expression, self.source_expression)  # (5)
        if self.embedding is not None and self.embedding_row is not None:
            rows, source_rows = self.embedding_row[genes], self.embedding_row[self.sources]
            between = unit_rows(self.embedding[rows]) @ self._unit_source_embeddings.T  # (4)
            weights = replace_where(weights, between, rows >= 0, source_rows >= 0)  # (6)
        if self.measure == "distance":
            weights = 1 - weights
        weights = np.where(genes[:, None] == self.sources, 0, weights.clip(min=0))
        if self.n_neighbors is not None and self.n_neighbors < len(self.sources):
            weights = keep_largest(weights, self.n_neighbors)
        total = weights.sum(axis=1, keepdims=True)
        means: DoubleArray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        return means.astype(np.float32)

    @cached_property
    def _unit_source_embeddings(self) -> DoubleArray:
        if self.embedding is None or self.embedding_row is None:
            return np.empty((len(self.sources), 0))
        return unit_rows(self.embedding[self.embedding_row[self.sources]])


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneFeatures:
    """Inputs of genes in the cells of a block.

    Attributes
    ----------
    own
        (B, R, k) expression of the gene in the k neighbours.
    neighbors
        (B, R, k) the same, averaged over the gene's neighbours in the graph.
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
        (n_sc, R) log-normalised expression, and its mean over each gene's neighbours in the graph. The first
        layer's neighbourhood is linear in the reference, so it is made once here and not per spatial cell.
    weights
        (R, S) weights of the sources.
    """

    expression: torch.Tensor
    aggregated: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def build(
        cls, graph: GeneGraph, genes: IntArray, expression: FloatArray, *, device: torch.device
    ) -> GeneTable:
        """Return the table of genes, given their positions and their (n_sc, R) expression."""
        weights = graph.weights(genes, expression)
        aggregated = graph.source_expression @ weights.T
        made = [
            torch.from_numpy(np.ascontiguousarray(one)).to(device)
            for one in (expression, aggregated, weights)
        ]
        return cls(expression=made[0], aggregated=made[1], weights=made[2])

    def gather(self, neighbors: torch.Tensor, genes: torch.Tensor | None = None) -> GeneFeatures:
        """Return features in the cells of a block.

        Parameters
        ----------
        neighbors
            (B, k) positions of reference cells.
        genes
            Positions of the genes in this table that are wanted; all by default.
        """
        tables = (self.expression, self.aggregated)
        if genes is None:
            own, aggregated = (table[neighbors].transpose(1, 2) for table in tables)
            return GeneFeatures(own=own, neighbors=aggregated, weights=self.weights)
        own, aggregated = (table[neighbors[:, None, :], genes[:, None]] for table in tables)  # (B, R, k)
        return GeneFeatures(own=own, neighbors=aggregated, weights=self.weights[genes])


def cosine_columns(left: FloatArray, right: FloatArray) -> DoubleArray:
    """Return the cosine similarity of every column of ``left`` with every column of ``right``: Eq. 5.

    Parameters
    ----------
    left, right
        (n_cells, n_left) and (n_cells, n_right); an all-zero column has similarity 0 with all.

    Examples
    --------
    >>> cosine_columns(np.eye(2), np.array([[1.0], [0.0]]))
    array([[1.],
           [0.]])
    """
    return unit_rows(left.T) @ unit_rows(right.T).T


def replace_where(expression: DoubleArray, protein: DoubleArray, *has_protein: BoolArray) -> DoubleArray:
    """Return the expression weights with those between two genes that have a protein replaced: Eq. 6.

    Parameters
    ----------
    expression, protein
        (n_genes, n_sources) weights by Eq. 5 and by Eq. 4.
    has_protein
        (n_genes,) and (n_sources,): which genes have an embedding.
    """
    genes, sources = has_protein
    return np.where(genes[:, None] & sources[None, :], protein, expression)


def keep_largest(weights: DoubleArray, most: int) -> DoubleArray:
    """Return the weights with all but the ``most`` largest of each row set to zero; ties go by position.

    Examples
    --------
    >>> keep_largest(np.array([[0.1, 0.5, 0.3]]), 2)
    array([[0. , 0.5, 0.3]])
    """
    order = np.argsort(-weights, axis=1, kind="stable")[:, :most]
    kept = np.zeros_like(weights)
    np.put_along_axis(kept, order, np.take_along_axis(weights, order, axis=1), axis=1)
    return kept
