"""Results as tables of a SpatialData store. The store is written by hand, so that the package is not needed.

Tests that need the package (centroids, points, SpatialData in memory) are in tests/test_formats.py.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import cellweft
from cellweft._errors import (
    FormatError,
    InputError,
    KeyMissingError,
    MissingExtraError,
    MissingFileError,
    OutputExistsError,
)
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.export import spatialdata as room
from cellweft.data.export.spatialdata import read_spatialdata, to_spatialdata
from cellweft.data.io.read import open_input
from cellweft.data.spatial import find_coordinates

try:
    import spatialdata  # noqa: F401

    HAS_PACKAGE = True
except ImportError:
    HAS_PACKAGE = False

LINK = {"region": ["left", "right"], "region_key": "region", "instance_key": "instance"}
Make = Callable[..., Path]


def measured(make_side: Any, *, places: bool = True) -> anndata.AnnData:
    made: anndata.AnnData = make_side(["Gad1", "Sst", "Vip"], spatial=places)
    made.obs["region"] = pd.Categorical(["left"] * 5 + ["right"] * 7)
    made.obs["instance"] = np.arange(100, 112)
    made.uns["spatialdata_attrs"] = dict(LINK)
    return made


@pytest.fixture(params=["zarr", "v3.zarr"])
def make_store(request: Any, make_side: Any, write_as: Any, tmp_path: Path) -> Make:
    """Function that writes a store with a table, in either zarr format."""

    def make(*, places: bool = True, linked: bool = True) -> Path:
        store = tmp_path / "sample.zarr"
        root = zarr.open_group(store, mode="w", zarr_format=3 if request.param.startswith("v3") else 2)
        root.attrs["spatialdata_attrs"] = {"version": "0.2"}
        for part in ("shapes", "tables"):
            root.create_group(part)
        root["shapes"].create_group("left")
        cells = measured(make_side, places=places)
        cells.uns = cells.uns if linked else {}
        path = write_as(cells, store / "tables", request.param)
        path.rename(store / "tables" / "table")
        table = zarr.open_group(store / "tables" / "table", mode="r+")
        told = LINK if linked else dict.fromkeys(LINK)
        table.attrs.update({"spatialdata-encoding-type": "ngff:regions_table", "version": "0.2", **told})
        with warnings.catch_warnings(action="ignore"):
            zarr.consolidate_metadata(store)
        return store

    return make


@pytest.fixture
def result(make_side: Any) -> anndata.AnnData:
    """A result of imputation for some of the cells, in another order."""
    made = measured(make_side)[[7, 2, 3, 11, 0]].copy()
    made.obs = made.obs[["instance"]]
    made.X = np.arange(15, dtype=np.float32).reshape(5, 3) / 7
    made.layers["lower"] = made.X / 2
    made.var["measured"] = [True, True, False]
    made.uns = {"cellweft": {"schema_version": SCHEMA_VERSION, "seed": 0}}
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sparse"), [("memory", False), ("h5ad", True), ("zarr", False)])
def test_a_result_annotates_the_same_regions(
    kind: str, *, sparse: bool, result: Any, make_store: Make, write_as: Any, tmp_path: Path, caplog: Any
) -> None:
    if sparse:
        result.X = sp.csr_matrix(result.X)
    store = make_store()
    before = files_of(store)
    (tmp_path / "made").mkdir()
    source = result if kind == "memory" else write_as(result, tmp_path / "made", kind)
    with caplog.at_level(logging.INFO, logger="cellweft"):
        assert to_spatialdata(source, store) == store
    made = anndata.read_zarr(store / "tables" / "imputed")
    assert made.obs["region"].tolist() == ["right", "left", "left", "right", "left"]
    assert made.obs["region"].cat.categories.tolist() == ["left", "right"]
    assert made.obs["instance"].tolist() == [107, 102, 103, 111, 100]
    assert made.uns["spatialdata_attrs"]["region"].tolist() == ["left", "right"]
    assert made.uns["cellweft"] == {"schema_version": SCHEMA_VERSION, "seed": 0}
    assert sp.issparse(made.X) == sparse
    np.testing.assert_array_equal(made.X.toarray() if sparse else made.X, np.asarray(result.to_df()))
    np.testing.assert_array_equal(made.layers["lower"], result.layers["lower"])
    np.testing.assert_array_equal(made.obsm["spatial"], result.obsm["spatial"])
    pd.testing.assert_series_equal(made.var["measured"], result.var["measured"])
    attributes = dict(zarr.open_group(store / "tables" / "imputed", mode="r").attrs)
    assert attributes["spatialdata-encoding-type"] == "ngff:regions_table"
    assert attributes["version"] == "0.2"
    assert {key: attributes[key] for key in LINK} == LINK
    assert attributes["encoding-type"] == "anndata"
    assert "7 cells of source" in caplog.text
    after = files_of(store)
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed <= {".zmetadata", "zarr.json"}  # only the list of all elements
    assert "imputed" in zarr.open_group(store, mode="r", use_consolidated=True)["tables"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["made", "sample.zarr"]


def test_a_region_without_cells_is_not_listed(result: Any, make_store: Make) -> None:
    store = make_store()
    to_spatialdata(result[[1, 2, 4]].copy(), store, name="left_only")
    made = anndata.read_zarr(store / "tables" / "left_only")
    assert made.obs["region"].cat.categories.tolist() == ["left"]
    assert zarr.open_group(store / "tables" / "left_only", mode="r").attrs["region"] == "left"
    assert made.uns["spatialdata_attrs"]["region"] == "left"


@pytest.mark.slow
def test_writing_a_copy_does_not_change_the_store(result: Any, make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    before = files_of(store)
    path = to_spatialdata(result, store, output=tmp_path / "copy.zarr")
    assert path == tmp_path / "copy.zarr"
    assert files_of(store) == before
    assert sorted(one.name for one in (path / "tables").iterdir() if one.is_dir()) == ["imputed", "table"]
    with pytest.raises(OutputExistsError, match="expected a path that does not exist yet"):
        to_spatialdata(result, store, output=path)
    to_spatialdata(result, store, output=path, name="again", overwrite=True)
    assert "again" in zarr.open_group(path, mode="r")["tables"]


@pytest.mark.slow
def test_the_next_run_reads_the_measured_table(result: Any, make_store: Make, make_side: Any) -> None:
    store = make_store()
    to_spatialdata(result, store)
    reference = make_side(["Gad1", "Sst", "Vip", "Lamp5"])
    pair = cellweft.pair(reference, store)
    assert pair.st.n_cells == 12
    assert pair.coordinates is not None
    again = read_spatialdata(store, table="imputed")
    assert again.n_obs == 5
    assert again.uns["cellweft_coordinates"] == {"source": "obsm['spatial'] of the table"}


@pytest.mark.slow
def test_errors_replace_nothing_and_leave_no_files(
    result: Any, make_store: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = make_store()
    for name in ("table", "left"):
        with pytest.raises(OutputExistsError, match=f"'{name}': expected an unused name"):
            to_spatialdata(result, store, name=name)
    before = files_of(store)
    strangers = result.copy()
    strangers.obs_names = [f"other{number}" for number in range(5)]
    with pytest.raises(InputError, match=r"expected cells of source .*got 5 other cells, such as 'other0'"):
        to_spatialdata(strangers, store)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(room, "copy_matrix", fail)
    with pytest.raises(cellweft.errors.OutputError, match="No space left"):
        to_spatialdata(result, store)
    assert files_of(store) == before
    assert [one.name for one in tmp_path.iterdir()] == ["sample.zarr"]


def test_wrong_arguments_are_refused(result: Any, make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    with pytest.raises(MissingFileError, match="expected a SpatialData store, got no folder at this path"):
        to_spatialdata(result, tmp_path / "none.zarr")
    with pytest.raises(MissingFileError, match="Did you mean 'table'"):
        to_spatialdata(result, store, annotates="tabel")
    (store / "tables" / "table").rename(tmp_path / "away")
    with pytest.raises(FormatError, match="with one table, got none"):
        to_spatialdata(result, store)


def test_a_table_that_annotates_nothing_is_accepted(result: Any, make_store: Make) -> None:
    store = make_store(linked=False)
    to_spatialdata(result, store)
    made = anndata.read_zarr(store / "tables" / "imputed")
    assert "spatialdata_attrs" not in made.uns
    with pytest.raises(InputError, match="expected a table that annotates shapes or labels"):
        read_spatialdata(store, table="imputed", coordinate_system="global")


@pytest.mark.skipif(HAS_PACKAGE, reason="the package spatialdata is installed")
def test_centroids_of_shapes_need_the_package(make_store: Make, make_side: Any) -> None:
    store = make_store(places=False)
    found = open_input(store, argument="st")
    assert "spatial" in found.obsm
    with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[spatialdata\]"'):
        find_coordinates(found.obs, found.obsm, None)
    with pytest.raises(MissingExtraError, match=r"cellweft\[spatialdata\]"):
        read_spatialdata(store)
    pair = cellweft.pair(make_side(["Gad1", "Sst"]), store, coordinates="none")
    assert pair.coordinates is None


def test_a_table_is_read_with_its_coordinates(make_store: Make) -> None:
    store = make_store()
    made = read_spatialdata(str(store))
    assert made.obsm["spatial"].shape == (12, 2)
    with pytest.raises(MissingFileError, match="Did you mean 'table'"):
        read_spatialdata(store, table="tables")
    with pytest.raises((KeyMissingError, MissingExtraError)):
        read_spatialdata(store, coordinate_system="aligned")
