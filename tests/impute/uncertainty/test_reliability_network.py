"""Reliability of stImpute: summaries in a naive loop, scores by networks without the gene, and noise."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._compute import torch_stream
from cellweft._errors import InputError
from cellweft._statistics import cosine
from cellweft.data._pair import Pair, pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue
from cellweft.impute.imputer import Imputer
from cellweft.impute.uncertainty.reliability_network import (
    FOLDS,
    SMALLEST_PANEL,
    Reliability,
    ReliabilityNet,
    ReliabilityNets,
    TissueSample,
    _noisy_examples,
    fit_reliability,
    leave_out,
)

N_FEATURES = 12
ROUNDING = 1e-5
"""Scores by float32 networks from summaries of float32 predictions; blocks may round differently."""

Fit = Callable[..., Imputer]


class Constant(ReliabilityNet):
    """A network that gives every gene the same score."""

    def __init__(self, score: float) -> None:
        super().__init__(N_FEATURES, torch_stream(0, "test"))
        self.score = score

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.full((len(features),), self.score)


# Summaries


def naive_summaries(sample: TissueSample, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    rows = []
    for gene in range(predicted.shape[1]):
        values = [float(value) for value in predicted[:, gene]]
        n_cells = len(values)
        mean = sum(values) / n_cells
        spread = (sum((value - mean) ** 2 for value in values) / n_cells) ** 0.5
        rms = (sum(value**2 for value in values) / n_cells) ** 0.5
        standard = [(value - mean) / max(spread, 1e-9) for value in values]
        explained = sum(
            sum(weight * value for weight, value in zip(direction, standard, strict=True)) ** 2
            for direction in sample.panel.T
        )
        alike = [standard[cell] * standard[other] for cell in range(n_cells) for other in sample.around[cell]]
        known = [float(value) for value in reference[:, gene]]
        level = sum(known) / len(known)
        rows.append(
            [
                mean,
                spread,
                mean / max(rms, 1e-9),
                *(np.quantile(values, share) for share in (0.1, 0.5, 0.9, 0.99)),
                explained / n_cells,
                sum(alike) / len(alike) if alike else 0.0,
                level,
                (sum((value - level) ** 2 for value in known) / len(known)) ** 0.5,
                sum(value > 0 for value in known) / len(known),
            ]
        )
    return np.array(rows)


@given(seed=st.integers(0, 1000), n_cells=st.integers(2, 12), n_genes=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_summaries_equal_a_naive_loop(seed: int, n_cells: int, n_genes: int) -> None:
    draw = np.random.default_rng(seed)
    panel = np.linalg.qr(draw.standard_normal((n_cells, min(3, n_cells))))[0]
    around = draw.integers(n_cells, size=(n_cells, draw.integers(0, 4)))
    sample = TissueSample(cells=np.arange(n_cells), panel=panel, around=around)
    predicted = draw.gamma(1.0, size=(n_cells, n_genes)).astype(np.float32)
    predicted[:, 0] = draw.choice([0.0, 1.5])  # a constant gene
    reference = (draw.poisson(1.0, (9, n_genes))).astype(np.float32)
    found = sample.summarise(predicted, reference)
    assert found.shape == (n_genes, N_FEATURES)
    np.testing.assert_allclose(found, naive_summaries(sample, predicted, reference), rtol=1e-6, atol=1e-6)


def test_summaries_do_not_depend_on_other_genes_nor_on_the_order_of_cells(tissue_pair: Pair) -> None:
    draw = np.random.default_rng(0)
    sample = TissueSample.draw(tissue_pair, 0)
    predicted = draw.gamma(1.0, size=(len(sample.cells), 6)).astype(np.float32)
    reference = draw.gamma(1.0, size=(30, 6)).astype(np.float32)
    whole = sample.summarise(predicted, reference)
    some = sample.summarise(predicted[:, [4, 1]], reference[:, [4, 1]])
    np.testing.assert_allclose(some, whole[[4, 1]], rtol=1e-12)
    order = draw.permutation(tissue_pair.st.n_cells)
    shuffled = TissueSample.draw(tissue_pair.cells(order), 0)
    place = {cell: row for row, cell in enumerate(sample.cells)}
    moved = predicted[[place[order[cell]] for cell in shuffled.cells]]
    np.testing.assert_allclose(shuffled.summarise(moved, reference), whole, rtol=1e-6, atol=1e-9)


# The sample of the tissue


def test_the_sample_has_cells_with_counts_and_a_basis_of_the_panel(tissue_pair: Pair) -> None:
    sample = TissueSample.draw(tissue_pair, 0)
    assert sample.cells.tolist() == [cell for cell in range(90) if cell != 5]
    np.testing.assert_allclose(sample.panel.T @ sample.panel, np.eye(10), atol=1e-9)
    np.testing.assert_allclose(sample.panel.sum(axis=0), 0, atol=1e-9)


def test_a_large_tissue_is_sampled_with_the_seed(tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellweft.impute.uncertainty.reliability_network.SAMPLE_CELLS", 25)
    first, again, other = (TissueSample.draw(tissue_pair, seed).cells for seed in (0, 0, 1))
    assert len(first) == 25
    assert 5 not in first
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_neighbours_are_the_nearest_of_the_same_slice(tissue_pair: Pair) -> None:
    slices = np.array(["a", "b", "c", "alone"])[np.arange(90) % 3]
    slices[[10, 20]] = ["alone", "b"]
    # All slices overlap, so the nearest cells overall are mostly in another slice.
    sliced = dataclasses.replace(tissue_pair, slices=slices)
    sample = TissueSample.draw(sliced, 0)
    assert sliced.coordinates is not None
    places, names = sliced.coordinates[sample.cells], slices[sample.cells]
    for cell, around in enumerate(sample.around):
        assert (names[around] == names[cell]).all()
        others = [one for one in range(len(names)) if names[one] == names[cell] and one != cell]
        by_distance = sorted(others, key=lambda one: float(np.linalg.norm(places[one] - places[cell])))
        assert sorted(around) == sorted(by_distance[:8]) or set(around) == {cell}
    assert [set(sample.around[row]) for row in np.flatnonzero(names == "alone")] == [
        {int(np.flatnonzero(names == "alone")[0])}
    ]


def test_without_coordinates_there_are_no_neighbours(tissue_pair: Pair) -> None:
    bare = dataclasses.replace(tissue_pair, coordinates=None)
    sample = TissueSample.draw(bare, 0)
    assert sample.around.shape == (89, 0)
    found = sample.summarise(np.ones((89, 2), dtype=np.float32), np.ones((5, 2), dtype=np.float32))
    assert np.isfinite(found).all()


def test_a_panel_that_does_not_vary_gives_finite_summaries(tissue_pair: Pair) -> None:
    same = tissue_pair.cells(np.zeros(6, dtype=int))
    sample = TissueSample.draw(same, 0)
    found = sample.summarise(np.zeros((6, 2), dtype=np.float32), np.zeros((5, 2), dtype=np.float32))
    assert np.isfinite(found).all()


# Networks and scores


def test_a_panel_gene_is_scored_by_the_network_that_did_not_see_it(tissue_pair: Pair) -> None:
    scores = (0.1, 0.3, 0.5, 0.7, 0.9)
    nets = ReliabilityNets(
        centre=np.zeros(N_FEATURES),
        scale=np.ones(N_FEATURES),
        nets=tuple(Constant(score) for score in scores),
        fold_of={"Seen": 1, "Other": 4},
        panel_scores={"Seen": 0.3, "Other": 0.9},
    )
    known = Reliability(nets=nets, sample=TissueSample.draw(tissue_pair, 0))
    values = np.ones((89, 3), dtype=np.float32)
    found = known.score(values, np.ones((5, 3), dtype=np.float32), np.array(["Other", "New", "Seen"]))
    np.testing.assert_allclose(found, [0.9, 0.5, 0.3], rtol=1e-6)


def perfectly(pair: Pair) -> Reliability:
    """Fit to predictions that equal the measurement."""
    sample = TissueSample.draw(pair, 0)
    folds = leave_out(pair, sample, seed=0)
    truth = pair.st.dense(sample.cells, pair.st_shared)
    return fit_reliability(
        pair,
        GeneColumns.load(pair.sc),
        sample,
        folds=folds,
        predictions=[truth[:, fold.panel] for fold in folds],
        seed=0,
    )


@pytest.mark.slow
def test_every_panel_gene_is_held_out_once(tissue_pair: Pair) -> None:
    sample = TissueSample.draw(tissue_pair, 0)
    folds = leave_out(tissue_pair, sample, seed=0)
    for fold in folds:
        names = set(tissue_pair.sc.genes[fold.genes])
        assert names == set(tissue_pair.shared_genes[fold.panel])
        assert not names & set(fold.train.shared_genes)
        assert names | set(fold.train.shared_genes) == set(tissue_pair.shared_genes)
        np.testing.assert_array_equal(fold.cells.shared_genes, fold.train.shared_genes)
        assert fold.train.st.n_cells == 90  # training may use all cells
        assert fold.cells.st.n_cells == 89  # without the empty cell, which has nothing to compare
    assert sorted(np.concatenate([fold.genes for fold in folds])) == sorted(tissue_pair.sc_shared)
    found = perfectly(tissue_pair)
    assert set(found.nets.fold_of) == set(tissue_pair.shared_genes)
    assert sorted(set(found.nets.fold_of.values())) == list(range(FOLDS))
    assert len(found.nets.nets) == FOLDS


@pytest.mark.slow
def test_a_perfect_prediction_scores_higher_than_a_scrambled_one(tissue_pair: Pair) -> None:
    columns, draw = GeneColumns.load(tissue_pair.sc), np.random.default_rng(0)
    found = perfectly(tissue_pair)
    truth = tissue_pair.st.dense(found.sample.cells, tissue_pair.st_shared)
    scrambled = draw.permuted(truth, axis=0) + draw.standard_normal(truth.shape).astype(np.float32)
    reference = columns.dense(tissue_pair.sc_shared)
    perfect, poor = (
        found.score(one, reference, tissue_pair.shared_genes).mean() for one in (truth, scrambled)
    )
    assert perfect > poor + 0.1


def test_scores_are_between_0_and_1_and_do_not_depend_on_other_genes(
    reliable_imputer: Imputer, tissue_pair: Pair
) -> None:
    genes, names = np.arange(tissue_pair.sc.n_genes), tissue_pair.sc.genes
    scores = reliable_imputer.reliability_of(names)
    assert scores.dtype == np.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    for asked in ([7], [20, 3, 11], genes[::-1]):
        np.testing.assert_allclose(
            reliable_imputer.reliability_of(names[asked]), scores[asked], rtol=0, atol=ROUNDING
        )
    np.testing.assert_allclose(reliable_imputer.impute().var["reliability"], scores, rtol=0, atol=ROUNDING)
    new = np.setdiff1d(genes, tissue_pair.sc_shared)
    judged = reliable_imputer.predict(names[new], tissue_pair)
    np.testing.assert_allclose(
        reliable_imputer.reliability_of(names[new], judged=judged), scores[new], rtol=0, atol=ROUNDING
    )


def test_a_panel_gene_keeps_the_score_of_its_held_out_prediction(
    reliable_imputer: Imputer, tissue_pair: Pair
) -> None:
    known = reliable_imputer.fitted_.reliability
    assert known is not None
    kept = [known.nets.panel_scores[gene] for gene in tissue_pair.shared_genes]
    np.testing.assert_array_equal(reliable_imputer.reliability_of(tissue_pair.shared_genes), kept)
    flattering = reliable_imputer.predict(tissue_pair.shared_genes, tissue_pair)
    assert (reliable_imputer.reliability_of(tissue_pair.shared_genes, judged=flattering) != kept).any()


@pytest.mark.slow
def test_noise_lowers_the_scores() -> None:
    made = simulate_tissue(n_spatial=150, n_reference=150, n_genes=40, n_panel=24, seed=1)
    both = pair(made.sc, made.st)
    # Train long enough to predict something: noise hardly lowers the score of a nearly constant prediction.
    imputer = Imputer(
        preset="stimpute",
        settings={"k": 8, "hidden": 16, "epochs": 8, "ae_epochs": 10, "rounds": 1, "batch": 64},
    ).fit(both)
    genes = both.sc.genes
    predicted = imputer.predict(genes, both)
    noise = np.random.default_rng(0).standard_normal(predicted.shape).astype(np.float32)
    noise *= predicted.std(axis=0)
    means = [
        float(imputer.reliability_of(genes, judged=predicted + level * noise).mean())
        for level in (0, 0.5, 1, 2)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1] + 0.01


def test_the_first_examples_are_the_predictions_without_noise(tissue_pair: Pair) -> None:
    sample = TissueSample.draw(tissue_pair, 0)
    stream = np.random.default_rng(0)
    predicted, truth = stream.random((2, len(sample.cells), 5), dtype=np.float32)
    reference = stream.random((40, 5), dtype=np.float32)
    features, labels, genes = _noisy_examples(sample, predicted, truth, reference, 0)
    np.testing.assert_array_equal(features[:5], sample.summarise(predicted, reference))
    np.testing.assert_allclose(labels[:5], cosine(predicted, truth), rtol=1e-6)
    assert genes.tolist() == [0, 1, 2, 3, 4] * 5


def test_predictions_to_score_must_match_the_request(reliable_imputer: Imputer) -> None:
    with pytest.raises(InputError, match=r"judged: expected 90 cells x 2 genes, got .*\(90, 3\)"):
        reliable_imputer.reliability_of(["Gene02", "Gene03"], judged=np.zeros((90, 3), dtype=np.float32))
    with pytest.raises(InputError, match=r"judged: expected 90 cells x 2 genes, got .*\(89, 2\)"):
        reliable_imputer.reliability_of(["Gene02", "Gene03"], judged=np.zeros((89, 2), dtype=np.float32))


@pytest.mark.slow
def test_small_panels_have_no_reliability(tissue_pair: Pair, fit_quickly: Fit) -> None:
    few = tissue_pair.panel(tissue_pair.shared_genes[: SMALLEST_PANEL - 1])
    small = fit_quickly(on=few, reliability=True)
    assert small.fitted_.reliability is None
    assert np.isnan(small.reliability_of(tissue_pair.sc.genes[:3])).all()
    assert small.impute(["Gene02"]).var["reliability"].isna().all()
    enough = fit_quickly(on=tissue_pair.panel(tissue_pair.shared_genes[:SMALLEST_PANEL]), reliability=True)
    assert np.isfinite(enough.reliability_of(tissue_pair.sc.genes[:3])).all()


@pytest.mark.slow
def test_scores_without_coordinates(tissue_pair: Pair, fit_quickly: Fit) -> None:
    bare = dataclasses.replace(tissue_pair, coordinates=None, slices=None)
    scores = fit_quickly(on=bare, reliability=True).reliability_of(bare.sc.genes)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.slow
def test_reliability_is_kept_for_other_cells(tissue_pair: Pair, fit_quickly: Fit) -> None:
    other = fit_quickly(reliability=True).attach(tissue_pair.cells(np.arange(40, 90)))
    assert other.fitted_.reliability is not None
    assert other.fitted_.reliability.sample.cells.max() < 50
    assert np.isfinite(other.impute(["Gene02"]).var["reliability"]).all()


@pytest.mark.slow
def test_the_more_reliable_half_of_genes_is_predicted_better() -> None:
    made: SimulatedTissue = simulate_tissue(
        n_spatial=1500, n_reference=1000, n_genes=120, n_panel=50, platform_effect=0.3, seed=0
    )
    both = pair(made.sc, made.st)
    imputer = Imputer(preset="stimpute", settings={"k": 20, "hidden": 32}).fit(both)
    unseen = np.setdiff1d(np.arange(both.sc.n_genes), both.sc_shared)
    predicted = imputer.predict(both.sc.genes[unseen], both).astype(float)
    counts = made.truth.X.toarray()
    truth = np.log1p(counts / counts.sum(axis=1, keepdims=True).clip(min=1) * both.st.target)[:, unseen]
    cosine = (predicted * truth).sum(0) / np.maximum(
        np.linalg.norm(predicted, axis=0) * np.linalg.norm(truth, axis=0), 1e-9
    )
    scores = imputer.reliability_of(both.sc.genes[unseen])
    best = scores >= np.median(scores)
    assert np.median(cosine[best]) > np.median(cosine)


@pytest.mark.slow
def test_osmfish_reaches_its_published_cosine(shared_data: Path) -> None:
    both = pair(shared_data / "osmfish_ref_allen_ssp_sc33.h5ad", shared_data / "osmfish_benchmark_st.h5ad")
    names = both.shared_genes
    scores = []
    for fold in range(3):  # of five; each has every fifth of the sorted genes
        held = np.arange(fold, len(names), 5)
        part = both.panel(np.delete(names, held))
        imputer = Imputer(preset="stimpute", reliability=False).fit(part)
        predicted = imputer.predict(both.shared_genes[held], part).astype(float)
        truth = both.st.dense(slice(None), both.st_shared[held]).astype(float)
        length = np.linalg.norm(predicted, axis=0) * np.linalg.norm(truth, axis=0)
        scores.extend((predicted * truth).sum(axis=0) / length)
    assert np.isfinite(scores).all()
    assert np.median(scores) >= 0.75
