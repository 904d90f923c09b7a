"""Evaluation on held-out genes and known positions: methods by name, baselines, metrics, tables of scores.

Plots of scores are in `cellweft.pl`; metrics of arrays are public as `cellweft.metrics`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "cellweft",
    submod_attrs={
        "evaluate.imputation": ["evaluate_imputation"],
        "evaluate.placement": ["evaluate_placement"],
    },
)
