"""The command line: the public names of cellweft as commands, and no logic of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from cellweft._provenance import note_command
from cellweft.cli import check, demo, embed, evaluate, export, impute, place, proteins, report, view
from cellweft.cli.examples import EXAMPLES
from cellweft.cli.options import expanded

app = typer.Typer(
    name="cellweft",
    help="Weave single cells into tissue: impute the genes that a spatial panel did not measure, place "
    "dissociated cells, and test how good that is. The reference is always the first input, the spatial data "
    "the second.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES["cellweft"],
    pretty_exceptions_enable=False,
)
"""All commands; each exits with 0, with 2 where the user can put something right, else with 1."""


def main() -> None:
    """Run the command line."""
    # Read when torch is loaded. Threads that wait for work by spinning slow one another thirtyfold where
    # other programs use the same cores; by sleeping they cost next to nothing on idle ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    note_command(["cellweft", *sys.argv[1:]])
    app()


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"cellweft {version('cellweft')}")
        raise typer.Exit


@app.callback()
def _cellweft(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Take the options that stand before a command."""


_COMMANDS: dict[str, Callable[..., None]] = {
    "check": check.check,
    "impute": impute.impute,
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
