"""The command line: cellweft's public functions as commands, without further logic."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from cellweft._provenance import note_command
from cellweft.cli import annotate, check, demo, embed, evaluate, export, impute, place, proteins, report, view
from cellweft.cli.examples import EXAMPLES
from cellweft.cli.options import expanded

app = typer.Typer(
    name="cellweft",
    help="Weave single cells into tissue: impute the genes that are not on a spatial panel, place "
    "dissociated cells, and evaluate both. The reference is always the first input, the spatial data the "
    "second.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES["cellweft"],
    pretty_exceptions_enable=False,
)
"""All commands. The exit status is 0 on success, 2 for an error that the user can fix, and 1 otherwise."""


def main() -> None:
    """Run the command line."""
    # Read when torch is loaded. If other programs use the same cores, threads that spin while they wait slow
    # each other down thirtyfold. Threads that sleep cost almost nothing on idle cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    note_command(["cellweft", *sys.argv[1:]])
    app()


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"cellweft {version('cellweft')}")
        raise typer.Exit


@app.callback()
def _cellweft(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Handle the options before a command."""


_COMMANDS: dict[str, Callable[..., None]] = {
    "check": check.check,
    "impute": impute.impute,
    "annotate": annotate.annotate,
    "place": place.place,
    "evaluate": evaluate.evaluate,
    "report": report.report,
    "view": view.view,
    "export": export.export,
    "proteins": proteins.proteins,
    "embed": embed.embed,
    "demo": demo.demo,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, epilog=EXAMPLES[_name])(expanded(_command))
