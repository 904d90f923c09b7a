"""Outputs are complete or absent after kills at any file operation or time, and on disks that fill up at any
stage.

To be fast, each run is a fork of the process that already has the small inputs and the fitted model. A hook
counts its file operations (files opened for writing, folders created, renames, blocks given to HDF5). At the
chosen operation it kills the process, or simulates a full disk.
"""

import dataclasses
import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import cellweft
from cellweft.cli import app
from cellweft.data.io.atomic_output import ForgivingFile
from cellweft.errors import CellweftError
from cellweft.genes.esm.embedder import ProteinEmbedder
from cellweft.impute import planning
from cellweft.impute.imputer import Imputer

distributed = pytest.importorskip("distributed")

KINDS = (
    "zarr",
    "sparse zarr",
    "half zarr",
    "dask zarr",
    "h5ad",
    "sparse h5ad",
    "model",
    "place",
    "evaluate",
    "embed",
)
N_KILLS = 6  # for each kind of output: half at a file operation, half at a time
WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "zarr": ("out.zarr", {}),
    "sparse zarr": ("out.zarr", {"sparse": 0.05}),
    "half zarr": ("out.zarr", {"dtype": "float16"}),
    "dask zarr": ("out.zarr", {}),
    "h5ad": ("out.h5ad", {}),
    "sparse h5ad": ("out.h5ad", {"sparse": 0.05}),
    "model": ("out.model", {}),
    "place": ("out.h5ad", {}),
    "evaluate": ("scores.csv", {}),
    "embed": ("esm.parquet", {"tokens_per_batch": 70}),
}
PROTEINS = {f"Gene{number}": "MASSTPSWLKRNDEQGHIVFYC"[number : 20 + number % 3] for number in range(12)}


def work(kind: str, world: Any, folder: Path) -> None:
    """Make an output, and raise the error of the library or the command."""
    name, how = WORK[kind]
    path = folder / name
    inputs = [str(world.folder / one) for one in ("atlas.h5ad", "tissue.h5ad")]
    if kind == "model":
        world.imputer.save(path)
    elif kind == "place":
        sets = {"steps": 4, "hidden": 8, "middle": 6, "latent": 4, "models": 1}
        options = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        _command("place", *inputs, "-o", str(path), "--device", "cpu", "--quiet", *options)
    elif kind == "evaluate":
        options = ["--methods", "mean", "--folds", "2", "--device", "cpu", "--quiet"]
        _command("evaluate", *inputs, "-o", str(path), *options)
    elif kind == "embed":
        embedder = ProteinEmbedder(model=str(world.folder / "esm"), device="cpu", **how)
        embedder.embed_to(PROTEINS, path, progress=False)
    elif kind == "dask zarr":
        impute_over_dask(world.imputer, path)
    else:
        world.imputer.impute_to(path, progress=False, **how)


def impute_over_dask(imputer: cellweft.Imputer, path: Path) -> None:
    """Make a result of many tiles with two workers, which are threads; the process is not used afterwards."""
    whole = Imputer._job

    def job(self: Imputer, *args: Any, **kwargs: Any) -> Any:
        made = whole(self, *args, **kwargs)
        small = dataclasses.replace(made.plan, cells_per_block=16, genes_per_block=8)
        return dataclasses.replace(made, plan=small)

    Imputer._job = job  # type: ignore[method-assign]
    planning.CHUNK_BYTES = 4 * 16 * 8
    with distributed.LocalCluster(
        n_workers=2, processes=False, protocol="tcp", memory_limit=0, dashboard_address=None
    ) as cluster:
        imputer.impute_to(path, progress=False, dask=cluster.scheduler_address)


class Refused(Exception):  # noqa: N818
    """A command stopped with an error message."""


def _command(*words: str) -> None:
    result = CliRunner().invoke(app, list(words))
    if result.exit_code == 2 and result.stderr.startswith("Error: "):
        raise Refused(result.stderr)
    if result.exit_code:
        raise result.exception or RuntimeError(result.output)


