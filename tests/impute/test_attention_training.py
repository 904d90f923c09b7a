"""Learned attention on a pair: what its predictions depend on, and out-of-fold predictions of the panel."""

import dataclasses
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.data._pair import Pair, pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.impute import attention as room
from cellweft.impute.attention import AttentionPredictor, OutOfFold, fit_attending, sample_cells
from cellweft.impute.base import FitContext, predict_all
from cellweft.nn.config import AttentionSettings

ROUNDING = 5e-6
"""With other genes, float32 sums may be taken in another order; values are below 8."""

QUICK = AttentionSettings(steps=5, fold_steps=4, level_steps=5, level_hidden=6)


def fit(
    one: Pair, *, settings_: AttentionSettings = QUICK, seed: int = 0, cross: bool = True, **others: Any
) -> tuple[AttentionPredictor, OutOfFold | None]:
    return fit_attending(
        one,
        GeneColumns.load(one.sc),
        sample_cells(one, seed),
        settings=settings_,
        work=FitContext(seed=seed, devices=(torch.device("cpu"),), reliability=cross, **others),
    )


def predict(one: AttentionPredictor, of: Pair, genes: np.ndarray) -> np.ndarray:
    return predict_all(one.prepare, of, genes)


def all_genes(of: Pair) -> np.ndarray:
    return np.arange(of.sc.n_genes)


@pytest.fixture(scope="module")
def fitted(tissue_pair: Pair) -> tuple[AttentionPredictor, OutOfFold]:
    """Attention and levels of the tissue, and out-of-fold predictions; tests must not change them."""
    one, held_out = fit(tissue_pair)
    assert held_out is not None
    return one, held_out


@pytest.fixture(scope="module")
def one(fitted: tuple[AttentionPredictor, OutOfFold]) -> AttentionPredictor:
    return fitted[0]


@pytest.fixture(scope="module")
def whole(one: AttentionPredictor, tissue_pair: Pair) -> np.ndarray:
    """Predictions of all genes."""
    return predict(one, tissue_pair, all_genes(tissue_pair))


# Independence of predictions


@given(asked=st.lists(st.integers(0, 27), min_size=1, max_size=12))
@settings(max_examples=10, deadline=None)
def test_a_gene_does_not_depend_on_other_requested_genes(
    one: AttentionPredictor, whole: np.ndarray, tissue_pair: Pair, asked: list[int]
) -> None:
    some = predict(one, tissue_pair, np.array(asked))
    np.testing.assert_allclose(some, whole[:, asked], rtol=0, atol=ROUNDING)


