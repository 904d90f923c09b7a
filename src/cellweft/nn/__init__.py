"""Networks and operators on arrays, one per file; ``config`` contains the settings.

Tensors only: no AnnData, no files, no user interface.
"""
