"""Finds one protein sequence for each gene name, from UniProt or FASTA files.

The public names are in `cellweft.genes`.
"""
