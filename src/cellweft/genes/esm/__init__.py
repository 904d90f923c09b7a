"""Embeddings of protein sequences with the protein language model ESM-2.

The public names are in `cellweft.genes`.
"""
