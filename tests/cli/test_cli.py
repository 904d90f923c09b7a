"""The command line: its outputs, what it prints, its errors, and which files remain after an error."""

import ast
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from typer.main import get_command
from typer.testing import CliRunner

import cellweft
from cellweft._compute import is_out_of_memory
from cellweft._errors import arg
from cellweft.cli import app, demo
from cellweft.cli.options import PairOptions, as_option
from cellweft.cli.parsing import read_genes
from cellweft.data.synthetic.tissue import SimulatedTissue

QUICK = ["--set", "steps=3", "--set", "level_steps=3"]
STIMPUTE = [
    "--preset",
    "stimpute",
    "--set",
    "k=8",
    "--set",
    "hidden=8",
    "--set",
    "epochs=1",
    "--set",
    "ae_epochs=2",
]


@pytest.fixture(scope="module")
def inputs(tissue: SimulatedTissue, tmp_path_factory: Any) -> Path:
    """Folder with the two inputs; the tests must not change it."""
    folder: Path = tmp_path_factory.mktemp("inputs")
    tissue.sc.write_h5ad(folder / "atlas.h5ad")
    tissue.st.write_h5ad(folder / "tissue.h5ad")
    return folder


@pytest.fixture
def call(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Function that runs cellweft in an empty folder; afterwards it checks that the inputs are unchanged."""
    before = fingerprints(inputs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [str(one) for one in arguments])

    yield run
    assert fingerprints(inputs) == before
    assert not [one for one in tmp_path.rglob("*") if "partial" in one.suffix]


@pytest.fixture
def both(inputs: Path) -> tuple[Path, Path]:
    """Paths of the two inputs."""
    return inputs / "atlas.h5ad", inputs / "tissue.h5ad"


def fingerprints(folder: Path) -> dict[str, str]:
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(folder.iterdir())}


def one_object(result: Any) -> dict[str, Any]:
    """Return the printed text, which must be a single JSON object."""
    assert result.exit_code in (0, 2), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def assert_refused(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


# Outputs


def test_check_prints_its_findings(call: Any, both: Any) -> None:
    result = call("check", *both)
    assert result.exit_code == 0
    assert cellweft.pair(*both).summary().splitlines()[2] in result.stdout
    assert last_line(result.stdout).startswith("The inputs can be used: 100 reference cells x 28 genes")
    quiet = call("check", *both, "--quiet")
    assert quiet.stdout.count("\n") == 1
    assert quiet.stdout.partition(" (")[0] == last_line(result.stdout).partition(" (")[0]
    assert result.stderr == quiet.stderr == ""


def test_check_as_json(call: Any, both: Any) -> None:
    found = one_object(call("check", *both, "--json"))
    assert found["findings"]["shared_genes"] == 12
    assert len(found["cautions"]) == len(cellweft.pair(*both).cautions)


@pytest.mark.slow
def test_impute_writes_the_result_of_the_imputer(call: Any, both: Any, tmp_path: Path) -> None:
    result = call("impute", *both, "-o", "out.zarr", "--save-model", "model", "--seed", 3, *QUICK)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Inputs: 100 reference cells")
    assert any(
        line.startswith("Plan: 28 genes in 90 cells") and "peak memory about" in line for line in lines
    )
    assert last_line(result.stdout).startswith(
        "Imputed 28 genes (12 of the panel) in 90 cells, median reliability"
    )
    # Lines of text instead of bars, because there is no terminal.
    assert re.fullmatch(r"([\w :]+: [\d,]+ of [\d,]+\n)*", result.stderr)
    written = anndata.read_zarr(tmp_path / "out.zarr")
    settings = {"steps": 3, "level_steps": 3}
    made = cellweft.Imputer(settings=settings, seed=3, device="auto").fit(cellweft.pair(*both)).impute()
    np.testing.assert_array_equal(written.X, made.X)
    pd.testing.assert_frame_equal(written.var, made.var, check_names=False)
    assert cellweft.load(tmp_path / "model").settings["steps"] == 3


def test_impute_as_json_some_genes_to_h5ad(call: Any, both: Any, tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("# asked for\nGene03\n\ngene11\n")
    arguments = ("--genes", "genes.txt", "--no-reliability", "--json", *STIMPUTE)
    found = one_object(call("impute", *both, "-o", "out.h5ad", *arguments))
    assert (found["genes"], found["cells"], found["median_reliability"]) == (2, 90, None)
    assert found["plan"]["peak_bytes"] > 0
    written = anndata.read_h5ad(found["output"])
    assert written.var_names.tolist() == ["Gene03", "Gene11"]
    assert "spatial" in written.obsm


@pytest.mark.slow
def test_impute_writes_intervals(call: Any, both: Any, tmp_path: Path) -> None:
    result = call("impute", *both, "-o", "out.h5ad", "--genes", "Gene01,Gene02", "--interval", "0.8", *QUICK)
    assert result.exit_code == 0, result.output
    assert "Network" not in result.stdout
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (written.layers["lower"] <= written.X).all()
    assert (written.layers["upper"] >= written.X).all()
    assert written.uns["cellweft"]["interval"] == 0.8
    assert {"reliability_lower", "reliability_upper", "reliable"} <= set(written.var)


@pytest.mark.slow
def test_impute_writes_counts_and_blended_genes(call: Any, both: Any, tmp_path: Path) -> None:
    arguments = ("-o", "out.zarr", "--scale", "counts", "--measured", "blend", *QUICK)
    result = call("impute", *both, *arguments)
    assert result.exit_code == 0, result.output
    assert "on the scale of counts" in " ".join(result.stdout.split())
    written = anndata.read_zarr(tmp_path / "out.zarr")
    assert written.uns["cellweft"]["scale"].startswith("counts")
    assert written.uns["cellweft"]["measured"] == "blend"
    assert written.var["measurement_weight"].notna().tolist() == written.var["measured"].tolist()
    settings = {"steps": 3, "level_steps": 3}
    made = cellweft.Imputer(settings=settings).fit(cellweft.pair(*both))
    np.testing.assert_array_equal(written.X, made.impute(scale="counts", measured="blend").X)


@pytest.mark.slow
def test_impute_writes_spillover(call: Any, both: Any, tmp_path: Path) -> None:
    asked = ("--genes", "Gene01", "--spillover", "--no-reliability", *QUICK)
    result = call("impute", *both, "-o", "out.zarr", *asked)
    assert result.exit_code == 0, result.output
    assert "Spill-over: neighbours explain " in result.stdout
    told = cellweft.tl.spillover(cellweft.pair(*both), progress=False)
    written = anndata.read_zarr(tmp_path / "out.zarr").obs["cellweft_spillover"]
    np.testing.assert_array_equal(written, told)
    as_json = json.loads(call("impute", *both, "-o", "again.zarr", *asked, "--json").stdout)
    assert as_json["spillover"]["mean"] == pytest.approx(told.attrs["cellweft"]["mean"])
    assert (told.attrs["cellweft"]["caution"] in as_json["cautions"]) == (as_json["spillover"]["mean"] >= 0.2)
    nowhere = call("impute", *both, "-o", "no.zarr", *asked, "--coordinates", "none")
    assert_refused(nowhere, "--coordinates: expected positions of the spatial cells")


def test_impute_without_spillover_equals_the_python_way(call: Any, both: Any, tmp_path: Path) -> None:
    asked = ("--genes", "Gene01", "--remove-spillover", "--no-reliability", *QUICK)
    shown = call("impute", *both, "-o", tmp_path / "out.zarr", *asked, "--json")
    as_json = one_object(shown)
    own = cellweft.tl.remove_spillover(cellweft.pair(*both), progress=False)
    assert as_json["spillover_removed"] == pytest.approx(own.findings["spillover_removed"])
    assert own.cautions[-1] in as_json["cautions"]
    settings = dict(setting.split("=") for setting in QUICK if "=" in setting)
    imputer = cellweft.Imputer(
        settings={key: int(value) for key, value in settings.items()}, reliability=False
    )
    expected = imputer.fit(own, progress=False).impute(["Gene01"], progress=False)
    written = anndata.read_zarr(tmp_path / "out.zarr")
    np.testing.assert_allclose(np.asarray(written.X), np.asarray(expected.X), atol=1e-5)


def test_results_as_counts_need_a_tissue_with_counts(
    call: Any, both: Any, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    logs = tissue.st.copy()
    counts = logs.X.toarray()
    logs.X = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 50)
    logs.write_h5ad("logs.h5ad")
    said = ("--scale: expected spatial counts", "--st-layer NAME")
    assert_refused(call("impute", both[0], "logs.h5ad", "-o", "out.zarr", "--scale", "counts", *QUICK), *said)
    evaluated = ("--methods", "mean", "--scale", "counts")
    assert_refused(call("evaluate", both[0], "logs.h5ad", "-o", "scores.csv", *evaluated), *said)
    blended = call("impute", both[0], "logs.h5ad", "-o", "out.zarr", "--measured", "blend", *QUICK)
    assert_refused(
        blended, "--measured: expected spatial counts, whose noise is known, with --measured blend"
    )
    assert [one.name for one in tmp_path.iterdir()] == ["logs.h5ad"]


def test_evaluate_scores_counts(call: Any, both: Any, tmp_path: Path) -> None:
    arguments = ("--methods", "mean,knn", "--folds", 2, "--no-clusters", "--scale", "counts")
    result = call("evaluate", *both, "-o", "scores.csv", *arguments)
    assert result.exit_code == 0, result.output
    assert "gene counts" in " ".join(result.stdout.split())
    table = pd.read_csv(tmp_path / "scores.csv")
    rows = table[(table["item"] == "median over genes") & (table["metric"] == "pearson_counts")]
    scores = dict(zip(rows["method"], rows["value"], strict=True))
    assert scores["mean"] != 0  # from cell sizes alone; on log values its correlation is 0
    assert scores["knn"] > scores["mean"]
    assert json.loads((tmp_path / "scores.json").read_text())["parameters"]["scale"] == "counts"
    by_place = call(
        "evaluate", *both, "-o", "o.csv", "--by", "place", "--scale", "counts", "--truth", "obs:x,y"
    )
    assert_refused(by_place, "--scale: expected --by genes or cells or fraction")


@pytest.mark.slow
def test_impute_writes_a_sparse_matrix(call: Any, both: Any, tmp_path: Path) -> None:
    arguments = ("--no-reliability", "--sparse", "0.05", *QUICK)
    result = call("impute", *both, "-o", "out.zarr", *arguments)
    assert result.exit_code == 0, result.output
    assert "of the values reach the threshold" in " ".join(result.stdout.split())
    assert anndata.read_zarr(tmp_path / "out.zarr").X.data.min() >= 0.05
    assert call("check", "out.zarr", both[1], "--sc-scale", "log").exit_code == 0
    found = one_object(call("impute", *both, "-o", "out.h5ad", "--json", *arguments))
    assert 0 < found["plan"]["kept"] <= 1
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix in (".zarr", ".resume")) == [
        "out.zarr"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_a_run_interrupted_before_its_first_tile(
    call: Any, both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cellweft.impute.imputer.ResultWriter", fail)
    more = ["--resume"] if resume else []
    result = call("impute", *both, "-o", "out.zarr", "--no-reliability", *QUICK, *more)
    assert result.exit_code == 130
    kept = f"Finished work is kept in {tmp_path}/out.zarr.resume. Resume the run to continue it."
    told = kept if resume else "Nothing incomplete was left behind."
    assert result.stderr == f"Interrupted. {told}\n"
    assert (tmp_path / "out.zarr.resume").exists() == resume


@pytest.mark.slow
def test_impute_accepts_an_embedding(call: Any, both: Any, embeddings: Any, tmp_path: Path) -> None:
    pd.DataFrame(embeddings.values, index=embeddings.genes).rename(columns=str).to_parquet("esm.parquet")
    arguments = (
        "--embedding",
        "esm.parquet",
        "--genes",
        "Gene01,Gene02",
        "--no-reliability",
        "--quiet",
        *STIMPUTE,
    )
    result = call("impute", *both, "-o", "out.zarr", *arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Imputed 2 genes")
    assert result.stdout.count("\n") == 1


def test_an_embedding_for_a_method_without_a_graph_is_refused(
    call: Any, both: Any, embeddings: Any, tmp_path: Path
) -> None:
    pd.DataFrame(embeddings.values, index=embeddings.genes).rename(columns=str).to_parquet("esm.parquet")
    result = call("impute", *both, "-o", "out.zarr", "--embedding", "esm.parquet", *QUICK)
    assert_refused(result, "embedding: expected a preset with a gene graph", "--preset stimpute")
    scored = call("evaluate", *both, "-o", "s.csv", "--embedding", "esm.parquet", "--methods", "auto,mean")
    assert_refused(scored, "embedding: expected a method with a gene graph", "Add 'stimpute'")
    assert [one.name for one in tmp_path.iterdir()] == ["esm.parquet"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_evaluate_writes_and_prints_scores(call: Any, both: Any, tmp_path: Path, suffix: str) -> None:
    arguments = ("--methods", "mean,knn:k=5", "--folds", 3, "--seeds", "0,1")
    result = call("evaluate", *both, "-o", f"scores.{suffix}", *arguments)
    assert result.exit_code == 0, result.output
    read = pd.read_csv if suffix == "csv" else pd.read_parquet
    scores = read(tmp_path / f"scores.{suffix}")
    median = scores[(scores["item"] == "median over genes") & (scores["metric"] == "pearson")]
    shown = median.groupby("method")["value"].mean()
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("knn:k=5"))
    assert f"{shown['knn:k=5']:.3f}" in row
    assert re.search(r"Plan: 12 fits; peak memory about .* \(mean, knn:k=5\)", result.stdout)
    assert last_line(result.stdout).startswith(f"Scores -> scores.{suffix}")
    assert json.loads((tmp_path / "scores.json").read_text())["seeds"] == [0, 1]


@pytest.mark.parametrize("by", ["cells", "fraction"])
def test_evaluate_as_json(call: Any, both: Any, by: str) -> None:
    method = "stimpute:" + "+".join(STIMPUTE[3::2])
    arguments = ("--by", by, "--keep", 0.7, "--methods", f"{method},mean", "--no-clusters")
    arguments += ("--folds", 2) if by == "cells" else ()
    found = one_object(call("evaluate", *both, "-o", "scores.csv", *arguments, "--json"))
    assert set(found["scores"]) == {method, "mean"}
    assert set(found["scores"]["mean"]) == {"genes", "cells"}
    assert found["scores"]["mean"]["genes"]["pearson"] == 0


@pytest.mark.parametrize("protocol", ["cut", "published"])
def test_evaluate_says_how_genes_were_held_out(call: Any, both: Any, tmp_path: Path, protocol: str) -> None:
    arguments = ("--methods", "mean", "--folds", 2, "--no-clusters")
    arguments += ("--protocol", protocol) if protocol != "cut" else ()  # "cut" is the default
    result = call("evaluate", *both, "-o", "scores.csv", *arguments)
    assert result.exit_code == 0, result.output
    assert f"Protocol {protocol}: " in " ".join(result.stdout.split())
    assert json.loads((tmp_path / "scores.json").read_text())["parameters"]["protocol"] == protocol
    arguments += ("--json", "--overwrite")
    assert one_object(call("evaluate", *both, "-o", "scores.csv", *arguments))["protocol"] == protocol


def test_evaluate_by_place_refuses_a_protocol(call: Any, both: Any) -> None:
    arguments = ("--by", "place", "--protocol", "published", "--truth", "obs:x,y")
    words = ("--protocol: expected --by genes or cells or fraction", "Leave out --protocol")
    assert_refused(call("evaluate", *both, "-o", "scores.csv", *arguments), *words)


@pytest.mark.slow
def test_evaluate_shows_the_more_reliable_half_of_the_genes(call: Any, both: Any) -> None:
    method = "auto:" + "+".join(QUICK[1::2])
    arguments = ("--by", "fraction", "--methods", method, "--reliability", "--no-clusters", "--json")
    found = one_object(call("evaluate", *both, "-o", "scores.csv", *arguments))
    assert "reliable half" in found["scores"][method]


@pytest.mark.slow
def test_demo_runs_twice_and_replaces_only_its_own_files(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SETTINGS", {"steps": 3, "level_steps": 3, "fold_steps": 3})
    monkeypatch.setattr(demo, "PLACER_SETTINGS", {"models": 1, "steps": 3})
    first = call("demo", "--cells", 80)
    assert first.exit_code == 0, first.output
    assert first.stdout.count("attention") == 2
    folder = tmp_path / "cellweft-demo"
    assert {*demo.FILES.values()} < {one.name for one in folder.iterdir()}
    pictures = [folder / name for name in demo.PICTURES.values()]
    assert all(one.read_bytes().startswith(b"\x89PNG") for one in pictures)
    told = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2" in told
    assert "True positions of the cells, and where they were placed" in told
    truth = pd.read_csv(folder / "truth_scores.csv")
    assert truth[truth["level"] == "gene"]["item"].nunique() == 190
    (folder / "notes.txt").write_text("mine")
    found = one_object(call("demo", "--cells", 80, "--seed", 1, "--json"))
    assert found["against_truth"]["mean"]["genes"]["pearson"] == 0
    assert (folder / "notes.txt").read_text() == "mine"


def test_demo_does_not_touch_other_files(call: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "atlas.h5ad").write_text("precious")
    assert_refused(call("demo", "--out", "mine"), "a folder with a atlas.h5ad", "--out", "--overwrite")
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["atlas.h5ad"]


# Errors


def write(data: anndata.AnnData, **changes: Any) -> Path:
    """Write a copy of an input, with some slots changed, to the working folder."""
    data = data.copy()
    for slot, value in changes.items():
        setattr(data, slot, value)
    data.write_h5ad("bad.h5ad")
    return Path("bad.h5ad").absolute()


def dense(data: anndata.AnnData) -> Any:
    return data.X.toarray()


def with_nan(data: anndata.AnnData) -> Any:
    values = dense(data)
    values[2, 3] = np.nan
    return values


def z_scored(data: anndata.AnnData) -> Any:
    values = dense(data)
    return ((values - values.mean(axis=0)) / (values.std(axis=0) + 1)).astype(np.float32)


def twice(names: pd.Index) -> pd.Index:
    return pd.Index([*names[:-1], names[0]])


def text_file(name: str) -> Path:
    Path(name).write_text("this is no data")
    return Path(name).absolute()


BAD_SPATIAL: dict[str, tuple[Callable[[anndata.AnnData], Path], tuple[str, ...]]] = {
    "missing file": (lambda st: Path("nowhere.h5ad").absolute(), ("nothing at this path",)),
    "wrong format": (lambda st: text_file("bad.h5ad"), ("bad.h5ad", "expected")),
    "unknown format": (lambda st: text_file("bad.rds"), ("anndataR",)),
    "pickle": (lambda st: text_file("bad.pkl"), ("a pickle", "write_h5ad")),
    "no shared genes": (
        lambda st: write(st, var_names=[f"Other{n}" for n in range(st.n_vars)]),
        ("no shared gene", "'Other0'", "'Gene01'", "same species"),
    ),
    "one shared gene": (
        lambda st: write(st, var_names=[st.var_names[0], *(f"Other{n}" for n in range(st.n_vars - 1))]),
        ("1 shared gene", "at least 2"),
    ),
    "no coordinates": (lambda st: write(st, obsm={}), ("coordinates", "--coordinates obsm:KEY")),
    "NaN": (lambda st: write(st, X=with_nan(st)), ("NaN or infinite values",)),
    "negative": (lambda st: write(st, X=dense(st) - 3), ("below zero", "counts cannot be negative")),
    "z-scored": (
        lambda st: write(st, X=z_scored(st), layers={"counts": st.X}),
        ("z-scored", "--st-layer counts"),
    ),
    "all cells empty": (
        lambda st: write(st, X=sp.csr_matrix(st.shape, dtype=np.float32)),
        ("all of them empty",),
    ),
    "duplicated cells": (
        lambda st: write(st, obs_names=twice(st.obs_names)),
        ("got duplicate names", "obs_names_make_unique"),
    ),
    "duplicated genes": (
        lambda st: write(st, var_names=twice(st.var_names)),
        ("each gene once", "--duplicates first"),
    ),
    "one cell": (lambda st: write(st[:1]), ("at least 2 cells", "got 1 cell")),
}


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize("name", BAD_SPATIAL)
def test_bad_spatial_data(call: Any, both: Any, tissue: SimulatedTissue, tmp_path: Path, name: str) -> None:
    make, words = BAD_SPATIAL[name]
    bad = make(tissue.st)
    before = set(tmp_path.iterdir())
    assert_refused(call("impute", both[0], bad, "-o", "out.zarr"), *words)
    assert_refused(call("check", both[0], bad), *words)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.filterwarnings("ignore:.*names are not unique")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sc: write(sc[:1]), ("sc (", "got 1 cell")),
        (lambda sc: write(sc, var_names=twice(sc.var_names)), ("sc (", "--duplicates first")),
        (lambda sc: write(sc, X=z_scored(sc)), ("sc (", "z-scored")),
    ],
    ids=["one cell", "duplicated genes", "z-scored"],
)
def test_bad_reference(
    call: Any, both: Any, tissue: SimulatedTissue, change: Any, words: tuple[str, ...]
) -> None:
    assert_refused(call("impute", change(tissue.sc), both[1], "-o", "out.zarr"), *words)
    assert not Path("out.zarr").exists()


BAD_OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "k too large": (
        ["--preset", "stimpute", "--set", "k=9999"],
        ("--set k: expected at most 99", "Choose a smaller k"),
    ),
    "unknown setting": (["--set", "heads=2"], ("--set heads: expected a setting",)),
    "setting without a value": (["--set", "epochs"], ("--set epochs", "key=value")),
    "setting twice": (["--set", "steps=3", "--set", "steps=4"], ("each key once",)),
    "interval out of range": (["--interval", "90"], ("interval: expected a number from 0.01 to 0.999",)),
    "cut out of range": (["--sparse", "5"], ("sparse: expected a number from 0 to 1, got 5",)),
    "interval of stimpute": (
        ["--interval", "0.9", "--preset", "stimpute"],
        ("--interval: expected --preset",),
    ),
    "float16 counts": (
        ["--scale", "counts", "--dtype", "float16"],
        ("--dtype: expected float32 on the scale",),
    ),
    "blend of stimpute": (
        ["--measured", "blend", "--preset", "stimpute"],
        ("--measured: expected --preset auto",),
    ),
    "blend with intervals": (
        ["--measured", "blend", "--interval", "0.9"],
        ("expected none with --measured blend",),
    ),
    "interval without reliability": (["--interval", "0.9", "--no-reliability"], ("got --no-reliability",)),
    "setting of another kind": (["--set", "steps=few"], ("--set steps: expected a whole number",)),
    "unknown gene": (["--genes", "Gene01,Gene99"], ("'Gene99'", "Did you mean")),
    "gene twice": (["--genes", "Gene01,Gene01"], ("more than once",)),
    "no gene": (["--genes", ","], ("--genes all",)),
    "missing file of genes": (["--genes", "genes.txt"], ("nothing at this path",)),
    "memory": (["--memory", "plenty"], ("--memory: expected a size", "'plenty'")),
    "too little memory": (["--memory", "1MB"], ("--memory: expected at least",)),
    "suffix": (["-o", "out.csv"], (".zarr or .h5ad",)),
    "folder": (["-o", "no/such/out.zarr"], ("mkdir -p",)),
    "device": (["--device", "abacus"], ("--device: expected", "'abacus'")),
    "seed": (["--seed", "-1"], ("--seed: expected a whole number",)),
    "column": (["--labels", "cell_typ"], ("--labels cell_typ: expected", "Did you mean 'cell_type'?")),
    "missing embedding": (["--embedding", "esm.parquet"], ("an embedding table", "nothing at this path")),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(call: Any, both: Any, tmp_path: Path, name: str) -> None:
    arguments, words = BAD_OPTIONS[name]
    assert_refused(call("impute", *both, "-o", "out.zarr", "--no-reliability", *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: np.savez("esm.npz", genes=["A", "B"], values=np.eye(2)), ("none of them", "'A', 'B'")),
        (
            lambda: np.savez("esm.npz", genes=["Gene01", "Gene02"], values=np.array([[1.0, 0], [0, 0]])),
            ("only zeros", "'Gene02'", "drop these genes"),
        ),
        (lambda: Path("esm.npz").write_bytes(b"\x80\x04K\x01."), ("a pickle", "never unpickles")),
        (lambda: Path("esm.npz").write_bytes(b"nonsense"), ("a readable .npz table",)),
    ],
    ids=["wrong genes", "zero vectors", "pickle", "damaged"],
)
def test_bad_embeddings(call: Any, both: Any, make: Callable[[], object], words: tuple[str, ...]) -> None:
    make()
    assert_refused(call("impute", *both, "-o", "out.zarr", "--embedding", "esm.npz", *STIMPUTE), *words)
    assert [one.name for one in Path().iterdir()] == ["esm.npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "auto,magic"], ("methods", "'magic'")),
        (["--methods", "mean,mean"], ("unique names",)),
        (["--methods", "knn:kk=3"], ("knn:kk",)),
        (["--methods", ","], ("a list of methods",)),
        (["--methods", "mean", "--folds", "1"], ("folds: expected a whole number from 2 to 12",)),
        (["--methods", "mean", "--by", "fraction", "--keep", "0"], ("keep",)),
        (["--methods", "mean", "--seeds", "0,a"], ("--seeds 0,1,2",)),
        (["--methods", "mean", "-o", "scores.txt"], (".csv or .parquet",)),
    ],
)
def test_bad_evaluations(
    call: Any, both: Any, tmp_path: Path, arguments: list[str], words: tuple[str, ...]
) -> None:
    assert_refused(call("evaluate", *both, "-o", "scores.csv", *arguments), *words)
    assert not list(tmp_path.iterdir())


def test_an_existing_output_is_refused_before_any_work(call: Any, tmp_path: Path) -> None:
    (tmp_path / "out.h5ad").write_text("earlier")
    (tmp_path / "scores.json").write_text("earlier")
    missing = ("missing.h5ad", "missing.h5ad")  # the command stops before it looks for them
    assert_refused(call("impute", *missing, "-o", "out.h5ad"), "an existing output", "--overwrite")
    assert_refused(call("evaluate", *missing, "-o", "scores.csv"), "scores.json", "--overwrite")
    assert_refused(call("impute", *missing, "-o", "a.zarr", "--save-model", "scores.json"), "scores.json")
    assert (tmp_path / "out.h5ad").read_text() == "earlier"


def test_an_input_is_never_overwritten(call: Any, both: Any, tmp_path: Path) -> None:
    table = tmp_path / "tissue.csv"
    tissue = anndata.read_h5ad(both[1])
    table.write_text(pd.DataFrame(tissue.X.toarray(), tissue.obs_names, tissue.var_names).to_csv())
    before = table.read_bytes()
    asked = (both[0], table, "--coordinates", "none", "-o", table, "--methods", "mean", "--overwrite")
    assert_refused(call("evaluate", *asked), "a separate path", "cellweft never changes its inputs")
    assert table.read_bytes() == before


@pytest.mark.slow
def test_an_output_is_replaced_on_request(call: Any, both: Any, tmp_path: Path) -> None:
    (tmp_path / "out.h5ad").write_text("earlier")
    arguments = ("-o", "out.h5ad", "--overwrite", "--no-reliability", "--genes", "Gene01", *QUICK)
    assert call("impute", *both, *arguments).exit_code == 0
    assert anndata.read_h5ad(tmp_path / "out.h5ad").shape == (90, 1)


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Function that limits the size of files, to simulate a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out.zarr", "out.h5ad"])
def test_a_full_disk(call: Any, both: Any, tmp_path: Path, small_files: Any, output: str) -> None:
    small_files(2000)
    result = call("impute", *both, "-o", output, "--no-reliability", *QUICK)
    small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert_refused(result, output, "the system error", "run again")
    assert not list(tmp_path.iterdir())


def test_an_error_as_json(call: Any, both: Any) -> None:
    result = call("check", both[0], "nowhere.h5ad", "--json")
    error = one_object(result)["error"]
    assert list(error) == ["kind", "argument", "where", "expected", "got", "fix"]
    assert (error["kind"], error["got"]) == ("MissingFileError", "nothing at this path")
    assert_refused(result, error["fix"])


def test_unknown_options_exit_with_2(call: Any, both: Any) -> None:
    for arguments in (["--colour"], ["--by", "magic"], ["--folds", "some"]):
        result = call("evaluate", *both, "-o", "scores.csv", *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""


def test_an_unexpected_error_keeps_its_traceback(
    call: Any, both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(PairOptions, "pair", fail)
    result = call("check", *both, "--json")
    assert result.exit_code == 1
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.slow
def test_an_interrupt_exits_with_130_and_leaves_nothing(
    call: Any, both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellweft.data.io.write import ResultWriter

    def interrupt(*_: object, **__: object) -> None:
        assert list(tmp_path.glob("out.zarr.resume/.out.zarr.*.cellweft-partial"))
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultWriter, "write", interrupt)
    result = call("impute", *both, "-o", "out.zarr", "--no-reliability", *QUICK)
    assert result.exit_code == 130
    # progress is printed before it
    assert result.stderr.endswith("Interrupted. Nothing incomplete was left behind.\n")
    assert not list(tmp_path.iterdir())


# Common behaviour of all commands


def test_the_options_are_those_of_pair() -> None:
    options = {field.name: field.default for field in fields(PairOptions)}
    keywords = {
        name: one.default
        for name, one in signature(cellweft.pair).parameters.items()
        if name not in ("sc", "st")
    }
    assert options == keywords


@pytest.mark.slow
def test_every_command_has_help_and_the_common_options(call: Any) -> None:
    assert call("--version").stdout == f"cellweft {cellweft.__version__}\n"
    assert "Weave single cells into tissue" in call("--help").stdout
    told = ("--json", "--quiet")
    computing = ("check", "impute", "annotate", "place", "evaluate", "report", "proteins", "embed", "demo")
    options = dict.fromkeys(computing, ("--seed", "--device", *told)) | {"view": told, "export": told}
    assert options.keys() == {command.name for command in app.registered_commands}
    for command, common in options.items():
        result = call(command, "--help")
        assert result.exit_code == 0
        assert [option for option in common if option not in result.stdout] == []


def test_a_long_list_of_genes_is_accepted() -> None:
    names = [f"Gene{number:04}" for number in range(2000)]  # longer than any path may be
    assert read_genes(",".join(names)) == names


def test_genes_from_a_file_with_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "genes"
    path.write_bytes(b"\xef\xbb\xbfGad1\r\nSst \r\n")
    assert read_genes(str(path)) == ["Gad1", "Sst"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(cellweft.errors.FormatError, match="a file that is not a text file"):
        read_genes(str(path))


def test_messages_name_options_instead_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "labels": "--labels",
        "settings": "--set",
        "overwrite": "--overwrite",
        "hits": "--hits",
        "no_reliability": "--no-reliability",
        "sc": "SC",
    }
    monkeypatch.setattr("cellweft.cli.options._OPTIONS", ContextVar("options", default=names))
    shown = {
        arg("labels"): "--labels",
        arg("labels", "cell_type"): "--labels cell_type",
        arg("labels", "cell type"): "--labels 'cell type'",
        arg("overwrite", True): "--overwrite",
        arg("reliability", False): "--no-reliability",
        arg("reliability", True): "no --no-reliability",
        arg("hits", (25, 120)): "--hits 25,120",
        arg("settings", key="k"): "--set k",
        arg("sc"): "SC",
        arg("url", "http://x"): "url='http://x'",
    }
    for message, text in shown.items():
        assert message.render(as_option) == text


def test_every_argument_in_an_error_has_an_option() -> None:
    commands: Any = get_command(app)
    for command in app.registered_commands:
        assert command.name is not None
        parameters = {one.name: one for one in commands.commands[command.name].params}
        names: dict[str, str] = command.callback.option_names  # type: ignore[union-attr]
        assert names.keys() == parameters.keys() - {"help"}
        for name, option in names.items():
            assert option in (*parameters[name].opts, parameters[name].metavar), name


@pytest.mark.slow
def test_no_message_of_the_library_names_an_option() -> None:
    """Only the command line has options.

    The library names arguments, and each interface shows them in its own way.
    """
    package = Path(cellweft.__file__).parent
    texts = [
        f"{path.relative_to(package)}:{node.lineno} {node.value}"
        for path in sorted(package.rglob("*.py"))
        if path.relative_to(package).parts[0] not in ("cli", "reporting")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg in ("expected", "got", "fix")
        for node in ast.walk(word.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert len(texts) > 500
    wrong = re.compile(r"(?<![\w-])--[a-z]|in the command\b|on the command line\b|in Python\b")
    assert [text for text in texts if wrong.search(text)] == []


@pytest.mark.slow
def test_the_installed_command_starts(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("cellweft")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    told = subprocess.run([script, "--version"], capture_output=True, text=True, env=environment, check=True)
    assert told.stdout == f"cellweft {cellweft.__version__}\n"


NO_MEMORY = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 8 bytes"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("of a GPU"), RuntimeError(NO_MEMORY)]
)
def test_out_of_memory_errors_are_reported(
    call: Any, both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("cellweft.Imputer.fit", fail)
    assert_refused(call("impute", *both, "-o", "out.zarr", *QUICK), "memory: expected as much", "ulimit -v")
    assert not (tmp_path / "out.zarr").exists()


def test_other_errors_that_mention_memory_are_not_memory_errors(
    call: Any, both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug in what shall allocate memory")

    monkeypatch.setattr("cellweft.Imputer.fit", fail)
    result = call("impute", *both, "-o", "out.zarr", *QUICK)
    assert (result.exit_code, type(result.exception)) == (1, RuntimeError)


def test_out_of_memory_errors_of_torch_are_recognised() -> None:
    for error in (torch.OutOfMemoryError(), torch.cuda.OutOfMemoryError(), MemoryError()):
        assert is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as caught:
        torch.empty(2**60, dtype=torch.int8)
    assert is_out_of_memory(caught.value)


def test_an_output_is_refused_before_the_inputs_are_read(call: Any, tmp_path: Path) -> None:
    (tmp_path / "out.zarr.resume").mkdir()
    (tmp_path / "out.zarr.resume" / "thesis.tex").touch()
    for arguments, told in (
        (["-o", "out.csv"], "a name ending in .zarr or .h5ad"),
        (["-o", "out.zarr"], "without cellweft-run.json"),
        (["-o", "out.h5ad", "--memory", "much"], "a size such as"),
        (["-o", "out.h5ad", "--resume"], "a .zarr store"),
    ):
        assert_refused(call("impute", "no.h5ad", "no.h5ad", *arguments), told)
    assert (tmp_path / "out.zarr.resume" / "thesis.tex").exists()
