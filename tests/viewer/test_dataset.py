"""One result in the form that the page requests: kinds, columns, colours, layers and limits."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cellweft._errors import FormatError, GeneError, InputError, KeyMissingError, SettingError
from cellweft.data.io.read import open_input
from cellweft.viewer.cache import StripeCache
from cellweft.viewer.columns import columns_of
from cellweft.viewer.dataset import Dataset, kind_of
from cellweft.viewer.matrix import Means
from cellweft.viewer.measured import MeasuredGenes


@pytest.fixture
def dataset() -> Iterator[Callable[..., Dataset]]:
    with ThreadPoolExecutor(2) as pool:
        means = Means(cache=StripeCache(10**6), share=10**5, pool=pool, threads=2)

        def made(result: Any, tissue: Any = None) -> Dataset:
            opened = open_input(result, argument="result")
            known = tissue is not None
            measured = MeasuredGenes(open_input(tissue, argument="tissue"), opened, means) if known else None
            return Dataset(opened, title="imputed", means=means, tissue=measured)

        yield made


@pytest.mark.parametrize("form", ["zarr", "h5ad", "memory"])
def test_the_description_of_a_dataset(
    form: str, stores: dict[str, Path], imputed: AnnData, dataset: Callable[..., Dataset]
) -> None:
    told = dataset(imputed if form == "memory" else stores[form]).session()
    places = imputed.obsm["spatial"][:, :2].astype(np.float32)
    assert told == {
        "title": "imputed",
        "kind": "imputed",
        "cells": 61,
        "genes": 9,
        "layers": ["imputed", "uncertainty"],
        "scale": "log",
        "interval": 0.9,
        "columns": told["columns"],
        "bounds": [*places.min(axis=0).tolist(), *places.max(axis=0).tolist()],
        "unit": None,
        "slices": "section",
        "cell": True,
    }
    columns = {one["name"]: one for one in told["columns"]}
    assert list(columns) == ["cell_type", "region", "size", "count", "edge", "section"]
    assert columns["cell_type"] == {
        "name": "cell_type",
        "kind": "category",
        "categories": ["b", "a", "c"],
        "colors": ["#111111", "#ff0000", "#333333"],
    }
    assert columns["region"]["categories"] == ["left", "right"]
    assert columns["region"]["colors"] == ["#0072b2", "#e69f00"]
    assert columns["size"] == {"name": "size", "kind": "number", "low": 0, "high": 60}
    assert columns["edge"]["categories"] == ["False", "True"]
    assert columns["section"]["categories"] == ["1", "2"]


@pytest.mark.parametrize("form", ["zarr", "h5ad", "memory"])
def test_columns_are_those_of_the_file(
    form: str, stores: dict[str, Path], imputed: AnnData, dataset: Callable[..., Dataset]
) -> None:
    made = dataset(imputed if form == "memory" else stores[form])
    codes = imputed.obs["cell_type"].cat.codes.to_numpy(dtype=np.int64)
    found = made.column("cell_type")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.where(codes < 0, 65_535, codes))
    np.testing.assert_array_equal(made.column("region"), imputed.obs["region"] == "right")
    np.testing.assert_array_equal(made.column("edge"), imputed.obs["edge"])
    np.testing.assert_array_equal(made.column("section"), imputed.obs["section"] - 1)
    np.testing.assert_array_equal(made.column("size"), imputed.obs["size"].astype(np.float32))
    assert made.column("count").dtype == np.float32
    with pytest.raises(KeyMissingError, match="Did you mean 'cell_type'"):
        made.column("celltype")


@pytest.mark.parametrize("form", ["zarr", "h5ad", "memory"])
def test_one_cell(
    form: str, stores: dict[str, Path], imputed: AnnData, dataset: Callable[..., Dataset]
) -> None:
    made = dataset(imputed if form == "memory" else stores[form])
    label = imputed.obs["cell_type"].iloc[5]
    assert made.cell(5) == {
        "name": "cell5",
        "columns": {
            "cell_type": None if pd.isna(label) else label,
            "region": "left",
            "size": None,
            "count": 12,
            "edge": "False",
            "section": "1",
        },
    }
    assert {made.cell(number)["columns"]["cell_type"] for number in range(61)} == {None, "a", "b", "c"}
    with pytest.raises(SettingError, match="index: expected a whole number from 0 to 60, got 61"):
        made.cell(61)


def test_columns_of_other_types() -> None:
    obs = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "flag": pd.array([True, None, False], dtype="boolean"),
            "text": pd.array(["a", None, "a"], dtype="string"),
            "none": [np.nan] * 3,
            "empty": pd.Categorical([None] * 3, categories=[]),
            "same": pd.Categorical(["u", "v", "w"]),
            "large": [1e300, -1e300, 2.0],
        },
        index=list("xyz"),
    )
    columns = {one.name: one for one in columns_of(open_input(AnnData(obs=obs), argument="result"))}
    assert list(columns) == ["whole", "flag", "text", "large"]
    np.testing.assert_array_equal(columns["whole"].read(), [1, np.nan, 3])
    assert columns["flag"].read().tolist() == [1, 65_535, 0]
    assert columns["text"].read().tolist() == [0, 65_535, 0]
    assert (columns["large"].low, columns["large"].high) == (2, 2)


def test_too_many_labels_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellweft.viewer.columns.MOST_CATEGORIES", 2)
    obs = pd.DataFrame({"two": list("aabb"), "three": list("aabc")}, index=list("wxyz"))
    assert [one.name for one in columns_of(open_input(AnnData(obs=obs), argument="r"))] == ["two"]


def test_invalid_colours_are_replaced() -> None:
    cells = AnnData(obs=pd.DataFrame({"type": list("aab")}, index=list("xyz")))
    cells.uns["type_colors"] = ["#123456", "no colour"]
    (column,) = columns_of(open_input(cells, argument="result"))
    assert column.colors == ("#0072b2", "#e69f00")


def test_layers_and_limits(
    stores: dict[str, Path], counts: AnnData, imputed: AnnData, dataset: Callable[..., Dataset]
) -> None:
    made = dataset(stores["zarr"], stores["tissue"])
    assert made.layers == ("measured", "imputed", "uncertainty")
    values, low, high = made.values("Gene2", "imputed")
    np.testing.assert_array_equal(values, np.asarray(imputed.X)[:, 2])
    measured, *limits = made.values("Gene2", "measured")
    assert limits == [low, high] == [0, max(np.nanquantile(one, 0.99) for one in (values, measured))]
    spread, low, high = made.values("Gene2", "uncertainty")
    np.testing.assert_array_equal(spread, imputed.layers["upper"][:, 2] - imputed.layers["lower"][:, 2])
    assert (low, high) == tuple(np.quantile(spread, [1 - 0.99, 0.99]))
    assert made.genes()["in_tissue"] == [True] * 4 + [False] * 5
    unmeasured, *limits = made.values("Gene8", "measured")
    assert np.isnan(unmeasured).all()
    assert limits == [0, np.quantile(np.asarray(imputed.X)[:, 8], 0.99)]


def test_limits_of_a_rare_gene(dataset: Callable[..., Dataset]) -> None:
    values = np.zeros((300, 2), np.float32)
    values[7, 0] = 3
    var = pd.DataFrame({"measured": [True, True]}, index=["Rare", "Never"])
    made = dataset(AnnData(values, var=var, obsm={"spatial": np.ones((300, 2))}))
    assert made.values("Rare", "imputed")[1:] == (0, 3)
    assert made.values("Never", "imputed")[1:] == (0, 0)


def test_placed_cells(stores: dict[str, Path], dataset: Callable[..., Dataset]) -> None:
    made = dataset(stores["placed"])
    told = made.session()
    assert (told["kind"], told["layers"], told["genes"]) == ("placed", [], 0)
    assert told["bounds"] == [0, 1, 2, 3]
    np.testing.assert_array_equal(made.positions(), [[0, 1], [2, 3], [np.nan, np.nan]])
    assert made.genes() == {"names": [], "measured": [], "in_tissue": [], "reliability": []}
    with pytest.raises(KeyMissingError, match="a dataset with genes"):
        made.values("Gene1", "imputed")
    with pytest.raises(KeyMissingError, match="expected imputed genes"):
        made.compare(b"\1")


def test_spots_with_their_composition(dataset: Callable[..., Dataset]) -> None:
    names = list("xyz")
    shares = pd.DataFrame({"A": [0.25, 1, 0], "B": [0.75, 0, 0]}, index=names)
    spots = AnnData(
        np.eye(3, 2, dtype=np.float32),
        obs=pd.DataFrame(index=names),
        obsm={"spatial": np.eye(3, 2), "cellweft_proportions": shares},
    )
    made = dataset(spots)
    told = made.session()
    assert (told["kind"], told["layers"]) == ("spots", ["imputed"])
    assert told["columns"] == [
        {"name": "share of A", "kind": "number", "low": 0, "high": 1},
        {"name": "share of B", "kind": "number", "low": 0, "high": 0.75},
    ]
    np.testing.assert_array_equal(made.column("share of A"), [0.25, 1, 0])


def test_genes(stores: dict[str, Path], dataset: Callable[..., Dataset]) -> None:
    told = dataset(stores["h5ad"]).genes()
    assert told["names"][8] == "Gene8"
    assert told["measured"] == [True] * 4 + [False] * 5
    assert told["reliability"][1:4] == [0.8, None, 0.1]


def test_names_that_do_not_exist(stores: dict[str, Path], dataset: Callable[..., Dataset]) -> None:
    made = dataset(stores["zarr"])
    with pytest.raises(KeyMissingError, match="layer='measured'"):
        made.values("Gene1", "measured")
    with pytest.raises(KeyMissingError, match="no such layer"):
        made.values("Gene1", "lower")
    with pytest.raises(GeneError, match="Did you mean 'Gene1'"):
        made.values("gene1", "imputed")


def test_other_data_than_results_are_refused(counts: AnnData, dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(FormatError, match="a result of cellweft: imputed genes, placed cells or spots"):
        kind_of(open_input(counts, argument="result"))
    bare = AnnData(np.ones((2, 1), np.float32), uns={"cellweft": {}})
    assert kind_of(open_input(bare, argument="result")) == "spots"
    with pytest.raises(KeyMissingError, match="coordinates"):
        dataset(bare)
    bare.obsm["spatial"] = np.full((2, 2), np.nan)
    with pytest.raises(InputError, match="x and y of the cells"):
        dataset(bare)
