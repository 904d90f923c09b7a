"""Tiles of an imputation made by the workers of a Dask cluster.

The same functions make them in one process: see ``tiling`` of `cellweft.impute`.
"""
