"""`ResultWriter` writes a complete AnnData; an incomplete output is removed."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError, OutputError, OutputExistsError, SettingError
from cellweft.data.io.output_lock import LOCK
from cellweft.data.io.write import ResultWriter, check_output, write_anndata

SUFFIXES = (".zarr", ".h5ad")
both = pytest.mark.parametrize("suffix", SUFFIXES)


def tables(n_cells: int = 5, n_genes: int = 4) -> dict[str, pd.DataFrame]:
    cells = [f"c{i}" for i in range(n_cells)]
    obs = pd.DataFrame({"layer": [f"L{i % 2}" for i in range(n_cells)]}, index=cells)
    return {"obs": obs, "var": pd.DataFrame(index=[f"Gene{i}" for i in range(n_genes)])}


def values(n_cells: int = 5, n_genes: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((n_cells, n_genes), dtype=np.float32)


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


def names(folder: Path, *, but_locks: bool = False) -> list[str]:
    found = sorted(one.name for one in folder.iterdir())
    return [one for one in found if not one.endswith(LOCK)] if but_locks else found


def write_rows(writer: ResultWriter, matrix: np.ndarray, step: int, **kind: Any) -> None:
    for start in range(0, len(matrix), step):
        rows = slice(start, min(start + step, len(matrix)))
        writer.write(rows, slice(0, matrix.shape[1]), matrix[rows], **kind)


@both
def test_a_written_result_is_read_back_completely(tmp_path: Path, suffix: str) -> None:
    path, matrix = tmp_path / f"a{suffix}", values()
    obsm = {"spatial": np.arange(15.0).reshape(5, 3)}
    uns = {
        "cellweft": {
            "seed": 0,
            "k": 50,
            "alpha": 0.5,
            "why": "x",
            "none": None,
            "names": ["a", "b"],
            "on": True,
        }
    }
    with ResultWriter(path, **tables(), obsm=obsm, uns=uns, layers=("lower", "upper")) as writer:
        write_rows(writer, matrix, 2)
        write_rows(writer, matrix - 1, 3, layer="lower")
        write_rows(writer, matrix + 1, 5, layer="upper")
    result = read(path)
    assert isinstance(result.X, np.ndarray)
    assert result.X.dtype == np.float32
    np.testing.assert_array_equal(result.X, matrix)
    np.testing.assert_array_equal(result.layers["lower"], matrix - 1)
    np.testing.assert_array_equal(result.layers["upper"], matrix + 1)
    np.testing.assert_array_equal(result.obsm["spatial"], obsm["spatial"])
    assert list(result.obs_names) == ["c0", "c1", "c2", "c3", "c4"]
    assert list(result.obs["layer"]) == ["L0", "L1", "L0", "L1", "L0"]
    assert result.uns["cellweft"]["k"] == 50
    assert result.uns["cellweft"]["none"] is None
    assert list(result.uns["cellweft"]["names"]) == ["a", "b"]
    assert names(tmp_path) == [path.name]


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    step=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    chunk=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    suffix=st.sampled_from(SUFFIXES),
)
@settings(max_examples=15, deadline=None)
def test_values_do_not_depend_on_blocks_or_chunks(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    step: tuple[int, int],
    chunk: tuple[int, int],
    suffix: str,
) -> None:
    path, matrix = tmp_path_factory.mktemp("blocks") / f"a{suffix}", values(*shape)
    with ResultWriter(path, **tables(*shape), chunk=chunk) as writer:
        for top in range(0, shape[0], step[0]):
            for left in range(0, shape[1], step[1]):
                rows = slice(top, min(top + step[0], shape[0]))
                columns = slice(left, min(left + step[1], shape[1]))
                writer.write(rows, columns, matrix[rows, columns])
    np.testing.assert_array_equal(read(path).X, matrix)


def stored(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a sparse X on disk."""
    root = zarr.open_group(path, mode="r") if path.suffix == ".zarr" else h5py.File(path)
    return {name: root[f"X/{name}"][:] for name in ("data", "indices", "indptr")}


