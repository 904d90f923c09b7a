"""The configuration of Vitessce: every path exists in the store, and every scope is defined."""

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.tests.helpers import assert_equal

from cellweft._errors import FormatError, InputError, KeyMissingError
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.export.vitessce import vitessce_config, write_vitessce
from cellweft.data.io.write import write_anndata
from cellweft.data.io.zarr_store import check_manifest


@pytest.fixture
def store(make_side: Any, write_as: Any, tmp_path: Path) -> Path:
    made = make_side(["Gad1", "Sst", "Vip"], spatial=True)
    made.obs["cell_type"] = pd.Categorical(["B", "T"] * 6)
    made.obs["layer"] = pd.Categorical(["one", "two", "three"] * 4)
    made.obs["depth"] = range(12)
    made.var["measured"] = [True, True, False]
    made.obsm["X_umap"] = made.obsm["spatial"] * 2
    path: Path = write_as(made, tmp_path, "zarr")
    return path


def assert_whole(config: dict[str, Any], store: Path) -> None:
    """Check a configuration against Vitessce's schema, and that all paths exist."""
    assert {"version", "name", "datasets", "coordinationSpace", "layout", "initStrategy"} <= set(config)
    assert json.loads(json.dumps(config)) == config
    root = zarr.open_group(store, mode="r")
    (dataset,) = config["datasets"]
    (file,) = dataset["files"]
    options = file["options"]
    told = [options["obsFeatureMatrix"], options["obsLocations"], *options["obsEmbedding"]]
    for one in [*told, *options.get("obsSets", [])]:
        assert one["path"] in root
    if "initialFeatureFilterPath" in options["obsFeatureMatrix"]:
        assert options["obsFeatureMatrix"]["initialFeatureFilterPath"] in root
    space = config["coordinationSpace"]
    for view in config["layout"]:
        assert {"component", "x", "y", "w", "h"} <= set(view)
        assert view["x"] + view["w"] <= 12
        assert view["y"] + view["h"] <= 12
        for kind, scope in view["coordinationScopes"].items():
            assert scope in space[kind]
    assert space["embeddingType"]["A"] in [one["embeddingType"] for one in options["obsEmbedding"]]


def test_the_default_view(store: Path) -> None:
    config = vitessce_config(store)
    assert_whole(config, store)
    assert [one["component"] for one in config["layout"]] == [
        "scatterplot",
        "featureList",
        "obsSets",
        "heatmap",
    ]
    file = config["datasets"][0]["files"][0]
    assert file["url"] == "http://127.0.0.1:8000/data.zarr"
    assert file["options"]["obsSets"] == [{"name": "cell_type", "path": "obs/cell_type"}]
    assert file["options"]["obsFeatureMatrix"]["initialFeatureFilterPath"] == "var/measured"
    assert [one["embeddingType"] for one in file["options"]["obsEmbedding"]] == ["Tissue", "UMAP"]
    assert config["coordinationSpace"]["obsColorEncoding"] == {"A": "cellSetSelection"}
    areas = sum(one["w"] * one["h"] for one in config["layout"])
    assert areas == 144  # the panels fill the grid without gaps or overlaps


def test_columns_gene_and_url_can_be_chosen(store: Path) -> None:
    config = vitessce_config(
        store, columns=["layer", "cell_type"], gene="Sst", url="https://example.org/a.zarr", title="Mine"
    )
    assert_whole(config, store)
    assert config["name"] == "Mine"
    assert config["datasets"][0]["files"][0]["url"] == "https://example.org/a.zarr"
    assert [one["name"] for one in config["datasets"][0]["files"][0]["options"]["obsSets"]] == [
        "layer",
        "cell_type",
    ]
    assert config["coordinationSpace"]["featureSelection"] == {"A": ["Sst"]}
    assert config["coordinationSpace"]["obsColorEncoding"] == {"A": "geneSelection"}


def test_without_groups_cells_are_coloured_by_the_first_gene(
    make_side: Any, write_as: Any, tmp_path: Path
) -> None:
    store = write_as(make_side(["Gad1", "Sst"], spatial=True), tmp_path, "zarr")
    config = vitessce_config(store)
    assert_whole(config, store)
    assert [one["component"] for one in config["layout"]] == ["scatterplot", "featureList", "heatmap"]
    assert config["coordinationSpace"]["featureSelection"] == {"A": ["Gad1"]}
    assert sum(one["w"] * one["h"] for one in config["layout"]) == 144


def test_it_is_written_as_json(store: Path, tmp_path: Path) -> None:
    path = write_vitessce(store, tmp_path / "view.json", columns=["layer"])
    assert json.loads(path.read_text()) == vitessce_config(store, columns=["layer"])


def test_wrong_arguments_are_refused(store: Path, make_side: Any, write_as: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyMissingError, match=r"column='cell_typ'.*Did you mean 'cell_type'"):
        vitessce_config(store, columns=["cell_typ"])
    with pytest.raises(InputError, match=r"obs\['depth'\]: expected categories, got values of type int"):
        vitessce_config(store, columns=["depth"])
    with pytest.raises(KeyMissingError, match=r"gene='gad1': expected a gene.*Did you mean 'Gad1'"):
        vitessce_config(store, gene="gad1")
    (tmp_path / "more").mkdir()
    file = write_as(make_side(["Gad1"], spatial=True), tmp_path / "more", "h5ad")
    with pytest.raises(FormatError, match=r"expected a \.zarr store.*got a file named 'data\.h5ad'"):
        vitessce_config(file)
    bare = write_as(make_side(["Gad1"]), tmp_path / "more", "zarr")
    with pytest.raises(InputError, match=r"expected genes, and cell positions.*got no positions"):
        vitessce_config(bare)


def test_a_store_of_another_format_is_copied(store: Path, write_as: Any, tmp_path: Path) -> None:
    made = anndata.read_zarr(store)
    made.X, made.uns["cellweft"] = (
        np.asarray(made.X.todense(), dtype="float32"),
        {"schema_version": SCHEMA_VERSION},
    )
    third = write_anndata(made, tmp_path / "third.zarr")
    with pytest.raises(
        FormatError, match="format 2, the only one that Vitessce reads, got a store in another"
    ):
        vitessce_config(third)
    with pytest.raises(KeyMissingError, match="no such gene"):
        write_vitessce(third, tmp_path / "view.json", gene="Nope")
    assert not (tmp_path / "view-v2.zarr").exists()
    config = json.loads(write_vitessce(third, tmp_path / "view.json").read_text())
    assert_whole(config, tmp_path / "view-v2.zarr")
    assert config["name"] == "third"
    assert config["datasets"][0]["files"][0]["url"].endswith("/view-v2.zarr")
    copy, again = anndata.read_zarr(tmp_path / "view-v2.zarr"), anndata.read_zarr(third)
    assert_equal(copy, again, exact=True)
    assert zarr.open_group(tmp_path / "view-v2.zarr", mode="r").metadata.zarr_format == 2
    check_manifest(tmp_path / "view-v2.zarr", deep=True)
