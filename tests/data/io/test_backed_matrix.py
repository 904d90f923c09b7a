"""Rows read from memory, HDF5 and zarr, sparse and dense, are equal, in any order."""

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._compute import row_blocks
from cellweft._errors import FormatError, InputError
from cellweft.data.io.backed_matrix import open_rows, per_row, stored_by_gene, transposed_rows

VALUES = np.random.default_rng(0).poisson(0.7, (40, 7)).astype(np.float32)
KINDS = [
    "ndarray",
    "float64",
    "csr",
    "csr_array",
    "csc",
    "h5 dense",
    "h5 csr",
    "h5 csc",
    "zarr dense",
    "zarr csr",
]
KINDS += ["backed", "backed view", "backed dense"]


def dense(matrix: Any) -> Any:
    return matrix.toarray() if sp.issparse(matrix) else matrix


@pytest.fixture(params=KINDS)
def matrix(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The same values stored in every supported way."""
    kind = request.param
    simple = {
        "ndarray": VALUES,
        "float64": np.asfortranarray(VALUES.astype(np.float64)),
        "csr": sp.csr_matrix(VALUES),
        "csr_array": sp.csr_array(VALUES.astype(np.int16)),
        "csc": sp.csc_matrix(VALUES),
    }
    if kind in simple:
        return simple[kind]
    store, _, form = kind.partition(" ")
    elem = {"csr": sp.csr_matrix, "csc": sp.csc_matrix}.get(form, np.asarray)(VALUES)
    if store == "backed":
        whole = VALUES if form == "dense" else sp.csr_matrix(VALUES)
        if form == "view":
            whole = sp.vstack([whole, whole]).tocsr()
        anndata.AnnData(whole).write_h5ad(tmp_path / "x.h5ad")
        backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
        return backed[40:] if form == "view" else backed.X
    group = (
        h5py.File(tmp_path / "x.h5", "w")
        if store == "h5"
        else zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
    )
    anndata.io.write_elem(group, "X", elem)
    return group["X"]


@pytest.mark.parametrize(
    "rows", [slice(None), slice(3, 9), slice(30, 2, -5), [0, 1, 2], [39, 0, 0, 17], [], [-1, 5]], ids=str
)
@pytest.mark.parametrize("columns", [None, [4, 0, 4], []], ids=str)
def test_every_kind_reads_the_same_rows(matrix: Any, rows: Any, columns: Any) -> None:
    source = open_rows(matrix)
    asked = rows if isinstance(rows, slice) else np.array(rows, dtype=np.int64)
    picked = None if columns is None else np.array(columns, dtype=np.int64)
    block = source.read(asked, picked)
    expected = VALUES[asked] if picked is None else VALUES[asked][:, picked]
    assert source.shape == (40, 7)
    assert source.row_bytes > 0
    assert block.dtype == np.float32
    np.testing.assert_array_equal(dense(block), expected)


def test_sparse_stays_sparse_and_canonical(matrix: Any) -> None:
    block = open_rows(matrix).read(slice(0, 20), np.array([5, 2, 0]))
    is_sparse = sp.issparse(matrix) or not hasattr(matrix, "ndim") or isinstance(matrix, anndata.AnnData)
    assert sp.issparse(block) == is_sparse
    if is_sparse:
        assert isinstance(block, sp.csr_matrix)
        assert block.has_sorted_indices


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.integers(0, 199), max_size=30),
    columns=st.lists(st.integers(0, 4), min_size=1, max_size=6),
)
def test_disk_equals_memory_for_any_rows(rows: list[int], columns: list[int]) -> None:
    stream = np.random.default_rng(1)
    values = sp.csr_array(stream.random((200, 5)) * (stream.random((200, 5)) < 0.3))
    on_disk = transposed_rows(values.data, values.indices, values.indptr, n_genes=5)
    asked = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
    np.testing.assert_array_equal(dense(on_disk.read(*asked)), dense(open_rows(values).read(*asked)))


@pytest.mark.parametrize(("width", "n_reads"), [(3, 1), (7_000, 9), (1_000_000, 90)])
def test_scattered_rows_are_read_in_few_spans_of_limited_size(width: int, n_reads: int) -> None:
    class Watched:
        shape, spans = (900, width), []

        def __getitem__(self, rows: slice) -> Any:
            self.spans.append(rows.stop - rows.start)
            return np.broadcast_to(np.arange(rows.start, rows.stop)[:, None], (rows.stop - rows.start, width))

    Watched.__module__ = "zarr.stand_in"
    rows = np.arange(0, 900, 10)[::-1] if width != 7_000 else np.r_[0:900:100, 1:900:100]
    block = open_rows(Watched()).read(rows, np.array([0]))
    np.testing.assert_array_equal(block[:, 0], rows)
    assert len(Watched.spans) == n_reads
    assert max(Watched.spans) * width * 4 <= 32 * 2**20


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_dask_arrays_are_computed_by_block(kind: Any) -> None:
    class Delayed:  # the part of dask.array.Array that is used, so that the test does not need Dask
        def __init__(self, values: Any) -> None:
            self.values, self.shape = values, values.shape

        def __getitem__(self, rows: Any) -> "Delayed":
            return Delayed(self.values[rows])

        def compute(self, scheduler: str) -> Any:
            assert scheduler == "threads"
            return self.values

    Delayed.__module__ = "dask.array.core"
    block = open_rows(Delayed(kind(VALUES))).read(np.array([3, 1]), np.array([2, 0]))
    np.testing.assert_array_equal(dense(block), VALUES[[3, 1]][:, [2, 0]])


def test_a_block_is_a_copy_and_the_input_is_unchanged() -> None:
    repeated = sp.csr_matrix((np.ones(4), np.array([1, 1, 0, 2]), np.array([0, 3, 4])), shape=(2, 3))
    before = [part.copy() for part in (repeated.data, repeated.indices, repeated.indptr)]
    block = open_rows(repeated).read(slice(None))
    per_row(block, np.array([0.0, 0.0]))
    np.testing.assert_array_equal(open_rows(repeated).read(slice(None)).toarray(), [[1, 2, 0], [0, 0, 1]])
    for part, old in zip((repeated.data, repeated.indices, repeated.indptr), before, strict=True):
        np.testing.assert_array_equal(part, old)
    values = VALUES.copy()
    per_row(open_rows(values).read(slice(None)), np.zeros(40))
    np.testing.assert_array_equal(values, VALUES)


def test_values_too_large_for_float32_become_inf_without_a_warning() -> None:
    assert np.isinf(open_rows(np.array([[1e300, 1.0]])).read(slice(None))[0, 0])


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_per_row_multiplies_each_row(kind: Any) -> None:
    scaled = per_row(kind(np.array([[1, 2], [0, 3]], dtype=np.float32)), np.array([2.0, 10.0]))
    np.testing.assert_array_equal(dense(scaled), [[2, 4], [0, 30]])


def test_row_blocks_cover_all_rows_once() -> None:
    assert [list(range(10))[rows] for rows in row_blocks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(row_blocks(0, 4)) == []
    assert len(list(row_blocks(3, 0))) == 3


def test_storage_by_gene_is_recognised(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        anndata.io.write_elem(file, "csc", sp.csc_matrix(VALUES))
        anndata.io.write_elem(file, "csr", sp.csr_matrix(VALUES))
        assert stored_by_gene(file["csc"])
        assert not stored_by_gene(file["csr"])
    assert not stored_by_gene(sp.csc_matrix(VALUES))


def test_other_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"matrix: expected a two-dimensional matrix.*got list"):
        open_rows([[1.0]])
    with pytest.raises(InputError, match=r"sc\.X: expected a two-dimensional matrix.*shape \(3,\)"):
        open_rows(np.ones(3), where="sc.X")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["codes"] = [1]
        with pytest.raises(FormatError, match=r"expected a sparse matrix.*got a group with 'codes'"):
            open_rows(file)


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "csc", "10x"])
@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("indices", 3, 10**6),
        ("indices", 0, -1),
        ("indptr", 2, -5),
        ("indptr", 2, 10**9),
        ("indptr", 3, 1),
        ("indptr", 0, 4),
        ("indptr", -1, 10**6),
        ("data", None, 3),
        ("indices", None, 3),
        ("indptr", None, 2),
        ("indices", "float", 0),
    ],
)
def test_indices_of_damaged_files_are_refused(
    kind: str, name: str, place: Any, value: int, tmp_path: Path
) -> None:
    values = sp.random(12, 6, density=0.6, format="csr", dtype=np.float32, random_state=0)
    stored = values.tocsc() if kind == "csc" else values
    parts = {one: np.asarray(getattr(stored, one)).copy() for one in ("data", "indices", "indptr")}
    if place is None:
        parts[name] = parts[name][:value]
    elif place == "float":
        parts[name] = parts[name].astype(np.float64)
    else:
        parts[name][place] = value
    if kind == "zarr":
        group: Any = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
        for key, array in parts.items():
            group.create_array(key, data=array)
    else:
        group = h5py.File(tmp_path / "a.h5", "w")
        for key, array in parts.items():
            group[key] = array
    group.attrs.update({"encoding-type": f"{stored.format}_matrix", "shape": np.array([12, 6]).tolist()})
    with pytest.raises(FormatError, match=r"^st\.X(\.indices)?: expected .*The file is damaged"):  # noqa: PT012
        if kind == "10x":
            source = transposed_rows(*parts.values(), n_genes=6, where="st.X")
        else:
            source = open_rows(group, where="st.X")
        source.read(slice(None))
        if source.shape != (12, 6):  # the table of cells would reveal this
            raise FormatError("st.X", expected="12 cells", got=f"{source.shape}", fix="The file is damaged.")


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("change", ["moved", "replaced"])
def test_a_store_that_is_moved_or_replaced_is_not_read_as_zeros(
    tmp_path: Path, form: Any, change: str
) -> None:
    path = tmp_path / "x.zarr"
    anndata.AnnData(form(VALUES)).write_zarr(path)
    source = open_rows(zarr.open_group(path, mode="r")["X"], where="st.X")
    assert (dense(source.read(slice(0, 5))) == VALUES[:5]).all()
    path.rename(tmp_path / "elsewhere.zarr")
    if change == "replaced":
        anndata.AnnData(form(VALUES + 1)).write_zarr(path)
    got = "nothing at its path" if change == "moved" else "a store that was replaced in the meantime"
    with pytest.raises(
        FormatError, match=rf"st\.X.*expected a zarr store that has not changed since.*got {got}"
    ):
        source.read(slice(5, 9))
