"""Counts in ``raw``, and inputs without X."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft._errors import KeyMissingError, ScaleError
from cellweft.data._pair import pair

GENES = ["Gad1", "Sst", "Vip", "Pvalb", "Lamp5"]
KINDS = ["memory", "backed", "h5ad", "zarr"]


@pytest.fixture
def source(tmp_path: Path, write_as: Any) -> Any:
    """Function that returns an AnnData in memory, backed, or as a path."""

    def given(data: ad.AnnData, kind: str) -> Any:
        if kind == "memory":
            return data
        path = write_as(data, tmp_path, "h5ad" if kind == "backed" else kind)
        return ad.read_h5ad(path, backed="r") if kind == "backed" else path

    return given


def scaled(make_side: Any, *, spatial: bool = False) -> tuple[ad.AnnData, np.ndarray]:
    """Two z-scored genes, with the counts of five genes in `raw`."""
    counts = make_side(GENES, n_cells=30, spatial=spatial)
    counts.var["kind"] = "a"
    data = counts[:, ["Vip", "Gad1"]].copy()
    data.raw = counts
    data.X = np.random.default_rng(0).normal(size=data.shape).astype(np.float32)
    return data, counts.X.toarray()


@pytest.mark.parametrize("kind", KINDS)
def test_raw_is_a_layer_with_genes_of_its_own(kind: str, make_side: Any, source: Any) -> None:
    data, counts = scaled(make_side)
    tissue = make_side(GENES[:4], spatial=True)
    reference = source(data, kind)
    with pytest.raises(ScaleError, match=r"Its raw slot may contain the counts: sc_layer='raw'\."):
        pair(reference, tissue)
    made = pair(reference, tissue, sc_layer="raw")
    assert made.sc.genes.tolist() == GENES
    assert made.shared_genes.tolist() == sorted(GENES[:4])
    np.testing.assert_array_equal(made.sc.totals, counts.sum(axis=1))
    block = made.sc.stored(np.array([3, 0]))
    np.testing.assert_array_equal(block.toarray() if sp.issparse(block) else block, counts[[3, 0]])
    assert made.findings["reference"]["layer"] == "raw"
    assert data.n_vars == 2
    if kind in ("memory", "backed"):
        some = pair(reference[4:20], tissue, sc_layer="raw")
        np.testing.assert_array_equal(some.sc.totals, counts[4:20].sum(axis=1))


def test_raw_of_the_tissue_too(make_side: Any) -> None:
    data, counts = scaled(make_side, spatial=True)
    made = pair(make_side(GENES), data, st_layer="raw")
    assert made.st.genes.tolist() == GENES
    np.testing.assert_array_equal(made.st.totals, counts.sum(axis=1))
    with pytest.raises(KeyMissingError, match=r"st_layer='row': expected a layer.*Did you mean 'raw'"):
        pair(make_side(GENES), data, st_layer="row")


def test_a_layer_named_raw_takes_precedence_over_the_slot(make_side: Any) -> None:
    data, _ = scaled(make_side)
    data.layers["raw"] = np.ones(data.shape, dtype=np.float32)
    assert pair(data, make_side(GENES, spatial=True), sc_layer="raw").sc.genes.tolist() == ["Vip", "Gad1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", ["counts", "my_values", "raw"])
def test_without_x_the_counts_are_used_with_a_caution(
    kind: str, layer: str, make_side: Any, source: Any
) -> None:
    counts = make_side(GENES, n_cells=30)
    data = ad.AnnData(obs=counts.obs, var=counts.var)
    if layer == "raw":
        data.raw = counts
    else:
        data.layers[layer] = counts.X
        if layer == "counts":
            data.layers["data"] = counts.X.log1p()
    made = pair(source(data, kind), make_side(GENES, spatial=True))
    np.testing.assert_array_equal(made.sc.totals, counts.X.toarray().sum(axis=1))
    slot = "raw" if layer == "raw" else f"layers[{layer!r}]"
    assert f"Reference: there is no X. The values are read from {slot}." in made.cautions
    assert made.findings["reference"]["layer"] == layer


def test_without_x_several_layers_need_a_choice(make_side: Any) -> None:
    counts = make_side(GENES)
    data = ad.AnnData(obs=counts.obs, var=counts.var, layers={"a": counts.X, "b": counts.X})
    with pytest.raises(KeyMissingError, match=r"\.X: expected a matrix of counts, got none\. Choose a layer"):
        pair(data, make_side(GENES, spatial=True))


def test_controls_of_raw_are_left_out(make_side: Any) -> None:
    whole = make_side([*GENES, "Blank-1"], n_cells=30)
    data = whole[:, GENES[:2]].copy()
    data.raw = whole
    made = pair(data, make_side(GENES, spatial=True), sc_layer="raw")
    assert made.sc.genes.tolist() == GENES
    assert made.findings["reference"]["features_left_out"] == {"blank": ["Blank-1"]}
    assert isinstance(data.raw.var, pd.DataFrame)
