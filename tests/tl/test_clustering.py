"""Clusters of cells, modules of genes, and agreement of groups."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError, SettingError
from cellweft.tl._clustering import (
    _cell_graph,
    _gene_graph,
    _kernel_widths,
    cluster_scores,
    coexpression_modules,
    leiden_clusters,
)

# UMAP stops the bisection of each row at 1e-5 of the target; ours stops when all rows are that close
WEIGHT_TOLERANCE = 1e-4


def blobs(n_cells: int = 120, n_genes: int = 20, n_groups: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Draw cells of well separated groups; return them and their groups."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, n_groups, n_cells)
    centres = rng.normal(scale=4.0, size=(n_groups, n_genes))
    return (centres[groups] + rng.normal(size=(n_cells, n_genes))).astype(np.float32), groups


def test_scores_by_hand() -> None:
    # of six pairs of cells, two share a label, and one of these also shares a cluster
    scores = cluster_scores(np.array(["a", "a", "b", "b"]), np.array([0, 0, 1, 2]))
    assert scores["fmi"] == pytest.approx(1 / np.sqrt(2))
    assert scores["ari"] == pytest.approx((1 - 2 * 1 / 6) / (1.5 - 2 * 1 / 6))
    assert scores["completeness"] == pytest.approx(np.log(2) / (1.5 * np.log(2)))
    assert scores["nmi"] == pytest.approx(np.log(2) / ((1 + 1.5) / 2 * np.log(2)))


def test_a_single_cluster_has_completeness_1_and_other_scores_0() -> None:
    scores = cluster_scores(np.array(["a", "a", "b", "b"]), np.zeros(4, dtype=int))
    assert (scores["ari"], scores["nmi"], scores["completeness"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("clusters", [[0, 1], []])
def test_scores_of_other_cells(clusters: list[int]) -> None:
    with pytest.raises(InputError, match=f"clusters: expected one cluster .* got {len(clusters)}"):
        cluster_scores(np.array(["a", "b", "c"][: len(clusters) + 1 if clusters else 0]), np.array(clusters))


@pytest.mark.parametrize("n_genes", [20, 80])  # 80 genes are reduced by principal components
def test_leiden_finds_the_groups(n_genes: int) -> None:
    expression, groups = blobs(n_genes=n_genes)
    clusters = leiden_clusters(expression, seed=0)
    assert clusters.dtype == np.int64
    assert cluster_scores(groups, clusters)["ari"] == 1.0
    sizes = np.bincount(clusters)
    assert list(sizes) == sorted(sizes, reverse=True)


def test_leiden_depends_on_its_seed_and_does_not_use_the_global_state() -> None:
    # without groups, so that the result depends on chance
    noise = np.random.default_rng(0).normal(size=(300, 60))
    leiden_clusters(noise, seed=0)  # the first import of some packages draws from `random`
    python, numpy = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    one, again, other = (leiden_clusters(noise, seed=seed) for seed in (1, 1, 2))
    coexpression_modules(noise, np.arange(60).astype(str), seed=0)
    assert random.getstate() == python
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy["state"]["key"])  # noqa: NPY002
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_resolution_gives_more_clusters() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 10))
    assert leiden_clusters(noise, seed=0, resolution=3.0).max() > leiden_clusters(noise, seed=0).max()


@pytest.mark.parametrize("n_cells", [1, 2, 40])
def test_identical_cells_are_one_cluster(n_cells: int) -> None:
    assert not leiden_clusters(np.ones((n_cells, 60)), seed=0).any()


def test_copies_of_cells() -> None:
    # more copies than neighbours, so all distances of a cell are 0
    expression, _ = blobs(n_cells=4, n_groups=2)
    copies = np.repeat(expression, 30, axis=0)
    clusters = leiden_clusters(copies, seed=0)
    assert all(len(set(clusters[start : start + 30])) == 1 for start in range(0, 120, 30))
    assert np.isfinite(_cell_graph(copies, k=14).data).all()


def test_cell_graph_equals_a_naive_loop() -> None:
    expression = blobs(n_cells=30)[0].astype(np.float64)
    expected = np.zeros((30, 30))
    for cell in range(30):
        distances = np.sqrt(((expression - expression[cell]) ** 2).sum(axis=1))
        nearest = [other for other in np.argsort(distances, kind="stable") if other != cell][:5]
        beyond = distances[nearest] - distances[nearest].min()
        width = _kernel_widths(beyond[None, :], np.log2(6))[0]
        expected[cell, nearest] = np.exp(-beyond / width)
    expected = expected + expected.T - expected * expected.T
    # bisecting all rows together continues longer than for a single row
    np.testing.assert_allclose(_cell_graph(expression, k=5).toarray(), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_kernel_widths_meet_their_target(seed: int) -> None:
    beyond = np.random.default_rng(seed).random((4, 14)) * 10.0 ** np.arange(-3, 1)[:, None]
    beyond[:, 0] = 0.0
    widths = _kernel_widths(beyond, np.log2(15))
    np.testing.assert_allclose(np.exp(-beyond / widths[:, None]).sum(axis=1), np.log2(15), atol=1e-4)


@pytest.mark.slow  # umap-learn has to compile
@pytest.mark.filterwarnings("ignore")  # warnings of umap-learn and numba
def test_cell_graph_equals_scanpy() -> None:
    import anndata
    import scanpy

    expression, _ = blobs(n_cells=400)
    cells = anndata.AnnData(expression.astype(np.float64))
    scanpy.pp.neighbors(cells, use_rep="X", transformer="sklearn")
    theirs = cells.obsp["connectivities"].toarray()
    np.testing.assert_allclose(_cell_graph(cells.X, k=14).toarray(), theirs, atol=WEIGHT_TOLERANCE)
    scanpy.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False)
    assert cluster_scores(cells.obs["leiden"].to_numpy(), leiden_clusters(cells.X, seed=0))["ari"] > 0.95


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((0, 3)), np.array([[np.nan, 1.0]])])
def test_expression_is_checked(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="expression: expected a matrix of finite values, cells x genes"):
        leiden_clusters(bad, seed=0)
    with pytest.raises(InputError, match="expression: expected a matrix of finite values, cells x genes"):
        coexpression_modules(bad, np.array(["a"]), seed=0)


def test_resolution_and_k_are_checked() -> None:
    expression, _ = blobs()
    with pytest.raises(SettingError, match="resolution: expected a number >= 1e-09, got 0"):
        leiden_clusters(expression, seed=0, resolution=0)
    with pytest.raises(SettingError, match="k: expected a whole number >= 1, got 0"):
        coexpression_modules(expression, np.arange(20).astype(str), seed=0, k=0)
    with pytest.raises(InputError, match="genes: expected 20 names, one per column, got 1"):
        coexpression_modules(expression, np.array(["a"]), seed=0)


def programmes() -> tuple[np.ndarray, np.ndarray]:
    """Draw eighteen genes of three programmes and a constant one; return them and their programmes."""
    rng = np.random.default_rng(0)
    programme = np.append(np.repeat([0, 1, 2], 6), -1)
    activity = rng.normal(size=(200, 3))
    expression = activity[:, programme] + rng.normal(scale=0.5, size=(200, 19))
    expression[:, -1] = 0.3
    return expression.astype(np.float32), programme


def test_modules_find_the_programmes() -> None:
    expression, programme = programmes()
    names = np.array([f"g{gene:02d}" for gene in range(19)])
    modules = coexpression_modules(expression, names, seed=0)
    assert list(modules.index) == list(names)
    assert modules["g18"] == -1
    assert cluster_scores(programme, modules.to_numpy())["ari"] == 1.0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_modules_do_not_depend_on_the_order_of_cells(seed: int) -> None:
    expression, _ = programmes()
    order = np.random.default_rng(seed).permutation(len(expression))
    names = np.arange(19).astype(str)
    one, other = (coexpression_modules(matrix, names, seed=0) for matrix in (expression, expression[order]))
    assert cluster_scores(one.to_numpy(), other.to_numpy())["ari"] == 1.0


def test_gene_graph_equals_a_naive_loop() -> None:
    expression = programmes()[0][:, :12].astype(np.float64)
    correlation = np.corrcoef(expression.T)
    expected = np.zeros((12, 12))
    for gene in range(12):
        others = sorted(
            (other for other in range(12) if other != gene), key=lambda other: -correlation[gene, other]
        )
        for other in others[:3]:
            if correlation[gene, other] > 0:
                expected[gene, other] = expected[other, gene] = correlation[gene, other]
    np.testing.assert_allclose(_gene_graph(expression, k=3).toarray(), expected, atol=1e-12)


@pytest.mark.parametrize("n_genes", [1, 3])
def test_constant_genes_have_no_module(n_genes: int) -> None:
    modules = coexpression_modules(np.full((5, n_genes), 0.1), np.arange(n_genes).astype(str), seed=0)
    assert list(modules) == [-1] * n_genes


def test_seeds_too_large_for_numpy_are_accepted() -> None:
    cells, groups = blobs(n_genes=60)
    clusters = leiden_clusters(cells, seed=2**40)
    assert cluster_scores(groups, clusters)["ari"] == pytest.approx(1)


def test_a_seed_is_checked_even_if_it_is_not_needed() -> None:
    with pytest.raises(SettingError, match="seed: expected a whole number"):
        leiden_clusters(np.ones((4, 2)), seed=-1)
