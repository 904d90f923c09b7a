"""A sparse matrix written in tiles equals the one that is made at once, for any tiles."""

import itertools
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
from cellweft._errors import OutputError, SettingError
from cellweft.data._pair import Pair
from cellweft.data.io import sparse_write
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.output_request import check_cut
from cellweft.data.io.sparse_write import SparseParts, kept_values
from cellweft.impute.planning import share_kept

NAMES = ("data", "indices", "indptr")
Grid = list[tuple[slice, slice]]


def matrix(n_cells: int = 11, n_genes: int = 7, *, share: float = 0.5, seed: int = 0) -> np.ndarray:
    stream = np.random.default_rng(seed)
    values = stream.random((n_cells, n_genes), dtype=np.float32)
    values[stream.random(values.shape) >= share] = 0
    return values


def grid(shape: tuple[int, int], tile: tuple[int, int]) -> Grid:
    return list(itertools.product(row_blocks(shape[0], tile[0]), row_blocks(shape[1], tile[1])))


def parts_of(folder: Path, values: np.ndarray, tiles: Grid, *, cut: float = 0.0) -> SparseParts:
    parts = SparseParts(folder=folder / "parts", shape=values.shape, cut=cut)
    parts.begin()
    for tile in tiles:
        parts.put(*tile, values[tile])
    return parts


def joined(folder: Path, parts: SparseParts, name: str = "a.zarr") -> Any:
    root = zarr.open_group(folder / name, mode="a", zarr_format=2)
    parts.join(root, "X")
    return root["X"]


