"""All errors that cellweft raises on purpose, and their base class.

::

    CellweftError
    ├── InputError          (ValueError)          data that cannot be used
    │   ├── FormatError                           a file that does not match its name
    │   ├── ScaleError                            values that are not counts or their logarithm
    │   └── GeneError       (KeyError)            genes that are unknown, unmatched or ambiguous
    ├── KeyMissingError     (KeyError)            no such layer, column or slot
    ├── SettingError        (ValueError)          a hyper-parameter or option out of range
    ├── MissingFileError    (FileNotFoundError)   a path that does not exist
    ├── OutputExistsError   (FileExistsError)     the output exists and may not be replaced
    ├── OutputError         (OSError)             the output could not be written
    ├── MemoryBudgetError   (MemoryError)         the work does not fit in the memory budget
    ├── NotFittedError      (RuntimeError)        a result was requested before ``fit``
    ├── ServiceError        (ConnectionError)     a network service did not respond, or refused
    └── MissingExtraError   (ImportError)         an optional dependency is not installed

Each error is also of the builtin class in brackets. ``argument`` is the name of the argument that it is
about, if any; ``where``, ``expected``, ``got`` and ``fix`` are the parts of its message.

Examples
--------
>>> import cellweft
>>> try:
...     cellweft.Imputer(seed=-1)
... except CellweftError as error:
...     error.argument, error.got, error.fix
('seed', '-1', 'Change the setting.')
"""

from cellweft._errors import (
    CellweftError,
    FormatError,
    GeneError,
    InputError,
    KeyMissingError,
    MemoryBudgetError,
    MissingExtraError,
    MissingFileError,
    NotFittedError,
    OutputError,
    OutputExistsError,
    ScaleError,
    ServiceError,
    SettingError,
)

__all__ = [
    "CellweftError",
    "FormatError",
    "GeneError",
    "InputError",
    "KeyMissingError",
    "MemoryBudgetError",
    "MissingExtraError",
    "MissingFileError",
    "NotFittedError",
    "OutputError",
    "OutputExistsError",
    "ScaleError",
    "ServiceError",
    "SettingError",
]
