"""Elements of HDF5 files and zarr stores that can be sent to another process.

Tasks for other processes contain the elements that they read as a path of the file and a key within it. zarr
already does this for its arrays; HDF5 elements are reopened here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellweft._errors import FormatError, MissingFileError


class Reopening:
    """Base class of objects with elements of files; a pickle contains their paths, not their values.

    Attributes in ``_read_again`` of a subclass are left out of the pickle, and ``__post_init__`` creates them
    again.
    """

    _read_again: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: _put_away(value) for name, value in self.__dict__.items() if name not in self._read_again
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: _taken_out(value) for name, value in state.items()})
        self.__post_init__()

    def __post_init__(self) -> None:
        """Create the attributes in ``_read_again``."""


@dataclass(frozen=True, eq=False)
class LazyMapping(Reopening, Mapping[str, Any]):
    """Elements of another mapping, each read on request, by the method of a subclass.

    Attributes
    ----------
    held
        A group of a file, or a mapping.
    """

    held: Any

    def __getitem__(self, key: str) -> Any:
        return self.held[key]

    def __contains__(self, key: object) -> bool:
        return key in self.held  # does not read it

    def __iter__(self) -> Iterator[str]:
        return iter(self.held)

    def __len__(self) -> int:
        return len(self.held)


@dataclass(frozen=True)
class _Place:
    path: str
    key: str


def _put_away(value: Any) -> Any:
    if isinstance(value, h5py.Dataset | h5py.Group):
        return _Place(str(Path(value.file.filename).absolute()), str(value.name))
    if type(value) is dict:
        return {name: _put_away(part) for name, part in value.items()}
    return value


def _taken_out(value: Any) -> Any:
    if isinstance(value, _Place):
        return _opened_again(value)
    if type(value) is dict:
        return {name: _taken_out(part) for name, part in value.items()}
    return value


def _opened_again(place: _Place) -> Any:
    hint = "All processes need the data at the same path, on a shared disk."
    try:
        file = h5py.File(place.path, "r")
    except FileNotFoundError as error:
        raise MissingFileError(
            place.path,
            expected="the file from which the data were read",
            got="nothing at this path",
            fix=hint,
        ) from error
    if place.key not in file:
        expected = f"{place.key!r}, as when the data were checked"
        raise FormatError(place.path, expected=expected, got="no such element", fix=hint)
    return file[place.key]


def held_plainly(value: Any) -> Any:
    """Return a value of an AnnData without references to the AnnData, so that it can be sent alone."""
    if isinstance(value, Mapping):
        return {name: held_plainly(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if isinstance(value, pd.DataFrame):
        return pd.DataFrame(value)
    for kind in (sp.csr_matrix, sp.csc_matrix):
        if isinstance(value, kind):
            return kind(value)
    return value
