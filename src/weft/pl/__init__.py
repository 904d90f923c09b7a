"""Plots of what weft makes, each one function from a result to matplotlib's Axes.

Every function draws on the ``ax`` (``axes``) that it is given, or on a new figure, and returns what it drew
on. None shows a figure, writes a file, or changes its inputs or matplotlib's settings; the one exception is
`label_colors` with ``keep=True``, which writes the colours of labels where scanpy keeps them.

Each is loaded when it is first used: the viewer, which wants the colours alone, starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.pl.colors import label_colors, palette
    from weft.pl.fits import calibration, history
    from weft.pl.groups import enrichment, modules, umap
    from weft.pl.places import composition, placed
    from weft.pl.scores import methods, reliability
    from weft.pl.space import gene, spatial, uncertainty
    from weft.pl.why import attribution, trends

__all__ = [
    "attribution",
    "calibration",
    "composition",
    "enrichment",
    "gene",
    "history",
    "label_colors",
    "methods",
    "modules",
    "palette",
    "placed",
    "reliability",
    "spatial",
    "trends",
    "umap",
    "uncertainty",
]

_HOMES = {
    "attribution": "weft.pl.why",
    "calibration": "weft.pl.fits",
    "composition": "weft.pl.places",
    "enrichment": "weft.pl.groups",
    "gene": "weft.pl.space",
    "history": "weft.pl.fits",
    "label_colors": "weft.pl.colors",
    "methods": "weft.pl.scores",
    "modules": "weft.pl.groups",
    "palette": "weft.pl.colors",
    "placed": "weft.pl.places",
    "reliability": "weft.pl.scores",
    "spatial": "weft.pl.space",
    "trends": "weft.pl.why",
    "umap": "weft.pl.groups",
    "uncertainty": "weft.pl.space",
}
"""Module of each function."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'weft.pl' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
