"""The command `cellweft evaluate --by place`: its tables, what it prints, and errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
import pytest
from typer.testing import CliRunner

import cellweft
from cellweft.cli import app
from cellweft.data.synthetic.pseudospots import pseudo_spots
from cellweft.data.synthetic.tissue import simulate_tissue

PLACE = ["--by", "place"]
TRUTH = ["--truth", "obsm:spatial_true", "--truth-composition", "obsm:composition"]
METHODS = ["--methods", "cosine,centre,nnls"]
METRICS = ["location_error_mean", "location_error_median", "hits@5", "hits@20"]


@pytest.fixture(scope="module")
def both(tmp_path_factory: Any) -> tuple[Path, Path]:
    """Paths of cells, and of spots that are sums of these cells."""
    folder: Path = tmp_path_factory.mktemp("inputs")
    cells = simulate_tissue(n_spatial=300, n_genes=200, n_panel=120, seed=1).st
    made = pseudo_spots(cells, spacing=32, radius=20)
    made.cells.write_h5ad(folder / "cells.h5ad")
    made.spots.write_h5ad(folder / "spots.h5ad")
    return folder / "cells.h5ad", folder / "spots.h5ad"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs `cellweft evaluate` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> Any:
        return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])

    return run


def assert_refused(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def test_scores_are_written_and_shown(call: Any, both: Any, tmp_path: Path) -> None:
    result = call(*both, "-o", "scores.csv", *PLACE, *TRUTH, *METHODS, "--hits", "5,20", "--seeds", "0,1")
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(tmp_path / "scores.csv")
    expected = cellweft.evaluate_placement(
        cellweft.pair(*both),
        ["cosine", "centre", "nnls"],
        truth="obsm:spatial_true",
        truth_composition="obsm:composition",
        hits=[5, 20],
        seeds=[0, 1],
    )
    pd.testing.assert_frame_equal(scores, expected, check_dtype=False)
    assert re.search(r"Plan: 6 fits; peak memory about .* \(cosine, centre, nnls\)", result.stdout)
    lines = result.stdout.splitlines()
    assert any(
        line.split() == ["method", "_mean", "_median", "@5", "@20", "celltype_pcc", "@14"] for line in lines
    )
    shown = scores[(scores["level"] == "summary") & (scores["item"] == "all cells")]
    means = shown.groupby(["method", "metric"])["value"].mean()
    row = next(line.split() for line in lines if line.strip().startswith("cosine"))
    assert row[1:5] == [f"{means['cosine', metric]:.3f}" for metric in METRICS]
    row = next(line.split() for line in lines if line.strip().startswith("nnls"))
    assert row[1:5] == ["-"] * 4
    assert float(row[5]) > 0.5
    parameters = json.loads((tmp_path / "scores.json").read_text())["parameters"]
    assert (parameters["truth"], parameters["hits"]) == ("obsm:spatial_true", [5, 20])


def test_as_json_with_only_true_positions(call: Any, both: Any) -> None:
    result = call(*both, "-o", "scores.csv", *PLACE, *TRUTH[:2], *METHODS, "--hits", "5", "--json")
    found = json.loads(result.stdout)["scores"]
    assert set(found) == {"cosine", "centre"}
    assert set(found["cosine"]) == {"cells", "caught cells", "uncaught cells"}
    assert found["cosine"]["cells"]["location_error_mean"] < found["centre"]["cells"]["location_error_mean"]
    result = call(*both, "-o", "scores.csv", *PLACE, *TRUTH[2:], "--methods", "nnls", "--overwrite", "--json")
    found = json.loads(result.stdout)["scores"]["nnls"]
    assert set(found["types"]) == {"celltype_pcc", "celltype_pcc@14"}
    assert {"major types", "moderate types"} < set(found)


def test_default_methods_of_evaluation_by_place(
    call: Any, both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def resolve(names: list[str], *, device: str) -> list[Any]:
        asked.extend(names)
        raise cellweft.errors.SettingError("methods", expected="nothing", got="a spy", fix="None.")

    monkeypatch.setattr("cellweft.evaluate.placement_baselines.resolve_placers", resolve)
    assert_refused(call(*both, "-o", "scores.csv", *PLACE, *TRUTH), "a spy")
    assert asked == ["auto", "cosine", "knn-regression", "random", "centre", "nnls"]


def test_types_with_a_slash_in_their_names(call: Any, both: Any, tmp_path: Path) -> None:
    cells, spots = (ad.read_h5ad(path) for path in both)
    shares = spots.obsm["composition"]
    spots.obsm["shares"], spots.uns["shares_names"] = shares.to_numpy(), [f"{one}/a" for one in shares]
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str) + "/a"
    cells.write_h5ad("cells.h5ad"), spots.write_h5ad("spots.h5ad")
    truth = ["--truth-composition", "obsm:shares", "--methods", "cosine"]
    result = call("cells.h5ad", "spots.h5ad", "-o", "scores.csv", *PLACE, *truth)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv("scores.csv")
    assert set(scores[scores["level"] == "type"]["item"]) == {f"{one}/a" for one in shares}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*PLACE, *METHODS], ("true positions of the cells, or the composition of the spots",)),
        ([*PLACE, *METHODS, "--truth", "obsm:spatial_tru", "--hits", "5"], ("Did you mean 'spatial_true'",)),
        (
            [*PLACE, *METHODS, "--truth", "spatial_true", "--hits", "5"],
            ("'obs:X,Y', 'obs:X,Y,Z' or 'obsm:KEY'",),
        ),
        ([*PLACE, *METHODS, "--truth-composition", "obsm:comp"], ("obsm:comp", "'composition'")),
        ([*PLACE, *METHODS, *TRUTH, "--hits", "5,5"], ("--hits 25,120", "different whole numbers")),
        ([*PLACE, *METHODS, *TRUTH, "--hits", "few"], ("--hits 25,120", "'few'")),
        ([*PLACE, *METHODS, *TRUTH, "--hits", "0"], ("--hits 25,120",)),
        ([*PLACE, *METHODS, *TRUTH, "--hits", "300"], ("a whole number from 1 to 299",)),
        ([*PLACE, *TRUTH, "--methods", "knn"], ("'knn'", "'knn-regression'")),
        ([*PLACE, *TRUTH, "--methods", "cosine:k=3"], ("cosine:k",)),
        (
            ["--methods", "mean", *TRUTH],
            ("--truth: expected --by place, to which it applies, got --by genes", "Leave out --truth"),
        ),
        (["--truth-composition", "obsm:a"], ("--truth-composition: expected --by place", "--by genes")),
        (["--by", "cells", "--hits", "5"], ("--hits: expected --by place", "got --by cells")),
        (
            ["--by", "fraction", "--folds", "2"],
            ("--folds: expected --by genes or cells", "got --by fraction"),
        ),
        (["--keep", "0.5"], ("--keep: expected --by cells or fraction", "got --by genes")),
        ([*PLACE, *TRUTH, "--keep", "0.5"], ("--keep: expected --by cells or fraction", "got --by place")),
        # the default value, but passed explicitly
        ([*PLACE, *TRUTH, "--folds", "5"], ("--folds: expected", "got --by place")),
        ([*PLACE, *TRUTH, "--reliability"], ("--reliability: expected --by genes or cells or fraction",)),
        ([*PLACE, *TRUTH, "--no-clusters"], ("--no-clusters: expected --by genes",)),
        ([*PLACE, *TRUTH, "--embedding", "e.csv"], ("--embedding: expected --by genes",)),
        ([*PLACE, *TRUTH, "--gene-sets", "e.gmt"], ("--gene-sets: expected --by genes",)),
        ([*PLACE, *TRUTH, "--edges", "e.tsv"], ("--edges: expected --by genes",)),
    ],
)
def test_bad_evaluations(
    call: Any, both: Any, tmp_path: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    assert_refused(call(*both, "-o", "scores.csv", *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_embryo(call: Any, shared_data: Path) -> None:
    """The published pseudo-spots. Measured values: 12.18, 60.3 and 0.915."""
    both = (shared_data / "embryo_benchmark_sc.h5ad", shared_data / "embryo_benchmark_st.h5ad")
    truth = ["--truth", "obs:x_global,y_global", "--truth-composition", "obsm:celltype_prop", "--hits", "120"]
    result = call(*both, "-o", "scores.csv", *PLACE, *truth, "--methods", "cosine", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["scores"]["cosine"]
    assert found["cells"]["location_error_mean"] == pytest.approx(12.18, abs=0.1)
    assert found["cells"]["hits@120"] == pytest.approx(60.3, abs=0.5)
    assert found["types"]["celltype_pcc@14"] == pytest.approx(0.915, abs=0.005)


@pytest.mark.parametrize("shape", ["boxes", "discs"])
def test_pseudo_spots_are_made_before_the_evaluation(
    call: Any, both: Any, tmp_path: Path, shape: str
) -> None:
    cells = both[0]
    made = ["--pseudo-spots", shape, "--grid", "6,6", "--coordinates", "obsm:spatial_true"]
    result = call(cells, cells, "-o", "scores.csv", *PLACE, *made, "--methods", "cosine", "--hits", "5")
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert {"location_error_mean_caught", "location_error_median_uncaught", "celltype_pcc"} <= set(
        scores["metric"]
    )
    parameters = json.loads((tmp_path / "scores.json").read_text())["parameters"]
    assert parameters["pseudo_spots"]["shape"] == shape
    assert parameters["truth"] == "obsm:spatial_true"


def test_the_rule_for_cells_in_spots_is_recorded(call: Any, both: Any, tmp_path: Path) -> None:
    asked = [*TRUTH, "--caught", "boxes:0.3", "--methods", "cosine", "--hits", "5"]
    result = call(*both, "-o", "scores.csv", *PLACE, *asked)
    assert result.exit_code == 0, result.output
    parameters = json.loads((tmp_path / "scores.json").read_text())["parameters"]
    assert parameters["caught"] == "boxes:0.3"


def test_wrong_options_for_pseudo_spots_are_refused(call: Any, both: Any) -> None:
    cells, spots = both
    grid = ["--pseudo-spots", "boxes", "--grid", "6,6"]
    assert_refused(call(cells, spots, "-o", "s.csv", *PLACE, *grid), "--pseudo-spots", "Pass the same file")
    wrong = call(cells, cells, "-o", "s.csv", *PLACE, *grid, "--truth", "obsm:spatial_true")
    assert_refused(wrong, "--truth: expected none with pseudo-spots")
    assert_refused(call(*both, "-o", "s.csv", *PLACE, *TRUTH, "--grid", "6,6"), "--grid", "no --pseudo-spots")
    three = ["--pseudo-spots", "boxes", "--grid", "6,6,6"]
    assert_refused(call(cells, cells, "-o", "s.csv", *PLACE, *three), "--grid: expected two whole numbers")
    layer = call(cells, cells, "-o", "s.csv", *PLACE, *grid, "--sc-layer", "counts")
    assert_refused(layer, "--labels and --coordinates, got sc_layer")
    assert_refused(call(*both, "-o", "s.csv", *grid), "--by place, to which it applies")
