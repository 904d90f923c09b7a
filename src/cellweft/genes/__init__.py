"""Relations between genes: proteins, their embeddings, gene sets, interactions, and the gene network.

``proteins`` finds the protein sequence of a gene, and ``esm`` computes the embedding of a sequence. The gene
graph itself is in `cellweft.nn`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "cellweft",
    submod_attrs={
        "genes.embeddings": ["EmbeddingTable", "read_embedding"],
        "genes.esm.embedder": ["ProteinEmbedder", "embed_proteins"],
        "genes.gene_sets": ["GeneSets", "read_gene_sets"],
        "genes.interactions": ["EdgeList", "read_edges"],
        "genes.proteins.fasta": ["FastaRecord", "read_fasta"],
        "genes.proteins.table": ["ProteinTable", "find_proteins"],
    },
)
