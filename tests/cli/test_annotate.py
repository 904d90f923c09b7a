"""The command `cellweft annotate`: its table and record, several columns, and errors."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from cellweft.cli import app
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.impute.imputer import Imputer

QUICK = ["--set", "steps=3", "--set", "level_steps=3", "--quiet"]


@pytest.fixture
def both(tissue: SimulatedTissue, tmp_path: Path) -> list[str]:
    reference = tissue.sc.copy()
    reference.obs["half"] = np.where(np.arange(reference.n_obs) % 2, "odd", "even")
    reference.obs["third"] = reference.obs["half"] + (np.arange(reference.n_obs) % 4 // 2).astype(str)
    reference.obs["same"] = "alike"
    reference.write_h5ad(tmp_path / "atlas.h5ad")
    tissue.st.write_h5ad(tmp_path / "tissue.h5ad")
    return [str(tmp_path / "atlas.h5ad"), str(tmp_path / "tissue.h5ad")]


@pytest.mark.slow
def test_labels_are_written_with_their_calibration(both: list[str], tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    result = CliRunner().invoke(app, ["annotate", *both, "-o", str(output), "--labels", "half", *QUICK])
    assert result.exit_code == 0, result.output
    assert "Assigned 2 labels to 90 cells" in result.output
    table = pd.read_csv(output)
    assert list(table.columns) == [
        "cell", "label", "confidence", "unknown", "probability_even", "probability_odd",
    ]  # fmt: skip
    assert len(table) == 90
    record = json.loads(output.with_suffix(".json").read_text())
    told = record["labels"]["half"]
    assert told["calibration_error"] >= 0
    assert sum(told["reference_cells"].values()) == 99  # 99 of the 100 cells: one has no counts
    assert record["inputs"]["spatial"]["path"] == both[1]
    assert record["inputs"]["spatial"]["cells"] == 90
    page = tmp_path / "report.html"
    given = [str(output), "-o", str(page), "--check-inputs", *both, "--quiet"]
    result = CliRunner().invoke(app, ["report", *given])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert "Map of the tissue by the cells&#39; label of half" in text
    assert f"cellweft annotate {both[0]} {both[1]} -o labels.csv --columns half --set steps=3" in text
    output.with_suffix(".json").unlink()
    result = CliRunner().invoke(app, ["report", *given, "--overwrite"])
    assert result.exit_code == 2
    assert "no .json file next to the table" in " ".join((result.output + result.stderr).split())


@pytest.mark.slow
def test_several_columns_and_json(both: list[str], tmp_path: Path) -> None:
    output = tmp_path / "labels.parquet"
    arguments = ["annotate", *both, "-o", str(output), "--columns", "third,half", "--json", *QUICK]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["command"], found["cells"]) == ("annotate", 90)
    table = pd.read_parquet(output)
    assert (table["third_label"].astype(str).str[:-1] == table["half_label"].astype(str)).all()


def test_a_memory_budget_that_is_too_small_is_refused_before_training(
    both: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Imputer, "fit", lambda *_, **__: pytest.fail("it was trained"))
    asked = ["-o", str(tmp_path / "labels.csv"), "--labels", "half", "--memory", "400MB", *QUICK]
    result = CliRunner().invoke(app, ["annotate", *both, *asked])
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "--memory" in said
    assert "expected at least 469 MB" in said
    assert "got 400 MB" in said


def test_labels_of_a_single_type_are_refused_before_training(both: list[str], tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    result = CliRunner().invoke(app, ["annotate", *both, "-o", str(output), "--labels", "same"])
    assert result.exit_code == 2
    told = " ".join((result.output + result.stderr).split())
    assert "cells of at least 2 types" in told
    assert "--labels COLUMN" in told
    assert not output.exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("hal", "--columns hal: expected a column of obs of the reference"),
        (" , ", "--columns: expected one or more columns of obs, got none. Specify one: --columns COLUMN"),
        ("same", "Choose another column of obs: --columns COLUMN"),
    ],
)
def test_errors_name_the_option_for_the_columns(
    both: list[str], tmp_path: Path, columns: str, said: str
) -> None:
    given = ["annotate", *both, "-o", str(tmp_path / "labels.csv"), "--columns", columns]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert said in " ".join((result.output + result.stderr).split())
