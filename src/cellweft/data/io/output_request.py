"""The options of an output, checked once, before any work."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from cellweft._compute import parse_memory
from cellweft._errors import SettingError, arg, check_choice, check_range, require
from cellweft._typing import OutputType, PanelValues, PathLike, ResultScale
from cellweft.data.io.atomic_output import RESULT_SUFFIXES, check_output
from cellweft.data.io.journal import check_own, resume_folder


@dataclass(frozen=True, kw_only=True)
class OutputRequest:
    """Path and options of an output, as in `Imputer.impute_to`; validated on construction.

    Attributes
    ----------
    path
        The requested path.
    target
        The absolute path, with links followed.
    overwrite, dtype, sparse, interval, scale, measured, resume, dask, memory
        As in `Imputer.impute_to`.

    Raises
    ------
    SettingError
        A value is out of range, or not supported for this kind of output.
    OutputExistsError, OutputError
        As in `check_output`; or files next to the output prevent writing.
    MissingExtraError
        Dask is requested, but not installed.

    Examples
    --------
    >>> OutputRequest(path="imputed.h5ad", resume=True)
    Traceback (most recent call last):
    cellweft.errors.SettingError: resume: expected a .zarr store as output, ..., got 'imputed.h5ad'. ...
    """

    path: PathLike
    overwrite: bool = False
    dtype: OutputType = "float32"
    sparse: float | None = None
    interval: float | None = None
    scale: ResultScale = "log"
    measured: PanelValues = "predict"
    resume: bool = False
    dask: str | None = None
    memory: str | int = "4 GB"
    target: Path = field(init=False)

    def __post_init__(self) -> None:
        target = check_output(self.path, overwrite=self.overwrite, suffixes=RESULT_SUFFIXES)
        object.__setattr__(self, "target", target)
        check_choice("dtype", self.dtype, get_args(OutputType))
        check_choice("scale", self.scale, get_args(ResultScale))
        if self.scale == "counts" and self.dtype == "float16":
            raise SettingError(
                "dtype",
                expected="float32 on the scale of counts",
                got="float16, which ends at 65,504 and cannot represent odd counts above 2,048",
                fix="Leave " + arg("dtype") + " out, or " + arg("scale") + ".",
            )
        check_cut(self.sparse)
        check_interval(self.interval)
        check_measured(self.measured, self.interval)
        parse_memory(self.memory)
        is_zarr = target.suffix == ".zarr"
        for name, is_asked, why in (
            ("resume", self.resume, "which can be written in parts"),
            ("dask", self.dask is not None, "which several processes can write at once"),
        ):
            if is_asked and not is_zarr:
                fix = f"Choose a name ending in .zarr, or leave {name} out."
                raise SettingError(
                    name, expected=f"a .zarr store as output, {why}", got=repr(target.name), fix=fix
                )
        if is_zarr or self.sparse is not None:
            check_own(resume_folder(target))
        if self.dask is not None:
            processes_of(self.dask)
            require("distributed", "dask")

    @property
    def checkpoint(self) -> Path | None:
        """Folder next to the output that stores the fit until the output is complete, or None."""
        return resume_folder(self.target) if self.target.suffix == ".zarr" else None


def check_cut(sparse: float | None) -> None:
    """Raise `SettingError` unless it is a valid threshold for log-normalised expression."""
    if sparse is not None:
        check_range("sparse", sparse, low=0, high=1)


def check_interval(interval: float | None) -> None:
    """Raise `SettingError` unless it is a valid share of measured values for intervals."""
    if interval is not None:
        check_range("interval", interval, low=0.01, high=0.999)


def check_measured(measured: PanelValues, interval: float | None) -> None:
    """Raise `SettingError` unless it is a valid option for panel genes, with these intervals."""
    check_choice("measured", measured, get_args(PanelValues))
    if measured == "blend" and interval is not None:
        raise SettingError(
            "interval",
            expected="none with " + arg("measured", "blend"),
            got=f"{interval:g}, for intervals around predictions, which do not apply to blended genes",
            fix="Use only one of them.",
        )


def processes_of(dask: str) -> int | None:
    """Return the number of local processes in an address, 0 for any number; None for a scheduler.

    Raises
    ------
    SettingError
        The address is invalid.

    Examples
    --------
    >>> processes_of("local:4"), processes_of("local"), processes_of("tcp://node001:8786")
    (4, 0, None)
    """
    local = re.fullmatch(r"local(?::(\d+))?", dask)
    if local is None and not re.fullmatch(r"[a-z]+://\S+:\d+", dask):
        raise SettingError(
            "dask",
            expected="the address of a Dask scheduler, as tcp://host:8786, or local, or local:4",
            got=repr(dask),
            fix="Use the address that `dask scheduler` prints, or local for processes on this machine.",
        )
    if local is None:
        return None
    if local[1] is not None:
        check_range("dask: processes", int(local[1]), low=1, integer=True)
    return int(local[1] or 0)
