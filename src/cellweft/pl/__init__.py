"""Plots: each function draws a result on matplotlib Axes.

Each function draws on the given ``ax`` (``axes``), or on a new figure, and returns the Axes. No function
shows a figure, writes a file, or changes its inputs or matplotlib's settings; the only exception is
`label_colors` with ``keep=True``, which stores the colours of labels where scanpy does. The submodules are
private. Plots require the extra ``plot``.
"""

from typing import Any

import lazy_loader

from cellweft._errors import require

_load, __dir__, __all__ = lazy_loader.attach(
    "cellweft",
    submod_attrs={
        "pl._colors": ["label_colors", "palette"],
        "pl._training": ["calibration", "history"],
        "pl._clusters": ["enrichment", "modules", "umap"],
        "pl._labels": ["label_calibration"],
        "pl._placement": ["composition", "placed"],
        "pl._scores": ["methods", "reliability"],
        "pl._spatial": ["gene", "spatial", "uncertainty"],
        "pl._genes": ["attribution", "trends"],
    },
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        require("matplotlib", "plot")
    return _load(name)