def in_fork(task: Callable[[], None], *, after: float | None = None) -> int:
    """Run a task in a fork and return its wait status; kill it if it still runs after `after` seconds."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            task()
            status = 0
        except (CellweftError, Refused) as error:
            sys.stderr.write(str(error))
            status = 3
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def hooked(at: int | None, act: Callable[[], None], counted: Path | None = None) -> None:
    """Call a function at file operation number `at` and at all later ones; with None, only count them.

    Compiled modules and the folders of Dask are not counted, because whether they are written depends on
    earlier runs.
    """
    count = 0
    sys.dont_write_bytecode = True

    def operation() -> None:
        nonlocal count
        count += 1
        if counted is not None:
            descriptor = os.open(counted, os.O_WRONLY | os.O_CREAT)  # opening this file is not counted
            os.pwrite(descriptor, f"{count:012}".encode(), 0)
            os.close(descriptor)
        if at is not None and count >= at:
            act()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_writing = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        # a full disk still allows folders to be removed
        removes = event == "os.rmdir" and act is not full_disk
        is_operation = is_writing or removes or event in ("os.rename", "os.mkdir")
        if is_operation and "dask-scratch-space" not in str(arguments[0]):
            operation()

    sys.addaudithook(hook)
    write = ForgivingFile.write

    def counting(self: ForgivingFile, data: memoryview) -> int:
        if at is not None and count + 1 >= at and act is full_disk:
            self.failure = self.failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        else:
            operation()
        return write(self, data)

    ForgivingFile.write = counting  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def protein_model(world: Any) -> None:
    """A random network with the architecture of ESM-2 and its tokens, in the folder "esm" of the world."""
    transformers = pytest.importorskip("transformers")
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
    )
    folder = world.folder / "esm"
    transformers.EsmModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens))


@pytest.fixture(scope="module")
def whole(
    world: Any, protein_model: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Any, int, float]]:
    """Function that returns the output, the file operations and the seconds of an undisturbed run."""
    known: dict[str, tuple[Any, int, float]] = {}

    def run(kind: str) -> tuple[Any, int, float]:
        if kind not in known:
            folder, counted = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("count") / "n"

            def task() -> None:
                hooked(None, full_disk, counted)  # without removed folders, which a full disk allows
                work(kind, world, folder)

            start = time.monotonic()
            assert in_fork(task) == 0
            seconds = time.monotonic() - start
            known[kind] = (content(folder / WORK[kind][0]), int(counted.read_text()), seconds)
        return known[kind]

    return run


def content(path: Path) -> Any:
    """Return the content of an output, as hashes, without parts that depend on the time."""
    if path.suffix == ".csv":
        return path.read_text()
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_csv()
    if path.suffix == ".model":
        return [hashlib.sha256((path / one).read_bytes()).hexdigest() for one in ("weights.safetensors",)]
    data = anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)
    matrix = data.X.toarray() if hasattr(data.X, "toarray") else data.X
    parts = [np.asarray(matrix).tobytes() if matrix is not None else b"", data.obs.to_csv().encode()]
    parts += [
        data.var.to_csv().encode(),
        *(np.asarray(data.obsm[key]).tobytes() for key in sorted(data.obsm)),
    ]
    return [hashlib.sha256(one).hexdigest() for one in parts]


def check_whole_or_absent(kind: str, world: Any, folder: Path, expected: Any) -> None:
    """Check that no incomplete output has the final name, and that the next run is equal and cleans up."""
    path = folder / WORK[kind][0]
    if path.exists():  # killed after the output was complete
        assert content(path) == expected
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        for other in path.parent.glob("scores.*"):
            other.unlink()
    for other in folder.glob("scores.json"):
        other.unlink()  # the first of two files may already have its final name
    assert in_fork(lambda: work(kind, world, folder)) == 0
    assert content(path) == expected
    left = {one.name for one in folder.iterdir()} - {path.name, "scores.json"}
    assert not [one for one in left if "partial" in one], left


@pytest.mark.parametrize("number", range(N_KILLS))
@pytest.mark.parametrize("kind", KINDS)
def test_killed_runs_leave_no_incomplete_output(
    kind: str, number: int, world: Any, whole: Any, tmp_path: Path
) -> None:
    expected, operations, seconds = whole(kind)
    if number % 2:
        after = seconds * random.Random(f"{kind} {number}").uniform(0.05, 0.95)
        in_fork(lambda: work(kind, world, tmp_path), after=after)
    else:
        at = 1 + operations * number // N_KILLS

        def task() -> None:
            hooked(at, die)
            work(kind, world, tmp_path)

        assert os.WTERMSIG(in_fork(task)) == signal.SIGKILL
    check_whole_or_absent(kind, world, tmp_path, expected)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", KINDS)
def test_full_disks_leave_no_incomplete_output(
    kind: str, part: float, world: Any, whole: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected, operations, _ = whole(kind)
    at = 1 + int(operations * part)

    def task() -> None:
        hooked(at, full_disk)
        work(kind, world, tmp_path)

    status = os.waitstatus_to_exitcode(in_fork(task))
    said = capfd.readouterr().err
    assert status == 3, said
    assert "No space left" in said or "disk" in said, said
    assert not (tmp_path / WORK[kind][0]).exists()
    check_whole_or_absent(kind, world, tmp_path, expected)


@pytest.mark.parametrize("kind", ["zarr", "h5ad", "sparse h5ad", "model", "evaluate"])
def test_refused_writes_leave_no_incomplete_output(
    kind: str, world: Any, whole: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The system refuses every file of more than 200 bytes, like a quota."""
    expected, _, _ = whole(kind)

    def task() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        work(kind, world, tmp_path)

    status = os.waitstatus_to_exitcode(in_fork(task))
    assert status == 3, capfd.readouterr().err
    assert not (tmp_path / WORK[kind][0]).exists()
    check_whole_or_absent(kind, world, tmp_path, expected)


def test_there_are_at_least_forty_kills() -> None:
    assert len(KINDS) * N_KILLS >= 40
