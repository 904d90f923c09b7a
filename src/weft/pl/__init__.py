"""Plots of what weft makes, each one function from a result to matplotlib's Axes.

Every function draws on the ``ax`` (``axes``) that it is given, or on a new figure, and returns what it drew
on. None shows a figure, writes a file, or changes its inputs or matplotlib's settings; the one exception is
`label_colors` with ``keep=True``, which writes the colours of labels where scanpy keeps them.
"""

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