@given(cells=st.lists(st.integers(0, 89), min_size=1, max_size=20))
@settings(max_examples=10, deadline=None)
def test_a_cell_does_not_depend_on_the_others(
    one: AttentionPredictor, whole: np.ndarray, tissue_pair: Pair, cells: list[int]
) -> None:
    part = tissue_pair.cells(np.array(cells))
    some = predict(one, part, all_genes(tissue_pair))
    np.testing.assert_allclose(some, whole[cells], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(one.similarity(part), one.similarity(tissue_pair)[cells], atol=ROUNDING)


@pytest.mark.parametrize(
    ("cells", "genes", "values"), [(1, 512, 1), (7, 1, 99), (89, 5, 2**20), (4096, 27, 64)]
)
def test_block_size_does_not_matter(
    one: AttentionPredictor,
    whole: np.ndarray,
    tissue_pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    cells: int,
    genes: int,
    values: int,
) -> None:
    for name, size in (("READ_ROWS", cells), ("BLOCK_GENES", genes)):
        monkeypatch.setattr(f"cellweft.impute.base.{name}", size)
    for name, size in (("BLOCK_GENES", max(genes // 2, 1)), ("_VALUES", values), ("_FEWEST_ROWS", 1)):
        monkeypatch.setattr(room, name, size)
    again = predict(one, tissue_pair, all_genes(tissue_pair))
    np.testing.assert_allclose(again, whole, rtol=0, atol=ROUNDING)


def test_block_size_of_similarity_does_not_matter(
    one: AttentionPredictor, tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = one.similarity(tissue_pair)
    monkeypatch.setattr(room, "READ_ROWS", 11)
    np.testing.assert_allclose(one.similarity(tissue_pair), before, atol=ROUNDING)
    assert before.shape == (90,)
    assert (before <= 1 + ROUNDING).all()


def test_the_order_of_cells_in_files_does_not_matter(
    one: AttentionPredictor, whole: np.ndarray, tissue: SimulatedTissue
) -> None:
    order = np.random.default_rng(0).permutation(tissue.st.n_obs)
    genes = np.random.default_rng(1).permutation(tissue.st.n_vars)
    other = pair(tissue.sc, tissue.st[order, genes].copy())
    np.testing.assert_allclose(predict(one, other, all_genes(other)), whole[order], rtol=0, atol=ROUNDING)


def test_no_cell_and_no_gene(one: AttentionPredictor, tissue_pair: Pair) -> None:
    nobody = tissue_pair.cells(np.array([], dtype=int))
    assert predict(one, nobody, all_genes(tissue_pair)).shape == (0, 28)
    assert predict(one, tissue_pair, np.array([], dtype=int)).shape == (90, 0)
    assert one.similarity(nobody).shape == (0,)


# Values of predictions


def test_predictions_are_finite_and_at_or_above_zero(
    one: AttentionPredictor, whole: np.ndarray, tissue_pair: Pair
) -> None:
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    assert (whole >= 0).all()
    assert tissue_pair.st.empty_cells[5]
    assert np.isfinite(one.similarity(tissue_pair)).all()


def test_reference_cells_without_counts_are_left_out(one: AttentionPredictor, tissue_pair: Pair) -> None:
    assert tissue_pair.sc.empty_cells[7]
    assert one.columns.n_cells == len(one.model.keys) == 99
    assert one.queries.max() < 99


def test_a_gene_that_is_zero_in_the_reference_is_nearly_constant(
    one: AttentionPredictor, whole: np.ndarray, tissue_pair: Pair
) -> None:
    """Such a gene has no pattern, so only the level that panel genes suggest for so rare a gene remains."""
    zero = np.flatnonzero(tissue_pair.sc.empty_genes)
    assert len(zero) == 2
    assert whole[:, zero].max() < 0.02
    np.testing.assert_allclose(whole[:, zero[0]], whole[:, zero[1]], rtol=0, atol=ROUNDING)
    predicted, carried, within = one.sampled(zero)
    assert np.abs(carried).max() == 0
    assert np.abs(within).max() == 0
    np.testing.assert_allclose(predicted[:5], whole[:5, zero], rtol=0, atol=ROUNDING)


def test_predictions_of_the_sample_equal_those_of_its_cells(
    one: AttentionPredictor, whole: np.ndarray, tissue_pair: Pair
) -> None:
    cells, genes = sample_cells(tissue_pair, 0), np.array([3, 20, 11])
    assert cells.tolist() == [cell for cell in range(90) if cell != 5]
    predicted, carried, within = one.sampled(genes)
    np.testing.assert_allclose(predicted, whole[cells][:, genes], rtol=0, atol=ROUNDING)
    assert carried.shape == (89, 3)
    assert within.shape == (99, 3)


def test_without_levels_the_level_of_the_reference_is_used(
    one: AttentionPredictor, tissue_pair: Pair
) -> None:
    bare, genes = dataclasses.replace(one, levels=None), all_genes(tissue_pair)
    _, carried, _ = one.sampled(genes)
    predicted = predict(bare, tissue_pair, genes)
    np.testing.assert_allclose(predicted[sample_cells(tissue_pair, 0)], carried, rtol=0, atol=ROUNDING)


# Out-of-fold predictions


def as_logs(of: Pair, tissue: SimulatedTissue, change: dict[str, np.ndarray] | None = None) -> Pair:
    """Return the pair made from its logarithms, so that a gene can be changed on its own."""
    values = of.st.dense(slice(None))
    for name, order in (change or {}).items():
        column = list(of.st.genes).index(name)
        values[:, column] = values[order, column]
    side = anndata.AnnData(values, obs=tissue.st.obs, var=tissue.st.var, obsm=dict(tissue.st.obsm))
    return pair(tissue.sc, side, st_scale="log")


def test_a_gene_is_left_out_of_the_attention_that_predicts_it(
    tissue: SimulatedTissue, tissue_pair: Pair
) -> None:
    """If the values of a gene are shuffled, the out-of-fold values of its whole fold stay the same."""
    usable = np.flatnonzero(~tissue_pair.st.empty_cells)
    order = np.arange(90)
    order[usable] = np.random.default_rng(0).permutation(usable)
    gene = 4
    before, after = (
        fit(as_logs(tissue_pair, tissue, change))[1]
        for change in ({}, {str(tissue_pair.shared_genes[gene]): order})
    )
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.fold, before.fold)
    assert np.abs(after.truth[:, gene] - before.truth[:, gene]).max() > 1
    part = before.fold == before.fold[gene]
    for name in ("carried", "within"):
        one, two = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(one[:, part], two[:, part])
        assert np.abs(one[:, ~part] - two[:, ~part]).max() > 1e-3


def test_every_gene_of_the_panel_is_left_out_once(
    fitted: tuple[AttentionPredictor, OutOfFold], tissue_pair: Pair
) -> None:
    _, held_out = fitted
    assert np.bincount(held_out.fold).tolist() == [4, 4, 4]
    cells = sample_cells(tissue_pair, 0)
    np.testing.assert_array_equal(held_out.truth, tissue_pair.st.dense(cells, tissue_pair.st_shared))
    assert held_out.predicted.shape == held_out.carried.shape == (89, 12)
    assert held_out.within.shape == (99, 12)
    for values in (held_out.predicted, held_out.carried, held_out.within):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert (held_out.predicted >= 0).all()


def test_out_of_fold_values_equal_those_of_a_fit_without_the_fold(
    fitted: tuple[AttentionPredictor, OutOfFold], tissue_pair: Pair
) -> None:
    _, held_out = fitted
    for part in range(3):
        out = held_out.fold == part
        names = tissue_pair.shared_genes[~out]
        other, _ = fit(tissue_pair.panel(names), settings_=QUICK.without_part(), cross=False)
        _, carried, within = other.sampled(tissue_pair.sc_shared[out])
        np.testing.assert_allclose(carried, held_out.carried[:, out], atol=ROUNDING)
        np.testing.assert_allclose(within, held_out.within[:, out], atol=ROUNDING)


def test_predictions_do_not_depend_on_out_of_fold_predictions(whole: np.ndarray, tissue_pair: Pair) -> None:
    without, held_out = fit(tissue_pair, cross=False)
    assert held_out is None
    np.testing.assert_array_equal(predict(without, tissue_pair, all_genes(tissue_pair)), whole)


@pytest.mark.parametrize("n_panel", [2, 3, 4, 5])
def test_a_panel_too_small_for_folds_has_no_levels(tissue_pair: Pair, n_panel: int) -> None:
    small = tissue_pair.panel(tissue_pair.shared_genes[:n_panel])
    one, held_out = fit(small)
    assert one.levels is None
    assert held_out is None
    predicted = predict(one, small, all_genes(small))
    assert np.isfinite(predicted).all()
    reference = small.sc.dense(slice(None))
    assert (predicted >= 0).all()
    # predictions are weighted means of the reference
    assert (predicted <= reference.max(axis=0) + ROUNDING).all()


@pytest.mark.parametrize(("folds", "n_panel"), [(3, 6), (2, 4), (6, 12)])
def test_two_genes_in_a_fold_are_enough(tissue_pair: Pair, folds: int, n_panel: int) -> None:
    one, held_out = fit(
        tissue_pair.panel(tissue_pair.shared_genes[:n_panel]),
        settings_=dataclasses.replace(QUICK, folds=folds),
    )
    assert one.levels is not None
    assert held_out is not None
    assert np.bincount(held_out.fold).tolist() == [2] * folds


def test_the_sample_is_a_draw_of_cells_with_counts(
    tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SAMPLE_CELLS", 30)
    cells = sample_cells(tissue_pair, 0)
    assert len(set(cells.tolist())) == 30
    assert cells.tolist() == sorted(cells.tolist())
    assert 5 not in cells
    assert cells.tolist() == sample_cells(tissue_pair, 0).tolist() != sample_cells(tissue_pair, 1).tolist()
    one, held_out = fit(tissue_pair)
    assert held_out is not None
    assert held_out.truth.shape == one.model.sample.shape == (30, 12)


def test_a_gene_of_one_remote_reference_cell_is_not_amplified(
    one: AttentionPredictor, tissue_pair: Pair
) -> None:
    """Attention transfers almost nothing of this gene, nearly without variation."""
    matrix = np.asarray(one.columns.dense(all_genes(tissue_pair)))
    matrix[:, 0] = 0
    matrix[3, 0] = 1e-5
    rare = dataclasses.replace(one, columns=GeneColumns(matrix=matrix, usable=one.columns.usable))
    assert predict(rare, tissue_pair, np.array([0])).max() < 0.02
