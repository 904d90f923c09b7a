"""Computes the tiles of an imputation, in this process, in other processes, or on other devices."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from cellweft._errors import OutputError, require
from cellweft._provenance import versions
from cellweft.data.io.atomic_output import output_errors
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.obs_table import HeldTable
from cellweft.data.io.sparse_write import SparseParts
from cellweft.data.io.write import ResultWriter
from cellweft.impute.base import Predictor
from cellweft.impute.tiling import Imputation, Tile


@dataclass(frozen=True, kw_only=True)
class ThreadCounts:
    """Number of threads of a matrix product, in torch and in NumPy's BLAS."""

    torch: int
    blas: int

    @classmethod
    def here(cls) -> ThreadCounts:
        """Return the numbers of this process."""
        pools = threadpool_info()
        blas = [int(pool["num_threads"]) for pool in pools if pool["user_api"] == "blas"]
        return cls(torch=torch.get_num_threads(), blas=max(blas, default=1))

    def take(self) -> None:
        """Set these numbers of threads."""
        torch.set_num_threads(self.torch)  # only for the calling thread
        threadpool_limits(self.blas, user_api="blas")


@dataclass(frozen=True, kw_only=True)
class RunMarker:
    """A file next to an output that exists during a run. A worker that can read it shares the disk.

    Attributes
    ----------
    target
        Absolute path of the result.
    partial
        Path of the incomplete result; the file is in the same folder.
    keeps
        Whether to keep the written tiles if the run fails.
    token
        Contents of the file.
    """

    target: Path
    partial: Path
    keeps: bool
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.partial.with_name("shared.txt")

    def is_seen(self) -> bool:
        """Return whether the incomplete output of this run is visible here and writable."""
        try:
            is_same = self.path.read_text() == self.token
        except OSError:
            return False
        return is_same and os.access(self.partial, os.W_OK | os.X_OK)

    @contextlib.contextmanager
    def put(self) -> Iterator[None]:
        """Keep the file during the run."""
        self.path.write_text(self.token)
        try:
            yield
        finally:
            self.remove()

    def remove(self) -> None:
        """Remove the file, so that workers stop writing."""
        self.path.unlink(missing_ok=True)

    def refuse(self, host: str) -> NoReturn:
        """Raise `OutputError` because a machine does not share the output."""
        raise OutputError(
            str(self.target),
            expected="a folder that all workers can write to and share with this process",
            got=f"no folder of this run on {host}",
            fix="Choose an output on a disk that all machines mount at the same path.",
        )


