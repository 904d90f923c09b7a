"""How the fuzzer copies its files, and how it reads zarr in a single thread."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.core.sync

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fuzzer uses signals and fork")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "fuzz"))
    import run

    yield run
    sys.modules.pop("run")


def _store(path: Path) -> np.ndarray[Any, Any]:
    values = np.arange(60.0).reshape(12, 5)
    zarr.open_group(path, mode="w").create_array("X", shape=(12, 5), chunks=(5, 2), dtype="f8")[:] = values
    return values


def test_a_copy_replaces_earlier_files(run: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "inner" / "empty").mkdir(parents=True)
    (source / "inner" / "file").write_bytes(b"\0x")
    target.mkdir()
    (target / "old").write_text("old")
    run._write_copy(run._contents(source), target)
    names = sorted(str(one.relative_to(target)) for one in target.rglob("*"))
    assert names == ["inner", "inner/empty", "inner/file"]
    assert (target / "inner" / "file").read_bytes() == b"\0x"
    run._write_copy(run._contents(source / "inner" / "file"), target)
    assert target.read_bytes() == b"\0x"


def test_zarr_is_read_equally_in_this_thread(run: Any, tmp_path: Path) -> None:
    values = _store(tmp_path / "a.zarr")
    of_zarr = zarr.core.sync._get_loop
    with run._zarr_in_this_thread():
        loop = zarr.core.sync._get_loop()
        np.testing.assert_array_equal(zarr.open_group(tmp_path / "a.zarr", mode="r")["X"][:], values)
        for one in (tmp_path / "a.zarr" / "X" / "c").rglob("*"):
            if one.is_file():
                one.write_bytes(one.read_bytes()[:9])
        with pytest.raises(RuntimeError, match="Zstd decompression"):
            zarr.open_group(tmp_path / "a.zarr", mode="r")["X"][:]
        assert zarr.core.sync._get_loop() is loop
    assert loop.is_closed()
    assert zarr.core.sync._get_loop is of_zarr


def test_other_threads_read_as_before(run: Any, tmp_path: Path) -> None:
    values = _store(tmp_path / "a.zarr")
    with run._zarr_in_this_thread(), ThreadPoolExecutor(3) as pool:
        read = list(pool.map(lambda _: zarr.open_group(tmp_path / "a.zarr", mode="r")["X"][:], range(60)))
        here = zarr.open_group(tmp_path / "a.zarr", mode="r")["X"][:]
    assert all(np.array_equal(one, values) for one in [here, *read])


def test_a_read_of_zarr_is_stopped_if_it_takes_too_long(run: Any) -> None:
    async def forever() -> None:
        while True:
            await asyncio.sleep(0.01)

    def too_slow(*_: object) -> None:
        raise run.TooSlow

    old = signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(run.TooSlow), run._zarr_in_this_thread():
            zarr.core.sync.sync(forever())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
