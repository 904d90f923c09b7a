"""Text for people: sizes, times, counts and near names."""

from __future__ import annotations

import difflib
import html
import math
from collections.abc import Iterable, Sequence


class NotebookText:
    """The display of an object in a notebook: its ``repr``, and `_details` to unfold below it."""

    def _repr_html_(self) -> str:
        title, details = html.escape(repr(self)), html.escape(self._details())
        return f"<details><summary>{title}</summary><pre>{details}</pre></details>" if details else title

    def _details(self) -> str:
        """Return the details to show on demand, as lines of text."""
        return ""


def many(number: int, what: str) -> str:
    """Return a number with its noun, which gets an s unless the number is 1.

    Examples
    --------
    >>> many(1, "cell"), many(2000, "cell")
    ('1 cell', '2,000 cells')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def human_bytes(size: float) -> str:
    """Return a size as readable text.

    Examples
    --------
    >>> human_bytes(1_500_000_000)
    '1.5 GB'
    """
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:  # numbers that do not round up to the next unit with three digits
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def enough_bytes(size: float) -> str:
    """Return a size as readable text, rounded up, so that it is enough as a budget.

    Examples
    --------
    >>> enough_bytes(453_600_000), human_bytes(453_400_000), enough_bytes(453_400_000)
    ('454 MB', '453 MB', '454 MB')
    """
    step = 10.0 ** max(math.floor(math.log10(max(size, 1))) - 2, 0)
    return human_bytes(math.ceil(size / step) * step)


def shown_unit(unit: str) -> str:
    """Return a unit for display.

    Examples
    --------
    >>> shown_unit("um")
    'µm'
    """
    return "µm" if unit == "um" else unit


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known names most similar to ``name``, or the first few if none is similar.

    Examples
    --------
    >>> near("spatail", ["spatial", "X_pca"])
    "Did you mean 'spatial'?"
    >>> near("zzz", ["spatial", "X_pca"])
    "Known: 'X_pca', 'spatial'."
    """
    names = sorted({str(candidate) for candidate in known})
    lower = {candidate.lower(): candidate for candidate in reversed(names)}
    close = [lower[candidate] for candidate in difflib.get_close_matches(name.lower(), lower, n=3)]
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"Known: {shorten(names)}." if names else "There are none."


def shorten(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, quoted, and the number of other names.

    Examples
    --------
    >>> shorten(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    listed = ", ".join(map(repr, names[:most]))
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
