"""Single genes of matrices of every kind: equal values, adjacent genes read together, little memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from cellweft.data.io.read import open_input
from cellweft.viewer.cache import StripeCache
from cellweft.viewer.matrix import MOST_ROWS, Chunks, Means, PackedStripe, open_genes, packed, spread

FORMS = ("zarr", "low chunks", "h5ad", "h5ad without chunks", "h5ad CSR", "h5ad CSC")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def means(pool: ThreadPoolExecutor) -> Means:
    return Means(cache=StripeCache(10**6), share=10**5, pool=pool, threads=2)


def whole(matrix: Any) -> np.ndarray:
    """Assemble the pieces of `over`."""
    values = np.full(matrix.shape, np.nan)

    def put(rows: slice, genes: slice, block: Any) -> None:
        assert np.isnan(values[rows, genes]).all()
        values[rows, genes] = block.toarray() if sp.issparse(block) else block

    for _ in matrix.over(put):
        pass
    return values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("share", "least"), [(10**5, 1), (61 * 4 * 2, 1), (1, 1), (10**5, 512)])
def test_genes_equal_those_of_the_file(
    form: str,
    share: int,
    least: int,
    stores: dict[str, Path],
    imputed: AnnData,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cellweft.viewer.matrix._LEAST_ROWS", least)
    means = Means(cache=StripeCache(3 * share), share=share, pool=pool, threads=2)
    matrix = open_genes(open_input(stores[form], argument="result").matrix, means, where="X")
    assert matrix.shape == imputed.shape
    for number in (0, 8, 3, 4, 3):
        values = matrix.gene(number)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.asarray(imputed.X)[:, number])
    np.testing.assert_array_equal(whole(matrix), np.asarray(imputed.X))


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array])
def test_matrices_in_memory(kind: Any, imputed: AnnData, means: Means) -> None:
    values = np.asarray(imputed.X)
    matrix = open_genes(kind(values), means, where="X")
    np.testing.assert_array_equal(np.column_stack([matrix.gene(one) for one in range(9)]), values)
    np.testing.assert_array_equal(whole(matrix), values)


def test_genes_of_one_chunk_are_read_together(
    stores: dict[str, Path], means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.viewer.matrix._LEAST_ROWS", 1)
    reads: list[Any] = []
    read = Chunks.read
    monkeypatch.setattr(Chunks, "read", lambda self, *place: reads.append(place) or read(self, *place))
    matrix = open_genes(open_input(stores["h5ad"], argument="result").matrix, means, where="X")
    for number in (0, 1, 3, 0):
        matrix.gene(number)
    assert len(reads) == 4  # 61 cells in chunks of 16
    matrix.gene(4)
    assert len(reads) == 8


def test_chunks_that_hdf5_omitted_or_left_uncompressed_are_read(
    tmp_path: Path, means: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.viewer.matrix._LEAST_ROWS", 1)
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        empty = file.create_dataset(
            "empty", (10, 4), "f4", chunks=(512, 4), maxshape=(None, 4), compression="gzip"
        )
        several = file.create_dataset("several", (1100, 4), dtype="f4", chunks=(512, 4), compression="gzip")
        several[600:610] = values
        file.create_dataset("lzf", data=values, chunks=(5, 2), compression="lzf")
        packing = {"chunks": (4, 3), "compression": "gzip"}
        file.create_dataset("doubles", data=values.astype(">f8"), **packing)
        file.create_dataset("shuffled", data=values.astype(">f8"), shuffle=True, **packing)
        file.create_dataset("halves", data=values.astype("f2"), shuffle=True, **packing)
        file.create_dataset("checked", data=values, shuffle=True, fletcher32=True, **packing)
        file.create_dataset("bytes", data=values.astype(np.uint8), chunks=(10, 3), compression="gzip")
        assert empty.shape == (10, 4)
    with h5py.File(tmp_path / "odd.h5") as file:
        for name in ("lzf", "doubles", "shuffled", "halves", "checked", "bytes"):
            matrix = open_genes(file[name], means, where=name)
            np.testing.assert_array_equal(np.column_stack([matrix.gene(one) for one in range(4)]), values)
        assert not open_genes(file["empty"], means, where="empty").gene(2).any()
        found = open_genes(file["several"], means, where="several").gene(1)
        np.testing.assert_array_equal(found[600:610], values[:, 1])
        assert found.sum() == values[:, 1].sum()


def test_zarr_of_both_formats(tmp_path: Path, means: Means) -> None:
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    for form in (2, 3):
        array = zarr.create_array(tmp_path / f"{form}.zarr", data=values, chunks=(3, 3), zarr_format=form)
        matrix = open_genes(array, means, where="X")
        np.testing.assert_array_equal(np.column_stack([matrix.gene(one) for one in range(4)]), values)


@given(
    n_cells=st.integers(1, 30),
    kind=st.sampled_from([np.asarray, sp.csr_matrix]),
    top=st.sampled_from([1, 255, 256, 65_535, 65_536, 0.3]),
    size=st.integers(1, 31),
)
def test_packing_is_lossless(n_cells: int, kind: Any, top: float, size: int) -> None:
    random = np.random.default_rng(n_cells)
    values = (random.integers(0, 3, (n_cells, 3)) * top).astype(np.float32)
    values[0, 0] = top
    places = [slice(start, min(start + size, n_cells)) for start in range(0, n_cells, size)]
    genes = np.array([2, 0])
    stripe = PackedStripe([packed(rows, kind(values[rows]), genes) for rows in places], n_cells)
    for place, gene in enumerate(genes):
        np.testing.assert_array_equal(stripe.gene(place), values[:, gene])


def test_packing_uses_the_smallest_type() -> None:
    counts = np.array([[0, 3], [200, 0]], dtype=np.float32)
    assert packed(slice(0, 2), counts).values.dtype == np.uint8
    assert packed(slice(0, 2), counts * 100).values.dtype == np.uint16
    assert packed(slice(0, 2), counts / 7).values.dtype == np.float32
    assert packed(slice(0, 2), -counts).values.dtype == np.float32
    assert packed(slice(0, 2), counts * np.float32(np.nan)).values.dtype == np.float32
    assert np.iinfo(np.uint16).max >= MOST_ROWS - 1


def test_a_sweep_reads_as_many_genes_as_fit(pool: ThreadPoolExecutor) -> None:
    counts = sp.random(300, 40, density=0.5, format="csr", random_state=0, dtype=np.float32)
    small = Means(cache=StripeCache(9000), share=9000, pool=pool, threads=1)
    matrix = open_genes(counts, small, where="X")
    assert 1 < matrix.width < 40
    np.testing.assert_array_equal(matrix.gene(39), counts.toarray()[:, 39])
    assert 0 < small.cache.nbytes <= 9000


def test_an_error_of_a_thread_is_raised(pool: ThreadPoolExecutor) -> None:
    def work(number: int) -> int:
        if number == 2:
            raise ValueError("bad chunk")
        return number

    found = spread(pool, work, range(5), ahead=3)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="bad chunk"):
        next(found)
