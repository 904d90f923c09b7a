"""Groups for Xenium Explorer: identifiers as text, one row per cell with a group, and colours."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import InputError, KeyMissingError, OutputExistsError, SettingError
from cellweft.data.export.xenium_explorer import write_explorer_groups


@pytest.fixture
def cells(make_side: Any) -> Any:
    made = make_side(["Gad1", "Sst"], n_cells=4, spatial=True)
    made.obs_names = ["001", "aaaa-1", "7", "x,y"]
    made.obs["type"] = pd.Categorical(["B", "T", None, 'a "B", cell'])
    return made


def read(path: Path) -> Any:
    return pd.read_csv(path, dtype=str)


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr"])
def test_identifiers_are_text_and_cells_without_a_group_are_omitted(
    kind: str, cells: Any, write_as: Any, tmp_path: Path, caplog: Any
) -> None:
    data = cells if kind == "memory" else write_as(cells, tmp_path, kind)
    with caplog.at_level(logging.INFO, logger="cellweft"):
        path = write_explorer_groups(data, tmp_path / "groups.csv", column="type")
    made = read(path)
    assert made.columns.tolist() == ["cell_id", "group"]
    assert made.to_numpy().tolist() == [["001", "B"], ["aaaa-1", "T"], ["x,y", 'a "B", cell']]
    assert "1 cells without type are left out" in caplog.text


def test_identifiers_of_the_run_take_precedence(cells: Any, tmp_path: Path) -> None:
    cells.obs["cell_id"] = ["q-1", "q-2", "q-3", "q-4"]
    cells.obs["other"] = [11, 12, 13, 14]
    write_explorer_groups(cells, tmp_path / "a.csv", column="type")
    write_explorer_groups(cells, tmp_path / "b.csv", column="type", ids="other")
    assert read(tmp_path / "a.csv")["cell_id"].tolist() == ["q-1", "q-2", "q-4"]
    assert read(tmp_path / "b.csv")["cell_id"].tolist() == ["11", "12", "14"]


def test_numbers_are_groups_too(cells: Any, tmp_path: Path) -> None:
    cells.obs["leiden"] = [0, 1, 1, 0]
    made = read(write_explorer_groups(cells, tmp_path / "groups.csv", column="leiden"))
    assert made["group"].tolist() == ["0", "1", "1", "0"]


def test_colours_are_those_of_the_categories(cells: Any, tmp_path: Path) -> None:
    # colours of B, T, a "B", cell, in sorted order
    cells.uns["type_colors"] = np.array(["#ff0000", "#00ff00ff", "#0000ff"])
    order = cells.obs["type"].cat.categories.tolist()
    made = read(write_explorer_groups(cells, tmp_path / "a.csv", column="type"))
    assert dict(zip(made["group"], made["color"], strict=True)) == dict(
        zip(order, ["#ff0000", "#00ff00", "#0000ff"], strict=True)
    )
    cells.uns["type_colors"] = np.array(["red", "green", "blue"])
    assert "color" not in read(write_explorer_groups(cells, tmp_path / "b.csv", column="type"))
    asked = {"B": "#111111", "T": "#222222", 'a "B", cell': "#333333"}
    made = read(write_explorer_groups(cells, tmp_path / "c.csv", column="type", colors=asked))
    assert made["color"].tolist() == ["#111111", "#222222", "#333333"]


def test_wrong_arguments_are_refused(cells: Any, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    with pytest.raises(KeyMissingError, match=r"column='typ': expected a column of obs.*Did you mean 'type'"):
        write_explorer_groups(cells, path, column="typ")
    with pytest.raises(KeyMissingError, match=r"ids='cell': expected a column"):
        write_explorer_groups(cells, path, column="type", ids="cell")
    with pytest.raises(
        SettingError, match=r"colors: expected a colour \(#rrggbb\) for every group.*none for 'T'"
    ):
        write_explorer_groups(cells, path, column="type", colors={"B": "#111111", 'a "B", cell': "#333333"})
    with pytest.raises(SettingError, match=r"got 'red'\. Write '#1f77b4'"):
        write_explorer_groups(
            cells, path, column="type", colors=dict.fromkeys(["B", "T", 'a "B", cell'], "red")
        )
    with pytest.raises(SettingError, match=r"expected a name ending in \.csv"):
        write_explorer_groups(cells, tmp_path / "groups.tsv", column="type")
    cells.obs["same"] = ["a", "a", "b", "c"]
    with pytest.raises(
        InputError, match=r"same: expected a unique identifier for every cell.*'a' more than once"
    ):
        write_explorer_groups(cells, path, column="type", ids="same")
    cells.obs["none"] = [None] * 4
    with pytest.raises(InputError, match=r"expected cells with a group, got none"):
        write_explorer_groups(cells, path, column="none")
    assert not list(tmp_path.iterdir())
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="expected a path that does not exist yet"):
        write_explorer_groups(cells, path, column="type")
