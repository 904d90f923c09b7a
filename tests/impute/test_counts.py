"""Results as counts: their definition, the count model, and what they require."""

import json
import pickle
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellweft
from cellweft._errors import ScaleError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.side import relative_sizes
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.impute.cluster.worker import _without_data
from cellweft.impute.imputer import Imputer

GENES = ["Gene02", "Gene11", "Gene03"]


@pytest.fixture(scope="module")
def counting(tissue_pair: Pair) -> Imputer:
    """Learned attention with reliability, and therefore with a count model; tests must not change it."""
    return Imputer(settings={"steps": 10, "level_steps": 10}).fit(tissue_pair, progress=False)


def test_without_a_model_counts_are_the_linear_prediction_times_the_cell_size(
    imputer: Imputer, tissue_pair: Pair
) -> None:
    counts = imputer.impute(GENES, scale="counts")
    side = tissue_pair.st
    totals = np.asarray(side.matrix.read(slice(None)).sum(axis=1), dtype=float).ravel()
    expected = (
        np.expm1(imputer.impute(GENES).X.astype(float)) * totals[:, None] / np.median(totals[totals > 0])
    )
    np.testing.assert_allclose(counts.X, expected, rtol=1e-5, atol=1e-6)
    assert (counts.X[5] == 0).all()  # the cell has no counts
    assert counts.uns["cellweft"]["scale"].startswith("counts")
    assert counts.uns["cellweft"]["count_model"] == "none learned"
    assert imputer.impute(GENES).uns["cellweft"]["scale"].startswith("log-normalised")


def test_a_learned_model_reaches_the_level_of_the_panel(counting: Imputer, tissue_pair: Pair) -> None:
    model = counting.fitted_.count_model
    assert model is not None
    panel = list(tissue_pair.shared_genes)
    counts = counting.impute(panel, scale="counts").X
    measured = tissue_pair.st.matrix.read(slice(None), tissue_pair.st.columns[tissue_pair.st_shared])
    ratio = np.median(counts.mean(axis=0) / np.asarray(measured.toarray()).mean(axis=0))
    assert 0.6 < ratio < 1.6
    bias, power, exponent = model.rate
    sizes = relative_sizes(tissue_pair.st)[:, None]
    by_hand = np.exp(bias) * np.expm1(counting.impute(panel).X.astype(float)) ** power
    by_hand = np.where(sizes > 0, by_hand * np.maximum(sizes, 1e-9) ** exponent, 0)
    np.testing.assert_allclose(counts, by_hand, rtol=1e-5)


def test_given_size_factors_are_the_cell_sizes(tissue: SimulatedTissue, fit_quickly: Any) -> None:
    sized = tissue.st.copy()
    sized.obs["area"] = np.linspace(1, 3, sized.n_obs)
    fitted = fit_quickly(on=pair(tissue.sc, sized, st_size_factor="area"))
    sizes = relative_sizes(fitted.pair_.st)
    np.testing.assert_allclose(sizes[:5], sized.obs["area"][:5] / fitted.pair_.st.target)
    expected = np.expm1(fitted.impute(GENES).X.astype(float)) * sizes[:, None]
    np.testing.assert_allclose(fitted.impute(GENES, scale="counts").X, expected, rtol=1e-5)


def test_intervals_cover_the_same_measurements_on_both_scales(counting: Imputer, tissue_pair: Pair) -> None:
    panel = list(tissue_pair.shared_genes)
    logs, counts = (counting.impute(panel, interval=0.8, scale=one) for one in ("log", "counts"))
    places = [list(tissue_pair.st.genes).index(gene) for gene in counts.var_names]
    truth = tissue_pair.st.dense(slice(None), np.array(places)).astype(float)
    measured = np.expm1(truth) * relative_sizes(tissue_pair.st)[:, None]
    inside = (truth >= logs.layers["lower"] - 1e-4) & (truth <= logs.layers["upper"] + 1e-4)
    slack = 1e-3 + 1e-3 * measured
    there = (measured >= counts.layers["lower"] - slack) & (measured <= counts.layers["upper"] + slack)
    assert (there | ~inside).all()
    assert (counts.layers["lower"] <= counts.X).all()
    assert (counts.layers["upper"] >= counts.X).all()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["4 GB", "0.6 GB"])
def test_counts_are_the_same_when_streamed_resumed_or_loaded(
    counting: Imputer, tissue_pair: Pair, tmp_path: Path, memory: str
) -> None:
    whole = counting.impute(scale="counts", interval=0.9)
    path = counting.impute_to(
        tmp_path / "counts.zarr", scale="counts", interval=0.9, memory=memory, resume=True
    )
    counting.save(tmp_path / "model")
    loaded = cellweft.load(tmp_path / "model").attach(tissue_pair)
    for other in (anndata.read_zarr(path), loaded.impute(scale="counts", interval=0.9)):
        np.testing.assert_array_equal(other.X, whole.X)
        np.testing.assert_array_equal(other.layers["upper"], whole.layers["upper"])
        assert other.uns["cellweft"]["scale"] == whole.uns["cellweft"]["scale"]
    np.testing.assert_array_equal(counting.predict(whole.var_names, tissue_pair, scale="counts"), whole.X)


def test_a_run_only_resumes_results_of_its_scale(counting: Imputer) -> None:
    logs, counts = (
        counting._job(None, GENES, interval=None, memory="4 GB", scale=scale) for scale in ("log", "counts")
    )
    assert logs.mark(dtype="float32", sparse=None) != counts.mark(dtype="float32", sparse=None)


