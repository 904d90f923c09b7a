"""The contract of the Imputer: inputs, results, and what a prediction depends on."""

import copy
import hashlib
import random
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

import cellweft
from cellweft._errors import (
    CellweftError,
    GeneError,
    InputError,
    MemoryBudgetError,
    NotFittedError,
    OutputError,
    OutputExistsError,
    SettingError,
)
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data._pair import Pair, pair
from cellweft.data.io.write import ResultWriter
from cellweft.data.io.zarr_store import quiet_zarr
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.impute.imputer import Imputer

ROUNDING = 2e-6
"""With other genes, float32 sums may be taken in another order; values are below 8."""

Fit = Callable[..., Imputer]
both_formats = pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


def digest(data: anndata.AnnData) -> str:
    """Hash every array of an AnnData, bit by bit, and its tables."""
    found = hashlib.sha256()
    for matrix in (data.X, *data.layers.values()):
        parts = [matrix.data, matrix.indices, matrix.indptr] if sp.issparse(matrix) else [matrix]
        for part in parts:
            found.update(np.ascontiguousarray(part).tobytes())
    for table in (data.obs, data.var):
        found.update(table.to_csv().encode())
    for array in data.obsm.values():
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest() + repr(data.uns)


# Results


@pytest.mark.slow
@both_formats
def test_predict_impute_and_impute_to_agree_bit_by_bit(
    imputer: Imputer, tissue_pair: Pair, tmp_path: Path, suffix: str
) -> None:
    imputed = imputer.impute()
    path = imputer.impute_to(tmp_path / f"imputed{suffix}")
    written = read(path)
    np.testing.assert_array_equal(imputer.predict(tissue_pair.sc.genes, tissue_pair), imputed.X)
    np.testing.assert_array_equal(written.X, imputed.X)
    assert imputed.X.dtype == written.X.dtype == np.float32
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_result_read_lazily_equals_the_one_in_memory(imputer: Imputer, tmp_path: Path) -> None:
    backed = anndata.read_h5ad(imputer.impute_to(tmp_path / "imputed.h5ad"), backed="r")
    np.testing.assert_array_equal(backed.X[20:50], imputer.impute().X[20:50])
    backed.file.close()


@pytest.mark.slow
@both_formats
def test_a_result_has_the_cells_and_a_record(
    reliable_imputer: Imputer, tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path, suffix: str
) -> None:
    written = read(reliable_imputer.impute_to(tmp_path / f"imputed{suffix}", genes=["Gene02", "Gene11"]))
    for result in (reliable_imputer.impute(["Gene02", "Gene11"]), written):
        assert list(result.var_names) == ["Gene02", "Gene11"]
        assert list(result.obs_names) == list(tissue.st.obs_names)
        assert result.obs["layer"].tolist() == tissue.st.obs["layer"].tolist()
        assert result.obs["cell_type"].tolist() == tissue.st.obs["cell_type"].tolist()
        np.testing.assert_array_equal(result.obsm["spatial"], tissue.st.obsm["spatial"])
        assert result.var["measured"].tolist() == [name in tissue.st.var_names for name in result.var_names]
        assert result.var["reliability"].between(0, 1).all()
        record = result.uns["cellweft"]
        assert record["settings"]["k"] == 8
        assert record["settings"]["graph_neighbors"] == "none"
        assert record["seed"] == 0
        assert record["preset"] == "stimpute"
        assert record["device"] == "cpu"
        assert record["embedding"] == "made up"
        assert {one["path"] for one in record["inputs"].values()} == {"memory"}
        assert (record["schema_version"], record["kind"]) == (SCHEMA_VERSION, "imputed")
        assert min(record["duration"].values()) > 0
        assert result.var["symbol"].tolist() == ["Gene02", "Gene11"]
        assert result.var["gene_id"].tolist() == ["", ""]
        assert result.var["reference_name"].tolist() == ["Gene02", "Gene11"]
        assert {"cellweft", "torch", "numpy", "python"} <= set(record["versions"])


