"""Imputation: the `Imputer`, its methods, and how a result is made tile by tile.

``base`` says what a method is; ``attention`` and ``stimpute`` are the two. Networks are in `cellweft.nn`; how
far a prediction can be trusted is in ``uncertainty``; tiles over Dask are in ``cluster``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("cellweft", submod_attrs={"impute.imputer": ["Imputer"]})
