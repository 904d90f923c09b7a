"""Results for other programs: SpatialData, cellxgene, Vitessce, Xenium Explorer.

The public names are in `cellweft.io`.
"""
