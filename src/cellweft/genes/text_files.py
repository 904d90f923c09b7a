"""Text files, plain or gzipped, which are checked by their first lines."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from cellweft._errors import CellweftError, FormatError, MissingFileError
from cellweft._typing import PathLike
from cellweft.data.io.damaged import system_error

_HEAD_BYTES = 65536
_FIX = "Check that the file is complete and matches its name."


def head_of(path: PathLike, *, kind: str) -> list[str]:
    """Return the first complete lines of a text file; raise if it is not a text file.

    Parameters
    ----------
    path
        The file; a name ending in .gz is read as gzip.
    kind
        What the file should be, as a phrase for errors.

    Raises
    ------
    MissingFileError
        The file does not exist.
    FormatError
        It is empty, binary, not UTF-8, or a damaged gzip file.
    """
    where = Path(path)
    if not where.is_file():
        got = "a folder" if where.is_dir() else "nothing at this path"
        raise MissingFileError(str(path), expected=kind, got=got, fix="Check the path.")
    with text_errors(where, kind=kind):
        with open_bytes(where) as file:
            start = file.read(_HEAD_BYTES)
        if b"\0" in start:
            raise _wrong(where, kind, "a binary file")
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(start, final=len(start) < _HEAD_BYTES)
    if not text.strip():
        raise _wrong(where, kind, "an empty file")
    lines = text.splitlines()
    is_whole = len(start) < _HEAD_BYTES or text.endswith("\n") or len(lines) == 1
    return lines if is_whole else lines[:-1]


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if its name ends in .gz."""
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


@contextlib.contextmanager
def text_errors(path: Path, *, kind: str) -> Iterator[None]:
    """Turn the errors of reading ``path`` as text of a ``kind`` into `FormatError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise _wrong(path, kind, "a file that is not UTF-8 text") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _wrong(path, kind, f"a damaged gzip file ({error})") from error
    except OSError as error:
        of_system = None if isinstance(error, CellweftError) else system_error(str(path), error)
        if of_system is None:
            raise
        raise of_system from error


def _wrong(path: Path, kind: str, got: str) -> FormatError:
    return FormatError(str(path), expected=kind, got=got, fix=_FIX)
