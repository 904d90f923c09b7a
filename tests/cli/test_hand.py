"""Usability of the command line: help, examples, narrow tables and progress as lines of text."""

import io
import os
import re
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cellweft.cli import _COMMANDS, app
from cellweft.cli import console as console_module
from cellweft.cli.console import Screen
from cellweft.cli.examples import EXAMPLES
from cellweft.cli.options import ShownOptions
from cellweft.cli.score_tables import placement_table, score_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "100")


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("command", [None, *_COMMANDS])
def test_help_and_its_short_form_show_examples_and_a_page_to_read(command: str | None) -> None:
    words = [command] if command else []
    long, short = (CliRunner().invoke(app, [*words, option]) for option in ("--help", "-h"))
    assert long.exit_code == short.exit_code == 0
    assert long.stdout == short.stdout
    name = command or "cellweft"
    examples = [line for line in EXAMPLES[name].split("\n\n") if line.startswith("cellweft ")]
    assert examples
    for line in examples:
        assert len(line) <= 76
        assert line in long.stdout
    (document,) = re.findall(r"See also: (\S+)", EXAMPLES[name])
    assert (ROOT / document).is_file()
    assert document in long.stdout


@pytest.mark.slow
def test_every_option_in_an_example_exists() -> None:
    for name, command in ((one, EXAMPLES[one]) for one in _COMMANDS):
        for option in re.findall(r" (--[\w-]+)", command):
            stated = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
            assert option in stated, f"{name} {option}"


def test_completion_can_be_installed() -> None:
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout


def printed(table: object, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def scores_of(methods: list[str], items: dict[str, list[str]]) -> pd.DataFrame:
    rows = [
        (method, "summary", item, metric, 0.123)
        for method in methods
        for item, metrics in items.items()
        for metric in metrics
    ]
    return pd.DataFrame(rows, columns=["method", "level", "item", "metric", "value"])


@pytest.mark.parametrize("kind", ["imputation", "placement"])
def test_tables_keep_the_names_of_methods_in_80_columns(kind: str) -> None:
    methods = ["auto", "stimpute:epochs=20", "knn:k=20"]
    if kind == "imputation":
        items = {
            "median over genes": ["pearson", "spearman", "cosine", "mse"],
            "median over cells": ["pearson", "cosine"],
            "clusters": ["ari", "nmi"],
            "modules": ["ari"],
            "most reliable half": ["pearson", "cosine"],
        }
        table = score_table(scores_of(methods, items), title="Held-out genes")
    else:
        hits = [f"hits@{n}" for n in (25, 120)] + [f"hits_embedding@{n}" for n in (25, 120)]
        items = {
            "all cells": ["location_error_mean", "location_error_median", *hits],
            "all types": ["celltype_pcc"],
        }
        table = placement_table(scores_of(methods, items), title="Cells")
    narrow = printed(table, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    n_tables = narrow.count("method")
    assert n_tables == 2
    for method in methods:
        assert len(re.findall(rf"^ *{re.escape(method)} ", narrow, re.MULTILINE)) == n_tables
    assert narrow.count("0.123") == len(methods) * sum(map(len, items.values()))
    assert printed(table, 160).count("method") == 1


def test_progress_is_printed_as_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console_module, "_LINE_EVERY", 0.0)
    with Screen(ShownOptions(), ExitStack()).progress() as report:
        report("train", 3, 2000)
    with Screen(ShownOptions(quiet=True), ExitStack()).progress() as report:
        report("train", 4, 2000)
    with Screen(ShownOptions(as_json=True), ExitStack()).progress() as report:
        report("train", 5, 2000)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "train: 3 of 2,000\n")
