"""Convert option texts to values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellweft._errors import SettingError, arg


def check_device(device: str) -> None:
    """Raise `SettingError` if the device, or one of several, is not available."""
    if device not in ("auto", "all"):  # always available
        from cellweft._compute import resolve_devices

        resolve_devices(device)


def read_genes(text: str) -> list[str] | None:
    """Return the genes of ``--genes``, or None for all.

    Parameters
    ----------
    text
        ``all``, names separated by commas, or the path of a file with one name per line. Empty lines and
        lines that start with # are ignored.

    Raises
    ------
    MissingFileError, FormatError
        It looks like a path but does not exist; the file is not a text file.
    SettingError
        No gene, or a duplicate.

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

        fix = "Pass a text file, or gene names separated by commas."
        names = read_names(path, where=arg("genes", text), fix=fix)
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if not names or twice:
        raise SettingError(
            arg("genes", text),
            expected="unique genes",
            got=f"{twice[0]!r} more than once" if twice else "none",
            fix="Write " + arg("genes", "Gad1,Sst") + ", or " + arg("genes", "all") + ".",
        )
    return names


def read_settings(preset: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``--set``, parsed like those in a method's name.

    Parameters
    ----------
    preset
        The method.
    texts
        Each ``key=value``.

    Raises
    ------
    SettingError
        Not of this form, or a duplicate key.

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
    """Return whole numbers that are separated by commas.

    Parameters
    ----------
    argument, text
        Name of the argument, and its value.
    low
        The smallest number allowed.
    example
        Example for the message.

    Raises
    ------
    SettingError
        Not whole numbers, too small, or a duplicate.

    Examples
    --------
    >>> read_numbers("seeds", "0,1,2", low=0, example="0,1")
    [0, 1, 2]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= low for part in parts) or len(set(parts)) < len(parts):
        raise SettingError(
            argument,
            expected=f"different whole numbers{f' of at least {low}' if low else ''}, separated by commas",
            got=repr(text),
            fix="Write " + arg(argument, example) + ".",
        )
    return [int(part) for part in parts]