def assert_stored(group: Any, values: np.ndarray, cut: float) -> None:
    wanted = sp.csr_matrix(np.where(values >= cut, values, 0))
    for name in NAMES:
        np.testing.assert_array_equal(group[name][:], getattr(wanted, name))
    assert [group[name].dtype for name in NAMES] == ["float32", "int32", "int32"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce parts to 21 values, and chunks to 4."""
    monkeypatch.setattr(sparse_write, "_BAND_VALUES", 21)
    monkeypatch.setattr(sparse_write, "_CHUNK", 4)


def test_a_hand_computed_case(tmp_path: Path) -> None:
    values = np.array([[0.5, 0.04, 0.3], [0, 0, 0], [0.01, 0.05, 0]], dtype=np.float32)
    parts = parts_of(tmp_path, values, [(slice(0, 3), slice(0, 3))], cut=0.05)
    group = joined(tmp_path, parts)
    np.testing.assert_array_equal(group["data"][:], np.array([0.5, 0.3, 0.05], dtype=np.float32))
    assert group["indices"][:].tolist() == [0, 2, 1]
    assert group["indptr"][:].tolist() == [0, 2, 2, 3]
    assert dict(group.attrs) == {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [3, 3]}


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    tile=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    band=st.integers(1, 40),
    chunk=st.integers(1, 20),
    share=st.sampled_from([0, 0.1, 0.5, 1]),
    cut=st.sampled_from([0, 0.3, 1]),
    seed=st.integers(0, 5),
)
@settings(max_examples=15, deadline=None)
def test_stored_values_do_not_depend_on_tiles_parts_or_chunks(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    tile: tuple[int, int],
    band: int,
    chunk: int,
    share: float,
    cut: float,
    seed: int,
) -> None:
    folder, values = tmp_path_factory.mktemp("parts"), matrix(*shape, share=share, seed=seed)
    tiles = grid(shape, tile)
    np.random.default_rng(seed).shuffle(tiles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_write, "_BAND_VALUES", band)
        patch.setattr(sparse_write, "_CHUNK", chunk)
        assert_stored(joined(folder, parts_of(folder, values, tiles, cut=cut)), values, cut)


@pytest.mark.usefixtures("small")
def test_every_file_is_the_same_for_any_tiles(tmp_path: Path) -> None:
    values = matrix(29, 7)
    files = []
    for number, tile in enumerate([(29, 7), (5, 3), (8, 1)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        joined(folder, parts_of(folder, values, grid(values.shape, tile)))
        store = folder / "a.zarr"
        files.append({one.relative_to(store): one.read_bytes() for one in store.rglob("*") if one.is_file()})
    assert len(files[0]) > 30
    assert files[0] == files[1] == files[2]


@pytest.mark.usefixtures("small")
def test_parts_may_be_rewritten_and_joined_again(tmp_path: Path) -> None:
    values = matrix()
    tiles = grid(values.shape, (4, 3))
    parts = parts_of(tmp_path, values, [*tiles, *tiles[::2]])
    (parts.folder / "0123.partial").write_text("of a process that was killed")
    joined(tmp_path, parts)
    assert_stored(joined(tmp_path, parts), values, 0)
    parts.begin()
    assert list(parts.folder.iterdir()) == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", [0, 3, 11])
def test_a_missing_part_is_reported(tmp_path: Path, number: int) -> None:
    values = matrix()
    parts = parts_of(tmp_path, values, grid(values.shape, (3, 3)))
    sorted(parts.folder.iterdir())[number].unlink()
    with pytest.raises(OutputError, match=r"parts: expected parts of all cells and genes, got gaps"):
        joined(tmp_path, parts)
    with pytest.raises(OutputError, match="got gaps"):
        joined(tmp_path, parts_of(tmp_path, values, []))


def test_a_part_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sparse_write, "save_packed", fail)
    with pytest.raises(OSError, match="No space left"):
        parts_of(tmp_path, matrix(), grid((11, 7), (11, 7)))
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["zarr", "h5ad"])
@pytest.mark.parametrize("most", [2**31 - 1, 10])
def test_all_readers_can_read_it(
    tmp_path: Path, kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_write, "_MOST", most)
    values = matrix()
    parts = parts_of(tmp_path, values, grid(values.shape, (4, 3)), cut=0.2)
    root = (
        h5py.File(tmp_path / "a.h5ad", "w")
        if kind == "h5ad"
        else zarr.open_group(tmp_path / "a.zarr", zarr_format=2)
    )
    parts.join(root, "X")
    group, wanted = root["X"], np.where(values >= 0.2, values, 0)
    assert group["indptr"].dtype == ("int32" if most > 10 else "int64")
    np.testing.assert_array_equal(anndata.io.read_elem(group).toarray(), wanted)
    np.testing.assert_array_equal(anndata.io.sparse_dataset(group)[3:7].toarray(), wanted[3:7])
    np.testing.assert_array_equal(
        anndata.io.read_elem(group)[[5, 1]][:, [2]].toarray(), wanted[[5, 1]][:, [2]]
    )
    source = open_rows(group)
    np.testing.assert_array_equal(source.read(slice(2, 9)).toarray(), wanted[2:9])


def test_progress_is_reported(tmp_path: Path, small: None) -> None:
    seen = []
    parts = parts_of(tmp_path, matrix(), grid((11, 7), (6, 4)))
    parts.join(
        zarr.open_group(tmp_path / "a.zarr", zarr_format=2), "X", progress=lambda *one: seen.append(one)
    )
    assert seen == [("joining", number, 4) for number in (1, 2, 3, 4)]


@pytest.mark.slow
def test_only_a_few_parts_are_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(sparse_write, "_BAND_VALUES", 2**16)
    monkeypatch.setattr(sparse_write, "_CHUNK", 2**14)
    values = matrix(3000, 500, share=1)
    parts = parts_of(tmp_path, values, grid(values.shape, (1000, 300)))
    root = zarr.open_group(tmp_path / "a.zarr", zarr_format=2)
    parts.join(root, "warm")
    tracemalloc.start()
    parts.join(root, "X")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (8 * 2**16)  # bytes; all values take 12 million


@pytest.mark.parametrize("cut", [-0.1, 1.5, np.nan, np.inf, "0.1", True])
def test_a_cut_out_of_range_is_refused(cut: Any) -> None:
    with pytest.raises(SettingError, match=r"^sparse: expected a number from 0 to 1, got"):
        check_cut(cut)


def test_a_cut_of_zero_removes_only_zeros() -> None:
    for cut in (None, 0, 0.0, 1, np.float32(0.5)):
        check_cut(cut)
    assert kept_values(np.array([0, 1e-30, -0.0, 2]), 0).tolist() == [False, True, False, True]


def test_the_kept_share_is_estimated_from_the_means(tissue_pair: Pair) -> None:
    genes = np.array([3, 0, 11, 27, 14])
    known = dict(zip(tissue_pair.sc_shared.tolist(), tissue_pair.st_shared.tolist(), strict=True))
    means = [
        tissue_pair.st.dense(slice(None))[:, known[gene]].mean()
        if gene in known
        else tissue_pair.sc.dense(slice(None))[:, gene].mean()
        for gene in genes.tolist()
    ]
    assert len(set(genes.tolist()) & set(known)) in (1, 2, 3, 4)
    for cut in (0.05, *(float(np.sort(means)[place : place + 2].mean()) for place in range(4))):
        assert share_kept(tissue_pair, genes, cut) == np.mean(np.array(means) >= cut)
    assert share_kept(tissue_pair, genes, 0.0) == 1
    assert share_kept(tissue_pair, genes[:0], 0.5) == 1
