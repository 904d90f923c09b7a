"""A saved model is restored bit by bit, damage is detected, and nothing is pickled."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import cellweft
from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    MissingFileError,
    NotFittedError,
    OutputError,
    OutputExistsError,
)
from cellweft._model_folder import SCHEMA, read_folder
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.impute.imputer import Imputer
from cellweft.impute.stimpute import SavedStImpute

FILES = ["config.json", "genes.parquet", "weights.safetensors"]
Fit = Callable[..., Imputer]


@pytest.fixture(scope="session")
def model(reliable_imputer: Imputer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with embeddings and reliability; tests must not change it."""
    return reliable_imputer.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def damaged(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, which tests may damage."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


# Saving and loading


def test_the_folder_has_three_files_with_plain_values(model: Path, tissue_pair: Pair) -> None:
    assert sorted(one.name for one in model.iterdir()) == FILES
    config = json.loads((model / "config.json").read_text())
    assert config["schema"] == SCHEMA
    assert config["settings"]["k"] == 8
    assert config["seed"] == 0
    assert config["versions"]["cellweft"] == cellweft.__version__
    assert pd.read_parquet(model / "genes.parquet")["gene"].tolist() == list(tissue_pair.shared_genes)
    assert {name.partition(".")[0] for name in load_file(model / "weights.safetensors")} == {
        "autoencoder",
        "network",
        "reliability",
        "embedding",
    }


def test_nothing_is_pickled(model: Path) -> None:
    for path in model.iterdir():
        content = path.read_bytes()
        assert not content.startswith((b"\x80", b"PK")), path.name  # a pickle, or the zip of torch.save
        assert b"data.pkl" not in content
        assert b"__reduce__" not in content
        assert b"ctorch" not in content


@pytest.mark.slow
@pytest.mark.parametrize("reliability", [True, False])
@pytest.mark.parametrize("with_table", [True, False])
def test_a_loaded_model_equals_the_saved_one_bit_by_bit(
    fit_quickly: Fit,
    tissue_pair: Pair,
    embeddings: EmbeddingTable,
    tmp_path: Path,
    with_table: bool,
    reliability: bool,
) -> None:
    fitted = fit_quickly(
        embedding=embeddings if with_table else None, reliability=reliability, seed=3, preset="stimpute"
    )
    loaded = cellweft.load(fitted.save(tmp_path / "model")).attach(tissue_pair)
    first, second = fitted.impute(), loaded.impute()
    np.testing.assert_array_equal(second.X, first.X)
    pd.testing.assert_frame_equal(second.var, first.var)
    genes = tissue_pair.sc.genes
    np.testing.assert_array_equal(loaded.reliability_of(genes), fitted.reliability_of(genes))
    assert second.uns["cellweft"]["settings"] == first.uns["cellweft"]["settings"]
    assert (loaded.seed, loaded.preset, loaded.settings_) == (3, "stimpute", fitted.settings_)


def test_a_model_that_was_loaded_can_be_saved_again(model: Path, tissue_pair: Pair, tmp_path: Path) -> None:
    again = cellweft.load(model).attach(tissue_pair).save(tmp_path / "again")
    for name in ("genes.parquet", "weights.safetensors"):
        assert (again / name).read_bytes() == (model / name).read_bytes()
    assert json.loads((again / "config.json").read_text()) == json.loads((model / "config.json").read_text())


def test_the_scale_of_the_neighbours_is_kept(
    model: Path, reliable_imputer: Imputer, tissue_pair: Pair
) -> None:
    loaded = cellweft.load(model).attach(tissue_pair)
    assert loaded.model_.neighbor_scale == reliable_imputer.model_.neighbor_scale
    assert loaded.model_.neighbor_scale not in (0, 1)


def test_a_folder_without_the_scale_predicts_as_before(damaged: Path, tissue_pair: Pair) -> None:
    config = json.loads((damaged / "config.json").read_text())
    del config["neighbor_scale"], config["settings"]["neighbor_scale"], config["settings"]["similarity_mean"]
    (damaged / "config.json").write_text(json.dumps(config))
    loaded = cellweft.load(damaged).attach(tissue_pair)
    assert loaded.model_.neighbor_scale == 1
    assert (loaded.settings_.neighbor_scale, loaded.settings_.similarity_mean) == ("none", "profile")


@pytest.mark.slow
def test_a_loaded_model_imputes_other_cells_and_files(
    model: Path, reliable_imputer: Imputer, tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path
) -> None:
    tissue.sc.write_h5ad(tmp_path / "sc.h5ad")
    # More genes than the panel of the model, in another order; the model uses the genes that it knows.
    more = tissue.truth[:40, ::-1].copy()
    more.write_h5ad(tmp_path / "st.h5ad")
    loaded = cellweft.load(model).attach(pair(tmp_path / "sc.h5ad", tmp_path / "st.h5ad"))
    imputed = loaded.impute()
    assert imputed.shape == (40, 28)
    assert imputed.var["measured"].sum() == 12
    assert np.isfinite(imputed.X).all()
    path = loaded.impute_to(tmp_path / "imputed.h5ad")
    np.testing.assert_array_equal(anndata.read_h5ad(path).X, imputed.X)
    some = reliable_imputer.impute(pair=tissue_pair.cells(np.arange(3)))
    whole = cellweft.load(model).attach(tissue_pair).impute().X
    # On some processors blocks of another size round float32 differently; as in test_imputer.
    np.testing.assert_allclose(whole[:3], some.X, rtol=0, atol=2e-6)


def test_loading_does_not_change_the_global_random_state(model: Path, tissue_pair: Pair) -> None:
    import torch

    before = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002
    cellweft.load(model).attach(tissue_pair).impute(["Gene02"])
    assert (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


# Data of a loaded model


def test_a_loaded_model_needs_attached_data(model: Path, tissue_pair: Pair, tmp_path: Path) -> None:
    loaded = cellweft.load(model)
    for call in (
        loaded.impute,
        lambda: loaded.impute_to(tmp_path / "a.zarr"),
        lambda: loaded.predict(["Gene02"], tissue_pair),
        lambda: loaded.save(tmp_path / "again"),
        lambda: loaded.reliability_of(["Gene02"]),
    ):
        with pytest.raises(NotFittedError, match=r"loaded one without data\. Call attach\(pair\) first"):
            call()


def test_a_loaded_model_refuses_another_reference_or_panel(model: Path, tissue: SimulatedTissue) -> None:
    for sc in (tissue.sc[:50].copy(), tissue.sc[:, ::-1].copy()):
        with pytest.raises(InputError, match=r"expected the reference that the model was fitted with, 100 c"):
            cellweft.load(model).attach(pair(sc, tissue.st))
    lacking = tissue.st[:, 1:].copy()
    with pytest.raises(GeneError, match=tissue.st.var_names[0]):
        cellweft.load(model).attach(pair(tissue.sc, lacking))


# Where a model is saved


def test_a_model_is_only_replaced_on_request(imputer: Imputer, damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        imputer.save(damaged)
    assert read_folder(damaged, SavedStImpute.of).reliability is not None
    imputer.save(damaged, overwrite=True)
    assert read_folder(damaged, SavedStImpute.of).reliability is None
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_not_a_model_is_never_replaced(imputer: Imputer, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match="a folder that is neither a zarr store nor a model"):
        imputer.save(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("victim", ["cellweft._model_folder.save_file", "pandas.DataFrame.to_parquet"])
def test_a_failed_save_leaves_nothing(
    imputer: Imputer, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(victim, fail)
    before = {one.name: one.read_bytes() for one in damaged.iterdir()}
    for path in (tmp_path / "new", damaged):
        with pytest.raises(OutputError, match=r"No space left on device"):
            imputer.save(path, overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == ["model"]
    assert {one.name: one.read_bytes() for one in damaged.iterdir()} == before


# Damage


def test_a_path_without_a_model_is_named(tmp_path: Path, damaged: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere: expected a model folder with config\.json"):
        cellweft.load(tmp_path / "nowhere")
    for name in FILES:
        held = (damaged / name).read_bytes()
        (damaged / name).unlink()
        with pytest.raises(MissingFileError, match=rf"got no {name}.*Pass the folder that save\(path\)"):
            cellweft.load(damaged)
        (damaged / name).write_bytes(held)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_detected(damaged: Path, name: str, kept: float) -> None:
    content = (damaged / name).read_bytes()
    (damaged / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FormatError, match=r"expected the files of a saved model, got .*save it again"):
        cellweft.load(damaged)


@pytest.mark.parametrize("text", ["[1, 2]", '"model"', "null", "{}", '{"schema": 3}', "\ufeff\x00"])
def test_other_json_is_detected(damaged: Path, text: str) -> None:
    (damaged / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(damaged)


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"k": 8, "magic": 1}},
        {"settings": {"k": -1}},
        {"settings": {"k": 9}},
        {"settings": None},
        {"n_reliability_nets": 9},
        {"embedded_genes": ["Gene02"]},
        {"preset": "magic"},
        {"seed": "zero"},
    ],
)
def test_inconsistent_values_are_detected(damaged: Path, values: dict[str, Any]) -> None:
    change(damaged, **values)
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(damaged)


def test_weights_of_another_model_are_detected(damaged: Path, fit_quickly: Fit, tmp_path: Path) -> None:
    other = fit_quickly(settings={"hidden": 4}).save(tmp_path / "other")
    shutil.copy(other / "weights.safetensors", damaged)
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(damaged)


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, None])
def test_another_schema_is_named(damaged: Path, schema: int | None) -> None:
    change(damaged, schema=schema)
    with pytest.raises(FormatError, match=rf"expected a model of schema {SCHEMA}, got schema {schema}"):
        cellweft.load(damaged)


def test_a_newer_schema_asks_for_a_newer_cellweft(damaged: Path) -> None:
    change(damaged, schema=SCHEMA + 1)
    with pytest.raises(FormatError, match="Update cellweft"):
        cellweft.load(damaged)
