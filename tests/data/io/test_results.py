"""Results of cellweft are recognised in files."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellweft._errors import FormatError, KeyMissingError
from cellweft.data.io.read import open_input
from cellweft.data.io.results import gene_columns, open_result, place_key, result_kind
from cellweft.data.io.write import write_anndata

VALUES = np.random.default_rng(0).poisson(1.0, (50, 9)).astype(np.float32)
GENES = np.array([7, 0, 3, 7])


def made(**slots: object) -> AnnData:
    return AnnData(VALUES.copy(), layers={"lower": VALUES / 2}, **slots)


def test_genes_from_any_storage(tmp_path: Path) -> None:
    lazily = pytest.importorskip("dask.array").from_array
    dense, sparse = made(), made()
    sparse.X = sp.csr_matrix(VALUES)
    for name, one in {"dense": dense, "sparse": sparse}.items():
        for ending in (".h5ad", ".zarr"):
            write_anndata(one, tmp_path / f"{name}{ending}")
    lazy = made()
    lazy.X = lazily(sparse.X, chunks=(20, 9), asarray=False)
    for one in (dense, sparse, lazy, *sorted(tmp_path.iterdir())):
        data = open_input(one, argument="result")
        found = gene_columns(data, GENES)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, VALUES[:, GENES])
        np.testing.assert_array_equal(gene_columns(data, GENES, layer="lower"), VALUES[:, GENES] / 2)
        with pytest.raises(KeyMissingError, match="no such layer"):
            gene_columns(data, GENES, layer="upper")
        assert gene_columns(data, GENES[:0]).shape == (50, 0)


def test_features_that_are_not_genes_are_skipped(tmp_path: Path) -> None:
    import h5py

    file = tmp_path / "cells.h5"  # a 10x file, with genes and other features
    with h5py.File(file, "w") as h5:
        matrix = sp.csc_matrix(VALUES.T.astype(np.int32))
        group = h5.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = matrix.shape
        group["barcodes"] = [f"cell{n}".encode() for n in range(50)]
        kinds = [b"Antibody Capture" if n in (1, 4) else b"Gene Expression" for n in range(9)]
        features = group.create_group("features")
        features["id"] = features["name"] = [f"Gene{n}".encode() for n in range(9)]
        features["feature_type"] = kinds
    data = open_input(file, argument="result")
    genes = data.var.index.get_indexer(["Gene7", "Gene2"])
    np.testing.assert_array_equal(gene_columns(data, genes), VALUES[:, [7, 2]])


def test_kinds_and_coordinates_of_results() -> None:
    places = np.zeros((50, 2))
    one = made()
    assert result_kind(open_input(one, argument="result")) is None
    assert place_key(open_input(one, argument="result")) is None
    one.var["measured"] = True
    one.obsm["spatial"] = places
    assert result_kind(open_input(one, argument="result")) == "imputed"
    assert place_key(open_input(one, argument="result")) == "spatial"
    one.obsm["cellweft_spatial"] = places
    assert result_kind(open_input(one, argument="result")) == "placed"
    assert place_key(open_input(one, argument="result")) == "cellweft_spatial"
    one.obsm["cellweft_proportions"] = places
    assert result_kind(open_input(one, argument="result")) == "spots"


@pytest.mark.parametrize(
    "slots",
    [
        {"uns": {"weft": {"preset": "auto", "versions": {"weft": "0.1.0"}}}},
        {"obsm": {"weft_spatial": np.zeros((50, 2))}},
        {"obsm": {"weft_proportions": np.zeros((50, 3))}},
    ],
)
@pytest.mark.parametrize("ending", ["", ".h5ad", ".zarr"])
def test_a_result_of_weft_is_refused(tmp_path: Path, slots: dict[str, object], ending: str) -> None:
    result: object = made(**slots)
    if ending:
        write_anndata(result, tmp_path / f"old{ending}")
        result = tmp_path / f"old{ending}"
    with pytest.raises(
        FormatError, match=r"got a file that was written under the package's former name, weft\. Create it"
    ):
        open_result(result, argument="result")
