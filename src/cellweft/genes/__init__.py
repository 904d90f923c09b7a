"""What genes have to do with each other: proteins, their embeddings, gene sets, interactions, the network.

``proteins`` goes from a gene to its protein sequence, ``esm`` from the sequence to an embedding. The graph
that is computed with lies in `cellweft.nn`.
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
