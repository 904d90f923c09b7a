"""Tools: analysis of imputed genes and placed cells.

Each function takes a result or arrays and returns a table or a small object; drawing is in `cellweft.pl`,
scores against a known truth in `cellweft.metrics`. The submodules are private: import from this package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "cellweft",
    submod_attrs={
        "tl._attribution": ["Attribution", "attribute"],
        "tl._clustering": ["coexpression_modules", "leiden_clusters"],
        "tl._differential_expression": ["differential_expression"],
        "tl._dominant_genes": ["GeneComparison", "compare_with_expression", "dominant_genes"],
        "tl._gene_trends": ["Trends", "gene_trends"],
        "tl._neighborhoods": [
            "hollow_structure",
            "neighborhood_enrichment",
            "radial_concentration",
            "region_enrichment",
        ],
        "tl._regional_genes": ["axis_bins", "near_type", "regional_genes", "regions_of"],
        "tl._shared_embedding": ["mixing", "presence", "shared_embedding"],
        "tl._spatial_axis": ["Axis", "axis_of_score", "fit_axis"],
        "tl._spillover": ["remove_spillover", "spillover"],
        "tl._multiple_imputation": ["multiple_imputations"],
        "tl._subsample": ["subsample_types"],
    },
)
