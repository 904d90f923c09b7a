"""Two runs on one output, and readers of a store during replacement: errors, but never a mixture."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cellweft
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.results import open_result
from cellweft.errors import CellweftError, FormatError, OutputError

KINDS = {"zarr": "out.zarr", "h5ad": "out.h5ad", "model": "out.model"}


def make(world: Any, path: Path, *, overwrite: bool = False) -> None:
    if path.suffix == ".model":
        world.imputer.save(path, overwrite=overwrite)
    else:
        world.imputer.impute_to(path, overwrite=overwrite, progress=False)


def stopped_run(world: Any, path: Path) -> int:
    """Start a run in a fork that stops once it holds the output, and return its process number."""
    child = os.fork()
    if child == 0:
        from cellweft.data.io import atomic_output

        hold = atomic_output.exclusive

        def exclusive(target: Any) -> Any:
            held = hold(target)
            held.__enter__()
            os.kill(os.getpid(), signal.SIGSTOP)
            held.__exit__(None, None, None)
            return hold(target)

        atomic_output.exclusive = exclusive  # type: ignore[assignment]
        status = 1
        try:
            make(world, path)
            status = 0
        finally:
            os._exit(status)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    return child


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_run_is_told_which_run_holds_the_output(kind: str, world: Any, tmp_path: Path) -> None:
    path = tmp_path / KINDS[kind]
    first = stopped_run(world, path)
    try:
        with pytest.raises(OutputError, match=f"another run is writing .process {first} on .*, since 20"):
            make(world, path)
        assert not path.exists()
    finally:
        os.kill(first, signal.SIGCONT)
        status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    assert status == 0
    assert path.exists()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_a_run_whose_input_is_replaced_is_refused(world: Any, tmp_path: Path) -> None:
    """Neither zeros nor values of another tissue are taken for those of the pair."""
    path = tmp_path / "tissue.zarr"
    world.st.write_zarr(path)
    pair = cellweft.pair(world.sc, path)
    other = world.st.copy()
    other.X = other.X * 0
    shutil.rmtree(path)
    other.write_zarr(path)
    with pytest.raises(FormatError, match="replaced in the meantime"):
        world.imputer.impute_to(tmp_path / "out.zarr", pair=pair, progress=False)
    assert not (tmp_path / "out.zarr").exists()
    shutil.rmtree(path)
    with pytest.raises(FormatError, match="nothing at its path"):
        world.imputer.impute(pair=pair, progress=False)


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_a_reader_during_replacement_sees_a_complete_result(suffix: str, world: Any, tmp_path: Path) -> None:
    """A process replaces a result again and again; every read returns a complete result or a clear error."""
    path = tmp_path / f"out{suffix}"
    make(world, path)
    known = {world.imputed.X.sum(dtype=np.float64)}
    child = os.fork()
    if child == 0:
        try:
            for _ in range(4):
                make(world, path, overwrite=True)
        finally:
            os._exit(0)
    seen, refused, ends = 0, [], time.monotonic() + 120
    while not os.waitpid(child, os.WNOHANG)[0] and time.monotonic() < ends:
        try:
            data = open_result(path, argument="result")
            block: Any = open_rows(data.matrix, where="X").read(slice(0, len(data.obs)))
        except CellweftError as error:
            refused.append(str(error))
            continue
        seen += 1
        assert any(np.isclose(block.sum(dtype=np.float64), one) for one in known)
    assert seen
    assert all("expected" in one for one in refused)
