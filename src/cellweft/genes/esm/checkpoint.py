"""The work folder of an embedding: finished batches on disk, to resume an interrupted run.

Each vector is stored with a key computed from everything that it depends on, so that vectors of another model
or other settings are never used by mistake.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellweft._errors import FormatError, OutputExistsError
from cellweft._text import shorten
from cellweft._typing import FloatArray
from cellweft.data.io.atomic_output import output_errors, partial_output
from cellweft.data.io.journal import PARTIAL

_ABOUT = "cellweft-embedding.json"
_SCHEMA = 1
_PART = "part-*.npz"


def vector_key(sequence: str, settings: Mapping[str, Any]) -> str:
    """Return the key of a protein's vector.

    Parameters
    ----------
    sequence
        Its amino acids.
    settings
        All other values that the vector depends on, as plain values in any order.

    Examples
    --------
    >>> vector_key("MASST", {"layer": 33}) == vector_key("MASST", {"layer": 32})
    False
    """
    text = json.dumps([dict(settings), sequence], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_parts(folder: Path, keys: Collection[str]) -> dict[str, FloatArray]:
    """Return the vectors of an earlier run.

    Parameters
    ----------
    folder
        The work folder, which may not exist.
    keys
        Keys of the requested vectors; others in the folder are ignored.

    Returns
    -------
    dict
        (n_dimensions,) vectors by key.

    Raises
    ------
    OutputExistsError
        The folder contains other files.
    FormatError
        It is damaged.
    """
    if not folder.exists():
        return {}
    _check_own(folder)
    wanted = frozenset(keys)
    vectors: dict[str, FloatArray] = {}
    for path in sorted(folder.glob(_PART)):
        names, values = _read_part(path)
        vectors |= {name: row for name, row in zip(names, values, strict=True) if name in wanted}
    return vectors


def write_part(folder: Path, vectors: Mapping[str, FloatArray]) -> None:
    """Write the vectors of a finished batch; the file appears only when it is complete.

    Parameters
    ----------
    folder
        The work folder, created if missing.
    vectors
        (n_dimensions,) vectors by key; at least one.

    Raises
    ------
    OutputError
        It could not be written.
    """
    if not folder.is_dir():
        with output_errors(folder):
            folder.mkdir()
    if not (folder / _ABOUT).exists():
        with partial_output(folder / _ABOUT, overwrite=True, is_shared=True) as partial:
            partial.write_text(json.dumps({"schema": _SCHEMA}))
    keys = sorted(vectors)
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    values = np.stack([vectors[key] for key in keys]).astype(np.float32)
    part = partial_output(folder / f"part-{name}.npz", overwrite=True, is_shared=True)
    with part as partial, partial.open("wb") as file:
        np.savez(file, keys=np.asarray(keys), values=values)


def remove_parts(folder: Path) -> None:
    """Remove the files of runs from the work folder, and the folder if it is then empty."""
    for pattern in (_PART, f".*{PARTIAL}", _ABOUT):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or missing
        folder.rmdir()


def _check_own(folder: Path) -> None:
    about = folder / _ABOUT
    there = [entry.name for entry in sorted(folder.iterdir())] if folder.is_dir() else []
    strange = [name for name in there if not name.endswith(PARTIAL)]
    if not folder.is_dir() or (strange and not about.exists()):
        raise OutputExistsError(
            str(folder),
            expected="the work folder of an earlier run, or nothing at this path",
            got=f"a folder with {shorten(strange, most=3)}" if strange else "a file",
            fix="Move it elsewhere, or choose another output.",
        )
    if not about.exists():
        return
    try:
        schema = json.loads(about.read_text(encoding="utf-8"))["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(about, f"{type(error).__name__}: {error}", whole=True) from error
    if schema != _SCHEMA:
        raise _damaged(about, f"schema {schema!r} of another version of cellweft", whole=True)


def _read_part(path: Path) -> tuple[list[str], FloatArray]:
    try:
        # If np.load opened the file itself, it would not close it after an error.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            keys, values = arrays["keys"], arrays["values"]
    except Exception as error:  # numpy, zipfile and zlib raise different errors for a damaged file
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if keys.dtype.kind != "U" or values.dtype != np.float32 or values.ndim != 2 or len(keys) != len(values):
        raise _damaged(path, f"{len(keys)} keys and values of type {values.dtype}, shape {values.shape}")
    if not np.isfinite(values).all():
        raise _damaged(path, "NaN or infinite values")
    return keys.tolist(), values


def _damaged(path: Path, got: str, *, whole: bool = False) -> FormatError:
    fix = (
        f"Remove the folder {path.parent} and start again."
        if whole
        else "Remove this file and run again: its proteins are embedded again, all others are kept."
    )
    return FormatError(str(path), expected="an intact file of an earlier run", got=got, fix=fix)
