"""The file under HDF5 that can always be closed, even on a full disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class ForgivingFile:
    """A file that HDF5 can always close: after its first failure, what it takes stays in memory.

    HDF5 cannot let go of a file whose last writes fail (a full disk): the process crashes at its end. So the
    failure is kept here, for the writer to raise. Until it does, HDF5 reads back what it wrote, and would
    crash on anything else.

    Parameters
    ----------
    path
        Where the file is made, empty.

    Attributes
    ----------
    failure
        The first error of the file, an interrupt too; None as long as all is well.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = ForgivingFile(Path(folder, "a.h5ad"))
    ...     file.write(memoryview(b"abc"))
    ...     file.close()
    3
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.failure: BaseException | None = None
        self._unwritten: list[tuple[int, bytes]] = []  # place and data of each write that failed

    def write(self, data: memoryview) -> int:
        """Write all of the data, or keep it in memory after a failure; return its length."""
        left = memoryview(data).cast("B")
        start = self._file.tell()
        while left and self.failure is None:
            left = left[self._attempt(self._file.write, left) :]  # a full disk takes a part
        if self.failure is not None:
            self._unwritten.append((start, bytes(data)))
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes from here on."""
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from here on, with zeros behind the end; return how much was read."""
        whole, start = memoryview(buffer).cast("B"), self._file.tell()
        count = self._attempt(self._file.readinto, whole)
        if self.failure is None:
            return count
        whole[count:] = bytes(len(whole) - count)
        for place, data in self._unwritten:
            first, last = max(start, place), min(start + len(whole), place + len(data))
            if first < last:
                whole[first - start : last - start] = data[first - place : last - place]
        return len(whole)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; return it, counted from the start."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def truncate(self, size: int) -> int:
        """Cut or lengthen the file to ``size`` bytes, unless it has failed."""
        if self.failure is None:
            self._attempt(self._file.truncate, size)
        return size

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def sync(self) -> None:
        """Hand everything to the disk: some file systems say only then that they are full."""
        self._attempt(os.fsync, self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _attempt(self, action: Callable[..., int | None], *arguments: Any) -> int:
        try:
            return action(*arguments) or 0
        except BaseException as error:  # an interrupt, too, must not unwind through HDF5
            self.failure = self.failure or error
            return 0
