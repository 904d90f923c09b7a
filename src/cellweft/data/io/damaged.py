"""Damaged files: turns all errors of libraries while reading into one error with file and element."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
from anndata import AnnData
from anndata.io import read_elem

from cellweft._errors import CellweftError, FormatError

_FIX = (
    "The file is damaged or incomplete: copy or download it again, or write it again with the program "
    "that created it."
)

_DEEPEST = 100  # nested groups in AnnData's stores


@contextlib.contextmanager
def reading(
    where: str, element: str = "", *, expected: str = "an element that can be read", fix: str = _FIX
) -> Iterator[None]:
    """Turn the errors of libraries while reading a file into `FormatError`.

    h5py, zarr and its codecs, anndata, pandas, pyarrow, NumPy, SciPy and compression libraries each raise
    their own errors for damaged files, which differ between versions. Therefore all exceptions are converted,
    except errors of cellweft and missing packages.

    Parameters
    ----------
    where, element
        Name of the file in errors, and the element to read, such as ``.obsm['spatial']``; both are
        concatenated.
    expected, fix
        What was expected, and the next step if the file is damaged.

    Raises
    ------
    FormatError
        The element could not be read.

    Examples
    --------
    >>> with reading("st (tissue.h5ad)", ".X"):
    ...     raise OSError("Can't read data (inflate() failed)")
    Traceback (most recent call last):
    ...
    cellweft.errors.FormatError: st (tissue.h5ad).X: expected an element that can be read, got OSError: Can't
    read data (inflate() failed). The file is damaged or incomplete: copy or download it again, or write it
    again with the program that created it.
    """
    try:
        yield
    except (CellweftError, ImportError):
        raise
    except Exception as error:
        place = where + element
        of_system = system_error(place, error) if isinstance(error, OSError) else None
        if of_system is not None:
            raise of_system from error
        if isinstance(error, MemoryError):
            expected, fix = (
                "an element that fits into memory",
                fix + " If the element really is this large, free some memory.",
            )
        raise FormatError(place, expected=expected, got=brief(error), fix=fix) from error


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, after checking its types. Call it within `reading`.

    HDF5 does not check which kind of variable length a damaged type has, and then ends in a segmentation
    fault when values of this type are read.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        An attribute or a dataset has a type that does not exist in HDF5.
    """
    file = h5py.File(path.absolute(), "r")

    def check(name: bytes | str) -> None:
        element = h5py.h5o.open(file.id, name.encode() if isinstance(name, str) else name)
        types = [h5py.h5a.open(element, index=n).get_type() for n in range(h5py.h5a.get_num_attrs(element))]
        types += [element.get_type()] if isinstance(element, h5py.h5d.DatasetID) else []
        while types:
            kind = types.pop()
            if isinstance(kind, h5py.h5t.TypeVlenID) and kind.encode()[3] & 15 > 1:  # 0: any values, 1: text
                raise ValueError(f"{name!r} has values of a type that does not exist")
            if isinstance(kind, h5py.h5t.TypeCompoundID):
                types += [kind.get_member_type(place) for place in range(kind.get_nmembers())]
            elif isinstance(kind, h5py.h5t.TypeVlenID | h5py.h5t.TypeArrayID):
                types.append(kind.get_super())

    check(b".")
    h5py.h5o.visit(file.id, check)
    return file


def group_in(store: Any, name: str, where: str) -> Any:
    """Return a group of an HDF5 file or zarr store, or nothing if there is none.

    Parameters
    ----------
    store
        The file or store, open.
    name, where
        Name of the group, and name of the file in errors.

    Raises
    ------
    FormatError
        It is an array, not a group, or its elements cannot be listed.
    """
    if name not in store:
        return {}
    with reading(where, f".{name}"):
        group = store[name]
        lacking = [key for key in group if key not in group] if not hasattr(group, "shape") else []
        if lacking:
            raise ValueError(f"{lacking[0]!r} is listed, but cannot be found")
    if hasattr(group, "shape"):
        raise FormatError(
            f"{where}.{name}", expected="elements by their names", got="a single array", fix=_FIX
        )
    return group


def read_stored(element: Any) -> Any:
    """Read an element that AnnData stored, after `check_tree`. Call it within `reading`.

    Parameters
    ----------
    element
        Element of an HDF5 file or zarr store.

    Raises
    ------
    ValueError
        A group occurs twice, or is nested more than 100 levels deep.
    """
    check_tree(element)
    return read_elem(element)


def check_tree(element: Any) -> None:
    """Raise `ValueError` if HDF5 groups contain themselves, or are nested more than 100 levels deep.

    HDF5 links can make a group contain itself. Python does not always recover from the endless recursion.
    """
    seen, ahead = set(), [(element, 0)]
    while ahead:
        group, depth = ahead.pop()
        if not isinstance(group, h5py.Group):
            continue
        place = h5py.h5o.get_info(group.id)
        if (place.fileno, place.addr) in seen:
            raise ValueError("a group that links to itself or occurs twice")
        if depth > _DEEPEST:
            raise ValueError(f"groups nested more than {_DEEPEST} deep")
        seen.add((place.fileno, place.addr))
        ahead += [(member, depth + 1) for member in group.values()]


def read_whole_h5ad(path: Path) -> AnnData:
    """Read an h5ad file into memory by AnnData, after `check_tree`. Call it within `reading`."""
    with open_hdf5(path) as file:
        check_tree(file)
    return anndata.read_h5ad(path)


def system_error(where: str, error: OSError) -> FormatError | None:
    """Return the error for a file that the system cannot open or read; None if the file is damaged.

    Parameters
    ----------
    where
        Name of the file in errors.
    error
        The error of the system. HDF5 states its number in the text.
    """
    match = re.search(r"errno = (\d+)", str(error))
    number = error.errno or (int(match[1]) if match else 0)
    expected = "a readable file"
    if number in (errno.EACCES, errno.EPERM):
        return FormatError(
            where, expected=expected, got="no permission to read it", fix="Change its permissions."
        )
    if number in (errno.EAGAIN, errno.ENOLCK, errno.EBUSY, errno.ETXTBSY) or "lock file" in str(error):
        return FormatError(
            where,
            expected="a file that no other program is writing",
            got=f"a file that is open elsewhere, or on a disk that cannot lock files ({_short(error)})",
            fix=(
                "Close it where it is open (a notebook, another program), or copy it. On a disk without "
                "locks, set HDF5_USE_FILE_LOCKING=FALSE in the environment. The file itself may be fine."
            ),
        )
    if number == errno.ENOENT:
        return FormatError(
            where,
            expected="a file that stays in place while it is read",
            got=f"a file that no longer exists ({_short(error)})",
            fix="Restore the file, or complete the folder.",
        )
    if number:  # errors about wrong formats have none
        return FormatError(
            where,
            expected=expected,
            got=f"a system error while reading it ({_short(error)})",
            fix="Try again, or copy the file to a local disk. The file itself may be fine.",
        )
    return None


def brief(error: Exception) -> str:
    """Return the type of an error and the start of its text, without final punctuation."""
    text = _short(error).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _short(error: Exception) -> str:
    return " ".join(str(error).encode(errors="replace").decode().split())[:120]
