"""Tiles of an imputation, computed by the workers of a Dask cluster.

The same functions compute them in one process: see ``tiling`` of `cellweft.impute`.
"""
