"""What a report is made of, as plain data: texts, tables, facts and pictures, and numbers with their source.

Nothing here knows HTML. Every number that is shown is a `Number`, so that the page can say where it comes
from and a test can look it up there; what else holds digits (genes, files, versions, settings) is a `Name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["count", "score", "value", "share"]
"""How a number is written: a whole number, a score, a value in some unit, a share of all."""

Tone: TypeAlias = Literal["plain", "lead", "good", "even", "poor", "note", "caution"]
"""How a text is meant: an introduction, a finding that is good, middling or poor, a remark, a warning."""


@dataclass(frozen=True)
class Number:
    """A number of a table or a record.

    Attributes
    ----------
    value
        As stored there, not rounded; NaN if it is not known.
    form
        How it is written.
    source
        The table, and the row and column in it, in words.
    best
        Whether it is the best of its column.
    """

    value: float
    form: Form
    source: str
    best: bool = False


@dataclass(frozen=True)
class Name:
    """A name as stored in the data or the record: of a gene, a file, a method, a setting, a version.

    Attributes
    ----------
    text
        The name itself.
    """

    text: str


@dataclass(frozen=True)
class Link:
    """A work that is cited.

    Attributes
    ----------
    text, address
        What is read, and where it leads.
    """

    text: str
    address: str


Part: TypeAlias = str | Number | Name | Link
"""A piece of a text: words without any digit, a number, a name, or a work."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes
    ----------
    parts
        What stands in it, in order.
    tone
        How it is meant.
    """

    parts: tuple[Part, ...]
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Things with what they are, one a line.

    Attributes
    ----------
    title
        What they are facts of.
    rows
        Each a term and the parts of what it is.
    """

    title: str
    rows: tuple[tuple[str, tuple[Part, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names the row.

    Attributes
    ----------
    caption
        What it shows.
    groups
        Heads above the columns with the number of columns that each spans; empty for none.
    heads
        Heads of the columns.
    rows
        (n_rows, n_columns) cells; None is an empty one.
    note
        Text below.
    mixed
        Whether its columns hold words and numbers, which then stand below each other.
    """

    caption: tuple[Part, ...]
    heads: tuple[Part, ...]
    rows: tuple[tuple[Part | None, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    note: tuple[Part, ...] = ()
    mixed: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure.

    Attributes
    ----------
    data
        The image as a data URI.
    alt
        What it shows, for those who do not see it.
    caption
        Text below.
    width, height
        In pixels of the page.
    """

    data: str
    alt: str
    caption: tuple[Part, ...]
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """Pictures side by side, where the page is wide enough.

    Attributes
    ----------
    pictures
        From left to right.
    """

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Listing:
    """Texts of one kind, each with a mark before it.

    Attributes
    ----------
    items
        The texts.
    """

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Heading:
    """A head within a section.

    Attributes
    ----------
    parts
        What it says.
    """

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Code:
    """Lines to type.

    Attributes
    ----------
    text
        The lines.
    """

    text: str


Block: TypeAlias = Text | Facts | Table | Row | Listing | Heading | Code
"""Anything that a section contains."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with an entry in its table of contents.

    Attributes
    ----------
    key
        Its place in the page's address.
    title
        Its head.
    blocks
        What it contains.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report.

    Attributes
    ----------
    title
        What it is called.
    made_of
        Names of the files and tables that it shows.
    sections
        In order.
    version
        Of cellweft, that made it.
    """

    title: str
    made_of: tuple[str, ...]
    sections: tuple[Section, ...]
    version: str


def text(*parts: Part, tone: Tone = "plain") -> Text:
    """Return a paragraph of some parts."""
    return Text(parts, tone)


def joined(parts: Sequence[Part], *, between: str = ", ", last: str = " and ") -> tuple[Part, ...]:
    """Return parts with commas between them, and a word before the last.

    Parameters
    ----------
    parts
        What is put together.
    between, last
        What stands between two, and before the last.

    Examples
    --------
    >>> joined(["a", "b", "c"])
    ('a', ', ', 'b', ' and ', 'c')
    """
    pieces: list[Part] = []
    for place, part in enumerate(parts):
        if place:
            pieces.append(last if place == len(parts) - 1 else between)
        pieces.append(part)
    return tuple(pieces)
