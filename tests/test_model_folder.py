"""Model folders of any model: three files are saved and loaded, and damage is reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cellweft
from cellweft._errors import FormatError, MissingFileError, OutputError, OutputExistsError
from cellweft._load import load
from cellweft._model_folder import SCHEMA, ModelFolder, part_of, read_folder, write_folder

FILES = ["config.json", "genes.parquet", "weights.safetensors"]


def make(**config: Any) -> ModelFolder:
    values = torch.arange(12.0).reshape(3, 4)
    return ModelFolder(
        config={"kind": "toy", "preset": "auto", "settings": {"k": 3, "dropout": None}, **config},
        tensors={
            "first.weight": values,
            "first.bias": torch.tensor([1, 2]),
            "second.weight": values.T,  # another order than in memory
            "learned": values.clone().requires_grad_(True),
        },
        genes=pd.DataFrame({"gene": ["Gad1", "Sst"], "score": [0.5, np.nan]}),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model folder, which tests may damage."""
    return write_folder(make(), tmp_path / "model")


def content(folder: ModelFolder) -> ModelFolder:
    return folder


class TestThereAndBack:
    def test_all_parts_are_restored(self, path: Path, tmp_path: Path) -> None:
        assert path == (tmp_path / "model").resolve()
        assert sorted(one.name for one in path.iterdir()) == FILES
        found, given = read_folder(path, content), make()
        assert list(found.tensors) == sorted(given.tensors)
        for name, one in given.tensors.items():
            assert torch.equal(found.tensors[name], one)
            assert found.tensors[name].dtype == one.dtype
            assert not found.tensors[name].requires_grad
        pd.testing.assert_frame_equal(found.genes, given.genes)
        assert {name: found.config[name] for name in given.config} == given.config

    def test_the_config_has_schema_and_versions(self, path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        assert next(iter(config)) == "schema"
        assert config["schema"] == SCHEMA
        assert config["versions"]["cellweft"] == cellweft.__version__
        assert config["settings"] == {"k": 3, "dropout": None}

    def test_inputs_are_not_changed(self, tmp_path: Path) -> None:
        given = make()
        write_folder(given, tmp_path / "model")
        assert "schema" not in given.config
        assert given.tensors["learned"].requires_grad

    def test_the_result_of_parse_is_returned(self, path: Path) -> None:
        assert read_folder(path, lambda folder: len(folder.genes)) == 2

    def test_part_of(self) -> None:
        tensors = make().tensors
        assert set(part_of(tensors, "first")) == {"weight", "bias"}
        assert torch.equal(part_of(tensors, "second")["weight"], tensors["second.weight"])
        assert part_of(tensors, "fir") == {}
        assert part_of(tensors, "third") == {}

    def test_nothing_is_pickled(self, path: Path) -> None:
        for one in path.iterdir():
            assert not one.read_bytes().startswith((b"\x80", b"PK")), one.name


class TestWhereItIsWritten:
    def test_a_model_is_only_replaced_on_request(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputExistsError, match="overwrite=True"):
            write_folder(make(seed=1), path)
        assert "seed" not in read_folder(path, content).config
        write_folder(make(seed=1), path, overwrite=True)
        assert read_folder(path, content).config["seed"] == 1
        assert [one.name for one in tmp_path.iterdir()] == ["model"]

    def test_a_folder_that_is_not_a_model_is_never_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(OutputExistsError, match="a folder that is neither a zarr store nor a model"):
            write_folder(make(), tmp_path, overwrite=True)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="mkdir -p"):
            write_folder(make(), tmp_path / "no" / "model")

    @pytest.mark.parametrize(
        "victim",
        ["cellweft._model_folder.save_file", "pandas.DataFrame.to_parquet", "pathlib.Path.write_text"],
    )
    def test_a_failed_write_leaves_nothing(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        before = {one.name: one.read_bytes() for one in path.iterdir()}
        with monkeypatch.context() as patch:
            patch.setattr(victim, fail)
            for target in (tmp_path / "new", path):
                with pytest.raises(
                    OutputError, match=r"No space left on device.*Nothing incomplete was left"
                ):
                    write_folder(make(), target, overwrite=True)
        assert [one.name for one in tmp_path.iterdir()] == ["model"]
        assert {one.name: one.read_bytes() for one in path.iterdir()} == before


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, path: Path, name: str) -> None:
        (path / name).unlink()
        message = rf"a model folder with config\.json, .*, got no {name}\. Pass the folder that save\(path\)"
        with pytest.raises(MissingFileError, match=message):
            read_folder(path, content)

    def test_a_path_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError, match=r"nowhere: expected a model folder.*got no config\.json"):
            read_folder(tmp_path / "nowhere", content)

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_a_truncated_file_is_detected(self, path: Path, name: str, kept: float) -> None:
        held = (path / name).read_bytes()
        (path / name).write_bytes(held[: int(kept * len(held))])
        with pytest.raises(FormatError, match=r"expected the files of a saved model, got .*save it again"):
            read_folder(path, content)

    @pytest.mark.parametrize("text", ["[1, 2]", '"model"', "null", "{}", "\ufeff\x00"])
    def test_other_json_is_detected(self, path: Path, text: str) -> None:
        (path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(FormatError, match="the files of a saved model"):
            read_folder(path, content)

    @pytest.mark.parametrize(
        ("schema", "fix"),
        [(0, "Fit the model"), (SCHEMA + 1, "Update cellweft"), (None, "Fit the"), ("1", "Fit")],
    )
    def test_another_schema_is_named(self, path: Path, schema: object, fix: str) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | {"schema": schema}))
        with pytest.raises(FormatError, match=rf"a model of schema {SCHEMA}, got schema {schema}\. {fix}"):
            read_folder(path, content)

    def test_a_model_of_weft_is_refused(self, path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        versions = {"weft": "0.1.0"}
        (path / "config.json").write_text(json.dumps(config | {"schema": SCHEMA - 1, "versions": versions}))
        with pytest.raises(
            FormatError,
            match=r"got a file that was written under the package's former name, weft\. Create it",
        ):
            read_folder(path, content)

    @pytest.mark.parametrize("error", [ValueError("a"), KeyError("b"), TypeError("c"), RuntimeError("d")])
    def test_inconsistent_parts_are_damage_too(self, path: Path, error: Exception) -> None:
        def parse(_: ModelFolder) -> None:
            raise error

        with pytest.raises(FormatError, match=rf"the files of a saved model, got {type(error).__name__}"):
            read_folder(path, parse)

    def test_another_kind_of_model(self, path: Path) -> None:
        with pytest.raises(FormatError, match=r"kind: expected one of 'imputer', 'placer', got 'toy'"):
            load(path)
