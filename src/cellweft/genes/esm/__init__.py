"""From protein sequences to embeddings, by the protein language model ESM-2.

The public names are in `cellweft.genes`.
"""
