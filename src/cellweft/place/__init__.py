"""Placement: the `Placer`, and its lazy result, `Placement`.

Networks and the mapping are in `cellweft.nn`; dominant genes, axes and neighbourhoods are in `cellweft.tl`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "cellweft", submod_attrs={"place.placement": ["Placement"], "place.placer": ["Placer"]}
)
