"""The input contract: two checked sides, matched as a `Pair`.

What is recognised, refused and said of an input lies here; files are in ``io``, other programs in ``export``,
simulated data in ``synthetic``. Nothing here imports networks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("cellweft", submod_attrs={"data._pair": ["Pair", "pair"]})
