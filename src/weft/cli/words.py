"""Texts on the command line turned into values, and values into texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft._errors import FormatError, MissingFileError, SettingError

if TYPE_CHECKING:
    from weft.data.pair import Pair

_ARGUMENTS = re.compile(
    r"\b((?:sc|st)_(?:layer|scale)|(?:(?:sc|st)_)?gene_column|(?:st_)?(?:labels|size_factor)|coordinates|slices|duplicates"
    r"|device|memory|keep|folds|embedding|gene_sets|edges|truth_composition|true_places|truth|hits|methods|column"
    r"|annotates|ids)=(?=(['\w])?)"
)


def in_words_of_the_shell(text: str) -> str:
    """Return a message with the arguments of Python, such as ``sc_layer='counts'``, as options.

    Examples
    --------
    >>> in_words_of_the_shell("Pass the raw counts: sc_layer='counts'.")
    "Pass the raw counts: --sc-layer 'counts'."
    """
    return _ARGUMENTS.sub(lambda found: f"--{found[1].replace('_', '-')}{' ' if found[2] else ''}", text)


def counted(pair: Pair) -> str:
    """Return the size of both inputs and the number of cautions."""
    cautions = len(pair.cautions)
    return (
        f"{pair.sc.n_cells:,} reference cells x {pair.sc.n_genes:,} genes, "
        f"{pair.st.n_cells:,} spatial cells x {pair.st.n_genes:,} genes, {len(pair.shared_genes):,} shared, "
        f"{'no cautions' if not cautions else '1 caution' if cautions == 1 else f'{cautions} cautions'}"
    )


def cautions_of(pair: Pair) -> list[str]:
    """Return the cautions, with arguments as options."""
    return [in_words_of_the_shell(one) for one in pair.cautions]


def check_device(device: str) -> None:
    """Raise `SettingError` unless the device is there, or each of several."""
    if device not in ("auto", "all"):  # which always are
        from weft._compute import resolve_devices

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
    if _is_file(path):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"--genes {text}",
                expected="a text file with one gene a line",
                got="a file that is no text",
                fix="Name a text file, or the genes themselves between commas.",
            ) from error
        names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    elif path.suffix in (".txt", ".csv", ".tsv", ".list") or "/" in text:
        raise MissingFileError(
            f"--genes {text}",
            expected="a text file with one gene a line",
            got="nothing at this path",
            fix="Check the path, or name the genes between commas.",
        )
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if not names or twice:
        raise SettingError(
            f"--genes {text}",
            expected="genes, each once",
            got=f"{twice[0]!r} more than once" if twice else "none",
            fix="Write --genes Gad1,Sst, or --genes all.",
        )
    return names


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list of many genes is longer than any path may be
        return False


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
    from weft.peers.methods import parse_method

    settings: dict[str, Any] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key or not value or key in settings:
            raise SettingError(
                f"--set {text}", expected="key=value, each key once", got=repr(text), fix="Write --set k=20."
            )
        settings |= parse_method(f"{preset}:{text}", known=(preset,))[1]
    return settings


def read_seeds(text: str) -> list[int]:
    """Return the seeds that stand between commas.

    Raises
    ------
    SettingError
        Something else than whole numbers.

    Examples
    --------
    >>> read_seeds("0,1,2")
    [0, 1, 2]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise SettingError(
            "--seeds",
            expected="whole numbers between commas, each once",
            got=repr(text),
            fix="Write --seeds 0,1,2.",
        )
    return [int(part) for part in parts]
