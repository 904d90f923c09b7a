"""Cell types in the viewer: labels, confidence and unknown cells, matched by cell names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from anndata import AnnData
from typer.testing import CliRunner

from cellweft._errors import InputError, SettingError
from cellweft.cli.options import expanded
from cellweft.cli.view import view as view_command
from cellweft.evaluate.score_table import write_scores
from cellweft.viewer import Viewer, view

Make = Callable[..., pd.DataFrame]
Ask = Callable[..., Any]
QUIET: Any = {"open_browser": False, "block": False}


def column_of(ask: Ask, viewer: Viewer, name: str, dataset: int = 0) -> list[Any]:
    """Return the values of a column as sent to the page: labels or numbers, None if missing."""
    (told,) = [one for one in session(ask, viewer, dataset)["columns"] if one["name"] == name]
    reply = ask(viewer, f"/api/datasets/{dataset}/column?name={name.replace(' ', '%20')}")
    if told["kind"] == "category":
        return [None if code == 65_535 else told["categories"][code] for code in reply.values("<u2")]
    return [None if np.isnan(value) else float(value) for value in reply.values("<f4")]


def session(ask: Ask, viewer: Viewer, dataset: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = ask(viewer, "/api/session").told["datasets"][dataset]
    return told


def written(table: pd.DataFrame, path: Path) -> Path:
    rows = table.rename_axis("cell").reset_index()
    rows.attrs = table.attrs
    return write_scores(rows, path)[0]


@pytest.mark.parametrize("result", ["memory", "zarr", "h5ad"])
@pytest.mark.parametrize("form", ["memory", "csv", "parquet"])
def test_cells_have_their_own_labels(
    ask: Ask,
    cell_types: Make,
    imputed: AnnData,
    stores: dict[str, Path],
    tmp_path: Path,
    result: str,
    form: str,
) -> None:
    names = [*reversed(imputed.obs_names[3:]), "stranger"]
    table = cell_types(names)
    given = table if form == "memory" else written(table, tmp_path / f"types.{form}")
    with view(imputed if result == "memory" else stores[result], labels=given, **QUIET) as viewer:
        columns = [one["name"] for one in session(ask, viewer)["columns"]]
        assert columns[-3:] == ["label", "confidence", "unknown"]
        expected = table.reindex(imputed.obs_names)
        assert column_of(ask, viewer, "label") == [
            None if pd.isna(one) else one for one in expected["label"].astype(object)
        ]
        confidence = column_of(ask, viewer, "confidence")
        assert confidence[:3] == [None, None, None]
        assert confidence[3:] == pytest.approx(expected["confidence"][3:].tolist())
        unknown = column_of(ask, viewer, "unknown")
        assert unknown == [None if pd.isna(one) else str(one) for one in expected["unknown"]]
        cell = ask(viewer, "/api/datasets/0/cell?index=60").told
        assert cell["name"] == "cell60"
        assert (cell["columns"]["label"], cell["columns"]["unknown"]) == ("A", "True")


def test_several_columns_and_results(
    ask: Ask, cell_types: Make, imputed: AnnData, stores: dict[str, Path]
) -> None:
    table = cell_types(imputed.obs_names, ("class", "subclass"))
    with view(stores["placed"], stores["zarr"], labels=table, **QUIET) as viewer:
        added = [
            f"{column}_{end}"
            for column in ("class", "subclass")
            for end in ("label", "confidence", "unknown")
        ]
        assert [one["name"] for one in session(ask, viewer, 1)["columns"]][-6:] == added
        assert [one["name"] for one in session(ask, viewer, 0)["columns"]] == ["cellweft_confidence"]
        assert column_of(ask, viewer, "subclass_label", 1) == table["subclass_label"].tolist()


def test_a_column_of_the_result_with_the_same_name_is_kept(
    ask: Ask, cell_types: Make, imputed: AnnData
) -> None:
    result = imputed.copy()
    result.obs["label"] = pd.Categorical(["mine"] * result.n_obs)
    with view(result, labels=cell_types(result.obs_names), **QUIET) as viewer:
        assert set(column_of(ask, viewer, "label")) == {"mine"}
        assert column_of(ask, viewer, "label (annotate)")[:3] == ["A", "B", "C"]


def test_a_table_without_its_record_is_shown(
    ask: Ask, cell_types: Make, imputed: AnnData, tmp_path: Path
) -> None:
    path = written(cell_types(imputed.obs_names), tmp_path / "types.csv")
    path.with_suffix(".json").unlink()
    with view(imputed, labels=path, **QUIET) as viewer:
        assert column_of(ask, viewer, "label")[:3] == ["A", "B", "C"]


def test_labels_that_cannot_be_shown(
    cell_types: Make, imputed: AnnData, stores: dict[str, Path], tmp_path: Path
) -> None:
    table = cell_types(imputed.obs_names)
    with pytest.raises(SettingError, match=r"labels: expected an imputed result or spots, .* placed only"):
        view(stores["placed"], labels=table, **QUIET)
    with pytest.raises(InputError, match=r"labels: expected the cells of result .*got other names \('x0'"):
        view(imputed, labels=cell_types([f"x{number}" for number in range(61)]), **QUIET)
    with pytest.raises(InputError, match=r"labels.*each cell once"):
        view(imputed, labels=table.iloc[[0, 0]], **QUIET)
    with pytest.raises(InputError, match=r"labels.*got none of 'unknown'"):
        view(imputed, labels=table.drop(columns="unknown"), **QUIET)
    scores = tmp_path / "scores.csv"
    scores.write_text("method,value\nauto,1\n")
    with pytest.raises(InputError, match=r"labels \(.*\): expected a table of cell types, with the columns"):
        view(imputed, labels=scores, **QUIET)


def test_the_command_accepts_labels(
    cell_types: Make,
    imputed: AnnData,
    stores: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Viewer, "wait", lambda self: None)
    app = typer.Typer()
    app.command("view")(expanded(view_command))
    path = written(cell_types(imputed.obs_names), tmp_path / "types.csv")
    found = CliRunner().invoke(app, [str(stores["zarr"]), "--labels", str(path), "--json", "--no-open"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["labels"] == str(path)
    found = CliRunner().invoke(app, [str(stores["placed"]), "--labels", str(path), "--no-open"])
    assert found.exit_code == 2
    assert "--labels: expected an imputed result or spots" in " ".join((found.output + found.stderr).split())
