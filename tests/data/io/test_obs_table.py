"""Tables of cells in memory and in files are equal, and duplicate names are found in blocks."""

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import FormatError
from cellweft.data.io import obs_table
from cellweft.data.io.obs_table import (
    Annotation,
    ExtendedTable,
    HeldTable,
    StoredTable,
    names_twice,
    repeated,
    write_names,
    write_table,
)
from cellweft.data.io.read import open_input
from cellweft.data.io.sanitize import storable

TABLE = pd.DataFrame(
    {
        "kind": pd.Categorical(["a", None, "b"]),
        "size": [1.5, 2.0, np.nan],
        "text": ["x", "y", "z"],
        "whole": pd.array([1, None, 3], dtype="Int64"),
    },
    index=pd.Index(["c1", "c2", "c3"], name="barcode"),
)


@pytest.fixture(params=["memory", "h5ad", "zarr"])
def table(request: pytest.FixtureRequest, tmp_path: Path, write_as: Any) -> Annotation:
    data = anndata.AnnData(np.ones((3, 2), dtype=np.float32), obs=TABLE)
    given = data if request.param == "memory" else write_as(data, tmp_path, request.param)
    return open_input(given, argument="st").obs


def test_columns_names_and_subsets_equal_those_of_the_table(table: Annotation) -> None:
    assert isinstance(table, HeldTable | StoredTable)
    assert len(table) == 3
    assert table.columns == ["kind", "size", "text", "whole"]
    assert list(table["size"].dropna()) == [1.5, 2.0]
    assert table.names().tolist() == ["c1", "c2", "c3"]
    assert table.names(np.array([2, 0])).tolist() == ["c3", "c1"]
    for rows in (None, np.array([2, 0])):
        expected = TABLE if rows is None else TABLE.iloc[rows]
        pd.testing.assert_frame_equal(table.frame(rows), expected, check_dtype=False, check_index_type=False)
    with pytest.raises((KeyError, ValueError)):
        table["other"]


def test_tables_without_columns_keep_their_names(tmp_path: Path, write_as: Any) -> None:
    data = anndata.AnnData(np.ones((2, 2), dtype=np.float32), obs=pd.DataFrame(index=["a", "b"]))
    found = open_input(write_as(data, tmp_path, "h5ad"), argument="st").obs
    assert (found.columns, found.frame().index.tolist(), found.frame().shape) == ([], ["a", "b"], (2, 0))


def test_tables_of_another_layout_are_read_at_once(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
    anndata.io.write_elem(group, "obs", pd.DataFrame({"a": [1, 2]}, index=["x", "y"]))
    group["obs"].attrs["encoding-version"] = "0.1.0"
    old = StoredTable.of_group(group["obs"])
    assert isinstance(old, HeldTable)
    assert old.names().tolist() == ["x", "y"]
    del group["obs/_index"]
    anndata.io.write_elem(group["obs"], "_index", pd.Categorical(["x", "y"]))
    group["obs"].attrs["encoding-version"] = "0.2.0"
    assert isinstance(StoredTable.of_group(group["obs"]), HeldTable)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.sampled_from(["a", "b", "ä", "", "cell1", "cell2"]), max_size=12),
    block=st.integers(1, 5),
)
def test_duplicate_names_equal_a_naive_count(names: list[str], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obs_table, "TABLE_ROWS", block)
        found = names_twice(HeldTable(pd.DataFrame(index=pd.Index(names, dtype=object))))
    assert found == [name for name in dict.fromkeys(names) if names.count(name) > 1]


@pytest.mark.parametrize("block", [2, 100])
def test_duplicate_names_in_a_file(
    tmp_path: Path, write_as: Any, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(obs_table, "TABLE_ROWS", block)
    data = anndata.AnnData(np.ones((5, 2), dtype=np.float32))
    data.obs_names = ["u", "ü", "v", "w", "ü"]
    for kind in ("h5ad", "zarr", "v3.zarr"):
        assert names_twice(open_input(write_as(data, tmp_path, kind), argument="st").obs) == ["ü"]


def test_different_names_with_equal_hashes_are_not_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd.util, "hash_array", lambda block, **_: np.zeros(len(block), dtype=np.uint64))
    assert names_twice(HeldTable(pd.DataFrame(index=["a", "b", "a", "c"]))) == ["a"]


def test_repeated_finds_all_that_are_equal() -> None:
    values = np.array([3, 1, 2, 3, 2, 3, 9], dtype=np.uint64)
    for size in (1, 3, 7):
        assert repeated(lambda size=size: np.split(values, [size]), 7).tolist() == [0, 2, 3, 4, 5]
    assert repeated(lambda: [], 0).tolist() == repeated(lambda: [values[:3]], 3).tolist() == []
    large = np.array([1, 2**64 - 1, 2**63, 2**64 - 1], dtype=np.uint64)  # the range of hashes
    assert repeated(lambda: [large[:2], large[2:]], 4).tolist() == [1, 3]


