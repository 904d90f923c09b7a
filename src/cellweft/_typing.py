"""Names of types, options and array axes that all packages of cellweft share.

The fixed letters for the length of an axis, in docstrings and comments:

- ``n_cells``: cells of a block, or of the side that the text speaks of; ``n_sc`` and ``n_st`` for both
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
"""What values are as cellweft works with them: counts, counts divided by a size, or the natural logarithm of
these (plus 1)."""

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
"""What the values of a file are: counts, counts divided by a size, the natural, binary or decimal logarithm
of these plus 1, their square root, or arcsinh; with ``_raw`` the same of counts that were not divided."""

Duplicates: TypeAlias = Literal["error", "first"]
"""What to do with a gene name that occurs twice on one side: refuse, or keep the first column."""

MissingChunks: TypeAlias = Literal["error", "zeros"]
"""Chunks that a zarr store lacks where zeros are doubtful: refuse them, or accept that they are zeros."""

OutputType: TypeAlias = Literal["float32", "float16"]
"""Type of the numbers of a written result."""

ResultScale: TypeAlias = Literal["log", "counts"]
"""What imputed values are: log-normalised expression, or counts as the panel would have shown them."""

PanelValues: TypeAlias = Literal["predict", "blend"]
"""What a result holds of genes of the panel: predictions, or measurement and prediction blended."""

Preset: TypeAlias = Literal["auto", "stimpute"]
"""A method with its settings; ``auto`` is what cellweft's own measurements say is best."""

PlacerPreset: TypeAlias = Literal["auto", "stem"]
"""The same for placing."""

Kernel: TypeAlias = Literal["gaussian", "exponential", "knn"]
"""Form of the spots' spatial adjacency."""

SpotShape: TypeAlias = Literal["discs", "boxes"]
"""What a pseudo-spot is: a disc around a crossing point of a grid, or the STEM paper's box."""

RelationKind: TypeAlias = Literal["embedding", "expression", "gene_sets", "edges"]
"""How genes belong together: protein embeddings, expression, gene sets (pathways), or a list of edges."""

GraphKind: TypeAlias = str
"""Where the gene-gene weights come from: relations joined by ``+``, each with a share behind a colon or
without, as ``embedding:2+expression``; ``auto`` takes all that were given; ``none`` is no graph."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (stage, done, total) as work goes on."""

ProgressOption: TypeAlias = bool | Progress
"""How a public function shows its progress: ``True`` draws a bar on standard error, with the stage, the share
that is done and the time left, where that is a terminal or a notebook, and draws nothing elsewhere. ``False``
shows nothing. A function is called with (stage, done, total) as work goes on; an error that it raises stops
the work. `cellweft._compute.progress_callback` turns it into what the code inside calls."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Show nothing: the progress callback where nobody asked for another."""


Pooling: TypeAlias = Literal["mean", "cls", "max"]
"""How one vector is made of a protein's residues; ``cls`` takes the token that precedes them."""
