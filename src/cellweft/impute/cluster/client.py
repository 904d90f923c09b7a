"""Computes the tiles of an imputation with the workers of a Dask cluster, or several devices of one machine.

The tiles, and the functions that compute them, are those of `cellweft.impute.tiling.write_tiles`. The
`TileMaker` is sent to each worker once. Workers write into the incomplete output themselves, on a shared
disk, and return the numbers of the written tiles.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from cellweft._compute import parse_memory
from cellweft._errors import CellweftError, ServiceError, arg, require
from cellweft._provenance import versions
from cellweft._typing import Progress
from cellweft.data.io.journal import Journal
from cellweft.data.io.output_request import processes_of
from cellweft.data.io.write import ResultWriter
from cellweft.impute.cluster.worker import RunMarker, TileMaker, WorkerState, count_cores, worker_state
from cellweft.impute.tiling import Imputation, Tile

logger = logging.getLogger("cellweft")

_TIMEOUT = 10.0  # seconds for a scheduler to answer
_LATE = 10.0  # seconds until a shared disk shows a new file
_PATIENCE = 60.0  # seconds without any worker
_PAUSE = 1.0  # seconds between checks of the cluster while no tile is finished
_ENDING = 5.0  # seconds to finish tiles that are being written when a run fails
_FLYING = 4  # tiles in progress per thread of the cluster
_MOST_LOSSES = 3  # how often all workers may be lost without a finished tile in between
_DASK_VARIABLES = ("PYTHONHASHSEED", "__DASK_PARENT_PID")  # set here regardless of Dask's configuration
_ROOM = 1.25  # local processes are ended well above their budget, as plans are estimates
_STAY = "Check their logs. Give each worker more memory, or use a smaller budget (" + arg("memory") + ")."


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """A connection to workers.

    Attributes
    ----------
    address
        The requested address.
    client
        A ``distributed.Client``.
    devices
        Device of each worker, by name; a worker without an entry uses the kind of device of the fit.
    """

    address: str
    client: Any
    devices: Mapping[str, str] = field(default_factory=dict)

    def count_threads(self) -> int:
        """Return how many tiles the workers can compute at once."""
        with self.errors():
            return sum(self.client.nthreads().values())

    def wait(self) -> None:
        """Wait for a worker, and raise `ServiceError` if none connects."""
        with self.errors(f"workers at {self.address}", f"none for {_PATIENCE:g} seconds"):
            self.client.wait_for_workers(1, timeout=_PATIENCE)

    @contextlib.contextmanager
    def errors(self, expected: str = "", got: str = "") -> Iterator[None]:
        """Turn the errors of Dask about a lost scheduler or lost workers into a `ServiceError`."""
        # Older versions raise a plain Exception, which is not converted.
        lost = getattr(require("distributed.client", "dask"), "ClosedClientError", OSError)
        try:
            yield
        except CellweftError:
            raise
        except (OSError, lost) as error:
            raise ServiceError(
                "dask",
                expected=expected or f"a Dask scheduler that responds at {self.address}",
                got=got or f"the error {str(error) or type(error).__name__!r}",
                fix="Check that the scheduler and its workers are running, and run again. With "
                + arg("resume", True)
                + ", the run resumes where it stopped.",
            ) from error


def check_scheduler(address: str) -> None:
    """Raise `ServiceError` if ``address`` is that of a scheduler, and it does not respond."""
    if processes_of(address) is None:
        with _client(address, address):
            pass


@contextlib.contextmanager
def connect(
    address: str, *, memory: str | int, device: torch.device, devices: Sequence[str] = ()
) -> Iterator[Cluster]:
    """Connect to the workers of an address, for the duration of the context.

    Parameters
    ----------
    address
        ``"tcp://host:port"`` of a running scheduler; or ``"local"`` or ``"local:4"`` to start processes on
        this machine for the duration of the context. By default, their number is that of the GPUs, or of the
        cores divided by the threads of a process.
    memory
        Memory budget of each local process.
    device
        Device of the fit. If it is a GPU, each local process uses one of the GPUs.
    devices
        Devices to assign to the local processes in turn, instead of these.

    Raises
    ------
    SettingError
        The address is invalid.
    MissingExtraError
        Dask is not installed.
    ServiceError
        The scheduler does not respond, or the processes do not start.
    """
    count = processes_of(address)
    if count is None:
        with _client(address, address) as client:
            yield Cluster(address=address, client=client)
        return
    device_names = list(devices)
    if not device_names and device.type == "cuda":
        device_names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    count = count or len(device_names) or max(count_cores() // torch.get_num_threads(), 1)
    device_of_worker = (
        {str(number): device_names[number % len(device_names)] for number in range(count)}
        if device_names
        else {}
    )
    with _processes(count, parse_memory(memory)) as processes, _client(processes, address) as client:
        yield Cluster(address=address, client=client, devices=device_of_worker)


def write_tiles_over(
    job: Imputation, writer: ResultWriter, journal: Journal, *, cluster: Cluster, progress: Progress
) -> Path:
    """Compute an imputation with the workers of a cluster; see `cellweft.impute.tiling.write_tiles`.

    Parameters
    ----------
    job
        The imputation.
    writer
        Writer of the whole result, a zarr store, not yet entered.
    journal
        Journal of the written tiles.
    cluster
        The result of `connect`.
    progress
        Called as tiles are written.

    Returns
    -------
    Path
        Path of the result. It is identical, bit for bit, to a local result if the processors are of the same
        kind.

    Raises
    ------
    OutputError
        The workers cannot write to the output folder.
    ServiceError
        No worker is left, or a worker has another version of cellweft or of a package that affects results.

    Notes
    -----
    Workers compute with as many threads as this process, because their number affects the last bit of sums.
    If a tile is lost with its worker, another worker computes it again. This is safe because a tile consists
    of whole chunks, each written at once, and does not depend on the worker.
    """
    n_values, n_done = job.plan.n_values, 0

    def note(tile: Tile) -> None:
        nonlocal n_done
        writer.note(tile.rows, tile.places)
        n_done += tile.n_values

    marker = RunMarker(target=writer.path, partial=journal.partial, keeps=journal.keeps)
    with writer, marker.put():
        for tile in job.tiles:
            if tile.number in journal.done:
                note(tile)
        left = [tile.number for tile in job.tiles if tile.number not in journal.done]
        maker = TileMaker.of(job, writer, marker, devices=cluster.devices)
        if left:
            _check_workers(cluster, maker)
        with contextlib.closing(WorkerPool(cluster, maker).made(left)) as numbers:
            for number in numbers:
                journal.add(number)
                note(job.tiles[number])
                progress("impute", n_done, n_values)
        journal.remove_torn()
    return writer.path


class WorkerPool:
    """The workers of a cluster, and the tiles in progress."""

    def __init__(self, cluster: Cluster, maker: TileMaker) -> None:
        self._cluster, self._client, self._maker = cluster, cluster.client, maker
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flying: dict[str, tuple[int, Any]] = {}  # number and future, by the future's key
        self._shipped: Any = None
        self._losses = 0

    def made(self, numbers: Iterable[int]) -> Generator[int]:
        """Yield the numbers of tiles as they are written."""
        waiting = list(numbers)[::-1]
        try:
            while waiting or self._flying:
                self._send(waiting)
                future = self._next_ended()
                number, _ = self._flying.pop(future.key)
                if future.status == "finished":
                    self._losses = 0
                    yield number
                elif future.status == "error":
                    _refuse(future.exception())
                else:  # its input was lost with the last worker that contained it
                    waiting += [number, *self._lost()]
                    waiting.sort(reverse=True)
        finally:
            self._end()

    def _send(self, waiting: list[int]) -> None:
        """Send the `TileMaker`, then waiting tiles, starting with the last."""
        most = _FLYING * max(self._cluster.count_threads(), 1)
        while waiting and len(self._flying) < most:
            with self._cluster.errors():
                if self._shipped is None:
                    self._cluster.wait()
                    (self._shipped,) = self._client.scatter([self._maker], broadcast=True, hash=False)
                key = f"cellweft-tile-{waiting[-1]}-{secrets.token_hex(4)}"
                future = self._client.submit(_make, self._shipped, waiting[-1], key=key, pure=False)
            self._flying[key] = waiting.pop(), future
            future.add_done_callback(self._ended.put)

    def _next_ended(self) -> Any:
        """Wait for a tile in progress, or for a worker to connect within the time limit."""
        while True:
            try:
                future = self._ended.get(timeout=_PAUSE)
            except queue.Empty:
                if not self._cluster.count_threads():
                    self._cluster.wait()
                continue
            if future.key in self._flying:
                return future

    def _lost(self) -> list[int]:
        """Give up the tiles in progress, and return their numbers."""
        self._losses += 1
        if self._losses > _MOST_LOSSES:
            got = f"all of them lost {self._losses} times without finishing a tile"
            raise ServiceError("dask", expected="workers that stay connected", got=got, fix=_STAY)
        numbers = [number for number, _ in self._flying.values()]
        self._flying, self._shipped = {}, None
        return numbers

    def _end(self) -> None:
        """After a failure, wait for tiles that are being written, before the output is removed."""
        if not self._flying:
            return
        self._maker.marker.remove()
        futures = [future for _, future in self._flying.values()]
        with contextlib.suppress(Exception):  # report the first failure
            require("distributed", "dask").wait(futures, timeout=_ENDING)
        with contextlib.suppress(Exception):
            self._client.cancel(futures)


def _make(maker: TileMaker, number: int) -> int:
    """Compute a tile, on a worker."""
    return maker.make(number, worker=str(require("distributed", "dask").get_worker().name))


def _refuse(error: BaseException) -> NoReturn:
    """Raise the error of a worker, or an error about lost workers."""
    if isinstance(error, require("distributed.scheduler", "dask").KilledWorker):
        got = f"several workers lost while computing the same tile ({error})"
        raise ServiceError("dask", expected="workers that can compute a tile", got=got, fix=_STAY) from error
    raise error


def _check_workers(cluster: Cluster, maker: TileMaker) -> None:
    """Raise unless the workers share the output and have the same versions as this process."""
    cluster.wait()
    with cluster.errors():
        replies = cluster.client.run(worker_state, maker.marker, _LATE, on_error="return")
    for worker, reply in replies.items():
        if isinstance(reply, ImportError | AttributeError):
            _other(worker, expected="the same cellweft as here", got=f"the error {str(reply)!r}")
    # The other workers were just lost
    states = {worker: reply for worker, reply in replies.items() if isinstance(reply, WorkerState)}
    for worker, state in states.items():
        for package, version in versions().items():
            if state.versions.get(package) != version:
                _other(worker, expected=f"{package} {version}", got=str(state.versions.get(package)))
        if not state.shares:
            maker.marker.refuse(state.host)
    cores = min((state.cores for state in states.values()), default=maker.threads.torch)
    if cores < maker.threads.torch:
        logger.warning(
            "Workers compute with %d threads, as many as this process, on %d cores: "
            "start this process with OMP_NUM_THREADS=%d.",
            maker.threads.torch,
            cores,
            cores,
        )


def _other(worker: str, *, expected: str, got: str) -> NoReturn:
    raise ServiceError(
        "dask",
        expected=f"workers with {expected}",
        got=f"{got} at {worker}",
        fix="Start the workers in the same environment as this process.",
    )


@contextlib.contextmanager
def _client(scheduler: Any, address: str) -> Iterator[Any]:
    """Provide a client of a scheduler, given by its address or as a local cluster."""
    distributed, cluster = require("distributed", "dask"), Cluster(address=address, client=None)
    with cluster.errors(got=f"no response within {_TIMEOUT:g} seconds"):
        client = distributed.Client(scheduler, timeout=_TIMEOUT, set_as_default=False)
    with client:
        yield client


@contextlib.contextmanager
def _processes(count: int, memory: int) -> Iterator[Any]:
    """Provide a cluster of local processes."""
    distributed, config = require("distributed", "dask"), require("dask.config", "dask")
    # The TileMaker is always needed: it is never moved to disk, and workers never pause.
    whole = {f"distributed.worker.memory.{threshold}": False for threshold in ("target", "spill", "pause")}
    variables = [*config.get("distributed.nanny.pre-spawn-environ"), *_DASK_VARIABLES]
    with config.set(whole), _environment_of(variables):
        try:
            cluster = distributed.LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=int(_ROOM * memory),
                dashboard_address=":0",
            )
        except RuntimeError as error:
            raise ServiceError(
                "dask",
                expected=f"{count} processes on this machine that start",
                got=f"the error {str(error)!r}",
                fix="In a script, put your code under: if __name__ == '__main__':",
            ) from error
        with cluster:
            yield cluster


@contextlib.contextmanager
def _environment_of(names: Iterable[str]) -> Iterator[None]:
    """Restore environment variables afterwards: Dask sets them here for the processes that it starts."""
    old_values = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in old_values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