@both
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_sparse_matrix_keeps_values_from_the_cut_on(tmp_path: Path, suffix: str, dtype: str) -> None:
    path, matrix = tmp_path / f"a{suffix}", values(9, 7)
    matrix[3], matrix[4:, 2:4] = 0, 0.01
    with ResultWriter(path, **tables(9, 7), layers=("lower",), dtype=dtype, sparse=0.3) as writer:
        for columns in (slice(4, 7), slice(None, 4)):
            for rows in (slice(0, 4), slice(4, None)):
                writer.write(rows, columns, matrix[rows, columns])
                writer.write(rows, columns, matrix[rows, columns], layer="lower")
    result, rounded = read(path), matrix.astype(dtype)
    assert sp.isspmatrix_csr(result.X)
    assert result.X.dtype == np.float32
    wanted = np.where(rounded >= np.dtype(dtype).type(0.3), rounded, 0).astype(np.float32)
    np.testing.assert_array_equal(result.X.toarray(), wanted)
    assert result.layers["lower"].dtype == dtype
    np.testing.assert_array_equal(result.layers["lower"], rounded)
    by_row = sp.csr_matrix(wanted)
    for name, found in stored(path).items():
        np.testing.assert_array_equal(found, getattr(by_row, name))
    assert names(tmp_path) == [path.name]


@both
def test_an_unfinished_sparse_matrix_is_removed(tmp_path: Path, suffix: str) -> None:
    def work(rows: slice) -> None:
        with ResultWriter(tmp_path / f"a{suffix}", **tables(), sparse=0.0) as writer:
            writer.write(rows, slice(0, 4), values()[rows])
            assert names(tmp_path, but_locks=True) == [f"a{suffix}.resume"]
            if rows.stop == 5:
                raise KeyboardInterrupt

    with pytest.raises(OutputError, match="expected 20 values of X, got 4 fewer"):
        work(slice(0, 4))
    with pytest.raises(KeyboardInterrupt):
        work(slice(0, 5))
    assert names(tmp_path) == []


@both
@pytest.mark.parametrize("limit", [10, 2_000, 20_000])
def test_a_refused_write_of_a_sparse_matrix_is_reported(
    tmp_path: Path, size_limit: Any, suffix: str, limit: int
) -> None:
    path, matrix = tmp_path / f"a{suffix}", np.random.default_rng(0).random((40, 400), dtype=np.float32)
    size_limit(limit)

    def work() -> None:
        with ResultWriter(path, **tables(40, 400), sparse=0.5) as writer:
            write_rows(writer, matrix, 10)  # parts of 8 KB, an array of 30 KB

    with pytest.raises(OutputError, match="got the system error 'File too large'"):
        work()
    assert names(tmp_path) == []


def test_backed_reading_finds_chunked_compressed_values(tmp_path: Path) -> None:
    path, matrix = tmp_path / "a.h5ad", values()
    with ResultWriter(path, **tables(), chunk=(2, 3)) as writer:
        write_rows(writer, matrix, 2)
    backed = anndata.read_h5ad(path, backed="r")
    np.testing.assert_array_equal(backed[1:3, 2].X, matrix[1:3, 2:3])
    backed.file.close()
    with h5py.File(path) as file:
        assert file["X"].chunks == (2, 3)
        assert file["X"].compression == "gzip"


def test_a_store_is_chunked_compressed_and_consolidated(tmp_path: Path) -> None:
    import zarr

    path = tmp_path / "a.zarr"
    with ResultWriter(path, **tables(), chunk=(2, 3)) as writer:
        write_rows(writer, values(), 2)
    root = zarr.open_group(path, mode="r")
    assert root.metadata.consolidated_metadata is not None
    assert root["X"].chunks == (2, 3)
    assert root["X"].compressors[0].to_dict()["configuration"]["cname"] == "zstd"


