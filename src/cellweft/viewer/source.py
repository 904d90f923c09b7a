"""Detects whether a file or store has changed since it was opened.

A zarr store that was moved or lost chunks is read as zeros, without an error. Therefore each answer is sent
only if its files have not changed in the meantime.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TypeAlias

from cellweft._errors import CellweftError, MissingFileError, OutputError
from cellweft._typing import PathLike

_Entries: TypeAlias = dict[str, tuple[int, ...]]  # properties that identify a file or folder, by path
_OF_ZARR = (".zarray", ".zattrs", ".zgroup", ".zmetadata")


class WatchedSource:
    """A file or folder, as it was when this object was created.

    Parameters
    ----------
    path
        Path of the file or store. If it does not exist, as for data in memory, nothing is watched.
    """

    def __init__(self, path: PathLike) -> None:
        self._path = Path(path).absolute()
        self._lock = threading.Lock()
        self._files = _files(self._path)
        self._folders = _folders(self._path, self._files)

    def change(self, *, closely: bool = False) -> CellweftError | None:
        """Return an error if the source has changed; None if not.

        Parameters
        ----------
        closely
            Whether to check all files of a store; otherwise only its folders, which change when files are
            added, removed or replaced.
        """
        if not self._files:
            return None
        with self._lock:
            if not closely and _folders(self._path, self._files) == self._folders:
                return None
            files = _files(self._path)
            if files == self._files:  # only hidden files changed
                self._folders = _folders(self._path, self._files)
                return None
        fix = "Restart cellweft view to read the files as they are now."
        expected = "the file or store as it was when cellweft view opened it"
        if not self._path.exists():
            return MissingFileError(str(self._path), expected=expected, got="nothing at this path", fix=fix)
        gone = len(self._files.keys() - files.keys())
        got = (
            "different content"
            if not gone or self._path.is_file()
            else f"a store that lacks {gone:,} of its files"
        )
        return OutputError(str(self._path), expected=expected, got=got, fix=fix)


def _files(path: Path) -> _Entries:
    """Return all files with their sizes and times, without hidden files of other programs."""
    if path.is_file():
        return {"": _identity(path.stat())}
    entries: _Entries = {}
    for folder, _, names in os.walk(path):
        for name in names:
            if not name.startswith(".") or name in _OF_ZARR:
                file = f"{folder}{os.sep}{name}"
                entries[file] = _known(file)
    return entries


def _folders(path: Path, files: _Entries) -> _Entries:
    """Return the folders with the files, or the file itself."""
    if "" in files:
        return {"": _known(path)}
    return {folder: _known(folder) for folder in {str(path), *map(os.path.dirname, files)}}


def _known(path: PathLike) -> tuple[int, ...]:
    try:
        return _identity(Path(path).stat())
    except OSError:  # it no longer exists
        return ()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
