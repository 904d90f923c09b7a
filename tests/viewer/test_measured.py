"""Measurements next to imputed values: matched by name and normalised like in `cellweft.pair`."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellweft import pair
from cellweft._errors import GeneError, InputError, ScaleError
from cellweft.data.io.obs_table import HeldTable
from cellweft.data.io.read import open_input
from cellweft.viewer.cache import StripeCache
from cellweft.viewer.matrix import Means
from cellweft.viewer.measured import MeasuredGenes, order_of


@pytest.fixture
def means() -> Iterator[Means]:
    with ThreadPoolExecutor(2) as pool:
        yield Means(cache=StripeCache(10**6), share=10**6, pool=pool, threads=2)


def measured(tissue: Any, result: Any, means: Means) -> MeasuredGenes:
    return MeasuredGenes(open_input(tissue, argument="tissue"), open_input(result, argument="result"), means)


def expected(tissue: AnnData, result: AnnData) -> pd.DataFrame:
    """Return the values of `cellweft.pair` for the tissue, with the cells and genes of the result."""
    tissue = tissue.copy()
    tissue.obsm["spatial"] = np.random.default_rng(0).uniform(size=(tissue.n_obs, 2))
    reference = AnnData(np.ones((3, result.n_vars), np.float32), var=pd.DataFrame(index=result.var_names))
    made = pair(reference, tissue)
    values = pd.DataFrame(
        made.st.dense(slice(None), made.st_shared),
        index=made.st.obs_names,
        columns=made.sc.input_names[made.sc_shared],
    )
    return values.reindex(index=result.obs_names, columns=result.var_names)


@pytest.mark.parametrize("form", ["tissue", "tissue dense", "memory"])
@pytest.mark.parametrize("share", [10**6, 300])
def test_values_equal_those_of_pair(
    form: str, share: int, stores: dict[str, Path], counts: AnnData, imputed: AnnData, means: Means
) -> None:
    means = Means(cache=StripeCache(share), share=share, pool=means.pool, threads=2)
    genes = measured(counts if form == "memory" else stores[form], stores["zarr"], means)
    values = expected(counts, imputed)
    assert sorted(genes.genes) == [0, 1, 2, 3]
    for number in (2, 0, 3, 1, 2):
        np.testing.assert_array_equal(genes.gene(number), values.iloc[:, number])
    assert np.isnan(genes.gene(0)[:3]).all()
    assert np.isnan(genes.gene(8)).all()


@pytest.mark.parametrize("stored", ["raw", "log_raw"])
def test_with_a_result_of_counts_measured_values_are_counts(
    stored: str, counts: AnnData, imputed: AnnData, means: Means
) -> None:
    result, tissue = imputed.copy(), counts.copy()
    result.uns["cellweft"] = {**imputed.uns["cellweft"], "scale": "counts: means"}
    if stored == "log_raw":
        tissue.X = tissue.X.log1p()
    values = counts.to_df().reindex(index=imputed.obs_names)["Gene3"]
    genes = measured(tissue, result, means)
    np.testing.assert_allclose(genes.gene(3), values, rtol=1e-5)
    tissue.X = sp.csr_matrix(counts.X / np.maximum(counts.X.sum(axis=1), 1) * 37.5)
    with pytest.raises(ScaleError, match="counts, as the result has, got values that are not counts"):
        measured(tissue, result, means).gene(3)


@pytest.mark.parametrize("scale", ["normalised", "log"])
def test_other_scales(scale: str, counts: AnnData, imputed: AnnData, means: Means) -> None:
    tissue = counts.copy()
    tissue.X = sp.csr_matrix(counts.X / np.maximum(counts.X.sum(axis=1), 1) * 37.5)
    if scale == "log":
        tissue.X = tissue.X.log1p()
    genes = measured(tissue, imputed, means)
    np.testing.assert_array_equal(genes.gene(1), expected(tissue, imputed).iloc[:, 1])


def test_cells_in_the_same_order(imputed: AnnData, means: Means) -> None:
    tissue = AnnData(np.ones((imputed.n_obs, 1), np.float32), obs=imputed.obs[[]])
    tissue.var_names = ["Gene7"]
    genes = measured(tissue, imputed, means)
    np.testing.assert_allclose(genes.gene(7), np.log(2))


def test_the_tissue_is_read_once(
    stores: dict[str, Path], means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    genes = measured(stores["tissue"], stores["zarr"], means)
    sweeps: list[int] = []
    first = MeasuredGenes._first_read
    monkeypatch.setattr(MeasuredGenes, "_first_read", lambda self: sweeps.append(1) or first(self))
    threads = [threading.Thread(target=genes.gene, args=(number,)) for number in (0, 1, 2, 0)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(sweeps) == 1


def test_order_by_name() -> None:
    one, two = (HeldTable(pd.DataFrame(index=list(names))) for names in ("abc", "cxa"))
    order = order_of(one, two)
    assert order is not None
    assert order.tolist() == [2, -1, 0]
    assert order_of(one, one) is None


def test_names_of_zarr_and_hdf5_are_equal(stores: dict[str, Path]) -> None:
    tables = [open_input(stores[one], argument="result").obs for one in ("zarr", "h5ad")]
    assert order_of(*tables) is None
    assert order_of(*tables[::-1]) is None


def test_other_cells_and_other_genes(counts: AnnData, imputed: AnnData, means: Means) -> None:
    strangers = counts.copy()
    strangers.obs_names = [f"other{number}" for number in range(counts.n_obs)]
    with pytest.raises(InputError, match=r"the cells of result .* got other names \('other0'"):
        measured(strangers, imputed, means)
    with pytest.raises(GeneError, match="none of them, but 'Other1', 'Other2'"):
        measured(counts[:, ["Other1", "Other2"]].copy(), imputed, means)
    twice = counts.copy()
    twice.obs_names = [*counts.obs_names[:-1], counts.obs_names[0]]
    with pytest.raises(InputError, match="duplicate names"):
        measured(twice, imputed, means)


def test_unusable_values_are_reported_every_time(counts: AnnData, imputed: AnnData, means: Means) -> None:
    scaled = counts.copy()
    scaled.X = counts.X.toarray() - 0.5
    genes = measured(scaled, imputed, means)
    for _ in range(2):
        with pytest.raises(ScaleError, match="below zero"):
            genes.gene(0)
