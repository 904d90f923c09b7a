"""A store that lacks a chunk is refused, unless the chunk was omitted because it is zero."""

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr

from cellweft._errors import FormatError
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.io.journal import Journal
from cellweft.data.io.results import open_result
from cellweft.data.io.write import ResultWriter
from cellweft.data.io.zarr_store import MANIFEST, check_manifest, copy_store, quiet_zarr, written_store

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def values() -> np.ndarray:
    """8 cells x 12 genes; the first chunk of 2 x 3 is zero, and so is the last shard of 4 x 6."""
    made = np.arange(1.0, 97.0, dtype="float32").reshape(8, 12)
    made[:2, :3] = made[4:, 6:] = 0
    return made


def written(path: Path, *, zarr_format: Any = 3, sparse: float | None = None) -> Path:
    """Write a result with a dense layer in blocks of 4 x 12."""
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b"] * 4)}, index=[f"c{n}" for n in range(8)])
    var = pd.DataFrame(index=[f"g{n}" for n in range(12)])
    record = {"cellweft": {"schema_version": SCHEMA_VERSION}}
    sizes: dict[str, Any] = {"chunk": (2, 3), "shard": (4, 6), "zarr_format": zarr_format, "sparse": sparse}
    with ResultWriter(path, obs=obs, var=var, uns=record, layers=("lower",), **sizes) as writer:
        for rows in (slice(0, 4), slice(4, 8)):
            for layer in (None, "lower"):
                writer.write(rows, slice(0, 12), values()[rows], layer=layer)
    return path


@pytest.fixture(params=[2, 3])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return written(tmp_path / "a.zarr", zarr_format=request.param)


def chunk_files(store: Path, name: str) -> list[Path]:
    """Return the files of an array's chunks, in order."""
    files = (one for one in (store / name).rglob("*") if one.is_file())
    return sorted(one for one in files if one.name not in ("zarr.json", ".zarray", ".zattrs"))


def test_a_complete_store_with_omitted_chunks_of_zeros_passes(store: Path) -> None:
    is_v3 = (store / "zarr.json").exists()
    assert len(chunk_files(store, "X")) == (3 if is_v3 else 11)  # of 4 shards, and of 16 chunks
    check_manifest(store)
    check_manifest(store, deep=True)
    np.testing.assert_array_equal(anndata.read_zarr(store).X, values())
    np.testing.assert_array_equal(open_result(store, argument="result").matrix[:], values())


@pytest.mark.parametrize("name", ["X", "layers/lower", "obs/type/codes", "var/_index"])
def test_a_missing_chunk_is_named(store: Path, name: str) -> None:
    gone = chunk_files(store, name)[-1]
    gone.unlink()
    key = gone.relative_to(store / name).as_posix()
    for deep in (False, True):
        with pytest.raises(
            FormatError, match=rf"{name}: expected all \d+ chunks that were .*1 missing"
        ) as caught:
            check_manifest(store, deep=deep)
        assert repr(key) in str(caught.value)
    with pytest.raises(FormatError, match=f"{name}: .*missing"):
        open_result(store, argument="result")


def test_a_changed_chunk_is_found_by_a_deep_check(store: Path) -> None:
    damaged = chunk_files(store, "X")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    check_manifest(store)
    with pytest.raises(FormatError, match=r"X: expected chunks with the bytes .*, got 1 changed"):
        check_manifest(store, deep=True)


@FORMATS
def test_a_sparse_matrix_is_checked_too(tmp_path: Path, zarr_format: int) -> None:
    path = written(tmp_path / "a.zarr", zarr_format=zarr_format, sparse=0.0)
    check_manifest(path, deep=True)
    chunk_files(path, "X/indices")[0].unlink()
    with pytest.raises(FormatError, match="X/indices: expected all 1 chunks"):
        check_manifest(path)


def test_chunks_of_other_processes_and_earlier_runs_are_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with written_store(path) as root:
        array = root.create_array("X", shape=(4, 4), chunks=(2, 2), dtype="float32", fill_value=0)
        array[:2] = 1
        zarr.open_group(path, mode="r+", use_consolidated=False)["X"][2:] = 2
    check_manifest(path, deep=True)
    with written_store(path, goes_on=True) as root:
        root["X"][:2, :2] = 3
    check_manifest(path, deep=True)
    (path / "X/c/1/1").unlink()
    with pytest.raises(FormatError, match="X: expected all 4 chunks"):
        check_manifest(path)


def test_the_manifest_of_a_resumed_run_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    tables = {"obs": pd.DataFrame(index=list("abcd")), "var": pd.DataFrame(index=list("xy"))}

    def run(*, fails: bool) -> None:
        journal = Journal(path, {"seed": 0}, resume=True)
        with ResultWriter(path, **tables, chunk=(2, 2), journal=journal) as writer:
            for number, rows in enumerate((slice(0, 2), slice(2, 4))):
                if number in journal.done:
                    writer.note(rows, slice(0, 2))
                    continue
                writer.write(rows, slice(0, 2), np.full((2, 2), number + 1.0))
                journal.add(number)
                if fails:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fails=True)
    run(fails=False)
    check_manifest(path, deep=True)
    chunk_files(path, "X")[0].unlink()
    with pytest.raises(FormatError, match="X: expected all 2 chunks"):
        check_manifest(path)


def test_other_stores_and_replaced_arrays_are_not_checked(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    with quiet_zarr():
        anndata.read_zarr(store).write_zarr(other)
    assert MANIFEST not in zarr.open_group(other, mode="r").attrs
    check_manifest(other, deep=True)
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    del root["layers/lower"]
    root.create_array("layers/lower", shape=(2,), dtype="int32")
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(root.store)
    check_manifest(store)


def test_a_copy_in_another_format_has_the_same_content(store: Path, tmp_path: Path) -> None:
    for zarr_format in (2, 3):
        copy = tmp_path / f"copy{zarr_format}.zarr"
        copy_store(store, copy, zarr_format=zarr_format)
        check_manifest(copy, deep=True)
        made, known = (zarr.open_group(one, mode="r") for one in (copy, store))
        assert made.metadata.zarr_format == zarr_format
        for name, node in known.members(max_depth=None):
            assert dict(made[name].attrs) == dict(node.attrs)
            if isinstance(node, zarr.Array):
                np.testing.assert_array_equal(made[name][...], node[...])
                assert made[name].chunks == node.chunks
