"""The format of a text table: its encoding, separator and decimal sign."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from cellweft._text import many
from cellweft.data.io.columns import plain_name
from cellweft.data.io.features import is_cell_column

EXACT: Literal["round_trip"] = "round_trip"
"""How pandas reads numbers with a decimal point. Faster ways round, and crash on exponents of many digits."""
_HEAD_BYTES = 2**20
_MOST_LINES, _MOST_COMMENTS = 30, 100
_FEWEST_FIELDS, _FEWEST_BELOW = 4, 2  # of a table below title lines, and number of its lines
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "blanks"}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # starts like UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_TEXT = (
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"\x89HDF",
    b"BZh",
    b"PAR1",
    b"<!",
    b"<html",
    b"version https://git-lfs",
)
"""First bytes of archives, HDF5 and Parquet files, web pages, and Git LFS pointers."""
_WESTERN = "cp1252"
"""Assumed encoding of text that is not UTF-8: that of Windows in Western Europe."""
_DECIMAL_COMMA = re.compile(r"\s*-?(?![1-9]\d{0,2}(,\d{3})+\s*$)\d*,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)
"""A number with a comma that cannot be a thousands separator."""
_DECIMAL_POINT = re.compile(r"\s*-?\d*\.\d+(e[-+]?\d+)?\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The format of a text table.

    Attributes
    ----------
    separator, decimal
        Separator of columns, and decimal sign.
    encoding
        Encoding, as named by Python.
    n_comments
        Number of lines above the header.
    n_columns
        Number of fields of the widest line among the first.
    ends_in_separator
        Whether each row except the header has an additional empty field at its end.
    notes
        Unusual properties, as phrases.
    """

    separator: str
    decimal: str = "."
    encoding: str = "utf-8"
    n_comments: int = 0
    n_columns: int = 0
    ends_in_separator: bool = False
    notes: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The format as arguments of `pandas.read_csv`."""
        return {
            "sep": self.separator,
            "decimal": self.decimal,
            "encoding": self.encoding,
            "skiprows": self.n_comments,
            "float_precision": EXACT,
        }


def dialect_of(path: Path, *, separator: str) -> Dialect:
    r"""Detect the format of a table from its first lines.

    Parameters
    ----------
    path
        The file, uncompressed or compressed with gzip or bzip2.
    separator
        Separator according to the name of the file. It is used unless only another one gives lines with equal
        numbers of fields.

    Raises
    ------
    ValueError, EOFError
        It is not text, or a damaged archive.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "cells.csv")
    ...     written = path.write_text("cell;Gad1;Sst\ns1;0,5;2\n")
    ...     dialect_of(path, separator=",").notes
    ('columns are separated by semicolons', 'numbers have decimal commas')
    """
    encoding = _encoding_of(path)
    with _open(path) as file:
        head = file.read(_HEAD_BYTES)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(head)
    if (
        encoding.startswith("utf-")
        and encoding != "utf-8"
        and not {*text[:_HEAD_BYTES]} & {*_SEPARATORS, "\n"}
    ):
        raise ValueError("not a text table")
    lines = text.splitlines()[: _MOST_LINES + _MOST_COMMENTS]
    if len(head) == _HEAD_BYTES and len(lines) > 1:
        lines = lines[:-1]  # the last line may be incomplete
    n_comments = sum(1 for _ in itertools.takewhile(lambda line: line.startswith("#"), lines))
    if n_comments and any(sign in lines[n_comments - 1] for sign in "\t,;"):
        n_comments -= 1  # a header that starts with the comment sign
    n_titles = _titles_of(lines[n_comments : n_comments + _MOST_LINES], separator)
    n_comments += n_titles
    rows = [row for row in lines[n_comments : n_comments + _MOST_LINES] if row.strip()]
    sign = _separator_of(rows, separator)
    header, *below = csv.reader(rows, delimiter=sign) if rows else [[]]
    fields = [field for row in below for field in row[1:]]
    has_commas = sign != "," and any(_DECIMAL_COMMA.fullmatch(field) for field in fields)
    decimal = "," if has_commas and not any(_DECIMAL_POINT.fullmatch(field) for field in fields) else "."
    notes = [
        f"columns are separated by {_SEPARATORS[sign]}" if sign != separator else "",
        "numbers have decimal commas" if decimal == "," else "",
        f"the text is {encoding.upper()}" if encoding.startswith(("utf-16", "utf-32")) else "",
        "the text is not UTF-8 and was read as Windows-1252 (check that characters such as µ and é are right)"
        if encoding == _WESTERN
        else "",
        f"{many(n_comments, 'line')} of comments above the header skipped" if n_comments else "",
    ]
    return Dialect(
        separator=sign,
        decimal=decimal,
        encoding=encoding,
        n_comments=n_comments,
        n_columns=max(map(len, [header, *below])),
        ends_in_separator=bool(below)
        and all(len(row) == len(header) + 1 and row[-1] == "" for row in below)
        and (plain_name(header[0]) in ("", "id", "name", "index") or is_cell_column(header[0])),
        notes=tuple(note for note in notes if note),
    )


def _titles_of(lines: list[str], promised: str) -> int:
    """Return the number of title lines above the header, which have fewer fields than the table."""
    for sign in dict.fromkeys((promised, *_SEPARATORS)):
        counts = [len(row) if any(row) else 0 for row in csv.reader(lines, delimiter=sign)]
        filled = [place for place, count in enumerate(counts) if count]
        most = counts[filled[-1]] if filled else 0
        first = next((place for place in filled if counts[place] >= most - 1), 0)
        below = [counts[place] for place in filled if place > first]
        if most >= _FEWEST_FIELDS and len(below) >= _FEWEST_BELOW and {*below} == {most}:
            return first if any(counts[:first]) else 0
    return 0


def _open(path: Path) -> IO[bytes]:
    packed: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
    return cast(IO[bytes], packed.get(path.suffix.lower(), open)(path, "rb"))


def _encoding_of(path: Path) -> str:
    """Return the encoding given by the first bytes, otherwise UTF-8 if the whole file is valid UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _open(path) as file:
        head = file.read(_HEAD_BYTES)
        if head.startswith(_NO_TEXT):
            raise ValueError("not a text table")
        for mark, encoding in _MARKS.items():
            if head.startswith(mark):
                return encoding
        if head.count(0) > len(head) // 4:  # every other byte is zero in UTF-16 text
            return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        try:
            for block in itertools.chain([head], iter(lambda: file.read(_HEAD_BYTES), b"")):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _WESTERN
    return "utf-8"


def _separator_of(rows: list[str], promised: str) -> str:
    """Return a separator that gives all lines the same number of fields; the expected one has priority."""
    n_fields = {}
    for sign in dict.fromkeys((promised, *_SEPARATORS)):
        counts = [len(row) for row in csv.reader(rows, delimiter=sign)]
        # R omits the column of names in the header, which may then have a single field
        if not counts or max(counts[:2]) < 2 or (min(counts) < 2 and sign not in "\t "):
            continue
        if len({*counts[1:]}) <= 1 and (len(counts) == 1 or counts[1] - counts[0] in (0, 1)):
            n_fields[sign] = counts[0]
    if promised in n_fields or not n_fields:
        return promised
    return max(n_fields, key=n_fields.__getitem__)
