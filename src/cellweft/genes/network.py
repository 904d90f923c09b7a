"""The inputs of a gene graph, in addition to expression."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cellweft.genes.embeddings import EmbeddingSource, EmbeddingTable, read_embedding
from cellweft.genes.gene_sets import GeneSets, GeneSetSource, read_gene_sets
from cellweft.genes.interactions import EdgeList, EdgeSource, read_edges


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Protein embeddings, gene sets and edges, if given.

    Attributes
    ----------
    embedding
        One vector per gene.
    gene_sets
        GO terms, pathways.
    edges
        Pairs of genes.
    """

    embedding: EmbeddingTable | None = None
    gene_sets: GeneSets | None = None
    edges: EdgeList | None = None

    @property
    def sources(self) -> dict[str, str]:
        """The source of each given input."""
        parts = {"embedding": self.embedding, "gene_sets": self.gene_sets, "edges": self.edges}
        return {name: part.source for name, part in parts.items() if part is not None}


def network_bytes(*sources: object) -> float:
    """Return the memory of embeddings, gene sets and edges; those that are not read yet count as 0.

    Parameters
    ----------
    sources
        The given inputs; those in memory count twice, because the genes of a reference are copied.
    """
    size = 0.0
    for source in sources:
        if isinstance(source, EmbeddingTable):
            size += 2 * source.values.nbytes
        elif isinstance(source, GeneSets):
            size += 2 * (source.members.data.nbytes + source.members.indices.nbytes)
        elif isinstance(source, EdgeList):
            size += 2 * (source.pairs.nbytes + source.weights.nbytes)
    return size


def read_network(
    wanted: Collection[str],
    *,
    embedding: EmbeddingSource | None = None,
    gene_sets: GeneSetSource | Sequence[GeneSetSource] | None = None,
    edges: EdgeSource | Sequence[EdgeSource] | None = None,
) -> Network:
    """Read the inputs of a gene graph that it uses.

    Parameters
    ----------
    wanted
        Which of "embedding", "gene_sets" and "edges" are used.
    embedding, gene_sets, edges
        Paths, or tables in memory, as in `cellweft.genes.read_embedding`, `cellweft.genes.read_gene_sets` and
        `cellweft.genes.read_edges`.

    Raises
    ------
    MissingFileError, FormatError, InputError, GeneError
        One of them cannot be read; see these functions.
    """
    return Network(
        embedding=read_embedding(embedding) if embedding is not None and "embedding" in wanted else None,
        gene_sets=read_gene_sets(gene_sets) if gene_sets is not None and "gene_sets" in wanted else None,
        edges=read_edges(edges) if edges is not None and "edges" in wanted else None,
    )
