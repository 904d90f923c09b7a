"""Names of types, options and array axes that all packages of cellweft share.

The fixed letters for the length of an axis, in docstrings and comments:

- ``n_cells``: cells of a block, or of one side; ``n_sc`` and ``n_st`` for both sides
- ``n_spots``: spots (or cells) of the spatial side, when cells are placed on them
- ``n_genes``: genes of a matrix; ``n_shared``: genes that both sides measured
- ``k``: neighbours per cell

Arrays are always cells (or spots) x genes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse as sp

FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
Matrix: TypeAlias = "NDArray[Any] | sp.csr_matrix"

PathLike: TypeAlias = "str | os.PathLike[str]"

Scale: TypeAlias = Literal["raw", "normalised", "log"]
"""Scale of values within cellweft: counts, counts divided by a size, or the natural logarithm of these (plus
1)."""

StoredScale: TypeAlias = Literal[
    "raw",
    "normalised",
    "log",
    "log2",
    "log10",
    "sqrt",
    "arcsinh",
    "log_raw",
    "log2_raw",
    "log10_raw",
    "sqrt_raw",
    "arcsinh_raw",
]
"""Scale of the values in a file: counts, counts divided by a size, the natural, binary or decimal logarithm
of these plus 1, their square root, or arcsinh; with ``_raw``, the same for counts that were not divided."""

Duplicates: TypeAlias = Literal["error", "first"]
"""What to do with a gene name that occurs twice on one side: refuse, or keep the first column."""

MissingChunks: TypeAlias = Literal["error", "zeros"]
"""Missing chunks of a zarr store that may not be zeros: raise an error, or read them as zeros."""

OutputType: TypeAlias = Literal["float32", "float16"]
"""Data type of a written result."""

ResultScale: TypeAlias = Literal["log", "counts"]
"""Scale of imputed values: log-normalised expression, or counts that the panel would have measured."""

PanelValues: TypeAlias = Literal["predict", "blend"]
"""Values of panel genes in a result: predictions, or a blend of measurement and prediction."""

Preset: TypeAlias = Literal["auto", "stimpute"]
"""A method with its settings; ``auto`` is the best one in cellweft's own benchmarks."""

PlacerPreset: TypeAlias = Literal["auto", "stem"]
"""The same for placement."""

Kernel: TypeAlias = Literal["gaussian", "exponential", "knn"]
"""Form of the spots' spatial adjacency."""

SpotShape: TypeAlias = Literal["discs", "boxes"]
"""Shape of a pseudo-spot: a disc around a grid point, or the box of the STEM paper."""

RelationKind: TypeAlias = Literal["embedding", "expression", "gene_sets", "edges"]
"""Relation between genes: protein embeddings, expression, gene sets (pathways), or a list of edges."""

GraphKind: TypeAlias = str
"""Sources of the gene-gene weights: relations joined by ``+``, each with an optional share after a colon,
such as ``embedding:2+expression``; ``auto`` uses all that are given; ``none`` is no graph."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total) during the work."""

ProgressOption: TypeAlias = bool | Progress
"""How a public function shows its progress: ``True`` draws a bar with the stage, the finished share and the
remaining time in a terminal (on standard error) or a notebook, and nothing elsewhere. ``False`` shows
nothing. A function is called with (stage, done, total) during the work; an error that it raises stops the
work. `cellweft._compute.progress_callback` turns it into a callback."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing: the default progress callback."""


Pooling: TypeAlias = Literal["mean", "cls", "max"]
"""How the residues of a protein are combined into one vector; ``cls`` uses the token before them."""
