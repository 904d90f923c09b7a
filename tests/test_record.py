"""What is recorded with a result survives the formats and says how it was made."""

import importlib.metadata
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from weft.core.settings import StImputeSettings
from weft.data.pair import Pair
from weft.record import provenance, versions


def test_versions_are_those_installed() -> None:
    found = versions()
    for package in ("weft", "torch", "numpy", "anndata"):
        assert found[package] == importlib.metadata.version(package)
    assert found["python"].startswith("3.")


def record(pair: Pair) -> dict:
    return provenance(
        preset="stimpute",
        settings=StImputeSettings(k=8),
        seed=np.int64(3),
        device="cpu",
        findings=pair.findings,
    )


def test_the_record_is_plain_and_names_what_came_in(tissue_pair: Pair) -> None:
    made = record(tissue_pair)
    assert json.loads(json.dumps(made)) == made
    assert type(made["seed"]) is int
    assert made["reference"] == made["spatial"] == "AnnData in memory"
    assert made["settings"]["k"] == 8


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_the_record_survives_the_formats(tissue_pair: Pair, tmp_path: Path, suffix: str) -> None:
    made = record(tissue_pair)
    data = anndata.AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]), uns={"weft": made})
    path = tmp_path / f"a{suffix}"
    if suffix == ".h5ad":
        data.write_h5ad(path)
        read = anndata.read_h5ad(path)
    else:
        with anndata.settings.override(zarr_write_format=2), pytest.warns(UserWarning, match="zarr"):
            data.write_zarr(path)
        read = anndata.read_zarr(path)
    assert read.uns["weft"] == made
