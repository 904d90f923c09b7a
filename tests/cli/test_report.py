"""The command `cellweft report`: its page, what it prints, and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import cellweft
from cellweft.cli.options import expanded
from cellweft.cli.report import report
from cellweft.data.synthetic.tissue import SimulatedTissue

APP = typer.Typer(pretty_exceptions_enable=False)
APP.command("report")(expanded(report))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs `cellweft report` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(APP, [str(one) for one in arguments])


@pytest.fixture
def files(tissue: SimulatedTissue, tmp_path: Path) -> Path:
    """Inputs, one imputed gene, and scores."""
    tissue.sc.write_h5ad(tmp_path / "atlas.h5ad")
    tissue.st.write_h5ad(tmp_path / "tissue.h5ad")
    made = ad.AnnData(
        np.ones((90, 1), dtype=np.float32), var=pd.DataFrame({"measured": [True]}, index=["Gene01"])
    )
    made.obsm["spatial"] = tissue.st.obsm["spatial"]
    made.write_h5ad(tmp_path / "imputed.h5ad")
    rows = [("auto", 0.6125), ("mean", 0.0)]
    scores = pd.DataFrame(rows, columns=["method", "value"]).assign(
        seed=0, fold=-1, level="summary", item="median over genes", metric="pearson"
    )
    cellweft.io.write_scores(scores, tmp_path / "scores.csv")
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("files")
def test_it_writes_a_page_and_describes_it_as_json(call: Any, tmp_path: Path) -> None:
    inputs = ("--check-inputs", "atlas.h5ad", "tissue.h5ad", "--labels", "cell_type")
    done = call(
        "imputed.h5ad", "--scores", "scores.csv", *inputs, "-o", "r.html", "--title", "Mine", "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["command"] == "report"
    assert found["results"] == ["imputed.h5ad", "scores.csv"]
    assert found["bytes"] == (tmp_path / "r.html").stat().st_size
    assert any("genes are shared" in one for one in found["cautions"])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in text
    assert "0.613" in text or "0.612" in text
    assert "only 12 genes are shared" in text.lower()


@pytest.mark.usefixtures("files")
def test_scores_alone_are_enough(call: Any) -> None:
    done = call("scores.csv", "-o", "r.html", "--quiet")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Report -> r.html")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "r.html"), "at least one result"),
        (("scores.csv", "-o", "r.pdf"), "a name ending in .html"),
        (("nothing.zarr", "-o", "r.html"), "results (nothing.zarr)"),
        (("atlas.h5ad", "-o", "r.html"), "--check-inputs"),
        (("scores.csv", "-o", "r.html", "--truth", "tissue.h5ad"), "Add --check-inputs"),
        (("imputed.h5ad", "-o", "r.html", "--genes", "all"), "a few genes"),
        (("imputed.h5ad", "-o", "r.html", "--genes", "Gene02"), "genes that were imputed"),
        (("scores.csv", "-o", "scores.csv"), "a name ending in .html"),
    ],
)
def test_errors_give_a_next_step(call: Any, tmp_path: Path, arguments: Any, said: str) -> None:
    before = sorted(tmp_path.iterdir())
    done = call(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("files")
def test_a_report_is_only_replaced_on_request(call: Any, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("mine")
    assert call("scores.csv", "-o", "r.html").exit_code == 2
    assert (tmp_path / "r.html").read_text() == "mine"
    assert call("scores.csv", "-o", "r.html", "--overwrite").exit_code == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
