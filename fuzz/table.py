"""The table of all damaged files that were read: how many of each kind, with which seeds, and what was found.

A later run adds to it, and continues at the seed after the last of each kind, so that no file counts twice.
"""

from __future__ import annotations

import fcntl
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_ROW = re.compile(r"\| (\w+) \| ([\d,]+) \| ([\d,]+) to ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|")
_PACKAGES = ("cellweft", "anndata", "h5py", "numpy", "pandas", "scipy", "zarr")
_TITLE = "# Damaged files that were read"
_COLUMNS = "| kind | files | seeds | faults found | seconds |\n| --- | --- | --- | --- | --- |"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was run of one kind.

    Attributes
    ----------
    first, last
        Seeds; one file was read with each of them.
    n_faults
        Files that ended in anything but a result or an error of cellweft, when they were read.
    seconds
        In all, waiting included.
    """

    first: int
    last: int
    n_faults: int
    seconds: int

    @property
    def n_files(self) -> int:
        """How many files were read."""
        return self.last - self.first + 1


def read_table(path: Path) -> dict[str, Row]:
    """Return the rows of a table by kind, none where it does not exist.

    Raises
    ------
    ValueError
        The file is not such a table.
    """
    text = path.read_text() if path.exists() else ""
    if text and not text.startswith(_TITLE):
        raise ValueError(f"expected a table of scripts/fuzz, got other text, in {path}; name another file")
    rows = {}
    for name, *numbers in _ROW.findall(text):
        _, first, last, n_faults, seconds = (int(one.replace(",", "")) for one in numbers)
        rows[name] = Row(first=first, last=last, n_faults=n_faults, seconds=seconds)
    return rows


def add_to_table(path: Path, name: str, new: Row) -> None:
    """Add what was run of one kind to a table; other runs may write to the same table.

    Raises
    ------
    ValueError
        The seeds do not follow the last of this kind, or the file is not such a table.
    """
    with _locked(path):
        rows = read_table(path)
        old = rows.get(name)
        if old is not None and new.first != old.last + 1:
            raise ValueError(f"{name}: expected the first seed {old.last + 1}, got {new.first}, in {path}")
        rows[name] = new if old is None else _joined(old, new)
        path.write_text(_text(rows))


def _joined(old: Row, new: Row) -> Row:
    return Row(
        first=old.first,
        last=new.last,
        n_faults=old.n_faults + new.n_faults,
        seconds=old.seconds + new.seconds,
    )


def _text(rows: dict[str, Row]) -> str:
    lines = [
        f"| {name} | {row.n_files:,} | {row.first:,} to {row.last:,} | {row.n_faults:,} | {row.seconds:,} |"
        for name, row in rows.items()
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    n_files, n_faults = (
        sum(getattr(row, field) for row in rows.values()) for field in ("n_files", "n_faults")
    )
    return (
        f"{_TITLE}\n\n"
        f"- last changed: {datetime.now(UTC):%Y-%m-%d} by `scripts/fuzz --table FILE`\n"
        f"- versions: python {platform.python_version()}, {versions}\n"
        f"- in all: {n_files:,} files, {n_faults:,} faults\n\n"
        f"{_COLUMNS}\n" + "\n".join(lines) + "\n"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