@pytest.mark.parametrize("form", ["h5", 2, 3])
@pytest.mark.parametrize("names", [["a", "ü", "cell 3"], []], ids=len)
def test_names_are_written_by_blocks_as_anndata_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, names: list[str]
) -> None:
    monkeypatch.setattr(obs_table, "TABLE_ROWS", 2)
    given = HeldTable(pd.DataFrame(index=pd.Index(names, dtype=object)))
    group = (
        h5py.File(tmp_path / "x.h5", "w")
        if form == "h5"
        else zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=form)
    )
    write_names(group, "names", given)
    write_names(group, "again", StoredTable(group["names"], {}))
    for key in ("names", "again"):
        assert [str(one) for one in anndata.io.read_elem(group[key])] == names


@pytest.fixture(params=["h5", "zarr"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "h5":
        return h5py.File(tmp_path / "x.h5", "w")
    return zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)


def test_a_table_is_written_column_by_column_as_anndata_does(table: Annotation, store: Any) -> None:
    write_table(store, "obs", table)
    anndata.io.write_elem(store, "theirs", storable(table.frame(), "obs"))
    ours, theirs = (anndata.io.read_elem(store[key]) for key in ("obs", "theirs"))
    # Text has dtype object or str, depending on pandas; the values are the same.
    same = {"check_names": False, "check_dtype": False, "check_index_type": False}
    pd.testing.assert_frame_equal(ours, theirs, **same)
    pd.testing.assert_frame_equal(StoredTable.of_group(store["obs"]).frame(), theirs, **same)


def test_a_table_without_columns_and_one_without_cells(store: Any) -> None:
    write_table(store, "bare", HeldTable(pd.DataFrame(index=["a", "b"])))
    write_table(store, "empty", HeldTable(TABLE.iloc[:0][["size"]]))
    assert anndata.io.read_elem(store["bare"]).shape == (2, 0)
    assert anndata.io.read_elem(store["empty"]).shape == (0, 1)


def test_names_that_cannot_be_written_are_refused(store: Any) -> None:
    slashed = HeldTable(pd.DataFrame({"a/b": [1, 2]}, index=["x", "y"]))
    write_table(store, "obs", slashed)
    assert list(anndata.io.read_elem(store["obs"])) == ["a_b"]
    both = ExtendedTable(slashed, {"a_b": np.array([3, 4])})
    write_table(store, "both", both)
    assert list(anndata.io.read_elem(store["both"])) == ["a_b", "a_b_1"]
    mixed = HeldTable(pd.DataFrame({"a": [1, "x"]}, index=["x", "y"]))
    write_table(store, "mixed", mixed)
    assert anndata.io.read_elem(store["mixed"])["a"].tolist() == ["1", "x"]


def test_added_columns_replace_columns_of_the_same_name(table: Annotation) -> None:
    more = ExtendedTable(table, {"near": np.array([0.1, 0.2, 0.3]), "size": np.array([7, 8, 9])})
    assert more.columns == ["kind", "text", "whole", "near", "size"]
    assert more["size"].tolist() == [7, 8, 9]
    assert more["text"].tolist() == ["x", "y", "z"]
    assert len(more) == 3
    assert more.names().tolist() == ["c1", "c2", "c3"]
    assert [str(_text(name)) for block in more.name_blocks() for name in block] == ["c1", "c2", "c3"]
    some = more.frame(np.array([2, 0]))
    assert some["near"].tolist() == [0.3, 0.1]
    assert some["size"].tolist() == [9, 7]
    assert list(more.frame().index) == ["c1", "c2", "c3"]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name


def test_names_have_the_type_that_pandas_gives_to_text(table: Annotation) -> None:
    assert table.names().dtype == pd.Index(["c1", "c2", "c3"]).dtype
    assert table.names(np.array([2, 0])).dtype == table.frame().index.dtype == table.names().dtype


def test_a_mask_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table.h5", "w") as file:
        group = file.create_group("obs")
        names = group.create_group("_index")
        names["values"] = np.array(["a", "b"], dtype=h5py.string_dtype())
        names.create_dataset("mask", shape=(2**40,), dtype=bool, chunks=(4096,))
        names.attrs.update({"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"})
        group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
        said = r"^obs: expected a table .*, got names of shape \(2,\) with a mask of shape \(1099511627776,\)"
        with pytest.raises(FormatError, match=said):
            StoredTable.of_group(group)


@pytest.mark.parametrize("missing", [False, True])
def test_names_that_pandas_3_stores_with_a_mask_are_not_read_at_once(missing: bool, tmp_path: Path) -> None:
    names = pd.array(["a", None if missing else "b"], dtype="string")
    with h5py.File(tmp_path / "table.h5", "w") as file:
        group = file.create_group("obs")
        names_group = group.create_group("_index")
        names_group["values"] = np.array(["a", "b"], dtype=h5py.string_dtype())
        names_group["mask"] = np.asarray(names.isna())
        names_group.attrs.update({"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"})
        names_group["values"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        names_group["mask"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        group["size"] = np.array([1.0, 2.0])
        group["size"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        group.attrs["column-order"] = np.array(["size"], dtype=h5py.string_dtype())
        table = StoredTable.of_group(group)
        assert isinstance(table, HeldTable if missing else StoredTable)
        assert table.names().isna().tolist() == [False, missing]
        assert table["size"].tolist() == [1.0, 2.0]
