"""Tables of SpatialData: which regions they annotate, and which table is chosen, without the package."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import FormatError, KeyMissingError
from cellweft.data.io.obs_table import HeldTable
from cellweft.data.io.spatialdata_regions import Link, chosen_table, is_spatialdata, store_of, with_centroids

TOLD = {"spatialdata_attrs": {"region": "cells", "region_key": "region", "instance_key": "id"}}


class Table:
    def __init__(self, uns: Any) -> None:
        self.uns = uns


def test_what_a_table_annotates() -> None:
    assert Link.of({}) is None
    assert Link.of({"spatialdata_attrs": {"region": None, "region_key": None, "instance_key": None}}) is None
    assert Link.of({"spatialdata_attrs": {"region": "cells"}}) is None
    assert Link.of(TOLD) == Link(regions=("cells",), region_key="region", instance_key="id")
    several = {"spatialdata_attrs": TOLD["spatialdata_attrs"] | {"region": np.array(["a", "b"])}}
    assert Link.of(several) == Link(regions=("a", "b"), region_key="region", instance_key="id")


def test_instances_are_those_of_the_rows() -> None:
    link = Link.of(TOLD)
    assert link is not None
    obs = pd.DataFrame({"region": pd.Categorical(["cells"] * 2), "id": [4, 2]}, index=["a", "b"])
    made = link.instances(HeldTable(obs), where="st")
    assert made.to_numpy().tolist() == [["cells", 4], ["cells", 2]]
    with pytest.raises(
        KeyMissingError, match=r"spatialdata_attrs\.instance_key='id': expected a column of obs"
    ):
        link.instances(HeldTable(obs.drop(columns="id")), where="st")


def test_the_choice_of_a_table() -> None:
    one, cellweft = Table({}), Table({"cellweft": {}})
    told: Any = {"where": "st", "argument": "table={!r}".format}
    assert chosen_table({"a": one}, None, **told) == "a"
    assert chosen_table({"a": one, "imputed": cellweft}, None, **told) == "a"
    assert chosen_table({"imputed": cellweft}, None, **told) == "imputed"
    assert chosen_table({"a": one, "b": one}, "b", **told) == "b"
    with pytest.raises(
        FormatError, match=r"got 2 tables \('a', 'b'\)\. Choose one: table='a' or table='b'\."
    ):
        chosen_table({"a": one, "b": one}, None, **told)
    with pytest.raises(FormatError, match=r"got none\. Cellweft reads tables"):
        chosen_table({}, None, **told)
    with pytest.raises(KeyMissingError, match=r"table='tabel': expected a table of st.*Did you mean 'table'"):
        chosen_table({"table": one}, "tabel", **told)


def test_only_spatialdata_stores_are_recognised() -> None:
    assert not is_spatialdata(Table({}))
    assert not is_spatialdata("path")


def test_a_store_is_recognised_by_its_folders(tmp_path: Any) -> None:
    table = tmp_path / "s.zarr" / "tables" / "table"
    table.mkdir(parents=True)
    assert store_of(table) is None
    (tmp_path / "s.zarr" / "zarr.json").touch()
    assert store_of(table) == tmp_path / "s.zarr"
    assert store_of(tmp_path / "s.zarr") is None


@pytest.mark.parametrize("column", [None, "x"])
def test_centroids_are_for_tables_without_coordinates(column: str | None) -> None:
    obs = pd.DataFrame({"region": ["cells"], "id": [1], "y": [0.0], column or "z": [0.0]})
    held = {"other": np.ones((1, 2))}
    told = {"source": "somewhere", "where": "st"}
    made = with_centroids(held, TOLD, HeldTable(obs), **told)
    assert set(made) == ({"other"} if column else {"other", "spatial"})
    assert len(made) == (1 if column else 2)
    assert made["other"] is held["other"]
    assert with_centroids({"spatial": 1}, TOLD, HeldTable(obs), **told) == {"spatial": 1}
    assert with_centroids(held, {}, HeldTable(obs), **told) is held
    assert with_centroids(held, TOLD, HeldTable(obs), source=None, where="st") is held
