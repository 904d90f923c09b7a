from cellweft.genes.embeddings import (
    EmbeddingTable as EmbeddingTable,
)
from cellweft.genes.embeddings import (
    read_embedding as read_embedding,
)
from cellweft.genes.esm.embedder import (
    ProteinEmbedder as ProteinEmbedder,
)
from cellweft.genes.esm.embedder import (
    embed_proteins as embed_proteins,
)
from cellweft.genes.gene_sets import (
    GeneSets as GeneSets,
)
from cellweft.genes.gene_sets import (
    read_gene_sets as read_gene_sets,
)
from cellweft.genes.interactions import (
    EdgeList as EdgeList,
)
from cellweft.genes.interactions import (
    read_edges as read_edges,
)
from cellweft.genes.proteins.fasta import (
    FastaRecord as FastaRecord,
)
from cellweft.genes.proteins.fasta import (
    read_fasta as read_fasta,
)
from cellweft.genes.proteins.table import (
    ProteinTable as ProteinTable,
)
from cellweft.genes.proteins.table import (
    find_proteins as find_proteins,
)
