"""The record of a result describes how it was made, and is kept in every format."""

import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

import cellweft
from cellweft import _provenance as recording
from cellweft._errors import FormatError
from cellweft._provenance import SCHEMA_VERSION, note_command, provenance, timed, versions
from cellweft.cli import main
from cellweft.data._pair import Pair, inputs_of
from cellweft.data.digest import values_digest
from cellweft.data.io.results import open_result
from cellweft.data.io.write import write_anndata
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.nn.config import StImputeSettings


def test_versions_are_those_installed() -> None:
    found = versions()
    for package in ("cellweft", "torch", "numpy", "anndata"):
        assert found[package] == importlib.metadata.version(package)
    assert found["python"].startswith("3.")


def record(pair: Pair) -> dict:
    return provenance(
        "imputed",
        preset="stimpute",
        settings=StImputeSettings(k=8),
        seed=np.int64(3),
        device="cpu",
        inputs=inputs_of(pair),
        fit_seconds=2.5,
    )


def test_the_record_has_plain_values_and_names_the_inputs(tissue_pair: Pair) -> None:
    made = record(tissue_pair)
    assert json.loads(json.dumps(made)) == made
    assert type(made["seed"]) is int
    assert (made["schema_version"], made["kind"], made["command_line"]) == (SCHEMA_VERSION, "imputed", "")
    assert made["settings"]["k"] == 8
    assert made["duration"] == {"fit": 2.5, "run": 0.0}
    assert abs(datetime.now().astimezone() - datetime.fromisoformat(made["date"])).total_seconds() < 60
    assert made["inputs"]["spatial"] == {
        "path": "memory",
        "bytes": 0,
        "cells": tissue_pair.st.n_cells,
        "genes": tissue_pair.st.n_genes,
        "digest": values_digest(tissue_pair.st),
        "layer": "X",
        "scale": "raw",
        "labels": tissue_pair.findings["spatial"]["labels"],
        "size_factor": "",
        "coordinates": tissue_pair.findings["coordinates"]["found"],
        "slices": tissue_pair.findings["slices"]["found"] or "",
        "unit": "",
    }


def test_settings_of_any_dataclass_are_recorded() -> None:
    @dataclass
    class Settings:
        width: int = 4
        cut: float | None = None

    made = provenance(
        "placed", preset="auto", settings=Settings(), seed=0, device="cpu", inputs={}, fit_seconds=0
    )
    assert made["settings"] == {"width": 4, "cut": "none"}


def test_the_seconds_of_a_run_are_recorded(tissue_pair: Pair) -> None:
    before = record(tissue_pair)
    after = timed(before, time.monotonic() - 5)
    assert before["duration"] == {"fit": 2.5, "run": 0.0}
    assert after["duration"]["fit"] == 2.5
    assert 5 <= after["duration"]["run"] < 60


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_are_named_with_their_size_and_the_digest_of_their_values(
    tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path, suffix: str
) -> None:
    paths = [write_anndata(one, tmp_path / f"{n}{suffix}") for n, one in enumerate((tissue.sc, tissue.st))]
    made = inputs_of(cellweft.pair(*paths))
    for path, found, side in zip(paths, made.values(), (tissue_pair.sc, tissue_pair.st), strict=True):
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        assert found["path"] == str(path)
        assert found["bytes"] == sum(one.stat().st_size for one in files)
        assert found["digest"] == values_digest(side)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_the_record_is_kept_in_every_format(tissue_pair: Pair, tmp_path: Path, suffix: str) -> None:
    made = record(tissue_pair)
    data = anndata.AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]), uns={"cellweft": made})
    path = write_anndata(data, tmp_path / f"a{suffix}")
    read = anndata.read_h5ad(path) if suffix == ".h5ad" else anndata.read_zarr(path)
    assert read.uns["cellweft"] == made


def test_a_command_is_recorded_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, tissue_pair: Pair) -> None:
    monkeypatch.setattr(recording, "_command", [])
    monkeypatch.setattr("sys.argv", ["/usr/bin/cellweft", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert record(tissue_pair)["command_line"] == "cellweft --version"
    note_command(["cellweft", "impute", "my atlas.h5ad"])
    assert record(tissue_pair)["command_line"] == "cellweft impute 'my atlas.h5ad'"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", ".h5ad", ".zarr"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": None}, "schema 1, from an older version of cellweft. Compute the result again"),
        ({"schema_version": 1}, "schema 1, from an older version of cellweft. Compute the result again"),
        (
            {"schema_version": SCHEMA_VERSION + 1},
            f"schema {SCHEMA_VERSION + 1}, from a newer .*Update cellweft",
        ),
    ],
)
def test_a_result_of_another_schema_is_refused(
    tissue_pair: Pair, tmp_path: Path, change: dict[str, Any], said: str, suffix: str
) -> None:
    made = {key: value for key, value in (record(tissue_pair) | change).items() if value is not None}
    data: Any = anndata.AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]), uns={"cellweft": made})
    data.var["measured"] = True
    source = write_anndata(data, tmp_path / f"a{suffix}") if suffix else data
    faces: list[Callable[[], Any]] = [
        lambda: cellweft.report(tmp_path / "report.html", source),
        lambda: cellweft.view(source, open_browser=False, block=False),
    ]
    for face in faces:
        with pytest.raises(FormatError, match=f"a result of schema {SCHEMA_VERSION}, got a result of {said}"):
            face()
    data.uns["cellweft"] = record(tissue_pair)
    assert open_result(data, argument="result").uns["cellweft"]["kind"] == "imputed"