def test_a_tissue_without_counts_cannot_give_counts(
    tissue: SimulatedTissue, fit_quickly: Any, tmp_path: Path
) -> None:
    logs = tissue.st.copy()
    logs.X = np.log1p(logs.X.toarray() / np.maximum(logs.X.toarray().sum(axis=1, keepdims=True), 1) * 50)
    fitted = fit_quickly(on=pair(tissue.sc, logs))
    message = "scale: expected spatial counts.*got logarithms of normalised values.*st_layer=NAME"
    with pytest.raises(ScaleError, match=message):
        fitted.impute(GENES, scale="counts")
    with pytest.raises(ScaleError, match=message):
        fitted.impute_to(tmp_path / "out.zarr", scale="counts")
    with pytest.raises(ScaleError, match=message):
        fitted.predict(GENES, fitted.pair_, scale="counts")
    assert list(tmp_path.iterdir()) == []


def test_wrong_scales_are_named(imputer: Imputer, tmp_path: Path) -> None:
    for run in (imputer.impute, lambda **given: imputer.impute_to(tmp_path / "out.zarr", **given)):
        with pytest.raises(
            SettingError, match=r"scale: expected one of 'log', 'counts', got 'count'.*'counts'"
        ):
            run(scale="count")
    with pytest.raises(SettingError, match="dtype: expected float32 on the scale of counts, got float16"):
        imputer.impute_to(tmp_path / "out.zarr", scale="counts", dtype="float16")


def test_a_size_of_zero_is_refused(tissue: SimulatedTissue) -> None:
    sized = tissue.st.copy()
    sized.obs["area"] = np.where(np.arange(sized.n_obs) == 7, 0.0, 2.0)
    with pytest.raises(
        cellweft.CellweftError, match=r"expected a size above zero.*got zero or less for 1 cell"
    ):
        pair(tissue.sc, sized, st_size_factor="area")


def test_other_processes_give_the_same_counts(counting: Imputer) -> None:
    asked: dict[str, Any] = {"scale": "counts", "measured": "blend"}
    job = counting._job(None, None, interval=None, memory="4 GB", **asked)
    there = pickle.loads(pickle.dumps(_without_data(job)))
    whole = counting.impute(**asked).X
    for tile in there.tiles:
        made = there.values(tile, there.prepare(tile), there.read(tile))
        np.testing.assert_array_equal(made[None], whole[tile.rows, tile.places])


def deeper(tissue: SimulatedTissue) -> anndata.AnnData:
    """Cells of the same types, measured five times as deep."""
    other, stream = tissue.st.copy(), np.random.default_rng(0)
    other.X = type(other.X)(stream.poisson(5 * other.X.toarray()).astype(np.float32))
    other.layers.clear()
    return other


def test_another_tissue_is_scaled_to_the_depth_of_the_fit(
    counting: Imputer, tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path
) -> None:
    panel, other = list(tissue_pair.shared_genes), pair(tissue.sc, deeper(tissue))
    for measured in ("predict", "blend"):
        asked: dict[str, Any] = {"scale": "counts", "measured": measured, "progress": False}
        here, there = counting.impute(panel, **asked), counting.impute(panel, pair=other, **asked)
        assert 3.5 < there.X.sum() / here.X.sum() < 6.5
    loaded = cellweft.load(counting.save(tmp_path / "model")).attach(other)
    for genes in (panel, GENES):
        expected = counting.impute(genes, pair=other, progress=False).X
        np.testing.assert_array_equal(loaded.impute(genes, progress=False).X, expected)
    assert expected.mean() == pytest.approx(counting.impute(GENES, progress=False).X.mean(), rel=0.1)
    assert other.st.target > 3 * tissue_pair.st.target  # the pair itself is unchanged


def test_another_tissue_must_have_the_scale_of_the_fit(
    counting: Imputer, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    logs, sized = tissue.st.copy(), tissue.st.copy()
    counts = logs.X.toarray()
    logs.X = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 50)
    sized.obs["area"] = 1.0 + np.arange(sized.n_obs) % 3
    folder = counting.save(tmp_path / "model")
    cases = [
        (pair(tissue.sc, logs), "pair: expected spatial data of counts, .*got logarithms"),
        (
            pair(tissue.sc, sized, st_size_factor="area"),
            "counts without size factors, .*got counts with size",
        ),
    ]
    for other, message in cases:
        with pytest.raises(cellweft.errors.InputError, match=message):
            counting.impute(GENES, pair=other, progress=False)
        with pytest.raises(cellweft.errors.InputError, match=message):
            cellweft.load(folder).attach(other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"spatial": "counts"},
        {"spatial": {}},
        {"spatial": {"scale": "raw", "size_factor": False, "median_total": 0}},
        {"reference_cells": "many"},
    ],
)
def test_a_saved_model_with_a_wrong_record_of_its_tissue_is_refused(
    counting: Imputer, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    config = counting.save(tmp_path / "model") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | wrong))
    with pytest.raises(cellweft.errors.FormatError, match="expected the files of a saved model"):
        cellweft.load(tmp_path / "model")


def test_a_saved_model_without_a_record_of_its_tissue_is_read(
    counting: Imputer, tissue_pair: Pair, tmp_path: Path
) -> None:
    config = counting.save(tmp_path / "model") / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({key: told[key] for key in set(told) - {"spatial", "reference_cells"}}))
    loaded = cellweft.load(tmp_path / "model").attach(tissue_pair)
    expected = counting.impute(GENES, progress=False).X
    np.testing.assert_array_equal(loaded.impute(GENES, progress=False).X, expected)
