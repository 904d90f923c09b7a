"""Names of the elements of results: keys of ``obs``, ``obsm``, ``var``, ``uns``.

`RECORD` is also the key of ``attrs`` of a table of scores. Columns of placed cells are those of
`cellweft.Placement.table` with `PREFIX` before each name.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "cellweft_"

RECORD: Final = "cellweft"
"""``uns``: how the result was made."""

SCALE_TEXTS: Final = {
    "log": "log-normalised: log1p(counts / total * median total), as the reference",
    "counts": "counts: means of what the panel would have shown in each cell",
}
"""``uns[RECORD]["scale"]``: description of the values of an imputed result, by scale."""

COORDINATES: Final = f"{PREFIX}coordinates"
"""``uns``: origin of the coordinates."""

PLACES: Final = f"{PREFIX}spatial"
"""``obsm``: coordinates of placed cells."""

EMBEDDING: Final = f"{PREFIX}embedding"
"""``obsm``: embedding of placed cells and of their spots, in one space."""

PROPORTIONS: Final = f"{PREFIX}proportions"
"""``obsm``: share of each cell type in each spot."""

NO_COUNTS: Final = f"{PREFIX}no_counts"
"""``obs``: spatial cells without counts in the panel, which have meaningless predictions; only if there are
any."""

SIMILARITY: Final = f"{PREFIX}similarity"
"""``obs``: similarity of the reference to an imputed cell."""

SPILLOVER: Final = f"{PREFIX}spillover"
"""``obs``: share of a spatial cell's panel counts that its neighbours explain better than the reference."""

CONFIDENCE: Final = f"{PREFIX}confidence"
SPREAD: Final = f"{PREFIX}spread"
WEIGHT: Final = f"{PREFIX}weight"
SLICE: Final = f"{PREFIX}slice"
"""``obs`` of placed cells."""

MEASURED: Final = "measured"
"""``var``: whether the gene is on the panel."""

MEASUREMENT_WEIGHT: Final = "measurement_weight"
"""``var``: mean weight of the measurement in a blended panel gene."""

RELIABILITY: Final = "reliability"
RELIABILITY_LOWER: Final = "reliability_lower"
RELIABILITY_UPPER: Final = "reliability_upper"
RELIABLE: Final = "reliable"
"""``var``: expected accuracy of the prediction, with its interval, and whether the gene is reliable."""

LOWER: Final = "lower"
UPPER: Final = "upper"
INTERVAL: Final = (LOWER, UPPER)
"""Layers: the bounds of the prediction interval."""

CELL: Final = "cell"
LABEL: Final = "label"
CONFIDENCE_COLUMN: Final = "confidence"
UNKNOWN: Final = "unknown"
PROBABILITY: Final = "probability_"
"""Columns of a table of labels: the cell (in files), the most probable label, its probability, whether its
type seems to be missing from the reference; and the prefix of columns with probabilities."""

SHARED_EMBEDDING: Final = "X_cellweft"
SIDE: Final = "side"
"""``obsm`` and ``obs`` of both sides in one space: the embedding, and the side of each cell."""