def test_the_default_chunk_is_some_megabytes(tmp_path: Path) -> None:
    writer = ResultWriter(tmp_path / "a.zarr", **tables(10_000, 2_000))
    assert writer.chunk == (4096, 256)
    assert writer.size == 10_000 * 2_000 * 4


@both
def test_a_result_without_cells(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with ResultWriter(path, **tables(0, 3)):
        pass
    assert read(path).shape == (0, 3)


@both
def test_tables_of_common_types_are_stored_and_not_changed(tmp_path: Path, suffix: str) -> None:
    frames = tables()
    frames["obs"] = frames["obs"].assign(
        section=pd.Categorical(list("ababa")),
        note=["x", None, "y", np.nan, "x"],
        unique=list("abcde"),
        text=pd.array(["p", "q", None, "p", "p"], dtype="string"),
        on=[True, False, True, False, True],
        count=np.arange(5),
    )
    frames["obs"].index = range(5)
    before = frames["obs"].copy(deep=True)
    path = tmp_path / f"a{suffix}"
    with ResultWriter(path, **frames) as writer:
        write_rows(writer, values(), 5)
    pd.testing.assert_frame_equal(frames["obs"], before)
    obs = read(path).obs
    assert list(obs.index) == ["0", "1", "2", "3", "4"]
    assert list(obs["note"].astype(object).fillna("-")) == ["x", "-", "y", "-", "x"]
    assert list(obs["text"].astype(object).fillna("-")) == ["p", "q", "-", "p", "p"]
    assert list(obs["unique"]) == list("abcde")
    assert list(obs["on"]) == [True, False, True, False, True]
    assert list(obs["count"]) == [0, 1, 2, 3, 4]


def test_a_column_of_mixed_objects_is_written_as_text(tmp_path: Path) -> None:
    frames = tables()
    frames["obs"]["odd"] = [1, "a", None, 2.5, "b"]
    with ResultWriter(tmp_path / "a.zarr", **frames) as writer:
        write_rows(writer, values(), 5)
    assert list(read(tmp_path / "a.zarr").obs["odd"].astype(object).fillna("-")) == [
        "1",
        "a",
        "-",
        "2.5",
        "b",
    ]


@both
def test_values_that_anndata_cannot_store_are_named(tmp_path: Path, suffix: str) -> None:
    writer = ResultWriter(tmp_path / f"a{suffix}", **tables(), uns={"cellweft": {"when": object()}})
    with pytest.raises(InputError, match=r"uns: expected values that AnnData can store, got .*when"):
        writer.__enter__()
    assert names(tmp_path) == []


@both
@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, suffix: str, error: BaseException) -> None:
    def work() -> None:
        with ResultWriter(tmp_path / f"a{suffix}", **tables()) as writer:
            write_rows(writer, values(), 2)
            raise error

    with pytest.raises(type(error)):
        work()
    assert names(tmp_path) == []


@both
def test_a_result_with_missing_blocks_is_refused(tmp_path: Path, suffix: str) -> None:
    def work() -> None:
        with ResultWriter(tmp_path / f"a{suffix}", **tables(), layers=("lower",)) as writer:
            write_rows(writer, values(), 2)
            writer.write(slice(0, 3), slice(0, 4), values(3), layer="lower")

    with pytest.raises(OutputError, match="expected 20 values of layers/lower, got 8 fewer"):
        work()
    assert names(tmp_path) == []


@both
def test_an_existing_output_is_only_replaced_by_a_complete_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with ResultWriter(path, **tables()) as writer:
        write_rows(writer, values(), 2)
    with pytest.raises(OutputExistsError, match=r"got an existing output\. .*overwrite=True"):
        ResultWriter(path, **tables()).__enter__()

    def work(*, fail: bool) -> None:
        with ResultWriter(path, **tables(2, 2), overwrite=True) as writer:
            writer.write(slice(0, 2), slice(0, 2), values(2, 2))
            if fail:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        work(fail=True)
    np.testing.assert_array_equal(read(path).X, values())
    work(fail=False)
    np.testing.assert_array_equal(read(path).X, values(2, 2))
    assert names(tmp_path) == [path.name]