class _PredictorCache:
    """The genes of the last tile, kept for the next one; it is empty after pickling."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: Imputation | None = None
        self._predictor: Predictor | None = None
        self._of: tuple[str, slice] | None = None

    def __reduce__(self) -> Any:
        return _PredictorCache, ()

    def of(self, job: Imputation, tile: Tile, device: str) -> tuple[Imputation, Predictor]:
        """Return the imputation on a device, and the predictor for the genes of a tile."""
        with self._lock:
            if self._job is None or self._of is None or self._of[0] != device:
                there = job.fitted if device == "cpu" else job.fitted.to(torch.device(device))
                self._job = dataclasses.replace(job, fitted=there)
            if self._predictor is None or self._of != (device, tile.places):
                self._predictor = None  # free the old one before creating the new one
                self._predictor, self._of = self._job.prepare(tile), (device, tile.places)
            return self._job, self._predictor


@dataclass(frozen=True, kw_only=True, eq=False)
class TileMaker:
    """All that a worker needs to compute any tile and to write it.

    Attributes
    ----------
    job
        The imputation on the CPU, without data that tiles do not depend on.
    marker
        Marker of the run.
    keys, dtype
        Path of each matrix in the store, by its name in a tile's values; data type.
    parts
        Parts of X, if X is sparse.
    threads
        Numbers of threads to use.
    device, devices
        Default device of workers, and devices by name of worker.
    """

    job: Imputation
    marker: RunMarker
    keys: Mapping[str | None, str]
    dtype: str
    parts: SparseParts | None = None
    threads: ThreadCounts
    device: str
    devices: Mapping[str, str]
    predictors: _PredictorCache = field(default_factory=_PredictorCache)

    def __setstate__(self, state: dict[str, Any]) -> None:
        job: Imputation = state["job"]  # alignment depends on the message; see `to_device`
        fitted = job.fitted.to(torch.device("cpu"))
        self.__dict__.update(state | {"job": dataclasses.replace(job, fitted=fitted)})

    @classmethod
    def of(
        cls, job: Imputation, writer: ResultWriter, marker: RunMarker, *, devices: Mapping[str, str]
    ) -> TileMaker:
        """Return the maker of an imputation's tiles.

        Parameters
        ----------
        job, writer
            As in `write_tiles_over`.
        marker
            Marker of the run.
        devices
            Devices, by name of worker.
        """
        return cls(
            job=_without_data(job),
            marker=marker,
            keys={None: "X", **{name: f"layers/{name}" for name in job.layers}},
            dtype=writer.dtype.name,
            parts=writer.parts,
            threads=ThreadCounts.here(),
            device=job.fitted.device.type,
            devices=devices,
        )

    def make(self, number: int, *, worker: str = "") -> int:
        """Compute a tile, write it, and return its number.

        Parameters
        ----------
        number
            Number of the tile.
        worker
            Name of the worker.

        Raises
        ------
        OutputError
            The output is missing or not writable.
        """
        import zarr

        self.threads.take()
        tile = self.job.tiles[number]
        job, predictor = self.predictors.of(self.job, tile, self.devices.get(worker, self.device))
        values = job.values(tile, predictor, job.read(tile))
        for name, predicted in values.items():
            block = predicted.astype(self.dtype, copy=False)
            if not self.marker.is_seen():  # a failed run writes no more tiles
                self.marker.refuse(socket.gethostname())
            with output_errors(self.marker.target, keeps=lambda: self.marker.keeps):
                if name is None and self.parts is not None:
                    self.parts.put(tile.rows, tile.places, block)
                    continue
                store: Any = zarr.open_group(self.marker.partial, mode="r+", use_consolidated=False)
                store[self.keys[name]][tile.rows, tile.places] = block
        return number


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """The state of a worker, as it affects a run.

    Attributes
    ----------
    shares
        Whether it can write to the output.
    host, cores, versions
        Name of its machine, cores that it may use, versions of its packages.
    """

    shares: bool
    host: str
    cores: int
    versions: dict[str, str]


def worker_state(marker: RunMarker, late: float) -> WorkerState:
    """Return the state of this process; a shared disk may show a new file some seconds late."""
    end = time.monotonic() + late
    while not (shares := marker.is_seen()) and time.monotonic() < end:
        time.sleep(0.2)
    return WorkerState(shares=shares, host=socket.gethostname(), cores=count_cores(), versions=versions())


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return int(require("dask.system", "dask").CPU_COUNT)


def _without_data(job: Imputation) -> Imputation:
    """Return an imputation on the CPU, without data that its tiles do not depend on."""
    pair, no_table = job.pair, HeldTable(pd.DataFrame())
    st = dataclasses.replace(pair.st, table=no_table, arrays={}, uns={})
    no_rows = open_rows(np.empty((0, pair.sc.matrix.shape[1]), dtype=np.float32))
    sc = dataclasses.replace(pair.sc, matrix=no_rows, table=no_table, arrays={}, uns={})
    bare = dataclasses.replace(
        pair,
        sc=sc,
        st=st,
        coordinates=None,
        slices=None,
        labels=None,
        st_labels=None,
        findings={},
        cautions=(),
    )
    fitted = job.fitted if job.fitted.device.type == "cpu" else job.fitted.to(torch.device("cpu"))
    return dataclasses.replace(job, fitted=fitted, pair=bare, known=bare)
