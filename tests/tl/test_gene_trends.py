"""Trends: equal to statsmodels, calibrated p-values, power and coverage; types and genes without a trend."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import GeneError, InputError, KeyMissingError, SettingError
from cellweft.tl._gene_trends import COLUMNS, Trends, gene_trends, label_codes
from cellweft.tl._spatial_axis import fit_axis, natural_basis, quantile_knots

# sums of a few hundred float64 in another order, and least squares by another decomposition
TOLERANCE = 1e-8

NUMBERS = ["n_cells", "f", "p", "fdr", "r2", "peak", "rho"]


def names(n_genes: int) -> np.ndarray:
    return np.array([f"Gene{number:03}" for number in range(n_genes)])


def cells(n_cells: int = 90, n_genes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw sparse expression and positions; the first gene has a trend and the last one is constant."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(0, 5, n_cells)
    values = np.log1p(rng.poisson(1.0, (n_cells, n_genes)))
    values[:, 0] += np.sin(position)
    values[:, -1] = 0.7
    return values, position


def by_gene(trends: Trends) -> pd.DataFrame:
    return trends.table.set_index(["type", "gene"]).sort_index()


def test_a_hand_computed_case() -> None:
    # a straight line through 4 cells: means 1 and 2, slope 0.8, explained 3.2, residual 0.8 with 2 degrees of
    # freedom
    position, values = np.array([0.0, 1.0, 2.0, 3.0]), np.array([[1.0], [1.0], [3.0], [3.0]])
    trends = gene_trends(values, position, genes=names(1), knots=2, min_cells=4, n_points=4)
    row = trends.table.iloc[0]
    assert row["f"] == pytest.approx(3.2 / 0.4)
    # the cdf of F with 1 and 2 degrees of freedom is sqrt(f / (f + 2))
    assert row["p"] == pytest.approx(1 - np.sqrt(8 / 10))
    assert row["fdr"] == pytest.approx(row["p"])
    assert row["r2"] == pytest.approx(3.2 / 4)
    assert row["peak"] == 3.0
    assert row["rho"] == pytest.approx(4 / np.sqrt(5 * 4))  # ranks 1.5, 1.5, 3.5, 3.5
    curve = trends.curves("Gene000")
    np.testing.assert_allclose(curve["mean"], [0.8, 1.6, 2.4, 3.2])
    # at the ends the variance is .4 (1/4 + 1.5^2 / 5), and t for 2 degrees of freedom and .975 is 4.30265
    np.testing.assert_allclose(curve["upper"].iloc[0] - 0.8, 4.30265273 * np.sqrt(0.4 * 0.7))
    np.testing.assert_allclose(curve["upper"] - curve["mean"], curve["mean"] - curve["lower"])


@pytest.mark.parametrize("knots", [2, 3, 5])
def test_equals_statsmodels(knots: int) -> None:
    from statsmodels.regression.linear_model import OLS

    values, position = cells()
    trends = gene_trends(values, position, genes=names(6), knots=knots, level=0.9, n_points=7)
    table = by_gene(trends).loc["all"]
    design = natural_basis(position, quantile_knots(position, knots))
    # statsmodels must know that the basis contains a constant, so replace one column by ones
    with_constant = np.column_stack([np.ones(len(position)), design[:, 1:]])
    for number, gene in enumerate(names(6)[:-1]):
        fit = OLS(values[:, number], with_constant).fit()
        assert table.loc[gene, "f"] == pytest.approx(fit.fvalue)
        assert table.loc[gene, "p"] == pytest.approx(fit.f_pvalue)
        assert table.loc[gene, "r2"] == pytest.approx(fit.rsquared)
        rho = scipy.stats.spearmanr(values[:, number], position).statistic
        assert table.loc[gene, "rho"] == pytest.approx(rho)
        curve = trends.curves(gene, "all")
        grid = natural_basis(curve["position"].to_numpy(), quantile_knots(position, knots))
        told = fit.get_prediction(np.column_stack([np.ones(7), grid[:, 1:]]))
        np.testing.assert_allclose(curve["mean"], told.predicted_mean, atol=TOLERANCE)
        np.testing.assert_allclose(curve[["lower", "upper"]], told.conf_int(alpha=0.1), atol=TOLERANCE)
        assert table.loc[gene, "peak"] == curve["position"][curve["mean"].argmax()]
    np.testing.assert_allclose(table["fdr"], scipy.stats.false_discovery_control(table["p"]))


def test_types_are_fitted_separately() -> None:
    values, position = cells(120)
    labels = np.array(["b", "a"] * 60)
    trends = gene_trends(values, position, genes=names(6), labels=labels)
    assert list(trends.fits) == ["a", "b"]
    for one in ("a", "b"):
        alone = gene_trends(values[labels == one], position[labels == one], genes=names(6))
        np.testing.assert_allclose(
            by_gene(trends).loc[one][NUMBERS], by_gene(alone).loc["all"][NUMBERS], atol=TOLERANCE
        )
        pd.testing.assert_frame_equal(trends.means(one), alone.means(), atol=TOLERANCE)
        mean = trends.curves("Gene001", one).set_index("position")["mean"]
        np.testing.assert_allclose(trends.means(one)["Gene001"], mean, atol=TOLERANCE)


def test_the_table_is_sorted() -> None:
    values, position = cells(120)
    trends = gene_trends(values, position, genes=names(6), labels=np.array(["b", "a"] * 60))
    assert list(trends.table.columns) == list(COLUMNS)
    assert list(trends.table["type"]) == ["a"] * 6 + ["b"] * 6
    for _, rows in trends.table.groupby("type"):
        assert rows["p"].is_monotonic_increasing
    assert trends.table["gene"].iloc[[0, 6]].tolist() == ["Gene000"] * 2


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_any_matrix_gives_the_same(kind: type, dtype: type) -> None:
    values, position = cells()
    values = np.round(values).astype(dtype)
    labels = np.array(list("xyz") * 30)
    expected = gene_trends(values.astype(float), position, genes=names(6), labels=labels)
    found = gene_trends(kind(values), position, genes=names(6), labels=labels)
    pd.testing.assert_frame_equal(found.table, expected.table)


@pytest.mark.parametrize("size", [1, 200, 10**6])
def test_blocks_of_genes_do_not_matter(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, position = cells()
    expected = by_gene(gene_trends(values, position, genes=names(6)))
    monkeypatch.setattr("cellweft.tl._gene_trends.BLOCK_VALUES", size)
    for matrix in (values, sp.csr_matrix(values)):
        found = by_gene(gene_trends(matrix, position, genes=names(6)))
        np.testing.assert_allclose(found[NUMBERS], expected[NUMBERS], atol=TOLERANCE)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999))
def test_order_of_cells_and_genes_does_not_matter(seed: int) -> None:
    values, position = cells(n_cells=80)
    labels = np.array(["a", "b"] * 40)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(80), rng.permutation(6)
    expected = by_gene(gene_trends(values, position, genes=names(6), labels=labels))
    moved = gene_trends(
        values[rows][:, columns], position[rows], genes=names(6)[columns], labels=labels[rows]
    )
    np.testing.assert_allclose(by_gene(moved)[NUMBERS], expected[NUMBERS], atol=TOLERANCE)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_units_do_not_matter(scale: float, offset: float) -> None:
    values, position = cells()
    expected = by_gene(gene_trends(values, position, genes=names(6)))
    found = by_gene(gene_trends(scale * values, scale * position + offset, genes=names(6)))
    for column in ("f", "p", "fdr", "r2", "rho"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["peak"], scale * expected["peak"] + offset, atol=1e-6 * scale + 1e-9)


def test_inputs_are_not_changed() -> None:
    values, position = cells()
    matrix = sp.csc_matrix(values)
    before = [values.copy(), position.copy(), matrix.toarray()]
    gene_trends(values, position, genes=names(6))
    gene_trends(matrix, position, genes=names(6))
    for one, other in zip([values, position, matrix.toarray()], before, strict=True):
        np.testing.assert_array_equal(one, other)


# Calibration and power


@pytest.mark.parametrize("noise", ["normal", "counts"])
def test_p_values_of_random_positions_are_uniform(noise: str) -> None:
    rng = np.random.default_rng(0)
    n_cells, n_genes = 200, 2000
    values = (
        rng.normal(size=(n_cells, n_genes))
        if noise == "normal"
        else np.log1p(rng.poisson(rng.gamma(1.0, 1.0, n_genes), (n_cells, n_genes)))
    )
    table = gene_trends(values, rng.permutation(n_cells) * 1.0, genes=names(n_genes)).table
    for level in (0.01, 0.05, 0.2):
        # 2,000 genes: three standard errors of a proportion
        assert np.mean(table["p"] < level) == pytest.approx(level, abs=3 * np.sqrt(level / n_genes))
    assert (table["fdr"] < 0.05).sum() <= 2


def test_planted_gradients_are_found() -> None:
    rng = np.random.default_rng(1)
    n_cells, n_genes, planted = 300, 400, 40
    position = rng.uniform(0, 1, n_cells)
    shapes = np.column_stack([position, 1 - position, 4 * position * (1 - position), position**3])
    rate = np.full((n_cells, n_genes), 0.8)
    rate[:, :planted] = 0.2 + 1.5 * np.tile(shapes, planted // 4)
    table = gene_trends(np.log1p(rng.poisson(rate)), position, genes=names(n_genes)).table
    found = set(table.loc[table["fdr"] < 0.05, "gene"])
    truth = set(names(n_genes)[:planted])
    assert len(found & truth) >= 0.95 * planted
    assert len(found - truth) <= 0.1 * len(found)
    rows = table.set_index("gene").loc[names(n_genes)[:planted]]
    kinds = np.arange(planted) % 4
    assert (rows["rho"][kinds == 0] > 0.2).all()
    assert (rows["rho"][kinds == 1] < -0.2).all()
    assert (rows["peak"][kinds == 0] > 0.6).all()
    assert (rows["peak"][kinds == 1] < 0.4).all()
    assert rows["peak"][kinds == 2].between(0.25, 0.75).all()


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bands_cover_the_mean(level: float) -> None:
    rng = np.random.default_rng(2)
    position = rng.uniform(0, 2, 150)
    n_genes = 1500

    def mean(at: np.ndarray) -> np.ndarray:
        return np.asarray(2 + np.sin(1.5 * at))

    values = mean(position)[:, None] + 0.8 * rng.normal(size=(150, n_genes))
    trends = gene_trends(values, position, genes=names(n_genes), knots=5, level=level, n_points=9)
    inside = np.array(
        [
            curve["lower"].le(mean(curve["position"])) & curve["upper"].ge(mean(curve["position"]))
            for curve in map(trends.curves, names(n_genes))
        ]
    )
    assert inside.mean() == pytest.approx(level, abs=0.01)
    # at every position, including the ends; a spline with 5 knots deviates slightly from this sine
    np.testing.assert_allclose(inside.mean(axis=0), level, atol=4 * np.sqrt(0.2 * 0.8 / n_genes))


# No trend


def test_a_constant_gene_has_no_trend() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 4))
    values[:, 1] = 0
    values[:, 2] = 0.1  # the computed mean of 50 values is not exactly 0.1
    trends = gene_trends(values, np.linspace(3, 9, 50), genes=names(4))
    table = by_gene(trends).loc["all"]
    for gene, level in (("Gene001", 0.0), ("Gene002", 0.1)):
        row = table.loc[gene]
        assert (row["f"], row["p"], row["fdr"], row["r2"], row["rho"]) == (0, 1, 1, 0, 0)
        assert row["peak"] == 3
        np.testing.assert_allclose(trends.curves(gene)[["mean", "lower", "upper"]], level, atol=1e-15)
    assert not table.isna().any(axis=None)


def test_a_gene_without_noise_has_r2_of_1() -> None:
    position = np.linspace(0, 1, 40)
    values = np.column_stack([position, np.repeat([0.0, 1.0], 20)])
    two_places = np.repeat([0.0, 1.0], 20)
    table = gene_trends(values, two_places, genes=names(2)).table.set_index("gene")
    # two positions give two knots, which describe the second gene exactly
    assert table.loc["Gene001", "r2"] == pytest.approx(1)
    assert table.loc["Gene001", "p"] < 1e-100
    assert np.isfinite(table.loc["Gene000"].drop("type").astype(float)).all()


def test_types_that_cannot_be_fitted_are_left_out() -> None:
    values, position = cells(120)
    position[60:100] = 2.5
    labels = np.array(["many"] * 60 + ["still"] * 40 + ["few"] * 20)
    trends = gene_trends(values, position, genes=names(6), labels=labels)
    assert list(trends.fits) == ["many"]
    assert trends.left_out == {
        "few": "20 cells, fewer than min_cells=30",
        "still": "its 40 cells are all at one position",
    }
    assert set(trends.table["type"]) == {"many"}
    assert len(trends.curves("Gene000")) == 50
    with pytest.raises(KeyMissingError, match="got 'few', which was left out: 20 cells, fewer than"):
        trends.curves("Gene000", "few")
    small = gene_trends(values[:5], position[:5], genes=names(6), min_cells=1)
    assert small.left_out == {"all": "5 cells, not more than the 5 knots"}
    assert small.table.empty
    assert list(small.table.columns) == list(COLUMNS)


def test_no_genes_give_an_empty_table() -> None:
    trends = gene_trends(np.empty((40, 0)), np.arange(40.0), genes=np.array([], dtype=str))
    assert trends.table.empty
    assert list(trends.table.columns) == list(COLUMNS)


def test_tied_positions() -> None:
    # a zonation score of zero in most cells: the knots are at distinct positions
    rng = np.random.default_rng(0)
    position = np.concatenate([np.zeros(60), rng.uniform(0, 1, 40)])
    values = np.column_stack([position + 0.1 * rng.normal(size=100), rng.normal(size=100)])
    trends = gene_trends(values, position, genes=names(2))
    assert len(trends.fits["all"].knots) == 5
    assert trends.table["gene"][0] == "Gene000"
    assert trends.table["p"][0] < 1e-20
    assert np.isfinite(trends.table[NUMBERS].astype(float)).all(axis=None)


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.zeros(90)}, r"values: expected cells x genes, .* got shapes \(90,\)"),
        ({"position": np.zeros(3)}, r"one position per cell .* \(3,\) \(position\)"),
        ({"genes": names(2)}, r"one name per gene, .* \(2,\) \(genes\)"),
        ({"position": np.full(90, np.nan)}, "a finite position for every cell.* got 90 of 90 NaN"),
        ({"genes": np.array(["A", "B", "A", "C", "D", "B"])}, "unique names, got 'A', 'B' more than once"),
        ({"values": np.full((90, 6), np.inf)}, "values: expected finite values, got NaN or infinity"),
        ({"labels": np.array(["a"] * 89)}, r"one label for each of the 90 cells, got shape \(89,\)"),
        ({"labels": np.array(["a"] * 89 + [None])}, "one label for each of the 90 cells, got 1 missing"),
        ({"labels": np.full((90, 2), "a")}, r"one label for each of the 90 cells, got shape \(90, 2\)"),
    ],
)
def test_inputs_of_wrong_shape_are_refused(changes: dict[str, np.ndarray], message: str) -> None:
    values, position = cells()
    given_ = {"values": values, "position": position, "genes": names(6)} | changes
    with pytest.raises(InputError, match=message):
        gene_trends(given_.pop("values"), given_.pop("position"), **given_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knots": 1}, "knots: expected a whole number >= 2, got 1"),
        ({"level": 1.0}, "level: expected a number from .* got 1.0"),
        ({"level": 0.0}, "level: expected a number from .* got 0.0"),
        ({"n_points": 1}, "n_points: expected a whole number from 2 to 1e\\+06, got 1"),
        ({"min_cells": 0}, "min_cells: expected a whole number >= 1, got 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, float], message: str) -> None:
    values, position = cells()
    with pytest.raises(SettingError, match=message):
        gene_trends(values, position, genes=names(6), **options)


def test_curves_that_do_not_exist() -> None:
    values, position = cells()
    trends = gene_trends(values, position, genes=names(6), labels=np.array(["Glia", "Neuron"] * 45))
    with pytest.raises(GeneError, match=r"a gene of these trends, got 'gene002'. Did you mean 'Gene002'"):
        trends.curves("gene002", "Glia")
    with pytest.raises(KeyMissingError, match=r"got 'neuron'. Did you mean 'Neuron'"):
        trends.curves("Gene002", "neuron")
    with pytest.raises(KeyMissingError, match=r"cell_type: expected a type .* got None"):
        trends.means()


def test_labels_of_any_kind() -> None:
    for labels in (np.array([2, 10, 2]), pd.Categorical(["2", "10", "2"]), pd.Series(["2", "10", "2"])):
        types, codes = label_codes(labels, 3)
        assert types.tolist() == ["10", "2"]
        assert codes.tolist() == [1, 0, 1]


# Real cells


@pytest.mark.slow
def test_hox_genes_vary_along_the_spinal_cord(shared_data: Path) -> None:
    import anndata

    data = anndata.read_h5ad(shared_data / "embryo_benchmark_sc.h5ad")
    cord = data[data.obs["cell_type"] == "Spinal cord"]
    places = cord.obs[["x_global", "y_global"]].to_numpy()
    counts = cord.X.toarray()
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000)
    position = fit_axis(places, start=places.max(axis=0)).position(places)
    table = gene_trends(values, position, genes=cord.var_names.to_numpy()).table
    hox = table[table["gene"].str.startswith("Hox")].set_index("gene")
    assert table["gene"][0] == "Hoxb9"
    assert (hox["fdr"] < 0.05).sum() >= 15
    # the order of the genes on their chromosome is their order along the body
    assert hox.loc["Hoxb9", "rho"] < -0.5
    assert hox.loc[["Hoxb3", "Hoxb4"], "rho"].min() > 0.15
