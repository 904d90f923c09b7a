"""cellweft: weave single cells into tissue.

The most used names are here; the others are in namespaces, as in scanpy. Everything is loaded on first use,
so that ``import cellweft`` is fast::

    pair, Pair                               two inputs, checked and matched
    Imputer                                  predicts the genes that are not on the panel
    Placer, Placement                        estimate where in the tissue each cell came from
    load                                     a saved model of either kind
    evaluate_imputation, evaluate_placement  how accurate predictions are, on held-out data
    report, view                             a report to share; results in the browser

    tl, pl      analysis of results, and plots
    io          reading from, and exporting to, other programs
    genes       proteins, embeddings, gene sets, interactions
    metrics     scores for arrays, clusters and placements
    datasets    simulated data with known truth
    errors      all errors that cellweft raises; CellweftError is their base class
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from cellweft import datasets as datasets
    from cellweft import errors as errors
    from cellweft import genes as genes
    from cellweft import io as io
    from cellweft import metrics as metrics
    from cellweft import pl as pl
    from cellweft import tl as tl
    from cellweft._errors import CellweftError as CellweftError
    from cellweft._load import load as load
    from cellweft.data._pair import Pair as Pair
    from cellweft.data._pair import pair as pair
    from cellweft.evaluate.imputation import evaluate_imputation as evaluate_imputation
    from cellweft.evaluate.placement import evaluate_placement as evaluate_placement
    from cellweft.impute.imputer import Imputer as Imputer
    from cellweft.place.placement import Placement as Placement
    from cellweft.place.placer import Placer as Placer
    from cellweft.reports import report as report
    from cellweft.viewer import view as view

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "cellweft",
    submodules=["datasets", "errors", "genes", "io", "metrics", "pl", "tl"],
    submod_attrs={
        "data._pair": ["Pair", "pair"],
        "impute.imputer": ["Imputer"],
        "place.placer": ["Placer"],
        "place.placement": ["Placement"],
        "_load": ["load"],
        "_errors": ["CellweftError"],
        "evaluate.imputation": ["evaluate_imputation"],
        "evaluate.placement": ["evaluate_placement"],
        "reports": ["report"],
        "viewer": ["view"],
    },
)
__version__ = _version("cellweft")
