"""The command `cellweft export`: its files, what it prints, and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import typer
import zarr
from typer.testing import CliRunner

from cellweft._provenance import SCHEMA_VERSION
from cellweft.cli.export import export
from cellweft.cli.options import expanded
from cellweft.data.export.cellxgene import write_cellxgene
from cellweft.data.export.vitessce import vitessce_config
from cellweft.data.io.write import write_anndata


def make_result() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    names = [f"cell{number}" for number in range(6)]
    return anndata.AnnData(
        rng.random((6, 3)).astype(np.float32) + 1,
        obs=pd.DataFrame({"cell_type": pd.Categorical(["B", "T", "B"] * 2)}, index=names),
        var=pd.DataFrame({"measured": [True, False, True]}, index=["Gad1", "Sst", "Vip"]),
        obsm={"spatial": rng.random((6, 2))},
        uns={"cellweft": {"schema_version": SCHEMA_VERSION, "seed": 0}},
    )


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs `cellweft export` on a result in an empty folder."""
    monkeypatch.chdir(tmp_path)
    write_anndata(make_result(), tmp_path / "imputed.zarr")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("export")(expanded(export))

    def run(*arguments: Any, result: str = "imputed.zarr") -> Any:
        return CliRunner().invoke(app, [str(one) for one in (result, *arguments)])

    return run


def assert_refused(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert word in result.stderr


def test_cellxgene(call: Any, tmp_path: Path) -> None:
    result = call("--to", "cellxgene", "-o", "shown.h5ad", "--title", "Brain")
    assert result.exit_code == 0, result.output
    first, *lacking, last = result.stdout.splitlines()
    assert first == "Only for a submission to CELLxGENE Discover:"
    assert any("raw.X is missing" in line for line in lacking)
    assert last.startswith(f"Exported imputed.zarr to cellxgene -> {tmp_path / 'shown.h5ad'} (")
    made = anndata.read_h5ad(tmp_path / "shown.h5ad")
    assert made.uns["title"] == "Brain"
    by_python = anndata.read_h5ad(write_cellxgene("imputed.zarr", tmp_path / "again.h5ad", title="Brain"))
    np.testing.assert_array_equal(made.X, by_python.X)


def test_vitessce(call: Any, tmp_path: Path) -> None:
    result = call(
        "--to", "vitessce", "-o", "view.json", "--gene", "Sst", "--url", "https://example.org/x.zarr"
    )
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "view.json").read_text())
    url = "https://example.org/x.zarr"
    assert made == vitessce_config("view-v2.zarr", gene="Sst", url=url, title="imputed")


def test_explorer(call: Any, tmp_path: Path) -> None:
    result = call("--to", "explorer", "-o", "groups.csv", "--column", "cell_type", "--quiet")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1
    assert (tmp_path / "groups.csv").read_text().splitlines()[:2] == ["cell_id,group", "cell0,B"]


@pytest.mark.slow
def test_spatialdata(call: Any, tmp_path: Path) -> None:
    root = zarr.open_group("sample.zarr", mode="w", zarr_format=2)
    root.create_group("tables")
    measured = make_result()
    measured.uns = {}
    write_anndata(measured, tmp_path / "cells.zarr", zarr_format=2)
    (tmp_path / "cells.zarr").rename(tmp_path / "sample.zarr" / "tables" / "cells")
    result = call("--to", "spatialdata", "--into", "sample.zarr", "-o", "copy.zarr", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["command"], told["to"]) == ("export", "spatialdata")
    assert told["output"] == str(tmp_path / "copy.zarr")
    made = anndata.read_zarr(tmp_path / "copy.zarr" / "tables" / "imputed")
    np.testing.assert_array_equal(made.X, make_result().X)
    result = call("--to", "spatialdata", "--into", "sample.zarr", "--table", "mine", "--annotates", "cells")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sample.zarr" / "tables" / "mine").is_dir()
    assert_refused(call("--to", "spatialdata", "--into", "sample.zarr", "--table", "mine"), "an unused name")


def test_wrong_options_are_refused(call: Any, tmp_path: Path) -> None:
    assert_refused(call("--to", "cellxgene"), "--output", "Add -o OUT.")
    assert_refused(call("--to", "explorer", "-o", "g.csv"), "--column", "Add --column cell_type.")
    assert_refused(call("--to", "spatialdata"), "--into", "Add --into STORE.")
    assert_refused(
        call("--to", "cellxgene", "-o", "a.h5ad", "--column", "cell_type"),
        "--column: expected --to vitessce or explorer, got --to cellxgene. Omit --column.",
    )
    assert_refused(
        call("--to", "explorer", "-o", "g.csv", "--column", "cell_typ"),
        "--column cell_typ: expected a column of obs",
        "Did you mean 'cell_type'",
    )
    assert_refused(call("--to", "cellxgene", "-o", "a.h5ad", result="none.zarr"), "'imputed.zarr'")
    assert_refused(call("--to", "cellxgene", "-o", "a.zarr"), "a name ending in .h5ad")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["imputed.zarr"]
    assert call("--to", "loom", "-o", "a.loom").exit_code == 2
