"""Values that were not measured but are stored as zeros: genes of some slices, background and empty cells."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellweft
from cellweft._errors import GeneError, InputError
from cellweft.data._pair import pair

GENES = [f"Gene{number}" for number in range(12)]
SETTINGS = {"steps": 5, "level_steps": 5}


@pytest.fixture
def sc(make_side: Any) -> anndata.AnnData:
    return make_side(GENES, n_cells=60, seed=1)


@pytest.fixture
def joined(make_side: Any) -> anndata.AnnData:
    """Two interleaved slices; the second did not measure Gene3 and Gene4."""
    tissue = make_side(GENES[:8], n_cells=60, spatial=True, seed=2)
    tissue.obs["section"] = ["a", "b"] * 30
    values = tissue.X.toarray()
    values[1::2, 3:5] = 0
    tissue.X = sp.csr_matrix(values)
    return tissue


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sparse", "dense", "nan", "sparse nan", "h5ad"])
def test_genes_that_a_slice_did_not_measure_are_not_on_the_panel(
    kind: str, sc: Any, joined: Any, tmp_path: Path, write_as: Any
) -> None:
    values = joined.X.toarray()
    known = values[:, [0, 1, 2, 5, 6, 7]]
    if "nan" in kind:
        values[1::2, 3:5] = np.nan
    joined.X = sp.csr_matrix(values) if "sparse" in kind else values
    made = pair(sc, write_as(joined, tmp_path, "h5ad") if kind == "h5ad" else joined)
    assert made.shared_genes.tolist() == ["Gene0", "Gene1", "Gene2", "Gene5", "Gene6", "Gene7"]
    assert made.findings["genes_partly_measured"] == {"Gene3": ["b"], "Gene4": ["b"]}
    assert made.findings["genes_to_impute"] == 6
    assert made.findings["genes_only_spatial"] == []
    np.testing.assert_array_equal(made.st.totals, known.sum(axis=1))
    expected = np.log1p(known / known.sum(axis=1, keepdims=True) * np.median(known.sum(axis=1)))
    np.testing.assert_allclose(made.st.dense(slice(None), made.st_shared), expected, rtol=1e-6)  # float32
    assert np.isfinite(made.st.dense(slice(None))).all()
    assert any(
        "2 genes without any value in an entire slice ('Gene3' in 'b'; 'Gene4' in 'b')" in one
        for one in made.cautions
    )
    assert "in some only  2 genes" in made.summary()
    imputed = (
        cellweft.Imputer(settings=SETTINGS, reliability=False)
        .fit(made, progress=False)
        .impute(progress=False)
    )
    assert not imputed.var.loc[["Gene3", "Gene4"], "measured"].any()


def test_slices_that_measured_the_same_genes_have_no_caution(sc: Any, joined: Any) -> None:
    values = joined.X.toarray()
    values[1, 3:5] = 1
    joined.X = values
    made = pair(sc, joined)
    assert made.findings["genes_partly_measured"] == {}
    assert len(made.shared_genes) == 8


def test_a_rare_gene_may_be_missing_in_a_slice_by_chance(sc: Any, joined: Any) -> None:
    values = joined.X.toarray()
    values[:, 3:5] = 0
    values[[0, 2, 4, 6], 3] = 1
    values[:, 4] = 1
    joined.X = values
    made = pair(sc, joined)
    assert "Gene3" in made.shared_genes
    assert made.findings["genes_partly_measured"] == {}


@pytest.mark.parametrize("column", ["batch", "donor_id", "orig.ident", "Dataset"])
@pytest.mark.parametrize("kind", ["sparse", "dense", "h5ad"])
def test_genes_that_a_batch_of_the_reference_lacks_are_reported(
    kind: str, column: str, make_side: Any, joined: Any, tmp_path: Path, write_as: Any
) -> None:
    reference = make_side(GENES, n_cells=90, seed=1)
    reference.obs[column] = ["one", "two", "two"] * 30
    values = reference.X.toarray()
    values[1::3, 9], values[2::3, 9] = 0, 0
    reference.X = sp.csr_matrix(values) if kind != "dense" else values
    made = pair(write_as(reference, tmp_path, "h5ad") if kind == "h5ad" else reference, joined)
    assert made.findings["reference_genes_partly_measured"] == {"Gene9": ["two"]}
    said = f"Reference: 1 gene without counts in any cell of one group of obs[{column!r}] ('Gene9' in 'two')"
    assert [one.startswith(said) for one in made.cautions].count(True) == 1
    np.testing.assert_array_equal(made.sc.totals, values.sum(axis=1))
    values[1, 9] = 1
    reference.X = values
    assert pair(reference, joined).findings["reference_genes_partly_measured"] == {}


def test_batches_of_few_cells_are_not_judged(sc: Any, joined: Any) -> None:
    sc.obs["batch"] = ["one"] * 50 + ["two"] * 10
    sc.X = sc.X.toarray()
    sc.X[50:, 9] = 0
    assert pair(sc, joined).findings["reference_genes_partly_measured"] == {}


def test_missing_values_of_a_joined_reference_are_refused(sc: Any, joined: Any) -> None:
    sc.obs["batch"] = ["one"] * 30 + ["two"] * 30
    sc.X = sc.X.toarray()
    sc.X[30:, 9] = np.nan
    with pytest.raises(InputError, match="keep the genes that all of them have"):
        pair(sc, joined)


def test_missing_values_of_another_kind_are_refused(sc: Any, joined: Any) -> None:
    values = joined.X.toarray().astype(np.float32)
    values[1::2, 3] = np.nan
    values[0, 0] = np.nan
    joined.X = values
    with pytest.raises(InputError, match=r"expected a number for every cell and gene, got NaN"):
        pair(sc, joined)


def test_panels_without_common_genes_are_refused(sc: Any, joined: Any) -> None:
    values = joined.X.toarray()
    values[1::2, :4], values[::2, 4:] = 0, 0
    joined.X = values
    with pytest.raises(GeneError, match=r"measured in all slices, got none.*Impute each slice separately"):
        pair(sc, joined)


@pytest.mark.slow
@pytest.mark.parametrize("values", [[0, 1], [False, True], ["0", "1"], [0.0, 1.0]])
def test_background_spots_are_left_out(
    values: Any, sc: Any, joined: Any, tmp_path: Path, write_as: Any
) -> None:
    joined.obs["in_tissue"] = (
        pd.Categorical([values[0]] * 10 + [values[1]] * 50).astype(object).astype(type(values[1]))
    )
    joined.obs["cell_type"] = [f"type{number % 3}" for number in range(60)]
    kept = joined[10:].copy()
    plain = pair(sc, kept)
    for given in (joined, write_as(joined, tmp_path, "h5ad")):
        made = pair(sc, given)
        assert made.st.n_cells == 50
        assert made.st.obs_names.tolist() == kept.obs_names.tolist()
        np.testing.assert_array_equal(made.st.dense(slice(3, 30)), plain.st.dense(slice(3, 30)))
        assert made.st.target == plain.st.target
        np.testing.assert_array_equal(made.coordinates, plain.coordinates)
        np.testing.assert_array_equal(made.slices, plain.slices)
        np.testing.assert_array_equal(made.st_labels, plain.st_labels)
        assert any(
            "10 spots in the background (obs['in_tissue'] is 0) left out" in one for one in made.cautions
        )
        cells = np.array([4, 2])
        np.testing.assert_array_equal(made.cells(cells).st.dense(slice(None)), plain.st.dense(cells))
    imputer = cellweft.Imputer(settings=SETTINGS, reliability=False).fit(made, progress=False)
    assert imputer.impute(progress=False).obs_names.tolist() == kept.obs_names.tolist()


def test_spots_without_a_column_for_tissue_are_reported(sc: Any, joined: Any) -> None:
    joined.obs["in_tissue"] = [1.0, np.nan] * 30
    made = pair(sc, joined)
    assert made.st.n_cells == 60
    said = "Spatial: 30 spots without a value in obs['in_tissue'] treated as spots on tissue. Set 0"
    assert any(said in one for one in made.cautions)
    joined.obs["in_tissue"] = [0] * 40 + [1] * 20
    said = "40 spots, more than half of all 60, in the background"
    assert any(said in one for one in pair(sc, joined).cautions)


def test_only_background_spots_are_refused(sc: Any, joined: Any) -> None:
    joined.obs["in_tissue"] = 0
    with pytest.raises(InputError, match=r"in_tissue'\]: expected spots on tissue, got 0 for all 60 spots"):
        pair(sc, joined)


@pytest.mark.parametrize("kind", ["memory", "zarr"])
def test_cells_without_counts_are_marked(kind: str, sc: Any, joined: Any, tmp_path: Path) -> None:
    values = joined.X.toarray()
    values[[5, 9]] = 0
    values[7, :7] = 0
    values[7, 7] = 3
    joined.X = values
    made = pair(sc[:, [name for name in sc.var_names if name != "Gene7"]].copy(), joined)
    said = "\n".join(made.cautions)
    assert "2 cells have no counts at all; they are imputed as an average cell, and marked in obs[" in said
    assert (
        "1 cell without counts in the shared genes, marked in obs['cellweft_no_counts'] of the result" in said
    )
    imputer = cellweft.Imputer(settings=SETTINGS, reliability=False).fit(made, progress=False)
    if kind == "memory":
        imputed = imputer.impute(progress=False)
    else:
        imputed = anndata.read_zarr(imputer.impute_to(tmp_path / "imputed.zarr", progress=False))
    assert np.flatnonzero(imputed.obs["cellweft_no_counts"]).tolist() == [5, 7, 9]
    part = imputer.impute(pair=made.cells(np.arange(6, 9)), progress=False)
    assert part.obs["cellweft_no_counts"].tolist() == [False, True, False]
    assert "cellweft_no_counts" not in imputer.impute(pair=made.cells(np.arange(4)), progress=False).obs


def test_a_reference_of_the_panel_alone_leaves_nothing_to_impute(sc: Any, joined: Any) -> None:
    joined.X = joined.X.toarray()
    joined.X[1::2, 3:5] = 1
    made = pair(sc[:, GENES[:8]].copy(), joined)
    assert any("no gene outside the panel, so there is nothing to impute" in one for one in made.cautions)
    assert not any("nothing to impute" in one for one in pair(sc, joined).cautions)
    assert not any("nothing to impute" in one for one in made.with_reference(sc).cautions)
