"""Where and how the numbers are made: device, random streams, memory budget."""

from __future__ import annotations

import ctypes
import re
import sys
import time
import zlib
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from weft._errors import SettingError

if TYPE_CHECKING:
    import torch

    from weft._typing import IntArray

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def resolve_device(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"`` into a torch device that is there.

    Raises
    ------
    SettingError
        The device is unknown or not there.
    """
    import torch

    kind, colon, index = device.partition(":")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    n_devices = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind, False) or (colon and not (index.isdecimal() and int(index) < n_devices)):
        found = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise SettingError(
            "device",
            expected=f"'auto' or a device of this machine ({found})",
            got=repr(device),
            fix="Use device='auto' to take the best one there is.",
        )
    return torch.device(device)


def resolve_devices(device: str) -> tuple[torch.device, ...]:
    """Turn what a user says of devices into those that trainings take, one each; the first does all else.

    Parameters
    ----------
    device
        One, as `resolve_device` takes it; several of one kind between commas, as ``"cuda:0,cuda:1"``, of
        which one may stand twice; or ``"all"`` for every GPU of this machine, and the best device where there
        is none.

    Raises
    ------
    SettingError
        A device is unknown or not there, or they are of several kinds.

    Examples
    --------
    >>> resolve_devices("cpu,cpu")
    (device(type='cpu'), device(type='cpu'))
    """
    import torch

    if device == "all":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return tuple(torch.device("cuda", n) for n in range(n_devices)) or (resolve_device("auto"),)
    found = tuple(resolve_device(name.strip()) for name in device.split(","))
    if len({one.type for one in found}) > 1:
        raise SettingError(
            "device",
            expected="devices of one kind, which compute alike",
            got=repr(device),
            fix="Write device='cuda:0,cuda:1', say, or device='all' for every GPU.",
        )
    return found


def numpy_stream(seed: int, stage: str) -> np.random.Generator:
    """Return the random stream of one stage: it depends on the seed and the stage's name alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(stage.encode())]))


def sample_rows(rows: IntArray, most: int, stream: np.random.Generator) -> IntArray:
    """Return rows as they are, or where there are more than ``most``, a draw of so many of them, sorted.

    Parameters
    ----------
    rows
        (n_rows,) positions.
    most
        How many may be returned.
    stream
        What is drawn from; it is left alone where all rows are returned.

    Examples
    --------
    >>> sample_rows(np.array([2, 5, 7]), 3, numpy_stream(0, "rows")).tolist()
    [2, 5, 7]
    """
    return rows if len(rows) <= most else np.sort(stream.choice(rows, most, replace=False))


def stratified_rows(rows: IntArray, strata: IntArray, *, most: int, stream: np.random.Generator) -> IntArray:
    """Return rows as they are, or of more than ``most`` a draw of so many, alike from all strata.

    Parameters
    ----------
    rows
        (n_rows,) positions, sorted.
    strata
        (n_rows,) number of the stratum of each, from 0.
    most
        How many may be returned.
    stream
        What is drawn from; it is left alone where all rows are returned.

    Notes
    -----
    Systematic sampling of the rows in order of their strata, and in random order within one: a stratum gets
    its share to within one row.

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
    """Return the stage's stream as a torch generator on the CPU (moved draws keep devices alike)."""
    import torch

    return torch.Generator().manual_seed(int(numpy_stream(seed, stage).integers(2**62)))


def parse_memory(memory: str | int) -> int:
    """Turn a memory budget such as ``"4 GB"`` or ``"512MiB"`` into bytes.

    Examples
    --------
    >>> parse_memory("4 GB")
    4000000000

    Raises
    ------
    SettingError
        The text is not a size.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?B?)\s*", str(memory).upper())
    unit = found.group(2) if found else ""
    unit = unit + "B" if unit and not unit.endswith("B") else unit
    if found is None or unit not in _UNITS or float(found.group(1)) <= 0:
        raise SettingError(
            "memory",
            expected="a size such as '4 GB' or '512 MiB'",
            got=repr(memory),
            fix="State the budget so.",
        )
    return int(float(found.group(1)) * _UNITS[unit])


@cache
def product_rate(device: torch.device) -> float:
    """Return how many operations of a matrix product a device does in a second, with its present load.

    Measured once in a process, for a fifth of a second, on products of the shape that attention has.
    """
    import torch

    stream = torch.Generator().manual_seed(0)
    left, right = (torch.rand(*size, generator=stream).to(device) for size in ((512, 300), (300, 8192)))
    (left @ right).sum().item()  # waits until it is done, as below
    done, start = 0.0, time.perf_counter()
    while (taken := time.perf_counter() - start) < 0.2:
        (left @ right)[0, 0].item()
        done += 2.0 * 512 * 300 * 8192
    return done / taken


def return_memory() -> None:
    """Return memory that is free to the system, between stages of the work.

    The C library (glibc) keeps what is freed in gaps between what is in use, where larger arrays do not fit:
    after reading and after training that is a tenth of a gigabyte each. Elsewhere this does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the system, or a GPU, had no memory left.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("a bug"))
    (True, False)
    """
    torch = sys.modules.get("torch")  # which has raised nothing where nobody has imported it
    of_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return isinstance(error, MemoryError) or of_gpu or _is_of_the_cpu_allocator(error)


def _is_of_the_cpu_allocator(error: BaseException) -> bool:
    """Say whether torch found no memory on the CPU: a plain RuntimeError that its text alone tells."""
    return type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)


def human_time(seconds: float) -> str:
    """Return a time as people say it.

    Examples
    --------
    >>> human_time(140)
    '2.3 min'
    """
    for size, unit in ((5400, "h"), (90, "min")):
        if seconds >= size:
            return f"{seconds / {'h': 3600, 'min': 60}[unit]:.2g} {unit}"
    return f"{max(seconds, 1):.0f} s"


def human_bytes(size: float) -> str:
    """Return a size as people write it.

    Examples
    --------
    >>> human_bytes(1_500_000_000)
    '1.5 GB'
    """
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:  # what three digits do not round up to the next unit
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
