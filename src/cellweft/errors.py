"""Every error that cellweft raises on purpose, and the one to catch for all of them.

::

    CellweftError
    ├── InputError          (ValueError)          data that cannot be used as they are
    │   ├── FormatError                           a file that is not what its name says
    │   ├── ScaleError                            values that are not counts or their logarithm
    │   └── GeneError       (KeyError)            genes that are unknown, unmatched or ambiguous
    ├── KeyMissingError     (KeyError)            no such layer, column or slot
    ├── SettingError        (ValueError)          a hyper-parameter or option out of range
    ├── MissingFileError    (FileNotFoundError)   a path with nothing behind it
    ├── OutputExistsError   (FileExistsError)     the output is there and may not be replaced
    ├── OutputError         (OSError)             the output could not be written (a full disk, say)
    ├── MemoryBudgetError   (MemoryError)         the work does not fit in the stated budget
    ├── NotFittedError      (RuntimeError)        a result was requested before ``fit``
    ├── ServiceError        (ConnectionError)     a service on the network did not answer, or refused
    └── MissingExtraError   (ImportError)         an optional dependency is not installed

Each is also the builtin kind in brackets. Its ``argument`` is the name of the argument that it is about, if
it is about one; ``where``, ``expected``, ``got`` and ``fix`` are the parts of its message.

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
