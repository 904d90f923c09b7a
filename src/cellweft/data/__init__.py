"""The input contract: two checked sides, matched as a `Pair`.

This package defines what is recognised, refused and reported about an input. Files are in ``io``, formats of
other programs in ``export``, simulated data in ``synthetic``. It imports no networks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("cellweft", submod_attrs={"data._pair": ["Pair", "pair"]})
