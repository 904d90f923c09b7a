"""Blended panel genes: hand-computed estimates, predictions that do not see the gene, and requirements."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import cellweft
from cellweft._errors import NotFittedError, ScaleError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.side import relative_sizes
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue
from cellweft.impute.imputer import Imputer
from cellweft.impute.panel_blend import (
    HiddenGenes,
    fit_negative_binomial,
    fit_panel_blend,
    fit_shares,
    posterior,
)
from cellweft.metrics import pearson


@pytest.fixture(scope="module")
def blending(tissue_pair: Pair) -> Imputer:
    """Learned attention with minimal training; tests must not change it."""
    return Imputer(settings={"steps": 10, "level_steps": 5}, reliability=False).fit(tissue_pair)


def counts_of(tissue_pair: Pair) -> np.ndarray:
    stored = tissue_pair.st.stored(slice(None), tissue_pair.st_shared)
    return np.asarray(stored.toarray(), dtype=float)


def test_the_regression_recovers_the_coefficients() -> None:
    stream = np.random.default_rng(0)
    features = np.column_stack([np.ones(4000), stream.standard_normal((4000, 2))])
    means = np.exp(features @ [1.0, 0.6, 1.0])
    counts = stream.poisson(means * stream.gamma(2.0, 0.5, len(means)))
    coefficients, dispersion = fit_negative_binomial(features, counts.astype(float))
    np.testing.assert_allclose(coefficients, [1.0, 0.6, 1.0], atol=0.1)
    assert dispersion == pytest.approx(0.5, abs=0.15)
    empty = fit_negative_binomial(features, np.zeros(4000))
    assert np.isfinite(empty[0]).all()
    assert np.exp(features @ empty[0]).mean() < 1e-3


def test_a_gamma_prior_gives_its_known_estimate() -> None:
    stream = np.random.default_rng(0)
    means = stream.uniform(1, 5, 20_000)
    rates = means * stream.gamma(2.0, 0.5, len(means))
    counts = stream.poisson(rates).astype(float)
    estimate, weight = posterior(fit_shares(means, counts), means, counts)
    by_hand = (counts + 2) * means / (means + 2)  # the estimate for a gamma prior of shape 2
    assert np.mean((estimate - rates) ** 2) < 1.02 * np.mean((by_hand - rates) ** 2)
    assert weight.mean() == pytest.approx((means / (means + 2)).mean(), abs=0.05)


def test_exact_predictions_give_measurements_little_weight() -> None:
    stream = np.random.default_rng(0)
    means = stream.uniform(1, 5, 20_000)
    counts = stream.poisson(means).astype(float)
    estimate, weight = posterior(fit_shares(means, counts), means, counts)
    assert np.abs(estimate / means - 1).mean() < 0.1
    assert weight.mean() < 0.1


def test_uninformative_predictions_leave_the_counts_unchanged() -> None:
    stream = np.random.default_rng(0)
    on = stream.random(20_000) < 0.1
    counts = stream.poisson(np.where(on, 20.0, 0.1)).astype(float)
    means = np.full(len(counts), counts.mean())
    estimate, _ = posterior(fit_shares(means, counts), means, counts)
    assert estimate[on].mean() == pytest.approx(20, rel=0.05)
    assert estimate[~on].mean() == pytest.approx(0.1, abs=0.03)


def test_a_rare_cell_that_the_sample_lacks_keeps_its_count() -> None:
    means = np.full(4000, 0.01)
    counts = np.random.default_rng(0).poisson(means).astype(float)
    estimate, _ = posterior(fit_shares(means, counts), means[:2], np.array([30.0, 0.0]))
    assert estimate[0] == pytest.approx(30, rel=0.2)
    assert estimate[1] == pytest.approx(0.01, rel=0.2)


def test_predictions_have_a_tenth_of_the_mean_count(blending: Imputer, tissue_pair: Pair) -> None:
    blend = fit_panel_blend(blending.fitted_, tissue_pair)
    filled = counts_of(tissue_pair)[counts_of(tissue_pair).sum(axis=1) > 0]
    np.testing.assert_allclose(blend.least, 0.1 * filled.mean(axis=0), rtol=1e-5)


def test_a_blended_count_lies_between_measurement_and_prediction(
    blending: Imputer, tissue_pair: Pair
) -> None:
    blend = fit_panel_blend(blending.fitted_, tissue_pair)
    counts = counts_of(tissue_pair)
    panel = [str(gene) for gene in tissue_pair.shared_genes]
    result = blending.impute(panel, scale="counts", measured="blend")
    for gene in (0, 7):
        out = np.flatnonzero(blend.part == blend.part[gene])
        hidden = HiddenGenes.of(
            blending.fitted_, blend.genes, sample=blend.sample, out=out, genes=np.array([gene])
        )
        measured = tissue_pair.st.dense(slice(None), tissue_pair.st_shared)
        pattern = hidden.patterns(measured)[:, 0]
        size = (counts.sum(axis=1) - counts[:, gene]) / tissue_pair.st.target
        alpha, beta, gamma = blend.coefficients[gene]
        size = np.maximum(size, 1e-3)
        mean = np.exp(alpha + beta * pattern + gamma * np.log(size)) + blend.least[gene] * size
        expected = posterior(blend.shares[gene], mean, counts[:, gene])[0]
        filled = counts.sum(axis=1) > 0
        np.testing.assert_allclose(result.X[filled, gene], expected[filled], rtol=1e-3, atol=1e-4)
        assert (result.X[~filled, gene] == 0).all()
    logs = blending.impute(panel, measured="blend").X
    sizes = relative_sizes(tissue_pair.st)[:, None]
    np.testing.assert_allclose(np.expm1(logs[filled]) * sizes[filled], result.X[filled], rtol=1e-3, atol=1e-4)


def test_a_hidden_gene_does_not_see_itself(blending: Imputer, tissue_pair: Pair) -> None:
    blend = fit_panel_blend(blending.fitted_, tissue_pair)
    out = np.flatnonzero(blend.part == 0)
    hidden = HiddenGenes.of(blending.fitted_, blend.genes, sample=blend.sample, out=out, genes=out)
    measured = tissue_pair.st.dense(slice(0, 20), tissue_pair.st_shared)
    other = measured.copy()
    other[:, out] = 9
    np.testing.assert_array_equal(hidden.patterns(measured), hidden.patterns(other))
    seen = np.flatnonzero(blend.part == 1)
    other[:, seen] = 9
    assert (hidden.patterns(measured) != hidden.patterns(other)).any()


def test_genes_off_the_panel_are_unchanged(blending: Imputer, tissue_pair: Pair) -> None:
    plain, blended = blending.impute(), blending.impute(measured="blend")
    off = ~plain.var["measured"].to_numpy()
    np.testing.assert_array_equal(blended.X[:, off], plain.X[:, off])
    assert (blended.X[:, ~off] != plain.X[:, ~off]).any()
    assert blended.var["measurement_weight"].notna().tolist() == plain.var["measured"].tolist()
    assert blended.var["measurement_weight"][~off].between(0, 1).all()
    assert blended.uns["cellweft"]["measured"] == "blend"
    assert "measured" not in plain.uns["cellweft"]
    assert np.isfinite(blended.X).all()


@pytest.mark.slow
def test_blends_are_the_same_when_streamed_or_loaded(
    blending: Imputer, tissue_pair: Pair, tmp_path: Path
) -> None:
    whole = blending.impute(measured="blend", scale="counts")
    path = blending.impute_to(
        tmp_path / "out.zarr", measured="blend", scale="counts", memory="0.6 GB", resume=True
    )
    np.testing.assert_array_equal(anndata.read_zarr(path).X, whole.X)
    blending.save(tmp_path / "model")
    loaded = cellweft.load(tmp_path / "model").attach(tissue_pair)
    np.testing.assert_array_equal(loaded.impute(measured="blend", scale="counts").X, whole.X)
    some = blending.impute(pair=tissue_pair.cells(np.arange(10, 40)), measured="blend", scale="counts")
    np.testing.assert_allclose(some.X, whole.X[10:40], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_blend_predicts_the_other_half_of_the_counts_better() -> None:
    tissue = simulate_tissue(n_spatial=500, n_reference=300, n_genes=60, n_panel=30, seed=4)
    stream = np.random.default_rng(0)
    counts = np.asarray(tissue.st.X.toarray()).astype(int)
    given = stream.binomial(counts, 0.5)
    half = tissue.st.copy()
    half.X = given.astype(np.float32)
    imputer = Imputer(settings={"steps": 100}, reliability=False).fit(pair(tissue.sc, half), progress=False)
    genes = [str(gene) for gene in imputer.pair_.shared_genes]
    columns = [list(half.var_names).index(gene) for gene in genes]
    truth, measured = (counts - given)[:, columns], given[:, columns]
    found = {
        name: np.median(pearson(truth.astype(float), values))
        for name, values in {
            "measured": measured.astype(float),
            "predicted": imputer.impute(genes, scale="counts").X.astype(float),
            "blended": imputer.impute(genes, scale="counts", measured="blend").X.astype(float),
        }.items()
    }
    assert found["blended"] > max(found["measured"], found["predicted"])


@pytest.mark.slow
def test_requirements_of_blending(
    blending: Imputer, imputer: Imputer, tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=r"measured: expected one of 'predict', 'blend', got 'blended'"):
        blending.impute(measured="blended")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="interval: expected none with measured='blend'"):
        blending.impute(measured="blend", interval=0.9)
    with pytest.raises(SettingError, match="interval: expected none with measured='blend'"):
        blending.impute_to(tmp_path / "out.zarr", measured="blend", interval=0.9)
    with pytest.raises(NotFittedError, match=r"measured: .*got preset='stimpute'. Use preset='auto'"):
        imputer.impute(measured="blend")
    logs: Any = tissue.st.copy()
    logs.X = np.log1p(logs.X.toarray() / np.maximum(logs.X.toarray().sum(axis=1, keepdims=True), 1) * 50)
    other = Imputer(settings={"steps": 2, "level_steps": 2}, reliability=False).fit(pair(tissue.sc, logs))
    with pytest.raises(
        ScaleError, match=r"measured: expected spatial counts, whose noise is known, with measured='blend'"
    ):
        other.impute(measured="blend")
    two = Imputer(settings={"steps": 2, "level_steps": 2}, reliability=False).fit(
        tissue_pair.panel(tissue_pair.shared_genes[:2])
    )
    with pytest.raises(SettingError, match=r"measured: expected a panel of at least 3 genes.*got 2"):
        two.impute(measured="blend")
