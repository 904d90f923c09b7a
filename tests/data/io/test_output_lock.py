"""Outputs of two runs, of one command, and inside inputs: nothing is lost, and errors name the obstacle."""

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import cellweft
from cellweft._errors import CellweftError, OutputError, OutputExistsError, SettingError
from cellweft.cli import app
from cellweft.data.io import atomic_output
from cellweft.data.io.atomic_output import check_apart, check_output, check_outputs, partial_output
from cellweft.data.io.output_lock import LOCK, exclusive
from cellweft.data.io.write import write_anndata

HOLDER = """
import sys
from pathlib import Path
from cellweft.data.io.atomic_output import partial_output
with partial_output(Path(sys.argv[1])) as partial:
    partial.mkdir() if sys.argv[1].endswith(".zarr") else partial.write_text("theirs")
    print("ready", flush=True)
    sys.stdin.readline()
"""


def make(path: Path, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Write an output, and call `meanwhile` before it is complete."""
    with partial_output(path) as partial:
        partial.write_text("ours")
        meanwhile()


def fail(error: BaseException) -> Callable[[], None]:
    def fails() -> None:
        raise error

    return fails


def held_by_other(path: Path) -> Any:
    """Return a process that holds an output until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["scores.csv", "imputed.zarr", "imputed.h5ad"])
def test_the_second_run_is_told_which_run_holds_the_output(tmp_path: Path, name: str) -> None:
    first = held_by_other(tmp_path / name)
    message = (
        rf"{re.escape(name)}: expected an output that no other run is writing, got .*process {first.pid} on "
    )
    with pytest.raises(OutputError, match=message + r".*Wait until that run ends"):
        make(tmp_path / name)
    first.communicate("\n")
    assert first.returncode == 0
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_killed_run_releases_its_output(tmp_path: Path) -> None:
    first = held_by_other(tmp_path / "scores.csv")
    first.kill()
    first.communicate()
    with partial_output(tmp_path / "scores.csv") as partial:
        partial.write_text("ours")
    assert [one.name for one in tmp_path.iterdir()] == ["scores.csv"]


def test_two_threads_exclude_each_other_but_one_may_lock_twice(tmp_path: Path) -> None:
    told: list[BaseException] = []

    def other() -> None:
        try:
            with partial_output(tmp_path / "a.csv"):
                pass
        except CellweftError as error:
            told.append(error)

    with exclusive(tmp_path / "a.csv"), partial_output(tmp_path / "a.csv") as partial:
        partial.write_text("ours")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on " in str(told[0])
    assert not (tmp_path / f".a.csv{LOCK}").exists()


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"a\.csv: expected a path that does not exist yet"):
        make(tmp_path / "a.csv", lambda: (tmp_path / "a.csv").write_text("theirs") and None)
    assert (tmp_path / "a.csv").read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]


# Several outputs


def test_all_outputs_that_exist_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "a.json"):
        (tmp_path / name).write_text("there")
    asked: Any = {"output": (tmp_path / "a.csv", (".csv",)), "beside": (tmp_path / "a.json", (".json",))}
    with pytest.raises(
        OutputExistsError, match=r"a\.csv, .*a\.json: expected paths .*got 2 existing outputs"
    ):
        check_outputs(asked)
    (tmp_path / "a.csv").unlink()
    with pytest.raises(OutputExistsError, match=r"/a\.json: expected a path that does not exist yet"):
        check_outputs(asked)
    assert check_outputs(asked, overwrite=True) == [tmp_path / "a.csv", tmp_path / "a.json"]


@pytest.mark.parametrize("model", ["out.zarr", "out.zarr/model", "link/out.zarr"])
def test_outputs_need_separate_paths(tmp_path: Path, model: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "out.zarr").mkdir()
    asked: Any = {"output": (tmp_path / "out.zarr", ()), "save_model": (tmp_path / model, "model")}
    with pytest.raises(SettingError, match=r"save_model: expected a separate path for each output"):
        check_outputs(asked, overwrite=True)


# Inputs


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, make_side: Any, write_as: Any) -> dict[str, Path]:
    genes = ["Gad1", "Sst", "Vip", "Lamp5"]
    sc, st = make_side(genes), make_side(genes[:3], spatial=True)
    sides = (("sc", sc, "h5ad"), ("st", st, "zarr"), ("mtx", sc, "mtx"))
    return {name: write_as(side, tmp_path_factory.mktemp(name), kind) for name, side, kind in sides}


@pytest.fixture
def sides(tmp_path: Path, written: dict[str, Path]) -> dict[str, Path]:
    """A reference and a tissue as files of several formats."""
    for name, path in written.items():
        shutil.copytree(path.parent, tmp_path / name)
    return {name: tmp_path / name / path.name for name, path in written.items()}


