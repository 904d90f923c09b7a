"""From gene names to one protein sequence each, from UniProt or FASTA files.

The public names are in `cellweft.genes`.
"""
