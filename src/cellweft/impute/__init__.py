"""Imputation: the `Imputer`, its methods, and results computed tile by tile.

``base`` defines the interface of a method; ``attention`` and ``stimpute`` are the two methods. Networks are
in `cellweft.nn`, reliability and intervals in ``uncertainty``, and tiles over Dask in ``cluster``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach("cellweft", submod_attrs={"impute.imputer": ["Imputer"]})
