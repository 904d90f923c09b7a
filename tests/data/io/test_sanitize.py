"""Tables are made storable, every change is reported, and the input tables stay unchanged."""

import logging
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from cellweft.data.io.sanitize import changes_of, storable, storable_mapping
from cellweft.data.io.write import write_anndata


def test_strings_that_repeat_or_are_missing_become_categories() -> None:
    frame = pd.DataFrame({"a": ["x", None, "x"], "b": ["x", "y", "z"], "c": [1, 2, 3]}, index=[3, 4, 5])
    before = frame.copy(deep=True)
    result = storable(frame, "obs")
    pd.testing.assert_frame_equal(frame, before)
    assert isinstance(result["a"].dtype, pd.CategoricalDtype)
    assert result["a"].cat.codes.tolist() == [0, -1, 0]
    assert pd.api.types.is_string_dtype(result["b"])
    assert result["b"].tolist() == ["x", "y", "z"]
    assert result["c"].dtype == np.int64
    assert result.index.tolist() == ["3", "4", "5"]


def test_a_slash_in_a_column_name_is_replaced_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"T/NK": [1.0]})
    with caplog.at_level(logging.WARNING, "cellweft"):
        assert list(storable(frame, "obs")) == ["T_NK"]
    assert "obs: column 'T/NK' is written as 'T_NK'" in caplog.text


def test_names_that_the_formats_do_not_allow_are_replaced() -> None:
    names = ["T/NK", "T_NK", "", ".", "..", " ", "_index", "zarr.json", "a\0b", "\ud800", 7, "x" * 300]
    frame = pd.DataFrame([range(12)], columns=names)
    assert list(storable(frame, "obs")) == [
        "T_NK", "T_NK_1", "unnamed", "unnamed_1", "unnamed_2", "unnamed_3", "_index_1", "zarr.json_1", "ab",
        "?", "7", "x" * 200,
    ]  # fmt: skip


ODD = {
    "mixed": [1, "a", None],
    "flags": [True, None, False],
    "whole": np.array([1, None, 3], dtype=object),
    "floats": np.array([1, 2.5, None], dtype=object),
    "dates": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
    "zoned": pd.to_datetime(["2026-01-01", None, "2026-01-03"]).tz_localize("UTC"),
    "spans": pd.to_timedelta([1, 2, 3], unit="s"),
    "months": pd.period_range("2026-01", periods=3, freq="M"),
    "intervals": pd.cut([1, 5, 9], 3),
    "plain intervals": pd.IntervalIndex.from_breaks([0, 1, 2, 3]),
    "mixed kinds": pd.Categorical([1, "1", None]),
    "day kinds": pd.Categorical(pd.to_datetime(["2026-01-01"] * 3)),
    "lists": [[1], [2, 3], []],
    "bytes": [b"a", b"b", b"c"],
    "surrogates": ["\ud800", "b", "c"],
    "huge": [2**70, 1, 2],
    "complex": [1 + 2j, 0, 0],
    "sparse": pd.arrays.SparseArray([0, 0, 1]),
    "nullable": pd.array([1.5, None, 2], dtype="Float64"),
    "arrow": pd.array([1, None, 2], dtype="int64[pyarrow]"),
    "arrow text": pd.array(["a", None, "c"], dtype="string[pyarrow]"),
    "longdouble": np.array([1, 2, 3], dtype=np.longdouble),
    "half": np.array([1, 2, 3], dtype=np.float16),
    "kinds of numbers": pd.Categorical([1, 2, None]),
    "kinds of flags": pd.Categorical([True, False, None]),
}


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_columns_of_any_type_can_be_written(kind: str, tmp_path: Path) -> None:
    names = pd.Index(["c1", "c\0 2", "\ud800"], dtype=object)
    # From pandas 3 on, text in arrays becomes str, which cannot hold surrogates; a column of objects can.
    surrogates = pd.Series(ODD["surrogates"], index=names, dtype=object)
    frame = pd.DataFrame(ODD | {"surrogates": surrogates}, index=names)
    before = frame.copy(deep=True)
    data = anndata.AnnData(np.eye(3, dtype=np.float32), obs=frame)
    path = write_anndata(data, tmp_path / f"result.{kind}")
    pd.testing.assert_frame_equal(frame, before)
    read = (anndata.read_h5ad if kind == "h5ad" else anndata.read_zarr)(path).obs
    assert read.index.tolist() == ["c1", "c 2", "?"]
    assert list(read) == list(ODD)
    assert read["mixed"].tolist()[:2] == ["1", "a"]
    assert read["mixed"].isna().tolist() == [False, False, True]
    assert read["flags"].tolist() == [True, pd.NA, False]
    assert read["whole"].tolist() == [1, pd.NA, 3]
    assert read["floats"].tolist()[:2] == [1, 2.5]
    assert read["dates"].tolist()[0] == "2026-01-01 00:00:00"
    assert read["months"].tolist() == ["2026-01", "2026-02", "2026-03"]
    assert read["intervals"].tolist() == [str(one) for one in ODD["intervals"]]
    assert read["intervals"].cat.ordered
    assert read["mixed kinds"].tolist()[:2] == ["1", "1"]
    assert read["bytes"].tolist() == ["a", "b", "c"]
    assert read["huge"].tolist()[0] == str(2**70)
    assert read["complex"].tolist()[0] == "(1+2j)"
    assert read["arrow"].tolist() == [1, pd.NA, 2]
    assert read["nullable"].tolist()[::2] == [1.5, 2.0]


def test_only_changes_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame(
        {"ok": ["a", None], "when": pd.to_datetime(["2026-01-01"] * 2), "": [1, 2], "mix": [1, "a"]}
    )
    with caplog.at_level(logging.WARNING, "cellweft"):
        said = changes_of(list(frame), frame)
    assert said == [
        f"'when' ({frame['when'].dtype} as text)",
        "'' (under the name 'unnamed')",
        "'mix' (objects of several kinds as text)",
    ]
    assert caplog.text == ""


def test_mappings_keep_the_values_that_can_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    given = {
        "lib/1": {
            "images": {"hires": image, "odd": object()},
            "scalefactors": {"s": 0.5},
            "names": ["a", "b"],
        }
    }
    with caplog.at_level(logging.WARNING, "cellweft"):
        kept = storable_mapping(given, "uns['spatial']")
    assert list(kept) == ["lib_1"]
    assert kept["lib_1"]["scalefactors"] == {"s": 0.5}
    assert kept["lib_1"]["names"].tolist() == ["a", "b"]
    assert list(kept["lib_1"]["images"]) == ["hires"]
    assert kept["lib_1"]["images"]["hires"] is not image
    assert (
        "uns['spatial']['lib/1']['images']['odd'] is left out: a result cannot contain object." in caplog.text
    )


def test_a_column_of_missing_values_is_stored() -> None:
    assert storable(pd.DataFrame({"a": pd.Series([None, None], dtype=object)}), "obs")["a"].isna().all()
