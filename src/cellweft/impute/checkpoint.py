"""A fit stored in a folder, so that the same work is not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cellweft._model_folder import ModelFolder, read_folder, write_folder
from cellweft._typing import PathLike
from cellweft.data.io.atomic_output import check_output, output_errors
from cellweft.data.io.journal import check_own, claim, partial_of, remove_own

_MODEL, _REQUEST = "model", "request.json"
_Restored = TypeVar("_Restored")


def read_checkpoint(
    path: PathLike, request: Mapping[str, Any], restore: Callable[[ModelFolder], _Restored]
) -> _Restored | None:
    """Return the fit stored in a folder, or None if there is none for the same request.

    Parameters
    ----------
    path
        The folder, which does not need to exist.
    request
        All that the fit depends on, by name, as values that JSON can store.
    restore
        Returns the fit for the folder of the stored model.

    Raises
    ------
    OutputExistsError, OutputError
        The folder contains other files, or cannot be created.
    FormatError
        The stored fit is damaged.
    """
    folder = Path(path).resolve()
    check_output(partial_of(folder))  # whether its parent folder is writable
    check_own(folder)
    try:
        is_same = json.loads((folder / _REQUEST).read_text()) == json.loads(json.dumps(request))
    except (OSError, ValueError):
        return None
    return read_folder(folder / _MODEL, restore) if is_same else None


def write_checkpoint(path: PathLike, request: Mapping[str, Any], model: ModelFolder) -> None:
    """Store a fit in a folder, replacing an earlier one; parameters as in `read_checkpoint`."""
    folder = Path(path).resolve()
    is_new = not folder.exists()
    try:
        with output_errors(folder):
            claim(folder)
            (folder / _REQUEST).unlink(missing_ok=True)
            write_folder(model, folder / _MODEL, overwrite=True)
            (folder / _REQUEST).write_text(json.dumps(request))
    except BaseException:
        if is_new:
            remove_own(folder)
        raise