def test_the_result_owns_its_arrays(imputer: Imputer, tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    before = digest(tissue.st)
    imputed = imputer.impute(["Gene02"])
    imputed.obsm["spatial"][:] = -1
    imputed.obs["layer"] = "lost"
    assert digest(tissue.st) == before
    assert tissue_pair.coordinates is not None
    assert tissue_pair.coordinates.min() >= 0
    assert "lost" not in set(tissue_pair.st.obs["layer"])


def test_without_coordinates_or_reliability_the_result_has_none(
    tissue: SimulatedTissue, fit_quickly: Fit
) -> None:
    bare = tissue.st.copy()
    del bare.obsm["spatial"]
    imputer = fit_quickly(on=pair(tissue.sc, bare, coordinates="none"))
    imputed = imputer.impute(["Gene02"])
    assert len(imputed.obsm) == 0
    assert imputed.var["reliability"].isna().all()
    assert np.isnan(imputer.reliability_of(["Gene02", "Gene03"])).all()


def test_empty_cells_and_genes_get_finite_values(
    imputer: Imputer, tissue_pair: Pair, reliable_imputer: Imputer
) -> None:
    assert tissue_pair.st.empty_cells[5]
    assert tissue_pair.sc.empty_cells[7]
    assert tissue_pair.sc.empty_genes.sum() == 2
    for one in (imputer, reliable_imputer):
        predicted = one.impute().X
        assert np.isfinite(predicted).all()
        assert (predicted >= 0).all()
    assert np.isfinite(reliable_imputer.reliability_of(tissue_pair.sc.genes)).all()


def test_without_the_network_a_prediction_is_the_mean_of_the_nearest_cells(
    fit_quickly: Fit, tissue_pair: Pair
) -> None:
    imputer = fit_quickly(settings={"alpha": 0.0, "graph": "none", "neighbor_scale": "none"})
    assert imputer.model_ is not None
    weight, bias = (
        one.detach().numpy().astype(float) for one in imputer.model_.autoencoder.encoder.parameters()
    )
    usable = np.flatnonzero(~tissue_pair.sc.empty_cells)
    reference = tissue_pair.sc.dense(usable).astype(float)
    codes = []
    for values in (
        tissue_pair.st.dense(slice(None), tissue_pair.st_shared),
        reference[:, tissue_pair.sc_shared],
    ):
        code = np.maximum(values @ weight.T + bias, 0)
        codes.append(code / np.linalg.norm(code, axis=1, keepdims=True))
    predicted = imputer.predict(tissue_pair.sc.genes, tissue_pair)
    for cell in range(0, tissue_pair.st.n_cells, 7):
        nearest = np.argsort([-(codes[0][cell] @ other) for other in codes[1]], kind="stable")[:8]
        np.testing.assert_allclose(predicted[cell], reference[nearest].mean(axis=0), atol=ROUNDING)


# Independence of predictions


@given(asked=st.lists(st.integers(0, 27), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_a_gene_does_not_depend_on_other_requested_genes(
    imputer: Imputer, tissue_pair: Pair, asked: list[int]
) -> None:
    whole = imputer.predict(tissue_pair.sc.genes, tissue_pair)
    some = imputer.predict(tissue_pair.sc.genes[asked], tissue_pair)
    np.testing.assert_allclose(some, whole[:, asked], rtol=0, atol=ROUNDING)


@given(cells=st.lists(st.integers(0, 89), min_size=1, max_size=20))
@settings(max_examples=15, deadline=None)
def test_a_cell_does_not_depend_on_the_others(imputer: Imputer, tissue_pair: Pair, cells: list[int]) -> None:
    whole = imputer.predict(tissue_pair.sc.genes, tissue_pair)
    some = imputer.predict(tissue_pair.sc.genes, tissue_pair.cells(np.array(cells)))
    np.testing.assert_allclose(some, whole[cells], rtol=0, atol=ROUNDING)


def test_the_order_of_the_spatial_file_does_not_matter(
    imputer: Imputer, tissue: SimulatedTissue, tissue_pair: Pair
) -> None:
    order = np.random.default_rng(0).permutation(tissue.st.n_obs)
    genes = np.random.default_rng(1).permutation(tissue.st.n_vars)
    shuffled = imputer.impute(pair=pair(tissue.sc, tissue.st[order, genes].copy()))
    plain = imputer.impute()
    assert list(shuffled.obs_names) == list(plain.obs_names[order])
    np.testing.assert_allclose(shuffled.X, plain.X[order], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("memory", ["455 MB", "456 MB", "1 GB"])
def test_the_memory_budget_does_not_matter(imputer: Imputer, memory: str) -> None:
    np.testing.assert_allclose(imputer.impute(memory=memory).X, imputer.impute().X, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("kind", ["dense", "csc", "h5ad", "dense.h5ad", "zarr", "backed"])
def test_every_kind_of_input_gives_the_same_model(
    fit_quickly: Fit, imputer: Imputer, tissue: SimulatedTissue, tmp_path: Path, kind: str
) -> None:
    sides: list[Any] = []
    for side, name in ((tissue.sc, "sc"), (tissue.st, "st")):
        one = side.copy()
        if kind.startswith("dense"):
            one.X = one.X.toarray()
        elif kind == "csc":
            one.X = sp.csc_matrix(one.X)
        path = tmp_path / f"{name}.{kind.rpartition('.')[2]}"
        if kind.endswith("h5ad"):
            one.write_h5ad(path)
        elif kind == "zarr":
            with quiet_zarr():
                one.write_zarr(path)
        elif kind == "backed":
            one.write_h5ad(path)
            one = anndata.read_h5ad(path, backed="r")
        sides.append(path if path.exists() and kind != "backed" else one)
    imputed = fit_quickly(on=pair(*sides)).impute()
    np.testing.assert_array_equal(imputed.X, imputer.impute().X)
    assert list(imputed.obs_names) == list(tissue.st.obs_names)
    assert imputed.obs["layer"].tolist() == tissue.st.obs["layer"].tolist()


@pytest.mark.slow
def test_inputs_are_not_changed(
    fit_quickly: Fit, tissue: SimulatedTissue, tmp_path: Path, embeddings: EmbeddingTable
) -> None:
    paths = [tmp_path / "sc.h5ad", tmp_path / "st.h5ad"]
    for side, path in zip((tissue.sc, tissue.st), paths, strict=True):
        side.write_h5ad(path)
    before = [digest(tissue.sc), digest(tissue.st)], [path.read_bytes() for path in paths]
    vectors = np.array(embeddings.values)
    for one in (pair(tissue.sc, tissue.st), pair(*paths)):
        imputer = fit_quickly(on=one, embedding=embeddings)
        imputer.impute()
        imputer.impute_to(tmp_path / "imputed.h5ad", overwrite=True)
    assert ([digest(tissue.sc), digest(tissue.st)], [path.read_bytes() for path in paths]) == before
    np.testing.assert_array_equal(embeddings.values, vectors)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    fit_quickly: Fit, reliable_imputer: Imputer, tissue_pair: Pair, embeddings: EmbeddingTable
) -> None:
    torch.manual_seed(99)
    again = fit_quickly(reliability=True, embedding=embeddings, seed=np.int64(0))
    first, second = reliable_imputer.impute(), again.impute()
    np.testing.assert_array_equal(second.X, first.X)
    np.testing.assert_array_equal(second.var["reliability"], first.var["reliability"])
    assert np.abs(fit_quickly(seed=1, embedding=embeddings).impute().X - first.X).max() > 100 * ROUNDING


def test_fitting_twice_gives_the_same_model(
    imputer: Imputer, quick: dict[str, Any], tissue_pair: Pair
) -> None:
    again = Imputer(preset="stimpute", settings=quick, reliability=False)
    again.fit(tissue_pair.cells(np.arange(30))).fit(tissue_pair)
    np.testing.assert_array_equal(again.impute().X, imputer.impute().X)


def test_global_random_states_are_neither_read_nor_written(fit_quickly: Fit, imputer: Imputer) -> None:
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 -- the global state is what is watched
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    predicted = fit_quickly().impute().X
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before
    np.testing.assert_array_equal(predicted, imputer.impute().X)


# Which genes


def test_genes_may_be_requested_in_any_form(imputer: Imputer, tissue_pair: Pair) -> None:
    everything = imputer.impute()
    assert list(everything.var_names) == list(tissue_pair.sc.genes)
    np.testing.assert_array_equal(imputer.impute("all").X, everything.X)
    for asked in ("Gene07", ["Gene07"], np.array(["gene07"]), (name for name in ["GENE07"])):
        one = imputer.impute(asked)
        assert list(one.var_names) == ["Gene07"]
        np.testing.assert_allclose(one.X, everything[:, "Gene07"].X, rtol=0, atol=ROUNDING)
    assert list(imputer.impute(["Gene09", "Gene02"]).var_names) == ["Gene09", "Gene02"]


def test_a_gene_requested_twice_is_returned_once(imputer: Imputer) -> None:
    assert list(imputer.impute(["Gene09", "gene02", "GENE09"]).var_names) == ["Gene09", "Gene02"]


def test_an_unknown_gene_is_named_with_similar_names(imputer: Imputer, tmp_path: Path) -> None:
    with pytest.raises(GeneError, match=r"'Gene7'.*Did you mean .*'Gene07'"):
        imputer.impute(["Gene02", "Gene7"])
    with pytest.raises(GeneError, match="Gene7"):
        imputer.impute_to(tmp_path / "imputed.zarr", genes=["Gene7"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@both_formats
def test_no_genes_give_an_empty_result(reliable_imputer: Imputer, tmp_path: Path, suffix: str) -> None:
    written = read(reliable_imputer.impute_to(tmp_path / f"none{suffix}", genes=[]))
    for result in (reliable_imputer.impute([]), written):
        assert result.shape == (90, 0)
        assert list(result.var.columns) == ["symbol", "gene_id", "reference_name", "measured", "reliability"]
    assert reliable_imputer.reliability_of([]).shape == (0,)


# Embeddings


def test_embeddings_are_only_used_between_genes_that_have_one(
    fit_quickly: Fit, tissue_pair: Pair, embeddings: EmbeddingTable
) -> None:
    with_table, without = (fit_quickly(embedding=one).model_ for one in (embeddings, None))
    assert with_table is not None
    assert without is not None
    has_one = np.isin(tissue_pair.sc.genes, embeddings.genes)
    expression = tissue_pair.sc.dense(np.flatnonzero(~tissue_pair.sc.empty_cells))
    genes = np.arange(len(has_one))
    proteins, plain = (one.graph.weights(genes, expression) for one in (with_table, without))
    # Rows are scaled as a whole, so rows of genes without a protein are unchanged.
    np.testing.assert_array_equal(proteins[~has_one], plain[~has_one])
    assert all(np.abs(proteins[gene] - plain[gene]).max() > 1e-3 for gene in np.flatnonzero(has_one))


def test_the_graph_setting_decides_whether_a_table_is_used(
    fit_quickly: Fit, imputer: Imputer, embeddings: EmbeddingTable, tmp_path: Path
) -> None:
    ignored = fit_quickly(settings={"graph": "expression"}, embedding=tmp_path / "not read.parquet")
    np.testing.assert_array_equal(ignored.impute().X, imputer.impute().X)
    used = fit_quickly(settings={"graph": "embedding"}, embedding=embeddings)
    assert np.abs(used.impute().X - imputer.impute().X).max() > 100 * ROUNDING
    with pytest.raises(SettingError, match=r"graph='embedding': expected an embedding table.*Pass emb"):
        fit_quickly(settings={"graph": "embedding"})


def test_a_table_of_other_genes_is_refused(fit_quickly: Fit) -> None:
    wrong = EmbeddingTable(
        genes=np.array(["Human1", "Human2"]), values=np.eye(2, dtype=np.float32), source="human.parquet"
    )
    with pytest.raises(GeneError, match=r"human\.parquet"):
        fit_quickly(embedding=wrong)


# Errors


def test_methods_before_fit_are_refused(tissue_pair: Pair, tmp_path: Path) -> None:
    new, genes = Imputer(), ["Gene02"]
    calls: list[Callable[[], object]] = [
        new.impute,
        new.plan,
        lambda: new.impute(pair=tissue_pair),
        lambda: new.impute_to(tmp_path / "a.zarr"),
        lambda: new.predict(genes, tissue_pair),
        lambda: new.reliability_of(genes),
        lambda: new.save(tmp_path / "model"),
        lambda: new.attach(tissue_pair),
    ]
    for call in calls:
        with pytest.raises(NotFittedError, match=r"expected a fitted Imputer.*Call fit\(pair\) first"):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"preset": "stimput"}, r"preset: .*Did you mean 'stimpute'"),
        ({"preset": "stimpute", "settings": {"neighbours": 5}}, r"settings\['neighbours'\]: .*no such name"),
        (
            {"preset": "stimpute", "settings": {"k": 0}},
            r"settings\['k'\]: expected a whole number >= 1, got 0",
        ),
        ({"preset": "stimpute", "settings": {"k": 2.5}}, r"settings\['k'\]: expected a whole number"),
        (
            {"preset": "stimpute", "settings": {"alpha": 1.5}},
            r"settings\['alpha'\]: expected a number from 0 to 1, got 1",
        ),
        ({"preset": "stimpute", "settings": {"lr": float("nan")}}, r"settings\['lr'\]: "),
        ({"settings": {"k": 5}}, r"settings\['k'\]: expected a setting of preset='auto'"),
        ({"settings": {"temperature": 0}}, r"settings\['temperature'\]: expected a number"),
        ({"preset": "stimpute", "settings": {"graph": "string"}}, r"settings\['graph'\]: expected one of"),
        ({"seed": -1}, r"seed: expected a whole number >= 0, got -1"),
        ({"seed": 1.0}, r"seed: expected a whole number"),
        ({"seed": True}, r"seed: expected a whole number"),
        ({"seed": None}, r"seed: expected a whole number"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Imputer(**given_)


def test_settings_are_copied_and_completed_by_the_preset(quick: dict[str, Any], tissue_pair: Pair) -> None:
    mine = dict(quick)
    imputer = Imputer(preset="stimpute", settings=mine, reliability=False)
    mine["k"] = 3
    used = imputer.fit(tissue_pair).settings_
    assert used is not None
    assert (used.k, used.alpha, used.latent) == (8, 0.7, 100)


def test_assigned_settings_are_used_by_the_next_fit(
    quick: dict[str, Any], tissue_pair: Pair, fit_quickly: Fit
) -> None:
    imputer = fit_quickly()
    before = imputer.impute().X
    imputer.settings = quick | {"k": 3}
    np.testing.assert_array_equal(imputer.impute().X, before)  # the model is still the fitted one
    assert imputer.fit(tissue_pair).settings_.k == 3
    np.testing.assert_array_equal(imputer.impute().X, fit_quickly(settings={"k": 3}).impute().X)


@pytest.mark.slow
def test_every_assigned_hyper_parameter_is_used(
    quick: dict[str, Any], tissue_pair: Pair, embeddings: EmbeddingTable, fit_quickly: Fit
) -> None:
    imputer = Imputer(settings={"steps": 2, "level_steps": 2, "fold_steps": 2}, reliability=False)
    imputer.fit(tissue_pair)
    imputer.preset, imputer.settings, imputer.seed = "stimpute", quick, 4
    imputer.embedding, imputer.reliability = embeddings, True
    assert imputer.impute(["Gene02"]).uns["cellweft"]["preset"] == "auto"
    assert imputer.impute(["Gene02"]).uns["cellweft"]["seed"] == 0
    there = imputer.fit(tissue_pair).impute()
    given_ = fit_quickly(embedding=embeddings, reliability=True, seed=4).impute()
    np.testing.assert_array_equal(there.X, given_.X)
    pd.testing.assert_frame_equal(there.var, given_.var)
    assert (there.uns["cellweft"]["preset"], there.uns["cellweft"]["seed"]) == ("stimpute", 4)
    imputer.device = "abacus"
    with pytest.raises(SettingError, match=r"device: .*got 'abacus'"):
        imputer.fit(tissue_pair)


def test_an_assigned_seed_does_not_change_the_fitted_model(
    fit_quickly: Fit, tissue_pair: Pair, tmp_path: Path
) -> None:
    imputer = fit_quickly(seed=2)
    before = imputer.impute().X
    imputer.seed = 9
    np.testing.assert_array_equal(imputer.attach(tissue_pair).impute().X, before)
    assert cellweft.load(imputer.save(tmp_path / "model")).seed == 2


@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_a_saved_model_keeps_the_history_of_its_training(
    fit_quickly: Fit, tissue_pair: Pair, tmp_path: Path, preset: str
) -> None:
    quick = {"steps": 3, "fold_steps": 3, "level_steps": 3}
    attention = Imputer(settings=quick, reliability=False)
    imputer = fit_quickly() if preset == "stimpute" else attention.fit(tissue_pair)
    history: Any = imputer.model_.history
    loaded = cellweft.load(imputer.save(tmp_path / "model"))
    drawn = cellweft.pl.history(loaded)
    attached = loaded.attach(tissue_pair).model_.history
    assert len(drawn) == (len(history) if preset == "stimpute" else 1)
    assert attached == history


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("settings", {"neighbours": 5}, r"settings\['neighbours'\]: .*no such name"),
        ("settings", {"k": 0}, r"settings\['k'\]: expected a whole number >= 1, got 0"),
        ("settings", "k=5", r"settings: expected a mapping from names to values, got 'k=5'"),
        ("preset", "stimput", r"preset: .*Did you mean 'stimpute'"),
        ("seed", -1, r"seed: expected a whole number >= 0, got -1"),
        ("edges", pd.DataFrame([["Gene01"]]), r"two"),
    ],
)
def test_wrong_arguments_are_refused_on_assignment(
    quick: dict[str, Any], tissue_pair: Pair, name: str, value: object, message: str
) -> None:
    imputer = Imputer(preset="stimpute", settings=quick)
    setattr(imputer, name, value)
    for call in (imputer.fit, lambda one: imputer.plan(pair=one)):
        with pytest.raises(CellweftError, match=message):
            call(tissue_pair)


def test_settings_changed_in_place_are_checked_and_used(quick: dict[str, Any], tissue_pair: Pair) -> None:
    imputer = Imputer(preset="stimpute", settings=quick, reliability=False).fit(tissue_pair)
    imputer.settings["k"] = 3
    assert imputer.attach(tissue_pair).settings_.k == 8  # the model is still the fitted one
    assert imputer.fit(tissue_pair).settings_.k == 3
    imputer.settings["k"] = 0
    for call in (imputer.fit, lambda one: imputer.plan(pair=one)):
        with pytest.raises(SettingError, match=r"settings\['k'\]: expected a whole number >= 1, got 0"):
            call(tissue_pair)


def test_an_imputer_can_be_copied(imputer: Imputer) -> None:
    again = copy.deepcopy(imputer)
    assert dict(again.settings) == dict(imputer.settings)
    np.testing.assert_array_equal(again.impute(["Gene02"]).X, imputer.impute(["Gene02"]).X)


def test_a_plan_uses_the_current_settings(tissue_pair: Pair, fit_quickly: Fit) -> None:
    imputer = fit_quickly()
    small = imputer.plan().peak_bytes
    imputer.settings = {"hidden": 4000, "k": 90}
    assert imputer.plan().peak_bytes > small


def test_genes_are_predicted_by_name(imputer: Imputer, tissue_pair: Pair) -> None:
    names = ["gene03", "Gene02", "Gene03"]
    found = imputer.predict(names, tissue_pair)
    np.testing.assert_allclose(found[:, 0], found[:, 2], rtol=0, atol=ROUNDING)
    alone = imputer.predict("Gene02", tissue_pair)
    np.testing.assert_allclose(alone, found[:, 1:2], rtol=0, atol=ROUNDING)
    for call in (lambda one: imputer.predict(one, tissue_pair), imputer.reliability_of):
        with pytest.raises(GeneError, match=r"genes: expected an existing gene, got 'Gene99'"):
            call(["Gene02", "Gene99"])


def test_k_may_be_as_large_as_the_reference_but_no_larger(fit_quickly: Fit) -> None:
    assert np.isfinite(fit_quickly(settings={"k": 99}).impute().X).all()  # 100 cells, one of which is empty
    with pytest.raises(SettingError, match=r"settings\['k'\]: expected at most 99.*got 100.*smaller k"):
        fit_quickly(settings={"k": 100})


def test_an_unknown_device_is_named(fit_quickly: Fit) -> None:
    with pytest.raises(SettingError, match=r"device: .*got 'abacus'"):
        fit_quickly(device="abacus")


def test_data_of_another_panel_or_reference_are_refused(
    imputer: Imputer, tissue: SimulatedTissue, tissue_pair: Pair
) -> None:
    fewer = tissue_pair.panel(tissue_pair.shared_genes[:-1])
    with pytest.raises(InputError, match=r"panel of 12 genes.*got 11 shared genes"):
        imputer.impute(pair=fewer)
    renamed = tissue.st.copy()
    off_panel = next(name for name in tissue.sc.var_names if name not in tissue.st.var_names)
    renamed.var_names = [*renamed.var_names[:-1], off_panel]
    with pytest.raises(InputError, match=r"panel of 12 genes"):
        imputer.impute(pair=pair(tissue.sc, renamed))
    others = [tissue.sc[:60].copy(), tissue.sc[:, ::-1].copy()]
    for other in others:
        for call in (imputer.attach, lambda one: imputer.impute(pair=one)):
            with pytest.raises(InputError, match=r"the reference that the model was fitted"):
                call(pair(other, tissue.st))


def test_a_budget_that_is_too_small_says_what_is_needed(imputer: Imputer, tissue_pair: Pair) -> None:
    with pytest.raises(MemoryBudgetError, match=r"memory: expected at least 45\d MB.*got 1 MB"):
        imputer.plan(memory="1 MB")
    with pytest.raises(SettingError, match=r"memory: expected a size such as '4 GB'"):
        imputer.impute(memory="a lot")
    # 28 genes of these cells are 112 MB, their neighbours 64 MB
    many = tissue_pair.cells(np.zeros(1_000_000, dtype=int))
    with pytest.raises(MemoryBudgetError, match=r"1,000,000 cells x 28 genes, got 600 MB\. .*use impute_to"):
        imputer.impute(pair=many, memory="600 MB")
    assert imputer.plan(pair=many, memory="600 MB").peak_bytes <= 600e6


# Files


@pytest.mark.slow
@both_formats
def test_an_existing_output_is_only_replaced_on_request(
    imputer: Imputer, tmp_path: Path, suffix: str
) -> None:
    path = imputer.impute_to(tmp_path / f"imputed{suffix}", genes=["Gene02"])
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        imputer.impute_to(path, genes=["Gene03"])
    assert list(read(path).var_names) == ["Gene02"]
    imputer.impute_to(path, genes=["Gene03"], overwrite=True)
    assert list(read(path).var_names) == ["Gene03"]
    with pytest.raises(SettingError, match=r"a name ending in \.zarr or \.h5ad, got '\.csv'"):
        imputer.impute_to(tmp_path / "imputed.csv")


def test_an_output_never_overwrites_an_input(
    fit_quickly: Fit, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    path = tmp_path / "st.h5ad"
    tissue.st.write_h5ad(path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"st\.h5ad.*the data that are read"):
        fit_quickly(on=pair(tissue.sc, path)).impute_to(path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.slow
@both_formats
def test_a_failed_write_leaves_nothing(
    imputer: Imputer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("cellweft.impute.planning._MOST_CELLS", 32)
    kept = imputer.impute_to(tmp_path / f"kept{suffix}", genes=["Gene02"])
    write, calls = ResultWriter.write, []

    def fail(
        self: ResultWriter, rows: slice, columns: slice, block: np.ndarray, *, layer: str | None = None
    ) -> None:
        calls.append(rows)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        write(self, rows, columns, block, layer=layer)

    monkeypatch.setattr(ResultWriter, "write", fail)
    for path in (tmp_path / f"new{suffix}", kept):
        calls.clear()
        with pytest.raises(OutputError, match=r"No space left on device.*Nothing incomplete was left"):
            imputer.impute_to(path, overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == [kept.name]
    assert list(read(kept).var_names) == ["Gene02"]


@pytest.mark.slow
def test_progress_is_reported_to_the_end(quick: dict[str, Any], tissue_pair: Pair) -> None:
    told: list[tuple[str, int, int]] = []
    imputer = Imputer(preset="stimpute", settings=quick).fit(
        tissue_pair, progress=lambda *step: told.append(step)
    )
    imputer.impute(progress=lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages[:4] == ["autoencoder 1", "gene network 1", "autoencoder 2", "gene network 2"]
    assert {"reliability", "reliability: gene network 2", "impute"} <= set(stages)
    for stage in stages:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps[-1][0] == steps[-1][1]
        assert all(1 <= done <= total for done, total in steps)
