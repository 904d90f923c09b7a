"""Renders a page as one self-contained HTML file."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from cellweft._typing import PathLike
from cellweft.data.io.atomic_output import partial_output
from cellweft.reports import document
from cellweft.reports.formatting import shown

_TEMPLATE, _STYLE = "report.html.j2", "report.css"


def html_of(page: document.Page) -> str:
    """Return a page as HTML, with all data escaped, and with embedded style and images.

    Parameters
    ----------
    page
        The page.
    """
    return (
        _template()
        .render(page=page, style=Markup(_text(_STYLE)), kind=_kind, shown=shown, is_numeric=_is_numeric)
        .lstrip()
    )


def write_page(page: document.Page, path: PathLike, *, overwrite: bool = False) -> Path:
    """Write a page; the file is complete or absent.

    Parameters
    ----------
    page
        The page.
    path
        Path of the file.
    overwrite
        Whether to replace an existing file.
    """
    content = html_of(page)
    with partial_output(path, overwrite=overwrite) as partial:
        partial.write_text(content, encoding="utf-8", newline="\n")
    return Path(path)


def _kind(thing: object) -> str:
    """Return the kind of a block or of a part of a text, for the template."""
    return type(thing).__name__.lower()


def _is_numeric(table: document.Table, column: int) -> bool:
    """Return whether a column of a table contains numbers, which are right-aligned with the heading."""
    return any(isinstance(row[column], document.Number) for row in table.rows)


def _text(name: str) -> str:
    return files("cellweft.reports").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text(_TEMPLATE))
