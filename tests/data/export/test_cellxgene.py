"""Files for cellxgene: matrix, embeddings and columns as the schema requires, and the list of problems."""

import logging
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft._errors import InputError, KeyMissingError, OutputExistsError, SettingError
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.export.cellxgene import check_cellxgene, write_cellxgene
from cellweft.data.io import copy


@pytest.fixture
def result(make_side: Any) -> Any:
    """A result of imputation, with some entries that other tools leave in a file."""
    made = make_side(["Gad1", "Sst", "Vip"], spatial=True)
    made.X = made.X.toarray() + 0.5
    made.obs["cell_type"] = pd.Categorical(["B", None, "T"] * 4)
    made.obs["count"] = pd.array([1, None, 3] * 4, dtype="Int64")
    made.obs["flag"] = pd.array([True, False, True] * 4, dtype="boolean")
    made.obs["note"] = [f"n{number}" for number in range(12)]
    made.var["measured"] = [True, True, False]
    made.uns["cellweft"] = {"schema_version": SCHEMA_VERSION, "settings": {}, "k": 3}
    made.uns["cell_type_colors"] = np.array(["#ff0000", "#00ff00"])
    made.uns["neighbors"] = {"k": 1}
    return made


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr"])
def test_a_result_passes_the_checks_for_viewing(
    kind: str, result: Any, write_as: Any, tmp_path: Path
) -> None:
    source = result if kind == "memory" else write_as(result, tmp_path, kind)
    path = write_cellxgene(source, tmp_path / "shown.h5ad")
    made = anndata.read_h5ad(path)
    np.testing.assert_array_equal(made.X, result.X)
    assert made.X.dtype == np.float32
    assert set(made.obsm) == {"X_tissue"}
    np.testing.assert_array_equal(made.obsm["X_tissue"], result.obsm["spatial"])
    assert made.uns["title"] == ("cellweft result" if kind == "memory" else "data")
    assert made.uns["default_embedding"] == "X_tissue"
    assert set(made.uns["cellweft"]) == {"schema_version", "k"}
    assert "neighbors" not in made.uns
    assert made.obs["cell_type"].tolist() == ["B", "unknown", "T"] * 4
    assert made.uns["cell_type_colors"].tolist() == ["#ff0000", "#00ff00", "#c0c0c0"]
    assert made.obs["count"].isna().sum() == 4
    assert made.obs["flag"].dtype == bool
    assert made.var["measured"].tolist() == [True, True, False]
    assert check_cellxgene(path).view == ()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("rows_per_block", [1, 5, 1000])
def test_a_matrix_with_many_zeros_becomes_sparse(
    *, sparse: bool, rows_per_block: int, result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "READ_BYTES", 4 * 3 * rows_per_block)
    values = np.where(np.random.default_rng(1).random(result.shape) < 0.7, 0, result.X).astype(np.float32)
    result.X = sp.csr_matrix(values) if sparse else values
    path = write_cellxgene(result, tmp_path / "shown.h5ad")
    made = anndata.read_h5ad(path)
    assert isinstance(made.X, sp.csr_matrix)
    assert made.X.nnz == np.count_nonzero(values)
    np.testing.assert_array_equal(made.X.toarray(), values)
    with h5py.File(path) as file:  # no encodings that anndata before 0.12 cannot read
        kinds: set[str] = set()
        file.visititems(lambda _, one: kinds.add(str(one.attrs.get("encoding-type"))))
        assert not kinds & {"null", "nullable-string-array"}
        assert "raw" not in file
    assert check_cellxgene(path).view == ()


def test_a_sparse_matrix_of_few_zeros_becomes_dense(result: Any, tmp_path: Path) -> None:
    values = result.X
    result.X = sp.csr_matrix(values)
    made = anndata.read_h5ad(write_cellxgene(result, tmp_path / "shown.h5ad"))
    np.testing.assert_array_equal(made.X, values)


