"""Multiple imputations: their content, what they depend on, and errors with the next step."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cellweft._errors import GeneError, MemoryBudgetError, NotFittedError, ScaleError, SettingError
from cellweft._load import load
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.impute.imputer import Imputer
from cellweft.tl._multiple_imputation import multiple_imputations

QUICK = {"steps": 5, "level_steps": 5}


@pytest.fixture(scope="module")
def known(tissue_pair: Pair) -> Imputer:
    """The default preset with minimal training, fitted to the tissue; tests must not change it."""
    return Imputer(settings=QUICK).fit(tissue_pair)


def genes_of(imputer: Imputer, n: int = 4) -> list[str]:
    assert imputer.pair_ is not None
    return [str(gene) for gene in imputer.pair_.sc.genes[:n]]


def test_content_of_imputations(known: Imputer) -> None:
    genes = genes_of(known)
    results = multiple_imputations(known, genes, n=3)
    imputed = known.impute(genes)
    assert len(results) == 3
    for number, one in enumerate(results):
        assert one.shape == imputed.shape
        assert one.X.dtype == np.float32
        assert (one.X >= 0).all()
        assert np.isfinite(one.X).all()
        assert set(one.layers) <= {None}  # anndata 0.13 lists X as the layer None
        assert one.obs.equals(imputed.obs)
        assert one.var.equals(imputed.var)
        np.testing.assert_array_equal(one.obsm["spatial"], imputed.obsm["spatial"])
        assert one.uns["cellweft"]["imputation"] == {"number": number, "of": 3, "seed": 0}
        assert one.uns["cellweft"]["preset"] == imputed.uns["cellweft"]["preset"]
    assert (results[0].X != results[1].X).any()


def test_progress_is_reported(known: Imputer) -> None:
    steps: list[tuple[str, int, int]] = []
    multiple_imputations(known, genes_of(known), n=3, progress=lambda *step: steps.append(step))
    assert steps[-3:] == [("draw imputations", number, 3) for number in (1, 2, 3)]
    assert {stage for stage, _, _ in steps} > {"draw imputations"}
    silent = multiple_imputations(known, genes_of(known), n=2, progress=False)
    np.testing.assert_array_equal(silent[0].X, multiple_imputations(known, genes_of(known), n=2)[0].X)


def test_it_can_be_written(known: Imputer, tmp_path: Path) -> None:
    one = multiple_imputations(known, genes_of(known), n=2)[1]
    one.write_h5ad(tmp_path / "one.h5ad")
    again = ad.read_h5ad(tmp_path / "one.h5ad")
    np.testing.assert_array_equal(again.X, one.X)
    assert int(again.uns["cellweft"]["imputation"]["number"]) == 1


def test_a_gene_does_not_depend_on_other_genes_or_the_number_of_imputations(known: Imputer) -> None:
    genes = genes_of(known)
    many = multiple_imputations(known, genes, n=3, seed=5)
    few = multiple_imputations(known, [genes[2], genes[0]], n=2, seed=5)
    for one, other in zip(few, many, strict=False):
        # in float32, predictions for other requests round differently
        np.testing.assert_allclose(one.X, other[:, [genes[2], genes[0]]].X, rtol=1e-5)
    other_seed = multiple_imputations(known, genes, n=2, seed=6)
    assert (other_seed[0].X != many[0].X).any()


def test_other_cells_of_the_pair(known: Imputer, tissue_pair: Pair) -> None:
    some = tissue_pair.cells(np.arange(20))
    assert multiple_imputations(known, genes_of(known), n=2, pair=some)[0].n_obs == 20


def test_a_loaded_imputer_draws_the_same(known: Imputer, tissue_pair: Pair, tmp_path: Path) -> None:
    genes = genes_of(known)
    again = load(known.save(tmp_path / "model"))
    with pytest.raises(
        NotFittedError, match=r"an unfitted one, or one without data\. Call fit\(pair\) first, or attach"
    ):
        multiple_imputations(again, genes)
    for one, other in zip(
        multiple_imputations(again.attach(tissue_pair), genes, n=2),
        multiple_imputations(known, genes, n=2),
        strict=True,
    ):
        np.testing.assert_allclose(one.X, other.X, rtol=1e-5, atol=1e-6)


def test_means_of_genes_vary_between_imputations(known: Imputer) -> None:
    """The mean of a gene varies more between imputations than independent noise of cells would explain."""
    means = np.stack([one.X.mean(axis=0) for one in multiple_imputations(known, n=8)])
    alone = np.stack([one.X.std(axis=0) / one.n_obs**0.5 for one in multiple_imputations(known, n=2)])
    assert np.median(means.std(axis=0, ddof=1) / alone.mean(axis=0)) > 1.2


def test_without_intervals(imputer: Imputer) -> None:
    with pytest.raises(NotFittedError, match=r"preset='stimpute' with reliability=False\. Use preset='auto'"):
        multiple_imputations(imputer)
    with pytest.raises(NotFittedError, match=r"expected a fitted Imputer.*Call fit\(pair\) first"):
        multiple_imputations(Imputer())


def test_genes_that_are_unknown(known: Imputer) -> None:
    with pytest.raises(GeneError, match="Gene99"):
        multiple_imputations(known, ["Gene99"])


@pytest.mark.parametrize("n", [1, 0, 2.5])
def test_too_few_imputations_are_refused(known: Imputer, n: Any) -> None:
    with pytest.raises(SettingError, match="n: expected a whole number >= 2"):
        multiple_imputations(known, n=n)


def test_results_too_large_for_the_budget_are_refused(known: Imputer) -> None:
    with pytest.raises(MemoryBudgetError, match="for 200000000 matrices and their mean"):
        multiple_imputations(known, genes_of(known), n=200_000_000)


def test_counts_are_drawn_from_the_count_model(known: Imputer) -> None:
    genes = genes_of(known)
    results = multiple_imputations(known, genes, n=40, scale="counts")
    for one in results[:2]:
        assert (np.rint(one.X) == one.X).all()
        assert (one.X >= 0).all()
        assert one.X.dtype == np.float32
        assert one.uns["cellweft"]["scale"].startswith("counts")
        assert one.uns["cellweft"]["count_model"] == known.fitted_.count_model.name
    expected = known.impute(genes, scale="counts").X
    drawn = np.mean([one.X.mean(axis=0) for one in results], axis=0)
    assert np.abs(np.log(drawn / expected.mean(axis=0))).max() < 1
    alone = multiple_imputations(known, genes[:1], n=2, scale="counts")
    np.testing.assert_array_equal(alone[0].X[:, 0], results[0].X[:, 0])


@pytest.mark.slow
def test_counts_are_refused_without_a_tissue_of_counts(tissue: SimulatedTissue, known: Imputer) -> None:
    with pytest.raises(SettingError, match=r"scale: expected one of 'log', 'counts', got 'integers'"):
        multiple_imputations(known, n=2, scale="integers")  # type: ignore[arg-type]
    logs = tissue.st.copy()
    counts = logs.X.toarray()
    logs.X = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 50)
    other = Imputer(settings=QUICK).fit(pair(tissue.sc, logs))
    with pytest.raises(ScaleError, match=r"scale: expected spatial counts"):
        multiple_imputations(other, n=2, scale="counts")
