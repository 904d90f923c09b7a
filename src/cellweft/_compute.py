"""Device, random streams, memory budget, block sizes, and progress."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cellweft._errors import SettingError, arg, check_device_name, check_seed, sentence
from cellweft._typing import Progress, ProgressOption, no_progress

if TYPE_CHECKING:
    import torch

    from cellweft._typing import DoubleArray, IntArray

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_REPORTING = threading.Lock()  # set by the outermost call that reports progress
_REDRAWN = 0.25  # seconds between updates of the bar in a notebook
PROCESS_BYTES = 450e6
"""Minimum memory of Python with torch, anndata and scipy loaded, without data."""
_WORK_BYTES = 130e6  # memory of the libraries at work: threads, and code loaded on first use
_least_resident = float("inf")
SPARSE_BYTES = 8.0
"""Bytes of a value of a sparse matrix, with its column."""
TABLE_ROWS = 100_000
"""Rows of a table, or positions of cells, per block."""
READ_ROWS = 4096
"""Cells or spots per read."""
BLOCK_GENES = 512
"""Genes per block."""
CHUNK_BYTES = 2**22
"""Size of a chunk: few enough files for millions of cells, and one gene can still be read quickly."""
READ_BYTES = 32 * 2**20
"""Size of a block of rows that is read from a matrix; processing needs a few times as much."""
BLOCK_BYTES = 64e6
"""Approximate memory for the arrays of a block."""
BLOCK_VALUES = 2**21
"""Values of a block in float64: 16 MB; processing needs a few times as much."""


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"`` into an available torch device.

    Raises
    ------
    SettingError
        The device is unknown or not available.
    """
    import torch

    kind, colon, index = device.partition(":")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    n_devices = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind, False) or (colon and not (index.isdecimal() and int(index) < n_devices)):
        available = ", ".join(kind for kind, is_there in there.items() if is_there)
        fix = "Use " + arg("device", "auto") + " to use the best available one."
        raise SettingError(
            "device", expected=f"'auto' or a device of this machine ({available})", got=repr(device), fix=fix
        )
    return torch.device(device)


def resolve_devices(device: str) -> tuple[torch.device, ...]:
    """Return the devices of an option, one per parallel training; the first one is used for all other work.

    Parameters
    ----------
    device
        One device, as in `resolve_device`; several of one kind separated by commas, such as
        ``"cuda:0,cuda:1"``, possibly repeated; or ``"all"`` for all GPUs of this machine, or the best device
        if there are none.

    Raises
    ------
    SettingError
        A device is unknown or not available, or they are of several kinds.

    Examples
    --------
    >>> resolve_devices("cpu,cpu")
    (device(type='cpu'), device(type='cpu'))
    """
    import torch

    check_device_name(device)
    if device == "all":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return tuple(torch.device("cuda", n) for n in range(n_devices)) or (resolve_device("auto"),)
    devices = tuple(resolve_device(name.strip()) for name in device.split(","))
    if len({resolved.type for resolved in devices}) > 1:
        several = arg("device", "cuda:0,cuda:1"), arg("device", "all")
        fix = sentence("For example {}, or {} for every GPU.", *several)
        raise SettingError(
            "device", expected="devices of one kind, which give equal results", got=repr(device), fix=fix
        )
    return devices


def numpy_stream(seed: int, stage: str) -> np.random.Generator:
    """Return the random stream of a stage, which depends only on the seed and the name of the stage."""
    check_seed(seed)
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(stage.encode())]))


def sample_rows(rows: IntArray, most: int, stream: np.random.Generator) -> IntArray:
    """Return rows unchanged or, if there are more than ``most``, a sorted random sample of this size.

    Parameters
    ----------
    rows
        (n_rows,) positions.
    most
        Largest number of rows.
    stream
        Random stream; not used if all rows are returned.

    Examples
    --------
    >>> sample_rows(np.array([2, 5, 7]), 3, numpy_stream(0, "rows")).tolist()
    [2, 5, 7]
    """
    return rows if len(rows) <= most else np.sort(stream.choice(rows, most, replace=False))


def stratified_rows(rows: IntArray, strata: IntArray, *, most: int, stream: np.random.Generator) -> IntArray:
    """Return rows unchanged or, if there are more than ``most``, a stratified sample of this size.

    Parameters
    ----------
    rows
        (n_rows,) positions, sorted.
    strata
        (n_rows,) index of the stratum of each, from 0.
    most
        Largest number of rows.
    stream
        Random stream; not used if all rows are returned.

    Notes
    -----
    Systematic sampling of the rows, ordered by stratum and randomly within a stratum. The share of each
    stratum is correct to within one row.

    Examples
    --------
    >>> strata = np.array([0, 0, 0, 0, 1, 1])
    >>> drawn = stratified_rows(np.arange(6), strata, most=3, stream=numpy_stream(0, "rows"))
    >>> np.bincount(strata[drawn]).tolist()
    [2, 1]
    """
    if len(rows) <= most:
        return rows
    shuffled = stream.permutation(len(rows))
    ordered = rows[shuffled[np.argsort(strata[shuffled], kind="stable")]]
    places = (np.arange(most) + stream.random()) * (len(rows) / most)
    return np.sort(ordered[places.astype(np.int64)])


def torch_stream(seed: int, stage: str) -> torch.Generator:
    """Return the stage's stream as a torch generator on the CPU, so that all devices get the same draws."""
    import torch

    return torch.Generator().manual_seed(int(numpy_stream(seed, stage).integers(2**62)))