def test_embeddings_are_kept_and_other_arrays_left_out(result: Any, tmp_path: Path, caplog: Any) -> None:
    result.obsm["X_umap"] = np.ones((12, 2))
    result.obsm["X_one"] = np.ones((12, 1))
    result.obsm["X_spatial"] = np.ones((12, 2))
    result.obsm["X_inf"] = np.full((12, 2), np.inf)
    result.obsm["cellweft_spatial"] = np.zeros((12, 2))
    result.obsm["cellweft_proportions"] = np.ones((12, 4))
    with caplog.at_level(logging.INFO, logger="cellweft"):
        path = write_cellxgene(result, tmp_path / "a.h5ad", title="Mine")
    made = anndata.read_h5ad(path)
    assert set(made.obsm) == {"X_placed", "X_tissue", "X_umap"}
    np.testing.assert_array_equal(made.obsm["X_tissue"], result.obsm["spatial"])
    assert (made.uns["default_embedding"], made.uns["title"]) == ("X_placed", "Mine")
    assert "obsm has 'X_inf', 'X_one', 'X_spatial', 'cellweft_proportions'" in caplog.text
    made = anndata.read_h5ad(write_cellxgene(result, tmp_path / "b.h5ad", embedding="X_umap"))
    assert made.uns["default_embedding"] == "X_umap"
    with pytest.raises(KeyMissingError, match=r"embedding='X_uma'.*Did you mean 'X_umap'"):
        write_cellxgene(result, tmp_path / "c.h5ad", embedding="X_uma")


def test_reserved_names_are_changed(result: Any, tmp_path: Path, caplog: Any) -> None:
    result.obs["__mine"] = 1
    made = anndata.read_h5ad(write_cellxgene(result, tmp_path / "a.h5ad"))
    assert "mine" in made.obs
    assert "column '__mine' is written as 'mine'" in caplog.text


def test_colours_of_a_wrong_number_are_left_out(result: Any, tmp_path: Path) -> None:
    result.uns["cell_type_colors"] = np.array(["red", "green"])
    assert "cell_type_colors" not in anndata.read_h5ad(write_cellxgene(result, tmp_path / "a.h5ad")).uns


def test_the_input_is_not_changed(result: Any, tmp_path: Path) -> None:
    before = result.copy()
    write_cellxgene(result, tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(result.obs, before.obs)
    assert set(result.obsm) == set(before.obsm)
    assert result.uns["cellweft"] == before.uns["cellweft"]


def test_problems_are_listed(result: Any, tmp_path: Path) -> None:
    assert "Rename it, for example to X_tissue" not in " ".join(check_cellxgene(result).submission)
    result.obsm["X_spatial"] = np.ones((12, 1))
    assert "Rename it, for example to X_tissue" in " ".join(check_cellxgene(result).submission)
    result.X[:] = 0
    result.obs["__mine"] = 1
    result.uns["default_embedding"] = "X_pca"
    found = check_cellxgene(result)
    text = " ".join(found.view)
    for words in (
        "obsm contains no two-column embedding",
        "obs['__mine']: names may not",
        "obs['cell_type'] has cells without a category",
        "uns['title'] is missing",
        "is not an embedding in obsm",
        "At least half of X is zero",
    ):
        assert words in text
    submission = " ".join(found.submission)
    for words in (
        "assay_ontology_term_id",
        "obs has cell_type, which Discover adds itself. Rename it, for example to author_cell_type",
        "organism_ontology_term_id",
        "Ensembl IDs",
        "raw.X is missing",
    ):
        assert words in submission
    result.var_names = ["ENSG00000139618", "ENSG00000139619", "ENSG00000139620"]
    result.X = result.X.astype(np.float64) + 1
    result.raw = result.copy()
    found = check_cellxgene(result)
    assert "X is not float32." in found.view
    assert not any("raw.X" in one or "Ensembl" in one for one in found.submission)
    no_genes = check_cellxgene(anndata.AnnData(obs=result.obs, obsm={"X_a": np.ones((12, 2))}))
    assert "X has no genes." in no_genes.view


def test_wrong_inputs_are_refused(result: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"expected a name ending in \.h5ad"):
        write_cellxgene(result, tmp_path / "a.zarr")
    with pytest.raises(InputError, match="expected genes to show, got none"):
        write_cellxgene(result[:, :0].copy(), tmp_path / "a.h5ad")
    del result.obsm["spatial"]
    with pytest.raises(InputError, match=r"expected positions of the cells.*got nothing"):
        write_cellxgene(result, tmp_path / "a.h5ad")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.h5ad").write_text("mine")
    with pytest.raises(OutputExistsError, match="expected a path that does not exist yet"):
        write_cellxgene(result, tmp_path / "a.h5ad")
