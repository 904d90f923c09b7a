"""The default preset of the Imputer, "auto": its contract, intervals, reliability, and saved models."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import cellweft
from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    MemoryBudgetError,
    NotFittedError,
    SettingError,
)
from cellweft.data._pair import Pair, pair
from cellweft.data.io.zarr_store import quiet_zarr
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.impute.imputer import Imputer
from cellweft.nn.config import AttentionSettings

ROUNDING = 5e-6
"""With other genes, float32 sums may be taken in another order; values are below 8."""

QUICK = {"level_cell_genes": 12, "steps": 5, "fold_steps": 4, "level_steps": 5, "level_hidden": 6}
NAMES = ["symbol", "gene_id", "reference_name"]
COLUMNS = [*NAMES, "measured", "reliability", "reliability_lower", "reliability_upper", "reliable"]

Fit = Callable[..., Imputer]
both_formats = pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
with_and_without_intervals = pytest.mark.parametrize("interval", [None, 0.9])


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


def digest(data: anndata.AnnData) -> str:
    """Hash every array of an AnnData, bit by bit, and its tables."""
    found = hashlib.sha256()
    parts = [data.X.data, data.X.indices, data.X.indptr] if sp.issparse(data.X) else [data.X]
    for part in (*parts, *data.obsm.values()):
        found.update(np.ascontiguousarray(part).tobytes())
    for table in (data.obs, data.var):
        found.update(table.to_csv().encode())
    return found.hexdigest() + repr(data.uns)


@pytest.fixture(scope="module")
def fit_auto(tissue_pair: Pair) -> Fit:
    """Function that fits the default preset to the tissue."""

    def fit(*, on: Pair = tissue_pair, changes: dict[str, Any] | None = None, **others: Any) -> Imputer:
        return Imputer(settings=QUICK | (changes or {}), **others).fit(on)

    return fit


@pytest.fixture(scope="module")
def auto(fit_auto: Fit) -> Imputer:
    """The default preset with reliability, fitted to the tissue; tests must not change it."""
    return fit_auto()


@pytest.fixture(scope="module")
def imputed(auto: Imputer) -> anndata.AnnData:
    """The imputed result of all genes with intervals; tests must not change it."""
    return auto.impute(interval=0.9)


@pytest.fixture(scope="module")
def model(auto: Imputer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved model of the default preset; tests must not change it."""
    return auto.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def damaged(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, which tests may damage."""
    return Path(shutil.copytree(model, tmp_path / "model"))


# Results


@both_formats
@with_and_without_intervals
def test_predict_impute_and_impute_to_agree_bit_by_bit(
    auto: Imputer, tissue_pair: Pair, tmp_path: Path, suffix: str, interval: float | None
) -> None:
    held = auto.impute(interval=interval)
    written = read(auto.impute_to(tmp_path / f"imputed{suffix}", interval=interval))
    np.testing.assert_array_equal(auto.predict(tissue_pair.sc.genes, tissue_pair), held.X)
    for result in (held, written):
        np.testing.assert_array_equal(result.X, held.X)
        assert set(result.layers) - {None} == (set() if interval is None else {"lower", "upper"})
        for name in held.layers:
            np.testing.assert_array_equal(result.layers[name], held.layers[name])
            assert result.layers[name].dtype == np.float32
        assert result.X.dtype == np.float32
        assert ("cellweft_similarity" in result.obs) == (interval is not None)
        assert ("interval" in result.uns["cellweft"]) == (interval is not None)
    pd.testing.assert_frame_equal(written.var, held.var, check_names=False)
    pd.testing.assert_frame_equal(written.obs, held.obs, check_names=False, check_categorical=False)


def test_small_blocks_are_assembled_correctly(
    auto: Imputer, imputed: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.impute.planning._MOST_CELLS", 17)
    monkeypatch.setattr("cellweft.impute.planning._tile", lambda *_, **__: (17, 5))
    plan = auto.plan()
    assert (plan.cells_per_block, plan.genes_per_block) == (17, 5)
    written = read(auto.impute_to(tmp_path / "imputed.h5ad", interval=0.9))
    held = auto.impute(interval=0.9)
    np.testing.assert_array_equal(written.X, held.X)
    np.testing.assert_allclose(held.X, imputed.X, rtol=0, atol=ROUNDING)
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(written.layers[name], held.layers[name])
        np.testing.assert_allclose(held.layers[name], imputed.layers[name], rtol=0, atol=1e-3)


def test_a_result_has_the_cells_the_genes_and_a_record(auto: Imputer, tissue: SimulatedTissue) -> None:
    result = auto.impute(["Gene02", "Gene11", "gene07"])
    assert list(result.var_names) == ["Gene02", "Gene11", "Gene07"]
    assert list(result.obs_names) == list(tissue.st.obs_names)
    assert result.obs["layer"].tolist() == tissue.st.obs["layer"].tolist()
    np.testing.assert_array_equal(result.obsm["spatial"], tissue.st.obsm["spatial"])
    assert result.var["measured"].tolist() == [name in tissue.st.var_names for name in result.var_names]
    record = result.uns["cellweft"]
    assert record["preset"] == "auto"
    assert record["settings"]["steps"] == 5
    assert record["settings"]["temperature"] == AttentionSettings().temperature
    assert (record["seed"], record["device"]) == (0, "cpu")
    assert record["embedding"] == "none"
    assert record["network"] == {}
    assert auto.settings_ == AttentionSettings(**QUICK)
    assert auto.network_ == {}


def test_empty_cells_and_genes_get_finite_values(imputed: anndata.AnnData, tissue_pair: Pair) -> None:
    assert tissue_pair.st.empty_cells[5]
    assert tissue_pair.sc.empty_genes.sum() == 2
    for values in (imputed.X, *imputed.layers.values()):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert np.isfinite(imputed.obs["cellweft_similarity"]).all()
    assert np.isfinite(imputed.var["reliability"]).all()


def test_the_table_of_genes_gives_their_reliability(
    auto: Imputer, imputed: anndata.AnnData, tissue_pair: Pair
) -> None:
    var = imputed.var
    assert list(var.columns) == COLUMNS
    assert var["reliability"].between(-1, 1).all()
    assert (var["reliability_lower"] <= var["reliability"]).all()
    assert (var["reliability"] <= var["reliability_upper"]).all()
    assert var["reliability_lower"].min() >= -1
    assert var["reliability_upper"].max() <= 1
    assert var["reliable"].dtype == bool
    np.testing.assert_array_equal(auto.reliability_of(tissue_pair.sc.genes), var["reliability"])
    # genes that the reference does not express have low reliability
    assert (var["reliability"][tissue_pair.sc.empty_genes] < 0.1).all()


def test_a_panel_gene_has_the_score_of_its_held_out_prediction(
    auto: Imputer, imputed: anndata.AnnData, tissue_pair: Pair
) -> None:
    known = auto.fitted_.reliability.known.panel_scores  # type: ignore[union-attr]
    np.testing.assert_array_equal(imputed.var.loc[tissue_pair.shared_genes, "reliability"], known)


def test_other_predictions_can_be_scored(auto: Imputer, imputed: anndata.AnnData, tissue_pair: Pair) -> None:
    off_panel = np.setdiff1d(np.arange(tissue_pair.sc.n_genes), tissue_pair.sc_shared)
    names = tissue_pair.sc.genes[off_panel]
    own = auto.reliability_of(names)
    np.testing.assert_allclose(auto.reliability_of(names, judged=imputed.X[:, off_panel]), own, atol=1e-4)
    flat = auto.reliability_of(names, judged=np.zeros((90, len(names)), dtype=np.float32))
    assert (flat <= own + 1e-6).all()
    with pytest.raises(
        InputError, match=r"judged: expected 90 cells x 3 genes, got an array of shape \(2, 3\)"
    ):
        auto.reliability_of(names[:3], judged=np.zeros((2, 3)))


@pytest.mark.slow
@both_formats
def test_no_genes_give_an_empty_result(auto: Imputer, tmp_path: Path, suffix: str) -> None:
    written = read(auto.impute_to(tmp_path / f"none{suffix}", genes=[], interval=0.9))
    for result in (auto.impute([], interval=0.9), written):
        assert result.shape == (90, 0)
        assert result.layers["lower"].shape == (90, 0)
    assert auto.reliability_of([]).shape == (0,)


def test_no_cells_give_an_empty_result(auto: Imputer, tissue_pair: Pair) -> None:
    result = auto.impute(pair=tissue_pair.cells(np.array([], dtype=int)), interval=0.5)
    assert result.shape == result.layers["upper"].shape == (0, 28)


# Intervals


@given(level=st.floats(0.01, 0.999))
@settings(max_examples=8, deadline=None)
def test_a_prediction_lies_in_its_interval(auto: Imputer, level: float) -> None:
    result = auto.impute(["Gene02", "Gene11", "Gene20"], interval=level)
    assert (result.layers["lower"] >= 0).all()
    assert (result.layers["lower"] <= result.X).all()
    assert (result.layers["upper"] >= result.X).all()
    assert result.uns["cellweft"]["interval"] == level


def test_intervals_equal_those_of_the_model(
    auto: Imputer, imputed: anndata.AnnData, tissue_pair: Pair
) -> None:
    assert auto.intervals_ is not None
    similarity = imputed.obs["cellweft_similarity"].to_numpy()
    np.testing.assert_array_equal(similarity, auto.fitted_.similarity(tissue_pair))  # type: ignore[union-attr]
    lower, upper = auto.intervals_.bounds(imputed.X, similarity=similarity, level=0.9)
    np.testing.assert_array_equal(lower, imputed.layers["lower"])
    np.testing.assert_array_equal(upper, imputed.layers["upper"])
    wider = auto.impute(interval=0.99)
    assert (wider.layers["upper"] - wider.layers["lower"]).mean() > (upper - lower).mean()
    np.testing.assert_array_equal(wider.X, imputed.X)


@pytest.mark.parametrize("interval", [0, 1, 0.001, 1.5, -0.1, float("nan"), "90%", True])
def test_a_level_of_intervals_out_of_range_is_refused(auto: Imputer, tmp_path: Path, interval: Any) -> None:
    message = rf"^interval: expected a number from 0\.01 to 0\.999, got {interval!r}"
    with pytest.raises(SettingError, match=message):
        auto.impute(["Gene02"], interval=interval)
    with pytest.raises(SettingError, match=message):
        auto.impute_to(tmp_path / "imputed.zarr", interval=interval)
    assert list(tmp_path.iterdir()) == []


def test_intervals_that_were_not_fitted_are_refused(
    fit_auto: Fit, imputer: Imputer, tissue_pair: Pair, tmp_path: Path
) -> None:
    small = fit_auto(on=tissue_pair.panel(tissue_pair.shared_genes[:5]))
    for one in (fit_auto(reliability=False), small, imputer):
        message = r"^interval: expected an Imputer that has learned intervals.*preset='auto' with reliab"
        with pytest.raises(NotFittedError, match=message):
            one.impute(["Gene02"], interval=0.9)
        with pytest.raises(NotFittedError, match=message):
            one.impute_to(tmp_path / "imputed.h5ad", interval=0.9)
        assert one.intervals_ is None
    assert list(tmp_path.iterdir()) == []


# Predictions without reliability, and small panels


def test_reliability_changes_no_prediction(fit_auto: Fit, imputed: anndata.AnnData) -> None:
    without = fit_auto(reliability=False)
    result = without.impute()
    np.testing.assert_array_equal(result.X, imputed.X)
    assert list(result.var.columns) == [*NAMES, "measured", "reliability"]
    assert result.var["reliability"].isna().all()
    assert np.isnan(without.reliability_of(["Gene02", "Gene03"])).all()


@pytest.mark.parametrize(
    ("n_panel", "folds", "has_levels", "has_trust"),
    [
        (2, 3, False, False),
        (3, 3, False, False),
        (4, 2, True, False),
        (5, 2, True, False),
        (6, 3, True, True),
        (11, 6, False, False),
    ],
)
def test_small_panels(
    fit_auto: Fit, tissue_pair: Pair, n_panel: int, folds: int, has_levels: bool, has_trust: bool
) -> None:
    small = tissue_pair.panel(tissue_pair.shared_genes[:n_panel])
    one = fit_auto(on=small, changes={"folds": folds})
    assert (one.fitted_.attending.levels is not None) == has_levels  # type: ignore[union-attr]
    assert (one.intervals_ is not None) == has_trust
    result = one.impute()
    assert np.isfinite(result.X).all()
    assert (result.X >= 0).all()
    assert result.var["reliability"].notna().all() == has_trust


# Independence of predictions


@given(asked=st.lists(st.integers(0, 27), min_size=1, max_size=8))
@settings(max_examples=8, deadline=None)
def test_a_gene_does_not_depend_on_other_requested_genes(
    auto: Imputer, imputed: anndata.AnnData, asked: list[int]
) -> None:
    names = imputed.var_names[list(dict.fromkeys(asked))]
    some = auto.impute(names)
    np.testing.assert_allclose(some.X, imputed[:, names].X, rtol=0, atol=ROUNDING)
    pd.testing.assert_frame_equal(some.var, imputed.var.loc[names], check_exact=False, atol=1e-4)


def test_a_cell_does_not_depend_on_the_others(
    auto: Imputer, imputed: anndata.AnnData, tissue_pair: Pair
) -> None:
    cells = np.array([4, 80, 5, 41])
    some = auto.impute(pair=tissue_pair.cells(cells), interval=0.9)
    np.testing.assert_allclose(some.X, imputed.X[cells], rtol=0, atol=ROUNDING)
    pd.testing.assert_frame_equal(some.var, imputed.var)
    np.testing.assert_allclose(
        some.obs["cellweft_similarity"], imputed.obs["cellweft_similarity"].iloc[cells], atol=ROUNDING
    )


@pytest.mark.parametrize("memory", ["501 MB", "520 MB", "1 GB"])
def test_the_memory_budget_does_not_matter(
    fit_auto: Fit, tissue_pair: Pair, imputed: anndata.AnnData, memory: str
) -> None:
    one = fit_auto(
        changes={"batch_cells": 40, "batch_reference": 50, "fold_cells": 40, "fold_reference": 50},
        reliability=False,
    )
    budgeted = one.plan(memory=memory)
    assert budgeted.peak_bytes <= float(memory.split()[0]) * (1e9 if memory.endswith("GB") else 1e6)
    np.testing.assert_allclose(
        one.impute(memory=memory).X, one.predict(tissue_pair.sc.genes, tissue_pair), rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("kind", ["dense", "csc", "h5ad", "zarr"])
def test_every_kind_of_input_gives_the_same_model(
    fit_auto: Fit, imputed: anndata.AnnData, tissue: SimulatedTissue, tmp_path: Path, kind: str
) -> None:
    sides: list[Any] = []
    for side, name in ((tissue.sc, "sc"), (tissue.st, "st")):
        one, path = side.copy(), tmp_path / f"{name}.{kind}"
        if kind == "dense":
            one.X = one.X.toarray()
        elif kind == "csc":
            one.X = sp.csc_matrix(one.X)
        elif kind == "h5ad":
            one.write_h5ad(path)
        else:
            with quiet_zarr():
                one.write_zarr(path)
        sides.append(path if path.exists() else one)
    result = fit_auto(on=pair(*sides), reliability=False).impute()
    np.testing.assert_array_equal(result.X, imputed.X)


@pytest.mark.slow
def test_inputs_are_not_changed(fit_auto: Fit, tissue: SimulatedTissue, tmp_path: Path) -> None:
    paths = [tmp_path / "sc.h5ad", tmp_path / "st.h5ad"]
    for side, path in zip((tissue.sc, tissue.st), paths, strict=True):
        side.write_h5ad(path)
    before = [digest(tissue.sc), digest(tissue.st)], [path.read_bytes() for path in paths]
    for one in (pair(tissue.sc, tissue.st), pair(*paths)):
        result = fit_auto(on=one).impute(interval=0.9)
        result.X[:] = result.layers["lower"][:] = -1
        result.obsm["spatial"][:] = -1
        result.obs["layer"] = "lost"
    assert ([digest(tissue.sc), digest(tissue.st)], [path.read_bytes() for path in paths]) == before


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    fit_auto: Fit, imputed: anndata.AnnData
) -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 -- the global state is what is watched
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    again = fit_auto(seed=np.int64(0)).impute(interval=0.9)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before
    np.testing.assert_array_equal(again.X, imputed.X)
    pd.testing.assert_frame_equal(again.var, imputed.var)
    for name in ("lower", "upper"):
        np.testing.assert_array_equal(again.layers[name], imputed.layers[name])
    assert np.abs(fit_auto(seed=1, reliability=False).impute().X - imputed.X).max() > 100 * ROUNDING


@pytest.mark.slow
def test_fitting_twice_gives_the_same_model(imputed: anndata.AnnData, tissue_pair: Pair) -> None:
    again = Imputer(settings=QUICK).fit(tissue_pair.cells(np.arange(30))).fit(tissue_pair)
    np.testing.assert_array_equal(again.impute().X, imputed.X)


def test_progress_is_reported_to_the_end(tissue_pair: Pair) -> None:
    told: list[tuple[str, int, int]] = []
    imputer = Imputer(settings=QUICK).fit(tissue_pair, progress=lambda *step: told.append(step))
    imputer.impute(progress=lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages[0] == "attention"
    assert stages[-1] == "impute"
    assert {"genes left out: attention", "genes left out"} <= set(stages)
    for stage in stages:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps[-1][0] == steps[-1][1]
        assert all(1 <= done <= total for done, total in steps)


# Errors


def test_sources_of_a_gene_graph_are_refused(embeddings: EmbeddingTable, tmp_path: Path) -> None:
    edges = pd.DataFrame({"first": ["Gene02"], "second": ["Gene03"]})
    for name, one in (
        ("embedding", embeddings),
        ("embedding", tmp_path / "never read.h5ad"),
        ("gene_sets", {"set": ["Gene02", "Gene03"]}),
        ("edges", edges),
    ):
        with pytest.raises(SettingError, match=rf"^{name}: .*preset='auto'.*Use preset='stimpute'"):
            Imputer(**{name: one})


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"k": 5}, r"^settings\['k'\]: expected a setting of preset='auto'"),
        ({"temprature": 1}, r"^settings\['temprature'\]: .*Did you mean 'temperature'"),
        ({"folds": 1}, r"^settings\['folds'\]: expected a whole number >= 2, got 1"),
        ({"steps": 1.5}, r"^settings\['steps'\]: expected a whole number"),
    ],
)
def test_wrong_settings_are_refused_at_construction(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Imputer(settings=given_)


def test_methods_before_fit_are_refused(tissue_pair: Pair, tmp_path: Path) -> None:
    new = Imputer(settings=QUICK)
    for call in (
        lambda: new.impute(interval=0.9),
        new.plan,
        lambda: new.impute_to(tmp_path / "a.zarr"),
        lambda: new.predict(["Gene02"], tissue_pair),
        lambda: new.save(tmp_path / "model"),
        lambda: new.attach(tissue_pair),
    ):
        with pytest.raises(NotFittedError, match=r"expected a fitted Imputer.*Call fit\(pair\) first"):
            call()
    assert (new.model_, new.settings_, new.network_, new.intervals_) == (None, None, None, None)


def test_a_plan_before_and_after_the_fit(auto: Imputer, tissue_pair: Pair) -> None:
    fresh = Imputer(settings=QUICK)
    assert fresh.plan(pair=tissue_pair) == auto.plan()
    plan = fresh.plan(["Gene02", "gene02"], pair=tissue_pair)
    assert (plan.n_cells, plan.n_genes) == (90, 1)
    with pytest.raises(MemoryBudgetError, match=r"memory: expected at least 4\d\d MB.*got 1 MB"):
        fresh.plan(pair=tissue_pair, memory="1 MB")


def test_a_plan_counts_intervals_that_are_held_in_memory(
    auto: Imputer, tissue_pair: Pair, tmp_path: Path
) -> None:
    """For a million cells X takes 112 MB, and X with its two bounds 336 MB."""
    many = tissue_pair.cells(np.zeros(1_000_000, dtype=int))
    budget = auto.plan(pair=many).peak_bytes + 2 * 112e6
    assert auto.plan(pair=many, memory=int(budget)).output_bytes == 112e6
    with pytest.raises(MemoryBudgetError, match=r"1,000,000 cells x 28 genes.*use impute_to"):
        auto.impute(pair=many, interval=0.9, memory=int(budget))


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, pd.Index, pd.Series, iter])
def test_genes_may_be_in_any_container(auto: Imputer, kind: Callable[..., Any]) -> None:
    assert sorted(auto.impute(kind(["Gene02", "gene07"])).var_names) == ["Gene02", "Gene07"]


def test_an_unknown_gene_is_named_with_similar_names(auto: Imputer, tmp_path: Path) -> None:
    with pytest.raises(GeneError, match=r"'Gene7'.*Did you mean .*'Gene07'"):
        auto.impute(["Gene02", "Gene7"], interval=0.9)
    with pytest.raises(GeneError, match="Gene7"):
        auto.impute_to(tmp_path / "imputed.zarr", genes=["Gene7"])
    assert list(tmp_path.iterdir()) == []


def test_data_of_another_panel_or_reference_are_refused(
    auto: Imputer, tissue: SimulatedTissue, tissue_pair: Pair
) -> None:
    fewer = tissue_pair.panel(tissue_pair.shared_genes[:-1])
    with pytest.raises(InputError, match=r"panel of 12 genes.*got 11 shared genes"):
        auto.impute(pair=fewer)
    with pytest.raises(InputError, match=r"the reference that the model was fitted"):
        auto.attach(pair(tissue.sc[:60].copy(), tissue.st))


# Files


@pytest.mark.parametrize("reliability", [True, False])
@pytest.mark.parametrize(("n_panel", "cell_genes", "n_nets"), [(4, 4, 0), (12, 13, 1), (12, 12, 2)])
def test_a_loaded_model_equals_the_saved_one_bit_by_bit(
    fit_auto: Fit,
    tissue_pair: Pair,
    tmp_path: Path,
    n_panel: int,
    cell_genes: int,
    n_nets: int,
    reliability: bool,
) -> None:
    one = tissue_pair.panel(tissue_pair.shared_genes[:n_panel])
    changes = {"most_inputs": 7, "temperature": 0.2, "level_cell_genes": cell_genes}
    fitted = fit_auto(on=one, changes=changes, reliability=reliability, seed=3)
    loaded = cellweft.load(fitted.save(tmp_path / "model")).attach(tissue_pair)
    for levels in (fitted.fitted_.attending.levels, loaded.fitted_.attending.levels):
        assert (len(levels.nets) if levels else 0) == n_nets
    interval = 0.8 if fitted.intervals_ is not None else None
    first, second = fitted.impute(interval=interval), loaded.impute(interval=interval)
    np.testing.assert_array_equal(second.X, first.X)
    for name in first.layers:
        np.testing.assert_array_equal(second.layers[name], first.layers[name])
    pd.testing.assert_frame_equal(second.var, first.var)
    pd.testing.assert_frame_equal(second.obs, first.obs)
    genes = tissue_pair.sc.genes
    np.testing.assert_array_equal(loaded.predict(genes, one), first.X)
    np.testing.assert_array_equal(loaded.reliability_of(genes), fitted.reliability_of(genes))
    assert (loaded.seed, loaded.preset, loaded.settings_) == (3, "auto", fitted.settings_)
    assert loaded.reliability == (fitted.intervals_ is not None)
    assert second.uns["cellweft"]["settings"] == first.uns["cellweft"]["settings"]


def test_a_model_that_was_loaded_can_be_saved_again(model: Path, tissue_pair: Pair, tmp_path: Path) -> None:
    again = cellweft.load(model).attach(tissue_pair).save(tmp_path / "again")
    for name in ("genes.parquet", "weights.safetensors"):
        assert (again / name).read_bytes() == (model / name).read_bytes()
    assert json.loads((again / "config.json").read_text()) == json.loads((model / "config.json").read_text())


def test_attaching_other_cells_keeps_the_fitted_model(
    fit_auto: Fit, model: Path, imputed: anndata.AnnData, tissue: SimulatedTissue, tissue_pair: Pair
) -> None:
    """Neither predictions nor reliability depend on cells attached later."""
    cells = np.array([3, 50, 5, 20])
    part = tissue_pair.cells(cells)
    for one in (fit_auto().attach(part), cellweft.load(model).attach(part)):
        result = one.impute(interval=0.9)
        np.testing.assert_allclose(result.X, imputed.X[cells], rtol=0, atol=ROUNDING)
        pd.testing.assert_frame_equal(result.var, imputed.var)
        judged = one.reliability_of(["Gene02", "Gene03"], judged=np.ones((4, 2)))
        assert np.isfinite(judged).all()
    # a tissue with more genes than the panel, in another order; the model uses the genes that it knows
    loaded = cellweft.load(model).attach(pair(tissue.sc, tissue.truth[:40, ::-1].copy()))
    assert loaded.impute().var["measured"].sum() == 12


def test_a_loaded_model_needs_attached_data(model: Path, tmp_path: Path) -> None:
    loaded = cellweft.load(model)
    for call in (lambda: loaded.impute(interval=0.9), lambda: loaded.impute_to(tmp_path / "a.zarr")):
        with pytest.raises(NotFittedError, match=r"loaded one without data\. Call attach\(pair\) first"):
            call()


@pytest.mark.parametrize("name", ["config.json", "genes.parquet", "weights.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_detected(damaged: Path, name: str, kept: float) -> None:
    content = (damaged / name).read_bytes()
    (damaged / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FormatError, match=r"expected the files of a saved model, got .*save it again"):
        cellweft.load(damaged)


@pytest.mark.parametrize(
    "values",
    [
        {"settings": QUICK | {"magic": 1}},
        {"settings": QUICK | {"steps": -1}},
        {"settings": QUICK | {"level_hidden": 7}},
        {"settings": None},
        {"preset": "stimpute"},
        {"preset": "magic"},
        {"seed": "zero"},
        {"kind": "placer"},
    ],
)
def test_inconsistent_values_are_detected(damaged: Path, values: dict[str, Any]) -> None:
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(damaged)


@pytest.mark.parametrize(
    "lost",
    [
        "inputs",
        "sample",
        "cells.of_logs",
        "spatial.mean",
        "detected.spread",
        "levels.1.first.weight",
        "intervals.zeros",
        "trust.weights",
    ],
)
def test_a_missing_tensor_is_detected(damaged: Path, lost: str) -> None:
    tensors = load_file(damaged / "weights.safetensors")
    save_file({name: one for name, one in tensors.items() if name != lost}, damaged / "weights.safetensors")
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(damaged)


def test_weights_of_another_panel_are_detected(
    damaged: Path, fit_auto: Fit, tissue_pair: Pair, tmp_path: Path
) -> None:
    other = fit_auto(on=tissue_pair.panel(tissue_pair.shared_genes[:9])).save(tmp_path / "other")
    shutil.copy(other / "weights.safetensors", damaged)
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(damaged)


# Real data


@pytest.mark.slow
def test_it_predicts_held_out_genes_of_the_osmfish_better_than_attention(shared_data: Path) -> None:
    """Five folds of 33 genes. Plain attention reaches a median of 0.305 and a mean squared error of 0.78."""
    one = pair(shared_data / "osmfish_ref_allen_ssp_sc33.h5ad", shared_data / "osmfish_benchmark_st.h5ad")
    table = cellweft.evaluate_imputation(one, ["auto"], seeds=[0], cluster=False)
    genes = table[table["level"] == "gene"]
    found = genes.groupby("metric")["value"].median()
    assert found["pearson"] > 0.305
    assert found["mse"] < 0.78