def numpy_of(values: torch.Tensor) -> DoubleArray:
    """Return a tensor's values in float64, from any device, including those without float64."""
    return np.asarray(values.cpu().numpy(), dtype=np.float64)


_LEAST_WITHOUT_UNIT = 1_000_000


def parse_memory(memory: str | int) -> int:
    """Turn a memory budget such as ``"4 GB"`` or ``"512MiB"`` into bytes.

    Examples
    --------
    >>> parse_memory("4 GB")
    4000000000

    Raises
    ------
    SettingError
        The text is not a size, or a number without a unit is less than a megabyte. Such numbers are bytes,
        but 4 usually means 4 GB.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?B?)\s*", str(memory).upper())
    unit = match.group(2) if match else ""
    unit = unit + "B" if unit and not unit.endswith("B") else unit
    if match is None or unit not in _UNITS or float(match.group(1)) <= 0:
        fix = "Pass the budget in this form."
        raise SettingError("memory", expected="a size such as '4 GB' or '512 MiB'", got=repr(memory), fix=fix)
    if not unit and float(match.group(1)) < _LEAST_WITHOUT_UNIT:
        raise SettingError(
            "memory",
            expected="a size such as '4 GB' or '512 MiB'",
            got=f"{memory!r} without a unit, which means bytes",
            fix="Write the unit: " + arg("memory", f"{match.group(1)} GB") + ".",
        )
    return int(float(match.group(1)) * _UNITS[unit])


def process_bytes() -> float:
    """Return the memory of this process in bytes, without the planned work.

    Notes
    -----
    It is the memory at the first call, including all that the user has loaded, or less if memory was freed
    since, plus the memory of the libraries at work. If the system does not report the memory of a process,
    `PROCESS_BYTES` is used.
    """
    global _least_resident
    _least_resident = min(_least_resident, _resident_bytes())
    return max(_least_resident, PROCESS_BYTES) + _WORK_BYTES


def _resident_bytes() -> float:
    """Return the current memory of this process; 0 if the system does not report it."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 (no file of a user's)
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0.0


def rows_within(budget: float, per_row: float, *, least: int = 1, most: int | None = None) -> int:
    """Return the number of rows (or genes) that fit into a budget.

    Parameters
    ----------
    budget, per_row
        Size of all rows, and of one row: both in bytes, or both in values.
    least, most
        Bounds of the result. ``least`` is returned even if it does not fit.

    Examples
    --------
    >>> rows_within(32e6, 4 * 20_000), rows_within(32e6, 4 * 20_000, most=100), rows_within(1, 80)
    (400, 100, 1)
    """
    rows = max(int(budget // max(per_row, 1)), least)
    return rows if most is None else min(rows, most)


def row_blocks(n_rows: int, size: int) -> Iterator[slice]:
    """Yield slices that cover ``n_rows`` rows, ``size`` at a time.

    Examples
    --------
    >>> list(row_blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(int(size), 1)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def return_memory() -> None:
    """Return free memory to the system, between stages of the work.

    The C library (glibc) keeps freed memory in gaps in which larger arrays do not fit: about 0.1 GB after
    reading, and again after training. On other systems, this function does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the system, or a GPU, ran out of memory.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("a bug"))
    (True, False)
    """
    torch = sys.modules.get("torch")  # if torch is not imported, it did not raise this error
    of_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # On the CPU, torch raises a plain RuntimeError, which only its text identifies.
    of_cpu = type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or of_gpu or of_cpu


@contextlib.contextmanager
def progress_callback(progress: ProgressOption) -> Iterator[Progress]:
    """Provide the callback with which code reports progress, for the ``progress`` option of the user.

    Parameters
    ----------
    progress
        See `cellweft._typing.ProgressOption`. A public function called within another one draws no bar.

    Raises
    ------
    SettingError
        It is something else.
    """
    if not (isinstance(progress, bool) or callable(progress)):
        raise SettingError(
            "progress",
            expected="True, False, or a function of (stage, done, total)",
            got=repr(progress),
            fix="Pass progress=True to show a progress bar, or progress=False to hide it.",
        )
    is_outermost = _REPORTING.acquire(blocking=False)
    try:
        if callable(progress):
            yield progress
        elif progress and is_outermost:
            with _progress_bar() as report:
                yield report
        else:
            yield no_progress
    finally:
        if is_outermost:
            _REPORTING.release()


@contextlib.contextmanager
def _progress_bar() -> Iterator[Progress]:
    """Draw one bar, for the last reported stage, and remove it at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield no_progress
        return
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bars = Bars(*columns, console=console, transient=True)
    bars.add_task("starting", total=None)
    (task,) = bars.tasks

    drawn, handle = time.monotonic(), cast(Any, None)

    def report(stage: str, done: int, total: int) -> None:
        nonlocal drawn
        if stage == task.description:
            bars.update(task.id, completed=done, total=total)
        else:  # the remaining time of a stage is estimated from its own speed
            bars.reset(task.id, description=stage, completed=done, total=total)
        if handle is not None and time.monotonic() - drawn > _REDRAWN:
            handle.update(bars)
            drawn = time.monotonic()

    if not console.is_jupyter:
        with bars:
            yield report
        return
    # in notebooks, rich only draws with ipywidgets
    handle = importlib.import_module("IPython.display").display(bars, display_id=True)
    try:
        yield report
    finally:
        handle.update({"text/plain": "", "text/html": ""}, raw=True)
