"""The record of a result, so that it can be reproduced: versions, parameters, inputs."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cellweft._errors import FormatError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA_VERSION = 2
"""Version of the record's names and contents."""

_FORMER = "weft"  # former name of cellweft, before its first release

_PACKAGES = ("cellweft", "anndata", "graspologic-native", "numpy", "pandas", "scikit-learn", "scipy", "torch")
_command: list[str] = []  # command line of this process, if it is cellweft's


def versions() -> dict[str, str]:
    """Return the versions of Python and of installed packages that affect the numbers."""
    packages = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):  # one of them is from an extra
            packages[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), **packages}


def refuse_former_name(names: Iterable[str], where: str) -> None:
    """Raise `FormatError` if a name in a file shows that it was made under cellweft's former name."""
    if any(name == _FORMER or name.startswith(f"{_FORMER}_") for name in names):
        got = f"a file that was written under the package's former name, {_FORMER}"
        raise FormatError(
            where, expected="a file that cellweft wrote", got=got, fix="Create it again with this version."
        )


def note_command(words: Sequence[str]) -> None:
    """Store the command line of this process, for the records of its results."""
    _command[:] = words


def stamp(kind: str) -> dict[str, Any]:
    """Return the common part of all records: schema, kind, date, command line, versions."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command_line": shlex.join(_command),
        "versions": versions(),
    }


def provenance(
    kind: str,
    *,
    preset: str,
    settings: DataclassInstance,
    seed: int,
    device: str,
    inputs: Mapping[str, Mapping[str, Any]],
    fit_seconds: float,
) -> dict[str, Any]:
    """Return the record of a result as plain values that any format can store.

    Parameters
    ----------
    kind
        Kind of result: "imputed", "labels" or "placed".
    preset, settings, seed, device
        How it was made; settings may be any dataclass.
    inputs
        The inputs, from `cellweft.data._pair.inputs_of`.
    fit_seconds
        Duration of the fit; 0 if unknown.

    Returns
    -------
    dict
        ``schema_version``, ``kind``, ``date`` (ISO 8601 with time zone, when the run began), ``duration``
        (seconds of the ``fit`` and of this ``run``, which `timed` fills in), ``command_line`` (empty if it
        was not made by the command), ``inputs``, ``preset``, ``settings`` ("none" for None), ``seed``,
        ``device`` and ``versions``.
    """
    return stamp(kind) | {
        "duration": {"fit": float(fit_seconds), "run": 0.0},
        "inputs": {side: dict(details) for side, details in inputs.items()},
        "preset": preset,
        "settings": {name: "none" if value is None else value for name, value in asdict(settings).items()},
        "seed": int(seed),
        "device": device,
    }


def timed(record: Mapping[str, Any], start: float) -> dict[str, Any]:
    """Return a record with the seconds of its run, which started at ``start`` (`time.monotonic`)."""
    seconds = round(time.monotonic() - start, 3)
    return {**record, "duration": {**record["duration"], "run": seconds}}
