"""Tiles computed on a Dask cluster equal tiles computed locally, even if workers or the client are lost."""

import contextlib
import dataclasses
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from cellweft._errors import MissingExtraError, OutputError, ServiceError, SettingError
from cellweft.cli import app
from cellweft.data._pair import Pair, pair
from cellweft.data.io.output_request import processes_of
from cellweft.data.io.write import write_anndata
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue
from cellweft.impute.cluster.client import Cluster, connect
from cellweft.impute.cluster.worker import RunMarker, ThreadCounts, TileMaker
from cellweft.impute.imputer import Imputer

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

QUICK_AUTO = {"steps": 5, "fold_steps": 4, "level_steps": 5, "level_hidden": 6}
N_TILES = 6 * 4


@contextlib.contextmanager
def processes(count: int) -> Iterator[Any]:
    """Start a cluster of processes outside cellweft, without changing the environment."""
    with (
        mock.patch.dict(os.environ),
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, memory_limit=0, dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a cluster of two processes."""
    with processes(2) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module", params=["auto", "stimpute"])
def fitted(request: pytest.FixtureRequest, tissue_pair: Pair, quick: dict[str, Any]) -> Imputer:
    """An Imputer of either preset, with the intervals and reliability that the preset can learn."""
    settings = QUICK_AUTO if request.param == "auto" else quick
    return Imputer(preset=request.param, settings=settings, device="cpu").fit(tissue_pair)


@pytest.fixture(scope="module")
def auto(tissue_pair: Pair) -> Imputer:
    """An Imputer with the default preset."""
    return Imputer(settings=QUICK_AUTO, reliability=False, device="cpu").fit(tissue_pair)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make results have 24 tiles of 2 chunks each."""
    whole = Imputer._job

    def job(self: Imputer, *args: Any, **kwargs: Any) -> Any:
        made = whole(self, *args, **kwargs)
        return dataclasses.replace(
            made, plan=dataclasses.replace(made.plan, cells_per_block=16, genes_per_block=8)
        )

    monkeypatch.setattr(Imputer, "_job", job)
    monkeypatch.setattr("cellweft.impute.planning.CHUNK_BYTES", 4 * 16 * 4)


def assert_same(path: Path, other: Path) -> None:
    """Check that two results are equal to the last bit."""
    first, second = (anndata.read_zarr(one) for one in (path, other))
    assert list(first.layers) == list(second.layers)
    for one, two in [
        (first.X, second.X),
        *((first.layers[name], second.layers[name]) for name in first.layers),
    ]:
        assert one.dtype == two.dtype
        assert one.tobytes() == two.tobytes()
    pd.testing.assert_frame_equal(first.obs, second.obs, check_exact=True)
    pd.testing.assert_frame_equal(first.var, second.var, check_exact=True)
    np.testing.assert_array_equal(first.obsm["spatial"], second.obsm["spatial"])
    assert sorted(path.rglob("*.partial")) == []


@pytest.mark.slow
def test_the_result_is_the_same_to_the_last_bit(fitted: Imputer, address: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"interval": 0.9} if fitted.preset == "auto" else {}
    here = fitted.impute_to(tmp_path / "here.zarr", **options)
    seen = []
    there = fitted.impute_to(
        tmp_path / "there.zarr", dask=address, progress=lambda *one: seen.append(one), **options
    )
    assert_same(there, here)
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["here.zarr", "there.zarr"]
    assert len(seen) == N_TILES
    assert seen[-1] == ("impute", 90 * 28, 90 * 28)


@pytest.mark.slow
def test_batches_of_the_reference_are_sent_along(
    tissue: SimulatedTissue, address: str, tmp_path: Path
) -> None:
    sc = tissue.sc.copy()
    sc.obs["donor"] = np.repeat(["a", "b"], [sc.n_obs - 40, 40])
    both = pair(sc, tissue.st, reference_batch="donor")
    imputer = Imputer(settings=QUICK_AUTO, reliability=False, device="cpu").fit(both)
    here = imputer.impute_to(tmp_path / "here.zarr")
    there = imputer.impute_to(tmp_path / "there.zarr", dask=address)
    assert_same(there, here)


def assert_same_files(path: Path, other: Path) -> None:
    """Check that two matrices X are equal on disk."""
    files = [
        {str(one.relative_to(store)): one.read_bytes() for one in (store / "X").rglob("*") if one.is_file()}
        for store in (path, other)
    ]
    assert len(files[0]) > 6
    assert files[0] == files[1]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Assemble sparse matrices in chunks of 100 values."""
    monkeypatch.setattr("cellweft.data.io.sparse_write._CHUNK", 100)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_a_sparse_result_is_the_same_to_the_last_bit(fitted: Imputer, address: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"interval": 0.9} if fitted.preset == "auto" else {}
    options["sparse"] = float(np.median(fitted.impute().X))
    here = fitted.impute_to(tmp_path / "here.zarr", **options)
    there = fitted.impute_to(
        tmp_path / "there.zarr", dask=address, progress=killing(address, at=9, count=1), **options
    )
    assert_same_files(there, here)
    first, second = (anndata.read_zarr(path) for path in (there, here))
    assert (first.X != second.X).nnz == 0
    assert 0 < first.X.nnz < 90 * 28
    layers = [set(one.layers) - {None} for one in (first, second)]  # anndata 0.13 lists X as the layer None
    assert layers == 2 * [{"lower", "upper"} if "interval" in options else set()]
    for name in layers[0]:
        assert first.layers[name].tobytes() == second.layers[name].tobytes()
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["here.zarr", "there.zarr"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("first", ["here", "there"])
def test_a_sparse_run_continues_where_another_stopped(
    auto: Imputer, address: str, tmp_path: Path, first: str
) -> None:
    ways: list[str | None] = [None, address] if first == "here" else [address, None]
    done = []

    def stop(*_: Any) -> None:
        done.append(None)
        if len(done) == 5:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"sparse": 0.2, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        auto.impute_to(tmp_path / "a.zarr", dask=ways[0], progress=stop, **options)
    assert 3 <= len((tmp_path / "a.zarr.resume" / "tiles.txt").read_text().split()) < N_TILES
    auto.impute_to(tmp_path / "a.zarr", dask=ways[1], **options)
    assert_same_files(tmp_path / "a.zarr", auto.impute_to(tmp_path / "whole.zarr", sparse=0.2))
    assert not (tmp_path / "a.zarr.resume").exists()


def test_no_chunk_spans_two_tiles(auto: Imputer, tissue_pair: Pair) -> None:
    job = auto._job(tissue_pair, None, interval=None, memory="4 GB")
    rows, columns = job.plan.chunk
    assert (rows, columns) == (16, 4)
    assert len(job.tiles) == N_TILES
    assert all(tile.rows.start % rows == 0 and tile.places.start % columns == 0 for tile in job.tiles)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_workers_read_files_themselves(
    tissue: SimulatedTissue, address: str, tmp_path: Path, kind: str
) -> None:
    paths = [tmp_path / f"{name}.{kind}" for name in ("sc", "st")]
    for data, path in zip((tissue.sc, tissue.st), paths, strict=True):
        write_anndata(data, path)
    imputer = Imputer(settings=QUICK_AUTO, reliability=False, device="cpu").fit(pair(*paths))
    some = ["Gene03", "Gene01", "Gene20"]
    here = imputer.impute_to(tmp_path / "here.zarr", genes=some, dtype="float16")
    there = imputer.impute_to(tmp_path / "there.zarr", genes=some, dtype="float16", dask=address)
    assert_same(there, here)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["here", "there"])
def test_a_run_continues_where_another_stopped(
    auto: Imputer, address: str, tmp_path: Path, first: str
) -> None:
    ways: list[str | None] = [None, address] if first == "here" else [address, None]
    done = []

    def stop(_: str, n_done: int, n_values: int) -> None:
        done.append(n_done)
        if len(done) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        auto.impute_to(tmp_path / "a.zarr", dask=ways[0], resume=True, progress=stop)
    kept = (tmp_path / "a.zarr.resume" / "tiles.txt").read_text().split()
    assert 3 <= len(kept) < N_TILES
    seen: list[int] = []
    auto.impute_to(
        tmp_path / "a.zarr", dask=ways[1], resume=True, progress=lambda _, n_done, __: seen.append(n_done)
    )
    assert len(seen) == N_TILES - len(kept)
    assert_same(tmp_path / "a.zarr", auto.impute_to(tmp_path / "whole.zarr"))
    assert not (tmp_path / "a.zarr.resume").exists()


@pytest.mark.slow
def test_a_failed_run_leaves_nothing(auto: Imputer, address: str, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        auto.impute_to(tmp_path / "a.zarr", dask=address, progress=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_each_worker_may_use_its_own_device(
    auto: Imputer, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two devices of one kind are not available here: the CPU is one, and "nowhere" the other.
    @contextlib.contextmanager
    def one_without(address: str, **_: Any) -> Iterator[Cluster]:
        with distributed.Client(address, set_as_default=False) as client:
            yield Cluster(address=address, client=client, devices={"0": "cpu", "1": devices[-1]})

    monkeypatch.setattr("cellweft.impute.imputer.connect", one_without)
    devices = ["cpu"]
    there = auto.impute_to(tmp_path / "there.zarr", dask=address)
    assert_same(there, auto.impute_to(tmp_path / "here.zarr"))
    devices.append("nowhere")
    with pytest.raises(RuntimeError, match="nowhere"):
        auto.impute_to(tmp_path / "never.zarr", dask=address)


@pytest.mark.parametrize(
    ("address", "kind", "given", "expected"),
    [
        ("local:3", "cpu", (), (3, {})),
        ("local", "cpu", (), (4, {})),
        ("local", "cuda", (), (2, {"0": "cuda:0", "1": "cuda:1"})),
        ("local:3", "cuda", (), (3, {"0": "cuda:0", "1": "cuda:1", "2": "cuda:0"})),
        ("local", "cuda", ("cuda:1",), (1, {"0": "cuda:1"})),
    ],
)
def test_processes_are_assigned_devices_in_turn(
    monkeypatch: pytest.MonkeyPatch, address: str, kind: str, given: tuple[str, ...], expected: Any
) -> None:
    found = []

    def count(count: int, memory: int) -> Any:
        found.append((count, memory))
        return contextlib.nullcontext()

    monkeypatch.setattr("cellweft.impute.cluster.client._processes", count)
    monkeypatch.setattr("cellweft.impute.cluster.client._client", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("cellweft.impute.cluster.client.count_cores", lambda: 4 * torch.get_num_threads())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with connect(address, memory="1 GB", device=torch.device(kind), devices=given) as cluster:
        assert (found[0][0], dict(cluster.devices)) == expected
        assert found[0][1] == 10**9


def tensors_of(thing: Any, seen: set[int] | None = None) -> Iterator[torch.Tensor]:
    """Yield every tensor that can be reached from an object, through any reference."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type) or type(thing).__name__ == "module":
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
        return
    inside = [one for one in gc.get_referents(thing) if not callable(one) or isinstance(one, torch.nn.Module)]
    for one in inside:
        yield from tensors_of(one, seen)


def test_a_fitted_method_moves_to_a_device_completely(fitted: Imputer) -> None:
    known = fitted.fitted_
    assert known is not None
    known.prepare(np.arange(3))  # create the parts that are made on first use
    there = known.to(torch.device("meta"))
    assert there.device == torch.device("meta")
    for model, place in ((there.model, "meta"), (known.model, "cpu")):
        tensors = list(tensors_of(model))
        assert len(tensors) > 5
        assert {one.device.type for one in tensors} == {place}


def test_received_tensors_are_aligned_in_memory_like_new_ones(fitted: Imputer, tissue_pair: Pair) -> None:
    # Products of unaligned tensors differ in the last bit, and Dask does not align the tensors of a message.
    job = fitted._job(tissue_pair, None, interval=None, memory="4 GB")
    maker = TileMaker(
        job=job,
        marker=RunMarker(target=Path("a.zarr"), partial=Path("partial.zarr"), keeps=False),
        keys={None: "X"},
        dtype="float32",
        threads=ThreadCounts.here(),
        device="cpu",
        devices={},
    )
    header, frames = distributed.protocol.serialize(maker)
    crooked = [memoryview(b"-" + bytes(frame))[1:] for frame in frames]
    sent = distributed.protocol.deserialize(header, crooked)
    tensors = list(tensors_of(sent.job.fitted.model))
    assert len(tensors) > 5
    assert all(one.data_ptr() % 16 == 0 for one in tensors)
    tile = job.tiles[-1]
    values = job.values(tile, job.prepare(tile), job.read(tile))[None]
    again = sent.job.values(tile, sent.job.prepare(tile), sent.job.read(tile))[None]
    assert again.tobytes() == values.tobytes()


def test_thread_counts_are_set() -> None:
    known = ThreadCounts.here()
    try:
        ThreadCounts(torch=1, blas=1).take()
        assert ThreadCounts.here() == ThreadCounts(torch=1, blas=1)
    finally:
        known.take()
    assert ThreadCounts.here() == known


@pytest.mark.parametrize("address", ["", "somewhere", "local:", "local:x", "tcp://host", "8786", "local 4"])
def test_addresses_have_the_form_of_dask(address: str) -> None:
    with pytest.raises(
        SettingError, match=r"dask: expected the address of a Dask scheduler, as tcp://host:87"
    ):
        processes_of(address)


def test_a_number_of_processes_below_one_is_refused() -> None:
    with pytest.raises(SettingError, match=r"dask: processes: expected a whole number >= 1, got 0"):
        processes_of("local:0")


def test_only_a_zarr_store_can_be_written_by_many(auto: Imputer, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"dask: expected a \.zarr store as output.*got 'a\.h5ad'"):
        auto.impute_to(tmp_path / "a.h5ad", dask="local")


def test_an_address_without_an_answer_is_reported(
    auto: Imputer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cellweft.impute.cluster.client._TIMEOUT", 0.3)
    message = r"dask: expected a Dask scheduler that responds at tcp://127\.0\.0\.1:9, got no response within"
    with pytest.raises(ServiceError, match=message):
        auto.impute_to(tmp_path / "a.zarr", dask="tcp://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):  # before the data are read
        app(["impute", "no.h5ad", "no.h5ad", "-o", str(tmp_path / "a.zarr"), "--dask", "tcp://127.0.0.1:9"])
    assert "expected a Dask scheduler that responds" in " ".join(capsys.readouterr().err.split())


def test_without_dask_the_extra_is_named(
    auto: Imputer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[dask\]"'):
        auto.impute_to(tmp_path / "a.zarr", dask="local")


@pytest.mark.slow
def test_workers_must_reach_the_output(
    auto: Imputer, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def elsewhere(self: RunMarker) -> Iterator[None]:
        self.path.write_text("another run's")
        yield

    monkeypatch.setattr(RunMarker, "put", elsewhere)
    monkeypatch.setattr("cellweft.impute.cluster.client._LATE", 0.1)
    with pytest.raises(
        OutputError, match=r"a\.zarr: expected a folder that all workers can write to.*got no folder of th"
    ):
        auto.impute_to(tmp_path / "a.zarr", dask=address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_worker_that_joins_later_must_reach_the_output_too(
    auto: Imputer, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunMarker, "put", lambda self: contextlib.nullcontext())
    monkeypatch.setattr("cellweft.impute.cluster.client._check_workers", lambda *_: None)
    with pytest.raises(OutputError, match=r"a\.zarr: expected a folder that all workers can write to"):
        auto.impute_to(tmp_path / "a.zarr", dask=address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_workers_need_the_same_versions(
    auto: Imputer, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.impute.cluster.client.versions", lambda: {"torch": "0.4"})
    with pytest.raises(
        ServiceError, match=rf"workers with torch 0\.4, got {torch.__version__.split('+')[0]}"
    ):
        auto.impute_to(tmp_path / "a.zarr", dask=address)


@pytest.mark.slow
def test_a_cluster_without_workers_is_reported(
    auto: Imputer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.impute.cluster.client._PATIENCE", 0.2)
    with (
        processes(0) as cluster,
        pytest.raises(ServiceError, match=r"dask: expected workers at tcp.*got none"),
    ):
        auto.impute_to(tmp_path / "a.zarr", dask=cluster.scheduler_address)
    assert list(tmp_path.iterdir()) == []


def killing(address: str, *, at: int, count: int) -> Callable[[str, int, int], None]:
    """Return a progress function that kills some workers once, as when a machine goes down."""
    seen = []

    def progress(*_: Any) -> None:
        seen.append(None)
        if len(seen) == at:
            with distributed.Client(address, set_as_default=False) as client:
                for pid in list(client.run(os.getpid).values())[:count]:
                    os.kill(pid, signal.SIGKILL)

    return progress


@pytest.mark.slow
def test_a_tile_lost_with_its_worker_is_computed_again(auto: Imputer, tmp_path: Path, address: str) -> None:
    there = auto.impute_to(tmp_path / "there.zarr", dask=address, progress=killing(address, at=3, count=1))
    assert_same(there, auto.impute_to(tmp_path / "here.zarr"))


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 2])
def test_local_processes_compute_with_as_many_threads(tmp_path: Path, n_threads: int) -> None:
    tissue = simulate_tissue(n_spatial=200, n_reference=1500, n_genes=300, n_panel=100, seed=0)
    known, data = torch.get_num_threads(), pair(tissue.sc, tissue.st)
    imputer = Imputer(settings=QUICK_AUTO, device="cpu").fit(data)
    try:
        torch.set_num_threads(n_threads)
        here = imputer.impute_to(tmp_path / "here.zarr", interval=0.8)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "cellweft.impute.imputer.connect",
                lambda address, **options: connect(address, **options | {"devices": ["cpu", "cpu"]}),
            )
            there = imputer.impute_to(tmp_path / "there.zarr", interval=0.8, dask="local")
    finally:
        torch.set_num_threads(known)
    assert_same(there, here)


@pytest.mark.slow
def test_local_processes_do_not_change_the_environment() -> None:
    set_by_dask = ("PYTHONHASHSEED", "__DASK_PARENT_PID", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    with mock.patch.dict(os.environ):
        for name in set_by_dask:
            os.environ.pop(name, None)
        os.environ["OMP_NUM_THREADS"] = "3"
        environment = dict(os.environ)
        with connect("local:1", memory="1 GB", device=torch.device("cpu")) as cluster:
            cluster.wait()
        assert dict(os.environ) == environment


@pytest.mark.slow
def test_the_command_accepts_a_cluster(tissue: SimulatedTissue, tmp_path: Path) -> None:
    for data, name in ((tissue.sc, "sc"), (tissue.st, "st")):
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    command = [sys.executable, "-m", "cellweft", "impute", "sc.h5ad", "st.h5ad", "--set", "steps=5"]
    for more in (["-o", "here.zarr"], ["-o", "there.zarr", "--dask", "local:2"]):
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "there.zarr", tmp_path / "here.zarr")


@pytest.mark.slow
def test_the_method_is_sent_again_if_all_workers_with_it_are_lost(auto: Imputer, tmp_path: Path) -> None:
    with processes(2) as cluster:
        address = cluster.scheduler_address
        there = auto.impute_to(
            tmp_path / "there.zarr", dask=address, progress=killing(address, at=3, count=2)
        )
    assert_same(there, auto.impute_to(tmp_path / "here.zarr"))


@pytest.mark.slow
def test_a_lost_scheduler_is_reported_and_another_cluster_continues(
    auto: Imputer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.impute.cluster.client._PATIENCE", 1.0)
    path, seen = tmp_path / "a.zarr", []
    with processes(1) as cluster:

        def close(*_: Any) -> None:
            seen.append(None)
            if len(seen) == 3:
                cluster.close()

        with pytest.raises(
            ServiceError, match=r"dask: expected (a Dask scheduler that responds|workers) at tcp"
        ):
            auto.impute_to(path, dask=cluster.scheduler_address, resume=True, progress=close)
    assert len((tmp_path / "a.zarr.resume" / "tiles.txt").read_text().split()) >= 3
    assert_same(auto.impute_to(path, resume=True), auto.impute_to(tmp_path / "whole.zarr"))


KILLED = """
import dataclasses, os, signal, sys
import cellweft
from cellweft.impute.imputer import Imputer
import cellweft.impute.planning

cellweft.impute.planning.CHUNK_BYTES = 4 * 16 * 4
whole = Imputer._job

def job(self, *args, **options):
    made = whole(self, *args, **options)
    plan = dataclasses.replace(made.plan, cells_per_block=16, genes_per_block=8)
    return dataclasses.replace(made, plan=plan)

def progress(stage, n_done, n_values):
    if n_done > n_values / 4:
        os.kill(os.getpid(), signal.SIGKILL)

Imputer._job = job
imputer = cellweft.load("model").attach(cellweft.pair("sc.h5ad", "st.h5ad"))
imputer.impute_to("a.zarr", resume=True, dask=sys.argv[1], progress=progress)
"""


@pytest.mark.slow
def test_a_run_with_a_killed_client_can_be_resumed(
    tissue: SimulatedTissue, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, name in ((tissue.sc, "sc"), (tissue.st, "st")):
        data.write_h5ad(tmp_path / f"{name}.h5ad")
    monkeypatch.chdir(tmp_path)
    imputer = Imputer(settings=QUICK_AUTO, reliability=False, device="cpu").fit(pair("sc.h5ad", "st.h5ad"))
    imputer.save("model")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, address], env=os.environ | threads, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = Path("a.zarr.resume", "tiles.txt").read_text().split()
    assert 5 <= len(kept) < N_TILES
    seen: list[int] = []
    path = imputer.impute_to(
        "a.zarr", resume=True, dask=address, progress=lambda _, n_done, __: seen.append(n_done)
    )
    assert len(seen) == N_TILES - len(kept)
    assert_same(path, imputer.impute_to("whole.zarr"))


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom cellweft.impute.cluster.client import connect\n"
        "with connect('local:1', memory='1 GB', device=torch.device('cpu')):\n    pass\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ServiceError: dask: expected 1 processes on this machine that start" in done.stderr
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
