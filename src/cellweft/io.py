"""Read from, and export to, other programs: SpatialData, instruments, cellxgene, Vitessce, Xenium Explorer.

To read files (.h5ad, .zarr, 10x, tables), you do not need these functions: pass paths to `cellweft.pair`.
"""

from cellweft.data.export.cellxgene import check_cellxgene, write_cellxgene
from cellweft.data.export.spatialdata import read_spatialdata, to_spatialdata
from cellweft.data.export.vitessce import vitessce_config, write_vitessce
from cellweft.data.export.xenium_explorer import write_explorer_groups
from cellweft.data.io.vendors import read_platform
from cellweft.evaluate.score_table import write_scores

__all__ = [
    "check_cellxgene",
    "read_platform",
    "read_spatialdata",
    "to_spatialdata",
    "vitessce_config",
    "write_cellxgene",
    "write_explorer_groups",
    "write_scores",
    "write_vitessce",
]