def test_wrong_arguments_are_refused_immediately(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"a name ending in \.zarr or \.h5ad, got '\.csv'"):
        ResultWriter(tmp_path / "a.csv", **tables()).__enter__()
    with pytest.raises(SettingError, match=r"chunk\[0\] \(cells\): expected a whole number >= 1, got 0"):
        ResultWriter(tmp_path / "a.zarr", **tables(), chunk=(0, 1))
    with pytest.raises(OutputError, match="the output's folder, got nothing at this path"):
        ResultWriter(tmp_path / "no" / "a.zarr", **tables()).__enter__()
    with ResultWriter(tmp_path / "a.zarr", **tables()) as writer:
        with pytest.raises(SettingError, match=r"block: expected values of shape \(2, 4\), got \(3, 4\)"):
            writer.write(slice(0, 2), slice(0, 4), values(3))
        with pytest.raises(SettingError, match="block"):
            writer.write(slice(0, 4, 2), slice(0, 4), values(2))
        with pytest.raises(SettingError, match="layer: expected 'X', got 'upper'"):
            writer.write(slice(0, 5), slice(0, 4), values(), layer="upper")
        write_rows(writer, values(), 5)
    assert check_output(tmp_path / "b.zarr") == tmp_path / "b.zarr"


def big_run(path: Path, *, overwrite: bool = False) -> None:
    """Write 1.6 MB of incompressible noise in small chunks."""
    matrix = np.random.default_rng(0).random((400, 1000), dtype=np.float32)
    with ResultWriter(path, **tables(400, 1000), chunk=(50, 100), overwrite=overwrite) as writer:
        write_rows(writer, matrix, 50)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a small disk of 1 MB, held in memory."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no permission to mount a small disk; the tests with a file size limit cover this error")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@both
def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"a{suffix}"
    with pytest.raises(
        OutputError, match=r"up to 1\.6 MB, got the system error 'No space left on device' \(.* free in"
    ):
        big_run(path)
    assert names(small_disk) == []


