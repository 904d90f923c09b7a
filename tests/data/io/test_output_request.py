"""Requests for an output are checked once, and the checks write nothing."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellweft._errors import MissingExtraError, OutputExistsError, SettingError
from cellweft.data.io.output_request import OutputRequest, processes_of


def test_a_request_returns_the_path_of_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = OutputRequest(path="a.zarr", resume=True, sparse=np.float32(0.5), interval=0.9, dask="local:2")
    assert (store.target, store.checkpoint) == (tmp_path / "a.zarr", tmp_path / "a.zarr.resume")
    file = OutputRequest(path="a.h5ad")
    assert (file.target, file.checkpoint) == (tmp_path / "a.h5ad", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("a.csv", {}, r"a name ending in \.zarr or \.h5ad, got '\.csv'"),
        ("a.zarr", {"dtype": "float64"}, "dtype: expected one of 'float32', 'float16', got 'float64'"),
        ("a.zarr", {"sparse": 1.5}, "sparse: expected a number from 0 to 1, got 1.5"),
        ("a.zarr", {"interval": 1.0}, "interval: expected a number from 0.01 to 0.999, got 1.0"),
        ("a.zarr", {"memory": "much"}, "memory: expected a size"),
        ("a.zarr", {"dask": "somewhere"}, "dask: expected the address of a Dask scheduler"),
        (
            "a.h5ad",
            {"dask": "local"},
            r"dask: expected a \.zarr store as output, which several processes can write",
        ),
        (
            "a.h5ad",
            {"resume": True},
            r"resume: expected a \.zarr store as output, which can be written in parts",
        ),
    ],
)
def test_impossible_requests_are_refused(
    tmp_path: Path, name: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingError, match=told):
        OutputRequest(path=tmp_path / name, **options)


def test_an_existing_output_is_only_replaced_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    path.write_text("old")
    with pytest.raises(OutputExistsError, match="got an existing output"):
        OutputRequest(path=path)
    assert OutputRequest(path=path, overwrite=True).target == path


@pytest.mark.parametrize(("name", "options"), [("a.zarr", {}), ("a.h5ad", {"sparse": 0.1})])
def test_an_unrelated_resume_folder_is_refused(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    (tmp_path / f"{name}.resume").mkdir()
    (tmp_path / f"{name}.resume" / "thesis.tex").touch()
    with pytest.raises(OutputExistsError, match=r"\.resume: expected nothing at this path"):
        OutputRequest(path=tmp_path / name, **options)
    OutputRequest(path=tmp_path / "a.h5ad")  # an h5ad file needs no such folder


def test_without_dask_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[dask\]"'):
        OutputRequest(path=tmp_path / "a.zarr", dask="local")


def test_addresses_of_dask() -> None:
    assert [processes_of(one) for one in ("tcp://host:8786", "local", "local:3")] == [None, 0, 3]
