"""Metrics for arrays: predicted expression, groups of cells, and positions, each compared with a known truth.

Each function takes the truth first, and documents shape, range and source. `cellweft.evaluate_imputation` and
`cellweft.evaluate_placement` apply them to held-out data.
"""

from cellweft.evaluate.metrics import cosine, js, mse, pearson, rmse_z, spearman, ssim
from cellweft.evaluate.placement_metrics import (
    composition_pcc,
    hit_number,
    hits,
    location_errors,
    type_groups,
)
from cellweft.tl._clustering import cluster_scores

__all__ = [
    "cluster_scores",
    "composition_pcc",
    "cosine",
    "hit_number",
    "hits",
    "js",
    "location_errors",
    "mse",
    "pearson",
    "rmse_z",
    "spearman",
    "ssim",
    "type_groups",
]