def state(*paths: Path) -> dict[str, bytes]:
    files = (one for path in paths for one in ([path] if path.is_file() else path.rglob("*")))
    return {str(one): one.read_bytes() for one in files if one.is_file()}


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        "impute SC ST -o IN/a.zarr",
        "impute SC ST -o IN/a.h5ad",
        "impute SC ST -o IN/X/a.zarr",
        "impute SC ST -o OUT/a.zarr --save-model IN/model",
        "place SC ST -o IN/a.h5ad",
        "place SC ST -o OUT/a.h5ad --spots IN/a.h5ad",
        "place SC ST -o OUT/a.h5ad --save-model IN/model",
        "evaluate SC ST -o IN/a.csv",
        "report ST -o IN/a.html",
        "export ST --to explorer --column x -o IN/a.csv",
        "export ST --to cellxgene -o IN/a.h5ad",
        "export ST --to vitessce -o IN/a.json",
        "proteins --genes Gad1,Sst --organism mouse -o IN/a.fasta",
        "proteins --genes Gad1,Sst --organism mouse -o OUT/a.fasta --table IN/a.tsv",
        "demo --out IN/demo",
    ],
)
def test_no_output_lies_inside_a_store(
    sides: dict[str, Path], tmp_path: Path, command: str, link: bool
) -> None:
    store = tmp_path / "link.zarr" if link else sides["st"]
    if link:
        store.symlink_to(sides["st"])
    before = state(sides["st"])
    words = command.replace("SC", str(sides["sc"])).replace("IN", str(store)).replace("OUT", str(tmp_path))
    found = run(*words.replace(" ST", f" {sides['st']}").split())
    assert found.exit_code == 2, found.output
    assert "outside stores and models" in found.stderr or "never changed" in found.stderr
    assert state(sides["st"]) == before
    assert not list(tmp_path.glob("a.*"))


def test_a_model_never_replaces_data(sides: dict[str, Path]) -> None:
    before = state(*sides.values())
    for target in (sides["st"], sides["sc"]):
        found = run("impute", sides["sc"], sides["st"], "-o", "a.zarr", "--save-model", target, "--overwrite")
        assert found.exit_code == 2, found.output
        assert "expected an earlier output that can be replaced" in found.stderr
    inside = run("impute", sides["mtx"], sides["st"], "-o", sides["mtx"] / "a.zarr")
    assert inside.exit_code == 2
    assert "a path inside the input " in inside.stderr
    assert "Choose another path: cellweft never changes its inputs." in inside.stderr
    assert state(*sides.values()) == before


def test_backed_data_and_hard_links_are_inputs_too(sides: dict[str, Path], tmp_path: Path) -> None:
    backed = anndata.read_h5ad(sides["sc"], backed="r")
    pair = cellweft.pair(backed, sides["st"])
    with pytest.raises(OutputExistsError, match="the path of the data that are read"):
        cellweft.data._pair.check_not_input(sides["sc"], pair)
    (tmp_path / "other.h5ad").hardlink_to(sides["sc"])
    with pytest.raises(OutputExistsError, match="the path of the data that are read"):
        check_apart([tmp_path / "other.h5ad"], [sides["sc"]])
    check_apart([tmp_path / "new.h5ad", None], [sides["sc"], None, backed])


def test_an_embedding_is_an_input(sides: dict[str, Path], tmp_path: Path) -> None:
    table = sides["sc"].with_name("embedding.h5ad")
    table.write_bytes(sides["sc"].read_bytes())
    found = run("impute", sides["sc"], sides["st"], "-o", table, "--embedding", table, "--overwrite")
    assert found.exit_code == 2
    assert "cellweft never changes its inputs" in found.stderr


def test_no_output_lies_inside_a_saved_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(OutputError, match="a folder outside stores and models"):
        check_output(tmp_path / "model" / "a.csv")


# What remains after an error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("removable", [True, False])
def test_the_error_says_which_files_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, removable: bool
) -> None:
    def refuse(path: Path, **_: Any) -> None:
        raise OSError(errno.EMFILE, "too many")

    if not removable:
        monkeypatch.setattr(atomic_output, "remove", refuse)
        monkeypatch.setattr("time.sleep", lambda _: None)
    steps = {
        errno.ENOSPC: "Free some space or choose another folder",
        errno.EMFILE: "Raise the limit on open",
    }
    with pytest.raises(OutputError, match=steps.get(code, "Choose another folder")) as caught:
        make(tmp_path / "a.csv", fail(OSError(code, "refused")))
    assert ("Nothing incomplete was left" in str(caught.value)) is removable
    assert ("could not be removed: .a.csv.*.cellweft-partial" in str(caught.value)) is not removable
    assert bool(list(tmp_path.iterdir())) is not removable


def test_an_interrupt_says_which_files_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: Any) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(atomic_output, "remove", refuse)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(KeyboardInterrupt) as caught:
        make(tmp_path / "a.csv", fail(KeyboardInterrupt()))
    assert "is incomplete and could not be removed" in " ".join(caught.value.__notes__)


def test_writing_results_twice_at_once(tmp_path: Path) -> None:
    data = anndata.AnnData(
        np.ones((2, 2)), obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["g", "h"])
    )
    first = held_by_other(tmp_path / "placed.zarr")
    try:
        with pytest.raises(OutputError, match="an output that another run is writing"):
            write_anndata(data, tmp_path / "placed.zarr")
    finally:
        first.communicate("\n")
