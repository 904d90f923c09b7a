"""Matrices copied in blocks: the values do not depend on the blocks, and sparse copies omit zeros."""

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

from cellweft.data.io import copy
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.copy import block_rows, blocks_of, chunk_of, copy_matrix, copy_sparse, zero_share


@pytest.fixture(params=[1, 3, 1000])
def rows_per_block(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(copy, "READ_BYTES", 4 * 4 * request.param)  # the size of four columns
    return int(request.param)


@pytest.fixture
def values() -> Any:
    made = np.random.default_rng(0).poisson(0.6, (7, 4)).astype(np.float32)
    made[2] = 0
    return made


def test_blocks_cover_all_rows(values: Any, rows_per_block: int) -> None:
    blocks = list(blocks_of(open_rows(values)))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), values)
    assert [rows.start for rows, _ in blocks] == list(range(0, 7, rows_per_block))


def test_rows_of_a_block_and_chunk() -> None:
    assert block_rows((10, 2**24)) == 1
    assert block_rows((10, 2**14)) == 512
    assert chunk_of((5000, 2**14)) == (512, 2048)
    assert chunk_of((3, 2)) == (3, 2)
    assert chunk_of((0, 0)) == (1, 1)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_share_of_zeros(values: Any, kind: Any, rows_per_block: int) -> None:
    assert zero_share(open_rows(kind(values))) == pytest.approx((values == 0).mean())
    assert zero_share(open_rows(np.zeros((0, 4), dtype=np.float32))) == 0


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_sparse_copies_hold_no_zeros(values: Any, kind: Any, rows_per_block: int, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        copy_sparse(open_rows(kind(values)), root, "X")
        made = anndata.io.read_elem(root["X"])
    assert isinstance(made, sp.csr_matrix)
    assert made.nnz == np.count_nonzero(values)
    np.testing.assert_array_equal(made.toarray(), values)


def test_a_matrix_without_rows_is_copied(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as root:
        copy_sparse(open_rows(np.zeros((0, 4), dtype=np.float32)), root, "X")
        assert anndata.io.read_elem(root["X"]).shape == (0, 4)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_copies_equal_the_source(
    values: Any, kind: Any, zarr_format: int, rows_per_block: int, tmp_path: Path
) -> None:
    root = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=zarr_format)
    copy_matrix(open_rows(kind(values)), root, "X")
    made = anndata.io.read_elem(root["X"])
    assert sp.issparse(made) == sp.issparse(kind(values))
    np.testing.assert_array_equal(made.toarray() if sp.issparse(made) else made, values)
