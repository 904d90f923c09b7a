"""Placing: the `Placer`, and `Placement`, its lazy result.

Networks and the mapping are in `cellweft.nn`; genes that decide a place, axes and neighbourhoods are in
`cellweft.tl`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    "cellweft", submod_attrs={"place.placement": ["Placement"], "place.placer": ["Placer"]}
)
