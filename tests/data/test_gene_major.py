"""The reference stored by gene contains the same values as the side stored by cell."""

from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft.data._pair import Pair, pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.synthetic.tissue import SimulatedTissue


@pytest.fixture(params=["csr", "csc", "dense"])
def reference(request: pytest.FixtureRequest, tissue: SimulatedTissue) -> Pair:
    changes: dict[str, Callable[[sp.csr_matrix], object]] = {
        "csr": lambda one: one,
        "csc": sp.csc_matrix,
        "dense": lambda one: one.toarray(),
    }
    sc = anndata.AnnData(changes[request.param](tissue.sc.X), obs=tissue.sc.obs, var=tissue.sc.var)
    return pair(sc, tissue.st)


def test_genes_are_returned_in_the_requested_order_without_empty_cells(reference: Pair) -> None:
    columns = GeneColumns.load(reference.sc)
    kept = np.delete(np.arange(100), 7)
    np.testing.assert_array_equal(np.flatnonzero(columns.usable), kept)
    assert columns.n_cells == 99
    whole = reference.sc.dense(slice(None))[kept]
    for genes in ([3], [5, 0, 27], [4, 4], list(range(28)), []):
        found = columns.dense(np.array(genes, dtype=int))
        np.testing.assert_array_equal(found, whole[:, genes])
        assert found.dtype == np.float32
        assert found.flags.c_contiguous


def test_sparse_stays_sparse(tissue_pair: Pair, tissue: SimulatedTissue) -> None:
    sparse = GeneColumns.load(tissue_pair.sc)
    assert sp.issparse(sparse.matrix)
    assert sparse.matrix.format == "csc"
    dense_sc = tissue.sc.copy()
    dense_sc.X = dense_sc.X.toarray()
    dense = GeneColumns.load(pair(dense_sc, tissue.st).sc)
    assert isinstance(dense.matrix, np.ndarray)
    assert dense.nbytes == 4 * 99 * 28
    assert sparse.nbytes == 8 * sparse.matrix.nnz + 4 * 29
    genes = np.arange(28)
    np.testing.assert_array_equal(sparse.dense(genes), dense.dense(genes))


@pytest.mark.parametrize("rows", [1, 30, 99])
def test_block_size_does_not_matter(reference: Pair, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    genes = np.arange(28)
    whole = GeneColumns.load(reference.sc).dense(genes)
    monkeypatch.setattr("cellweft.data.gene_major._BLOCK_ROWS", rows)
    np.testing.assert_array_equal(GeneColumns.load(reference.sc).dense(genes), whole)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_a_hand_sized_reference_by_gene(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("cellweft.data.gene_major._BLOCK_ROWS", rows)
    counts = sp.csr_matrix(
        np.array([[1, 0, 3, 0], [0, 0, 0, 0], [0, 0, 2, 0], [4, 0, 0, 0]], dtype=np.float32)
    )
    counts.data[3] = 0  # a stored entry with value zero
    sc = anndata.AnnData(counts, var=pd.DataFrame(index=list("ABCD")))
    st = anndata.AnnData(np.ones((2, 2), dtype=np.float32), var=pd.DataFrame(index=["A", "C"]))
    side = pair(sc, st, coordinates="none", sc_scale="log").sc
    matrix = GeneColumns.load(side).matrix
    assert sp.issparse(matrix)
    assert (matrix.indptr.tolist(), matrix.indices.tolist()) == ([0, 1, 1, 3, 3], [0, 0, 1])
    assert matrix.data.tolist() == [1, 3, 2]
    assert (matrix.indices.dtype, matrix.indptr.dtype) == (np.int32, np.int32)
    assert matrix.has_sorted_indices


def test_some_cells_of_a_side_in_any_order(reference: Pair) -> None:
    cells = np.array([40, 3, 7, 3])  # the cell with number 7 is empty
    columns = GeneColumns.load(reference.sc.subset(cells))
    expected = reference.sc.dense(np.array([40, 3, 3]))
    np.testing.assert_array_equal(columns.dense(np.arange(28)), expected)


def test_the_result_is_a_copy(reference: Pair) -> None:
    columns, genes = GeneColumns.load(reference.sc), np.arange(28)
    columns.dense(genes)[:] = -1
    assert columns.dense(genes).min() >= 0
