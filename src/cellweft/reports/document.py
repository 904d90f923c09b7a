"""The elements of a report as plain data: texts, tables, facts, pictures, and numbers with their source.

There is no HTML here. Each number shown is a `Number`, so that the page can state its source and a test can
look it up there. Other texts with digits (genes, files, versions, settings) are a `Name`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["count", "score", "value", "share"]
"""Format of a number: a count, a score, a value with a unit, a share."""

Tone: TypeAlias = Literal["plain", "lead", "good", "even", "poor", "note", "caution"]
"""Tone of a text: an introduction, a good, moderate or poor finding, a remark, a warning."""


@dataclass(frozen=True)
class Number:
    """A number from a table or a record.

    Attributes
    ----------
    value
        The stored value, not rounded; NaN if unknown.
    form
        Format of the number.
    source
        Description of its table, row and column.
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
    """A cited work.

    Attributes
    ----------
    text, address
        Text and address of the link.
    """

    text: str
    address: str


Part: TypeAlias = str | Number | Name | Link
"""A part of a text: words without digits, a number, a name, or a link."""


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes
    ----------
    parts
        Parts of the text, in order.
    tone
        Tone of the text.
    """

    parts: tuple[Part, ...]
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Terms with their values, one per line.

    Attributes
    ----------
    title
        Title of the list.
    rows
        Each term, with the parts of its value.
    """

    title: str
    rows: tuple[tuple[str, tuple[Part, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with row names in the first column.

    Attributes
    ----------
    caption
        What it shows.
    groups
        Headings above the columns, with the number of columns of each; may be empty.
    heads
        Headings of the columns.
    rows
        (n_rows, n_columns) cells; None for empty cells.
    note
        Text below.
    mixed
        Whether columns contain both words and numbers, which are then aligned.
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
        Description of the image, for readers who cannot see it.
    caption
        Text below.
    width, height
        Size in pixels of the page.
    """

    data: str
    alt: str
    caption: tuple[Part, ...]
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """Pictures side by side, if the page is wide enough.

    Attributes
    ----------
    pictures
        From left to right.
    """

    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Listing:
    """A bulleted list of texts.

    Attributes
    ----------
    items
        The texts.
    """

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Heading:
    """A heading within a section.

    Attributes
    ----------
    parts
        Parts of its text.
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
        Its anchor in the page's address.
    title
        Its heading.
    blocks
        Its blocks.
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
        Title of the report.
    made_of
        Names of the files and tables of the report.
    sections
        Sections in order.
    version
        Version of cellweft that made it.
    """

    title: str
    made_of: tuple[str, ...]
    sections: tuple[Section, ...]
    version: str


def text(*parts: Part, tone: Tone = "plain") -> Text:
    """Return a paragraph with some parts."""
    return Text(parts, tone)


def joined(parts: Sequence[Part], *, between: str = ", ", last: str = " and ") -> tuple[Part, ...]:
    """Return parts with commas between them, and a word before the last.

    Parameters
    ----------
    parts
        Parts to join.
    between, last
        Separators between parts, and before the last one.

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
