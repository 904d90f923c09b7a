"""Every option of every command gets odd text: the command exits with 2 and says what is wrong.

The inputs do not exist, so that options which accept any text also end in an error before any work. Commands
without input files (demo) or with a service (proteins) have their own tests in tests/cli.
"""

from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from cellweft.cli import app

ODD = ("", "x", "-1", "nan", "1e400", "2**64", "\udc80", "a\0b", "y" * 300, "../..", "--", "1,,2", "a=b=c")
ROOT: Any = typer.main.get_command(app)


def options() -> list[tuple[str, click.Parameter]]:
    commands = {name: one for name, one in ROOT.commands.items() if name not in ("demo", "proteins")}
    return [(name, one) for name, command in commands.items() for one in command.params]


def is_option(one: click.Parameter) -> bool:
    return one.param_type_name == "option"


def words_of(command: click.Command) -> dict[str, str]:
    """Return the required arguments: paths of missing inputs, and of outputs in an empty folder."""
    found = {}
    for number, one in enumerate(command.params):
        if one.required and one.name:
            found[one.name] = f"out{number}.zarr" if is_option(one) else f"no{number}.h5ad"
    return found


OPTIONS = [
    (name, one) for name, one in options() if not getattr(one, "is_flag", False) and one.name != "help"
]


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=[f"{name} {one.name}" for name, one in OPTIONS])
def test_odd_text_ends_in_a_clear_error(
    name: str, option: click.Parameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, faults = ROOT.commands[name], []
    for odd in ODD:
        given = words_of(command) | {str(option.name): odd}
        words = [name]
        for one in command.params:
            if one.name in given:
                value = given[one.name]
                words += [one.opts[0], value] if is_option(one) else [value]
        result = CliRunner().invoke(app, words)
        said = result.output + (result.stderr if result.stderr not in result.output else "")
        if result.exit_code not in (0, 2) or "Traceback" in said:
            faults.append(f"{odd!r}: {result.exit_code}: {result.exception!r}: {said[-300:]}")
        elif result.exit_code == 2 and "Error" not in said:
            faults.append(f"{odd!r}: says nothing: {said[-300:]}")
    assert not faults, "\n".join(faults)


def test_many_options_are_tested() -> None:
    assert len(OPTIONS) * len(ODD) >= 600