@both
def test_a_full_disk_keeps_the_old_output(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"a{suffix}"
    with ResultWriter(path, **tables()) as writer:
        write_rows(writer, values(), 5)
    with pytest.raises(OutputError, match="No space left on device"):
        big_run(path, overwrite=True)
    assert names(small_disk) == [path.name]
    np.testing.assert_array_equal(read(path).X, values())
    shutil.rmtree(path) if suffix == ".zarr" else path.unlink()


@pytest.fixture
def size_limit() -> Iterator[Any]:
    """Return a function that makes the system refuse files above a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [10, 2_000, 20_000, 400_000])
def test_a_refused_write_is_reported_at_every_stage_of_an_h5ad(
    tmp_path: Path, size_limit: Any, limit: int
) -> None:
    size_limit(limit)
    with pytest.raises(OutputError, match="got the system error 'File too large'"):
        big_run(tmp_path / "a.h5ad")
    assert names(tmp_path) == []


@pytest.mark.parametrize("limit", [10, 2_000, 10_000])
def test_a_refused_write_is_reported_at_every_stage_of_a_store(
    tmp_path: Path, size_limit: Any, limit: int
) -> None:
    size_limit(limit)
    with pytest.raises(OutputError, match="got the system error 'File too large'"):
        big_run(tmp_path / "a.zarr")
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_process_ends_without_a_crash_after_a_refused_write(tmp_path: Path) -> None:
    # HDF5 crashes at the end of a process if it could not write its last data.
    code = (
        "import resource, sys; import numpy as np, pandas as pd; from cellweft.data.io.write import "
        "ResultWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "names = pd.DataFrame(index=[str(i) for i in range(400)])\n"
        "try:\n"
        "    with ResultWriter(sys.argv[1], obs=names, var=names, chunk=(50, 50)) as writer:\n"
        "        writer.write(slice(0, 400), slice(0, 400), np.random.default_rng(0).random((400, 400)))\n"
        "except OSError as error:\n"
        "    sys.exit(2)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.h5ad")], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "")
    assert names(tmp_path) == []


def test_only_one_block_is_held_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    block = np.ones((100, 2000), dtype=np.float32)
    with ResultWriter(tmp_path / "a.h5ad", **tables(5000, 2000), chunk=(100, 2000)) as writer:
        tracemalloc.start()
        for start in range(0, 5000, 100):
            writer.write(slice(start, start + 100), slice(0, 2000), block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * block.nbytes  # of 50 blocks


def test_threads_that_continue_after_a_failure_leave_nothing(tmp_path: Path) -> None:
    import threading

    late: list[threading.Timer] = []

    def write_late(partial: Path) -> None:
        (partial / "X").mkdir(parents=True, exist_ok=True)
        (partial / "X" / "0.0").write_text("late")

    def work() -> None:
        with ResultWriter(tmp_path / "a.zarr", **tables()):
            partial = [tmp_path / one for one in names(tmp_path, but_locks=True)]
            late.append(threading.Timer(0.03, write_late, partial))
            late[0].start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    late[0].join()
    assert names(tmp_path) == []


def test_sparse_blocks_are_not_densified_silently(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "a.zarr", **tables()) as writer:
        with pytest.raises(SettingError, match="block: expected a dense array"):
            writer.write(slice(0, 5), slice(0, 4), sp.csr_matrix(values()))  # type: ignore[arg-type]
        write_rows(writer, values(), 5)


def test_the_relative_path_stays_the_same_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ResultWriter("a.h5ad", **tables()) as writer:
        os.chdir("/")
        write_rows(writer, values(), 5)
    assert names(tmp_path) == ["a.h5ad"]


# Results in memory


def result(*, n_cells: int = 5, n_genes: int = 4, matrix: Any = "dense") -> anndata.AnnData:
    held = {
        "dense": values(n_cells, n_genes),
        "sparse": sp.csr_matrix(values(n_cells, n_genes)),
        "none": None,
    }
    frames = tables(n_cells, n_genes)
    frames["obs"] = frames["obs"].assign(
        score=np.arange(float(n_cells)), note=["x", None] * (n_cells // 2) + ["y"]
    )
    shares = pd.DataFrame({"B/T": np.arange(float(n_cells)), "other": 1.0}, index=frames["obs"].index)
    made = anndata.AnnData(held[matrix], **frames)
    made.obsm["spatial"], made.obsm["shares"] = np.arange(2.0 * n_cells).reshape(n_cells, 2), shares
    made.obsp["near"] = sp.csr_matrix(np.eye(n_cells))
    made.varm["loadings"] = np.arange(n_genes * 2.0).reshape(n_genes, 2)
    if matrix != "none":
        made.layers["lower"] = held[matrix] * 2
    made.uns = {
        "cellweft": {"seed": 0, "total": 0.15, "preset": "auto", "names": ["a"]},
        "more": np.arange(3),
    }
    return made


@pytest.mark.parametrize(
    ("matrix", "suffix"), [("dense", ".h5ad"), ("sparse", ".h5ad"), ("none", ".h5ad"), ("sparse", ".zarr")]
)
def test_a_result_in_memory_is_read_back_completely(tmp_path: Path, suffix: str, matrix: str) -> None:
    made = result(matrix=matrix)
    path = write_anndata(made, tmp_path / f"a{suffix}")
    assert path == (tmp_path / f"a{suffix}").resolve()
    assert names(tmp_path) == [path.name]
    found = read(path)
    if matrix == "none":
        assert found.X is None
    else:
        assert type(found.X) is type(made.X)
        for one, two in ((found.X, made.X), (found.layers["lower"], made.layers["lower"])):
            np.testing.assert_array_equal(
                *(part.toarray() if matrix == "sparse" else part for part in (one, two))
            )
    assert found.obs_names.tolist() == made.obs_names.tolist()
    assert found.var_names.tolist() == made.var_names.tolist()
    assert found.obs["score"].tolist() == [0, 1, 2, 3, 4]
    assert found.obs["note"].astype(object).fillna("-").tolist() == ["x", "-", "x", "-", "y"]
    np.testing.assert_array_equal(found.obsm["spatial"], made.obsm["spatial"])
    np.testing.assert_array_equal(found.obsm["shares"], made.obsm["shares"])
    assert found.obsm["shares"].columns.tolist() == ["B_T", "other"]
    np.testing.assert_array_equal(found.varm["loadings"], made.varm["loadings"])
    assert (found.obsp["near"] != made.obsp["near"]).nnz == 0
    assert found.uns["cellweft"]["total"] == 0.15
    assert list(found.uns["cellweft"]["names"]) == ["a"]
    np.testing.assert_array_equal(found.uns["more"], np.arange(3))


def test_a_result_in_memory_is_not_changed(tmp_path: Path) -> None:
    made, fresh = result(), result()
    write_anndata(made, tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(made.obs, fresh.obs)
    pd.testing.assert_frame_equal(made.obsm["shares"], fresh.obsm["shares"])
    np.testing.assert_array_equal(made.X, fresh.X)
    assert repr(made.uns) == repr(fresh.uns)


@both
def test_a_result_in_memory_replaces_another_only_on_request(tmp_path: Path, suffix: str) -> None:
    path = write_anndata(result(), tmp_path / f"a{suffix}")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_anndata(result(n_genes=2), path)
    assert read(path).shape == (5, 4)
    write_anndata(result(n_genes=2), path, overwrite=True)
    assert read(path).shape == (5, 2)
    assert names(tmp_path) == [path.name]


@both
def test_elements_that_a_result_in_memory_may_not_contain(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    odd = result()
    odd.uns["when"] = object()
    with pytest.raises(InputError, match=r"expected values that AnnData can store, got .*when"):
        write_anndata(odd, path)
    with pytest.raises(SettingError, match=r"a name ending in \.zarr or \.h5ad, got '\.csv'"):
        write_anndata(result(), tmp_path / "a.csv")
    with pytest.raises(OutputError, match="mkdir -p"):
        write_anndata(result(), tmp_path / "no" / path.name)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("suffix", "limit"), [(".h5ad", 10), (".h5ad", 2_000), (".h5ad", 10_000), (".zarr", 2_000)]
)
def test_a_refused_write_of_a_result_in_memory(
    tmp_path: Path, size_limit: Any, suffix: str, limit: int
) -> None:
    kept = write_anndata(result(), tmp_path / f"a{suffix}")
    large = result(n_cells=201, n_genes=100)
    size_limit(limit)
    for path in (kept, tmp_path / f"b{suffix}"):
        with pytest.raises(OutputError, match=r"got the system error 'File too large'.*Nothing incomplete"):
            write_anndata(large, path, overwrite=True)
    assert names(tmp_path) == [kept.name]
    assert read(kept).shape == (5, 4)


@pytest.mark.slow
def test_a_process_ends_without_a_crash_if_a_result_in_memory_is_refused(tmp_path: Path) -> None:
    code = (
        "import resource, sys; import anndata, numpy as np; from cellweft.data.io.write import "
        "write_anndata\n"
        "data = anndata.AnnData(np.random.default_rng(0).random((400, 400)))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    write_anndata(data, sys.argv[1])\n"
        "except OSError as error:\n"
        "    sys.exit(2)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.h5ad")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "")
    assert names(tmp_path) == []
