"""A directive, for pages in reStructuredText, with all that ``cellweft COMMAND --help`` tells."""

from __future__ import annotations

import re
from typing import Any

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from cellweft.cli import app as commands


def _plain(text: str) -> str:
    """Return text whose signs mean nothing to reStructuredText."""
    return re.sub(r"([\\*`_|])", r"\\\1", text)


def _entry(parameter: Any, context: Any) -> list[str]:
    """Return an argument or option with its help, as the command line prints it."""
    name, text = parameter.get_help_record(context)
    return [f".. option:: {name}", "", f"   {_plain(text)}", ""]


def _page(name: str, command: Any) -> list[str]:
    """Return one command in reStructuredText, below its heading."""
    context = command.context_class(command, info_name=f"cellweft {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    lines = [_plain(command.help), "", ".. code-block:: text", "", f"   {usage}", ""]
    lines += [f".. program:: cellweft {name}", ""]
    groups: dict[str, list[str]] = {}
    for parameter in command.params:
        if "--help" in parameter.opts:
            continue
        is_argument = parameter.param_type_name == "argument"
        group = "Arguments" if is_argument else parameter.rich_help_panel or "Options"
        groups.setdefault(group, []).extend(_entry(parameter, context))
    for group, entries in groups.items():
        lines += [f".. rubric:: {group}", "", *entries]
    return lines


class CommandLine(SphinxDirective):
    """A section for every command, with its arguments and options."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        sections: list[nodes.Node] = []
        for name, command in typer.main.get_command(commands).commands.items():  # type: ignore[attr-defined]
            title = f"cellweft {name}"
            section = nodes.section(ids=[title.replace(" ", "-")], names=[title])
            section += nodes.title(text=title)
            lines = StringList(_page(name, command), source="cellweft.cli")
            self.state.nested_parse(lines, 0, section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("cellweft-commands", CommandLine)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
