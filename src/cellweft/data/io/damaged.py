"""Damaged files: whatever a library raises while it reads becomes one error that names file and element."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Any

import h5py
from anndata.io import read_elem

from cellweft._errors import CellweftError, FormatError

_FIX = (
    "The file is damaged or incomplete: copy or download it again, or write it again with the program "
    "that created it."
)

_DEEPEST = 100  # groups, of what AnnData stores


@contextlib.contextmanager
def reading(
    where: str, element: str = "", *, expected: str = "an element that can be read", fix: str = _FIX
) -> Iterator[None]:
    """Turn what a library raises while it reads a file into `FormatError`.

    h5py, zarr and its codecs, anndata, pandas, pyarrow, NumPy, SciPy and the packers each have their own
    errors for a file that is damaged, and those of one differ by version, so all are taken. Errors of
    cellweft pass as they are, and so does a package that is missing.

    Parameters
    ----------
    where, element
        What errors call the file, and what is read of it, such as ``.obsm['spatial']``; put together.
    expected, fix
        What should be there, and the next step where the file is damaged.

    Raises
    ------
    FormatError
        What was read could not be.

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


def group_in(store: Any, name: str, where: str) -> Any:
    """Return a group of an HDF5 file or zarr store, or nothing if there is none.

    Parameters
    ----------
    store
        The file or store, open.
    name, where
        The group's name, and what errors call the file.

    Raises
    ------
    FormatError
        A single array is in its place, or its elements cannot be listed.
    """
    if name not in store:
        return {}
    with reading(where, f".{name}"):
        group = store[name]
        list(group if not hasattr(group, "shape") else ())
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
        Of an HDF5 file or zarr store.

    Raises
    ------
    ValueError
        A group is in it twice, or lies more than 100 groups deep.
    """
    check_tree(element)
    return read_elem(element)


def check_tree(element: Any) -> None:
    """Raise `ValueError` if groups of an HDF5 file contain themselves, or lie more than 100 groups deep.

    Links of HDF5 can put a group into itself. Python does not always recover from the endless descent that
    follows.
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


def system_error(where: str, error: OSError) -> FormatError | None:
    """Return the error for a file that the system does not open or read, None if the file is at fault.

    Parameters
    ----------
    where
        What errors call the file.
    error
        What the system said. HDF5 puts its number into words.
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
    if number:  # files with the wrong format have none
        return FormatError(
            where,
            expected=expected,
            got=f"a system error while reading it ({_short(error)})",
            fix="Try again, or copy the file to a local disk. The file itself may be fine.",
        )
    return None


def brief(error: Exception) -> str:
    """Return the kind of an error and the start of its text, without an end that reads as one's own."""
    text = _short(error).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _short(error: Exception) -> str:
    return " ".join(str(error).encode(errors="replace").decode().split())[:120]
