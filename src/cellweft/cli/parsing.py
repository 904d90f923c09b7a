"""Texts on the command line turned into values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellweft._errors import SettingError, arg


def check_device(device: str) -> None:
    """Raise `SettingError` unless the device is there, or each of several."""
    if device not in ("auto", "all"):  # which always are
        from cellweft._compute import resolve_devices

        resolve_devices(device)


def read_genes(text: str) -> list[str] | None:
    """Return the genes that ``--genes`` asks for; None for all.

    Parameters
    ----------
    text
        ``all``, names between commas, or the path of a file with one name a line, where empty lines and those
        that start with # do not count.

    Raises
    ------
    MissingFileError, FormatError
        It looks like a path with nothing there; the file is no text.
    SettingError
        No gene, or one that stands twice.

    Examples
    --------
    >>> read_genes("Gad1, Sst")
    ['Gad1', 'Sst']
    """
    if text == "all":
        return None
    path = Path(text)
    is_file = os.path.isfile(path)  # noqa: PTH113 (of a list longer than any path may be, Path.is_file raises)
    if is_file or path.suffix in (".txt", ".csv", ".tsv", ".list") or "/" in text:
        from cellweft.genes.proteins.lookup import read_names

        fix = "Name a text file, or the genes themselves between commas."
        names = read_names(path, where=arg("genes", text), fix=fix)
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if not names or twice:
        raise SettingError(
            arg("genes", text),
            expected="genes, each once",
            got=f"{twice[0]!r} more than once" if twice else "none",
            fix="Write " + arg("genes", "Gad1,Sst") + ", or " + arg("genes", "all") + ".",
        )
    return names


def read_settings(preset: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``--set``, read as those of a method's name are.

    Parameters
    ----------
    preset
        The method that they are for.
    texts
        Each ``key=value``.

    Raises
    ------
    SettingError
        A text of another form, or a key that stands twice.

    Examples
    --------
    >>> read_settings("auto", ["k=20", "graph=none"])
    {'k': 20, 'graph': 'none'}
    """
    from cellweft.evaluate.methods import parse_method

    settings: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key or not value or key in settings:
            raise SettingError(
                arg("settings", text),
                expected="key=value, each key once",
                got=repr(text),
                fix="Write " + arg("settings", "k=20") + ".",
            )
        settings |= parse_method(f"{preset}:{text}", known=(preset,))[1]
    return settings


def read_numbers(argument: str, text: str, *, low: int, example: str) -> list[int]:
    """Return the whole numbers that stand between commas.

    Parameters
    ----------
    argument, text
        What is read, and its value.
    low
        The least number that is allowed.
    example
        Such numbers, for the message.

    Raises
    ------
    SettingError
        Something else, or a number that stands twice.

    Examples
    --------
    >>> read_numbers("seeds", "0,1,2", low=0, example="0,1")
    [0, 1, 2]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= low for part in parts) or len(set(parts)) < len(parts):
        raise SettingError(
            argument,
            expected=f"whole numbers{f' from {low} on' if low else ''} between commas, each once",
            got=repr(text),
            fix="Write " + arg(argument, example) + ".",
        )
    return [int(part) for part in parts]
