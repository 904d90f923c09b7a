"""Tables of cell types, read back from memory and files: their contents, and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import FormatError, InputError, MissingFileError
from cellweft.data.io.cell_labels import holds_labels, read_cell_labels
from cellweft.evaluate.score_table import write_scores

CELLS = ["NA", "0012", "c", "d", "null", "f", "g", "h", "i", "j", "k", "l"]

Make = Callable[..., pd.DataFrame]


def written(table: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format of `cellweft annotate`."""
    rows = table.rename_axis("cell").reset_index()
    rows.attrs = table.attrs
    return write_scores(rows, path, overwrite=True)[0]


@pytest.mark.parametrize("columns", [("cell_type",), ("class", "subclass"), ("my_label", "probability")])
@pytest.mark.parametrize("form", ["memory", "csv", "parquet"])
def test_every_format_gives_the_same_table(
    cell_types: Make, tmp_path: Path, columns: tuple[str, ...], form: str
) -> None:
    made = cell_types(CELLS, columns)
    given = made if form == "memory" else written(made, tmp_path / f"types.{form}")
    found = read_cell_labels(given, argument="labels")
    assert found.cells.tolist() == CELLS
    assert [one.name for one in found.columns] == list(columns)
    assert found.record == made.attrs["cellweft"]
    for one in found.columns:
        assert one.prefix == ("" if len(columns) == 1 else f"{one.name}_")
        assert list(one.labels) == list(made[f"{one.prefix}label"].astype(str))
        np.testing.assert_allclose(one.confidence, made[f"{one.prefix}confidence"])
        np.testing.assert_array_equal(one.unknown, made[f"{one.prefix}unknown"])


def test_labels_that_pandas_would_read_as_missing_are_kept(cell_types: Make, tmp_path: Path) -> None:
    made = cell_types(CELLS)
    made["label"] = made["label"].cat.rename_categories({"A": "NA", "B": "None", "C": "12"})
    found = read_cell_labels(written(made, tmp_path / "types.csv"), argument="labels")
    assert sorted(found.columns[0].labels.categories) == ["12", "NA", "None"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_written_with_its_index_is_read(cell_types: Make, tmp_path: Path, form: str) -> None:
    made, path = cell_types(CELLS, ("class", "subclass")), tmp_path / f"types.{form}"
    made.attrs = {}
    made.to_csv(path) if form == "csv" else made.to_parquet(path)
    found = read_cell_labels(path, argument="labels")
    assert found.cells.tolist() == CELLS
    assert found.record == {}
    assert [one.name for one in found.columns] == ["class", "subclass"]


def test_the_input_is_not_changed(cell_types: Make) -> None:
    made = cell_types(CELLS)
    before = made.copy(deep=True)
    read_cell_labels(made, argument="labels")
    pd.testing.assert_frame_equal(made, before)
    assert made.attrs == before.attrs


@pytest.mark.parametrize(
    ("columns", "is_one"),
    [
        (["cell", "label", "confidence", "unknown"], True),
        (["class_label", "class_confidence", "class_unknown"], True),
        (["label", "value"], True),  # the other columns are missing
        (["probability_x_label", "x"], False),
        (["method", "seed", "item", "value"], False),
        ([], False),
    ],
)
def test_how_a_table_is_recognised(columns: list[str], is_one: bool) -> None:
    assert holds_labels(columns) is is_one


def changed(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    made = table.assign(**columns)
    made.attrs = table.attrs
    return made


def without(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    made = table.drop(columns=list(columns))
    made.attrs = table.attrs
    return made


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no confidence": (lambda one: without(one, "confidence"), "got none of 'confidence'"),
    "no labels": (lambda one: without(one, "label"), "a table of cell types, with the columns 'label'"),
    "no cell": (lambda one: one.iloc[:0], "at least one cell, got no row"),
    "a cell twice": (lambda one: one.iloc[[0, 1, 0]], "each cell once, got several rows for 'NA'"),
    "confidence of text": (lambda one: changed(one, confidence="high"), r"\['confidence'\].*probabilities"),
    "confidence above 1": (
        lambda one: changed(one, confidence=[37.0, *one["confidence"][1:]]),
        r"from 0 to 1, got 1 other values, such as 37",
    ),
    "confidence missing": (
        lambda one: changed(one, confidence=[np.nan, *one["confidence"][1:]]),
        r"from 0 to 1, got 1 other values, such as nan",
    ),
    "unknown of text": (lambda one: changed(one, unknown="maybe"), r"\['unknown'\].*True or False"),
    "unknown of numbers": (lambda one: changed(one, unknown=2), r"\['unknown'\].*True or False"),
    "label missing": (
        lambda one: changed(one, label=[None, *one["label"].astype(str)[1:]]),
        r"\['label'\].*a label in every row, got 1 rows without a label",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", ["memory", "csv"])
def test_damaged_tables_are_refused(cell_types: Make, tmp_path: Path, fault: str, form: str) -> None:
    spoil, match = FAULTS[fault]
    given = spoil(cell_types(CELLS))
    if form == "csv":
        given = written(given, tmp_path / "types.csv")
    with pytest.raises(InputError, match=match):
        read_cell_labels(given, argument="labels")


def test_damaged_files_are_refused(cell_types: Make, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"labels \(.*no\.csv\): expected a table of cell types"):
        read_cell_labels(tmp_path / "no.csv", argument="labels")
    whole = written(cell_types(CELLS), tmp_path / "types.csv")
    text = whole.read_text()
    whole.write_text(text[: text.rindex("True,") - 4])  # cut off within the last rows
    with pytest.raises(InputError, match=r"labels \(.*types\.csv\)"):
        read_cell_labels(whole, argument="labels")
    whole.write_text("")
    with pytest.raises(FormatError, match="a table of cell types, got EmptyDataError"):
        read_cell_labels(whole, argument="labels")
    parquet = written(cell_types(CELLS), tmp_path / "types.parquet")
    parquet.write_bytes(parquet.read_bytes()[:300])
    with pytest.raises(FormatError, match="a table of cell types, got ArrowInvalid"):
        read_cell_labels(parquet, argument="labels")
    other = tmp_path / "types.tsv"
    other.write_text(text)
    with pytest.raises(InputError, match=r"\.csv or \.parquet, got types\.tsv"):
        read_cell_labels(other, argument="labels")
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text(text.replace(",", ";"))
    with pytest.raises(
        InputError, match="with the columns 'label', 'confidence' and 'unknown', got a table with"
    ):
        read_cell_labels(semicolons, argument="labels")


def test_records_of_another_table_are_refused(cell_types: Make, tmp_path: Path) -> None:
    path = written(cell_types(CELLS), tmp_path / "types.csv")
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text())
    for record, match in (
        ("{", "its record types.json.*got JSONDecodeError"),
        (json.dumps({"kind": "scores"}), "the record of a table of cell types, got the record of scores"),
        (json.dumps([1]), "got the record of list"),
        (json.dumps(told | {"labels": {}}), "without label columns"),
        (json.dumps(told | {"labels": {"a": 1, "b": 2}}), "got labels of 'a_label', 'b_label'"),
    ):
        beside.write_text(record)
        with pytest.raises(InputError, match=match):
            read_cell_labels(path, argument="labels")
