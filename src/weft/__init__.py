"""weft: weave single cells into tissue.

The public names are these, and no others; each is loaded when it is first used, so that ``import weft`` is
quick::

    pair, Pair, with_reference              two inputs, checked and matched; other cells on the same spots
    Imputer, load                           genes that the panel missed
    Placer, Placement                       where in the tissue every cell lived
    evaluate, write_scores, metrics         how good predictions are
    cluster_scores, leiden_clusters,
    coexpression_modules                    groups of cells and of genes
    read_embedding, EmbeddingTable          one vector per gene
    simulate_tissue, SimulatedTissue        data with known truth
    WeftError and its kinds                 everything that weft raises on purpose
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from weft._errors import (
    FormatError,
    GeneError,
    InputError,
    KeyMissingError,
    MemoryBudgetError,
    MissingExtraError,
    MissingFileError,
    NotFittedError,
    OutputError,
    OutputExistsError,
    ScaleError,
    SettingError,
    WeftError,
)

if TYPE_CHECKING:
    from weft import metrics
    from weft.clusters import cluster_scores, coexpression_modules, leiden_clusters
    from weft.data.embeddings import EmbeddingTable, read_embedding
    from weft.data.other_cells import with_reference
    from weft.data.pair import Pair, pair
    from weft.data.simulate import SimulatedTissue, simulate_tissue
    from weft.evaluation import evaluate, write_scores
    from weft.imputer import Imputer
    from weft.loading import load
    from weft.placement import Placement
    from weft.placer import Placer

    __version__: str

__all__ = [
    "EmbeddingTable",
    "FormatError",
    "GeneError",
    "Imputer",
    "InputError",
    "KeyMissingError",
    "MemoryBudgetError",
    "MissingExtraError",
    "MissingFileError",
    "NotFittedError",
    "OutputError",
    "OutputExistsError",
    "Pair",
    "Placement",
    "Placer",
    "ScaleError",
    "SettingError",
    "SimulatedTissue",
    "WeftError",
    "__version__",
    "cluster_scores",
    "coexpression_modules",
    "evaluate",
    "leiden_clusters",
    "load",
    "metrics",
    "pair",
    "read_embedding",
    "simulate_tissue",
    "with_reference",
    "write_scores",
]

_HOMES = {
    "EmbeddingTable": "weft.data.embeddings",
    "Imputer": "weft.imputer",
    "Pair": "weft.data.pair",
    "Placement": "weft.placement",
    "Placer": "weft.placer",
    "SimulatedTissue": "weft.data.simulate",
    "cluster_scores": "weft.clusters",
    "coexpression_modules": "weft.clusters",
    "evaluate": "weft.evaluation",
    "leiden_clusters": "weft.clusters",
    "load": "weft.loading",
    "pair": "weft.data.pair",
    "read_embedding": "weft.data.embeddings",
    "simulate_tissue": "weft.data.simulate",
    "with_reference": "weft.data.other_cells",
    "write_scores": "weft.evaluation",
}
"""Module of each public name that is loaded on first use."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "metrics":
        value = importlib.import_module("weft.metrics")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("weft")
    else:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
