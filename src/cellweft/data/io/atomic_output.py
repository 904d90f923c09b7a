"""Atomic outputs: complete under their own name, or absent.

Everything is written to a sibling with a random name, which is renamed only when it is complete. An output
that is replaced stays until then.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cellweft._errors import CellweftError, OutputError, OutputExistsError, SettingError, arg, check_path
from cellweft._text import human_bytes
from cellweft._typing import PathLike
from cellweft.data.io.journal import PARTIAL, Journal, partial_of, remove, remove_stale, replaced_of
from cellweft.data.io.output_lock import exclusive


class ForgivingFile:
    """A file that HDF5 can always close: after a failure, further writes are kept in memory.

    HDF5 cannot close a file if its last writes fail (for example on a full disk): the process crashes when it
    ends. Therefore the failure is kept here, and the writer raises it. Until then, HDF5 reads back what it
    wrote, and would crash on anything else.

    Parameters
    ----------
    path
        Path of the new, empty file.

    Attributes
    ----------
    failure
        The first error of the file, including an interrupt; None without errors.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = ForgivingFile(Path(folder, "a.h5ad"))
    ...     file.write(memoryview(b"abc"))
    ...     file.close()
    3
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.failure: BaseException | None = None
        self._unwritten: list[tuple[int, bytes]] = []  # position and data of each failed write

    def write(self, data: memoryview) -> int:
        """Write all of the data, or keep it in memory after a failure; return its length."""
        left = memoryview(data).cast("B")
        start = self._file.tell()
        while left and self.failure is None:
            left = left[self._attempt(self._file.write, left) :]  # a full disk may accept a part
        if self.failure is not None:
            self._unwritten.append((start, bytes(data)))
        return len(data)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from the current position, with zeros after the end; return the bytes read."""
        whole, start = memoryview(buffer).cast("B"), self._file.tell()
        count = self._attempt(self._file.readinto, whole)
        if self.failure is None:
            return count
        whole[count:] = bytes(len(whole) - count)
        for place, data in self._unwritten:
            first, last = max(start, place), min(start + len(whole), place + len(data))
            if first < last:
                whole[first - start : last - start] = data[first - place : last - place]
        return len(whole)

    def truncate(self, size: int) -> int:
        """Truncate or extend the file to ``size`` bytes, unless it has failed."""
        if self.failure is None:
            self._attempt(self._file.truncate, size)
        return size

    def sync(self) -> None:
        """Flush everything to the disk; some file systems only report then that they are full."""
        self._attempt(os.fsync, self._file.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)  # methods that cannot fail, such as ``seek``, ``tell`` and ``close``

    def _attempt(self, action: Callable[..., int | None], *arguments: Any) -> int:
        try:
            return action(*arguments) or 0
        except BaseException as error:  # interrupts must not pass through HDF5 either
            self.failure = self.failure or error
            return 0


@contextlib.contextmanager
def hdf5_output(path: Path) -> Iterator[Any]:
    """Open the root of a new HDF5 file, and raise the error of the disk instead of that of HDF5."""
    import h5py

    with contextlib.closing(ForgivingFile(path)) as file:
        try:
            with h5py.File(file, "w") as root:
                yield root
            file.sync()
        finally:
            if file.failure is not None:
                raise file.failure


logger = logging.getLogger("cellweft")
RESULT_SUFFIXES = (".zarr", ".h5ad")
"""Suffixes of stores and files that contain an AnnData."""
_ZARR_MARKS = (".zgroup", ".zarray", ".zattrs", "zarr.json")
_MODEL_MARK = "weights.safetensors"


OutputKind: TypeAlias = Literal["file", "model"]
"""A file (or a store, depending on the suffix), or the folder of a model."""


def check_output(
    path: PathLike, *, overwrite: bool = False, suffixes: tuple[str, ...] = (), kind: OutputKind = "file"
) -> Path:
    """Check, before any work, that an output can be written to ``path``. Nothing is changed.

    Parameters
    ----------
    path
        Path of the output. Links are followed.
    overwrite
        Whether an existing output may be replaced: a file by a file, a zarr store by a zarr store, a model by
        a model.
    suffixes
        Allowed suffixes of the name, with their dot; empty for any.
    kind
        Kind of output.

    Returns
    -------
    Path
        The absolute path.

    Raises
    ------
    SettingError
        The name has none of the ``suffixes``.
    OutputExistsError
        Something exists that may not be replaced.
    OutputError
        The folder is missing, not a folder, not writable, or inside a zarr store or a model.

    Examples
    --------
    >>> check_output("imputed.txt", suffixes=(".zarr", ".h5ad"))
    Traceback (most recent call last):
    cellweft.errors.SettingError: imputed.txt: expected a name ending in .zarr or .h5ad, got '.txt'. ...
    """
    check_path("output", path)
    output_path = Path(path)
    if suffixes and output_path.suffix not in suffixes:
        ends = " or ".join(suffixes)
        raise SettingError(
            str(output_path),
            expected=f"a name ending in {ends}",
            got=repr(output_path.suffix),
            fix="Change the name.",
        )
    with output_errors(output_path):
        target = output_path.resolve()  # the target of a link is replaced, not the link
        _check_folder(target.parent)
        if target.exists():
            _check_replaceable(target, overwrite=overwrite, kind=kind)
    return target


Asked: TypeAlias = "Mapping[str, tuple[PathLike | None, tuple[str, ...] | Literal['model']]]"
"""Outputs by argument name: path (None: not requested), and allowed suffixes, or "model"."""


def check_outputs(outputs: Asked, *, overwrite: bool = False) -> list[Path]:
    """Check, before any work, that all outputs of a command can be written. Nothing is changed.

    Parameters
    ----------
    outputs
        The requested outputs.
    overwrite
        As in `check_output`.

    Returns
    -------
    list of Path
        The absolute paths of the requested outputs.

    Raises
    ------
    SettingError
        Two outputs have the same path, or one is inside another; and as in `check_output`.
    OutputExistsError
        One or more outputs exist; the error lists all of them.
    OutputError
        As in `check_output`.
    """
    targets: dict[Path, PathLike] = {}
    there: list[OutputExistsError] = []
    for name, (path, form) in outputs.items():
        if path is None:
            continue
        target = Path(path).resolve()
        for other, its_path in targets.items():
            if target == other or target in other.parents or other in target.parents:
                raise SettingError(
                    name,
                    expected="a separate path for each output",
                    got=f"{path}, which is also the path of another output ({its_path})",
                    fix="Choose another path: each output needs its own.",
                )
        kind: OutputKind = "model" if form == "model" else "file"
        suffixes = form if isinstance(form, tuple) else ()
        try:
            check_output(path, overwrite=overwrite, suffixes=suffixes, kind=kind)
        except OutputExistsError as error:
            there.append(error)
        targets[target] = path
    if len(there) > 1:
        raise OutputExistsError(
            ", ".join(error.where for error in there),
            expected="paths that do not exist yet",
            got=f"{len(there)} existing outputs",
            fix=there[0].fix,
        )
    if there:
        raise there[0]
    return list(targets)


def check_apart(outputs: Iterable[PathLike | None], inputs: Iterable[object]) -> None:
    """Raise `OutputExistsError` if an output would replace an input, or be inside it.

    Parameters
    ----------
    outputs
        Paths; None is ignored.
    inputs
        Paths; other values, such as data in memory, are ignored.
    """
    sources = [
        Path(source).expanduser().resolve() for source in inputs if isinstance(source, str | os.PathLike)
    ]
    for path in outputs:
        if path is None:
            continue
        target = Path(path).resolve()
        for source in sources:
            got = ""
            if target == source or (target.exists() and source.exists() and target.samefile(source)):
                got = "the path of the data that are read"
            elif target in source.parents:  # a table is inside its store
                got = f"a folder that contains the input {source}"
            elif source in target.parents and source.is_dir():
                got = f"a path inside the input {source}"
            if got:
                raise OutputExistsError(
                    str(path),
                    expected="a separate path for each output",
                    got=got,
                    fix="Choose another path: cellweft never changes its inputs.",
                )


def _check_folder(folder: Path) -> None:
    # Effective ids, if the platform supports them, because a program may have dropped its rights.
    effective = os.access in os.supports_effective_ids
    if not folder.exists():
        expected, got, fix = (
            "the output's folder",
            "nothing at this path",
            f"Create it first: mkdir -p {folder}",
        )
    elif not folder.is_dir():
        expected, got, fix = "a folder", "a file", "Choose an output path in an existing folder."
    elif not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        expected, got = "a writable folder", "no permission to write"
        fix = "Choose another folder, or change the permissions of this one."
    elif (whole := _whole_around(folder)) is not None:
        expected, got = "a folder outside stores and models", f"a folder inside {whole}"
        fix = "Choose another path: stores and models are never changed."
    else:
        return
    raise OutputError(str(folder), expected=expected, got=got, fix=fix)


def _whole_around(folder: Path) -> Path | None:
    """Return the zarr store or model that contains a folder; None if there is none."""
    marks = (*_ZARR_MARKS, _MODEL_MARK)
    around = (
        parent for parent in (folder, *folder.parents) if any((parent / mark).is_file() for mark in marks)
    )
    return max(around, key=lambda parent: -len(parent.parts), default=None)


def _check_replaceable(target: Path, *, overwrite: bool, kind: OutputKind = "file") -> None:
    is_folder = target.is_dir()
    may_go = not is_folder
    if kind == "model":
        may_go = is_folder and (target / _MODEL_MARK).exists()
    elif target.suffix == ".zarr":
        is_store = is_folder and any((target / mark).exists() for mark in _ZARR_MARKS)
        may_go = is_store or (is_folder and not any(target.iterdir()))
    if may_go and overwrite:
        return
    expected, got = "a path that does not exist yet", "an existing output"
    fix: str = "Choose another path, or replace the existing output: " + arg("overwrite", True) + "."
    if overwrite:
        got = "a folder that is neither a zarr store nor a model" if is_folder else "a file"
        expected, fix = (
            "an earlier output that can be replaced",
            "Choose another path, or move the existing file or folder.",
        )
    raise OutputExistsError(str(target), expected=expected, got=got, fix=fix)


@contextlib.contextmanager
def output_errors(
    path: PathLike,
    *,
    needed: float = 0,
    keeps: Callable[[], bool] = lambda: False,
    left: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Turn an `OSError` in the context into an `OutputError` with path, required space and next step.

    Parameters
    ----------
    path
        The output that is being written.
    needed
        Estimated size of the output in bytes; 0 if unknown.
    keeps
        Returns whether the written parts are kept, to resume the run.
    left
        Returns whether an incomplete output could not be removed.

    Raises
    ------
    OutputError
        The context raised an `OSError` that is not one of cellweft's errors.

    Examples
    --------
    >>> with output_errors("scores.csv"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    cellweft.errors.OutputError: scores.csv: expected to write it, got the system error 'No space ...
    """
    try:
        yield
    except CellweftError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        step = _STEPS.get(error.errno or 0, "Choose another folder")
        fix = f"{step}, and run again. Nothing incomplete was left there."
        if keeps():
            step = step.removesuffix(" or choose another folder")
            fix = f"{step}, and resume the run: all finished work is kept."
        elif left():
            name = f".{Path(path).name}.*{PARTIAL}"
            fix = f"{step}, and run again. The incomplete output could not be removed: {name}."
        raise OutputError(
            str(path),
            expected=f"to write it{f', up to {human_bytes(needed)}' if needed else ''}",
            got=f"the system error {reason!r} ({_free_space(Path(path))})",
            fix=fix,
        ) from error


_FULL = "Free some space or choose another folder"
_LIMIT = "Raise the limit on open files (ulimit -n)"
_STEPS = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EMFILE: _LIMIT, errno.ENFILE: _LIMIT}


def _free_space(path: Path) -> str:
    folder = next(parent for parent in (path.parent, *path.absolute().parents) if parent.is_dir())
    return f"{human_bytes(shutil.disk_usage(folder).free)} free in {folder}"


@contextlib.contextmanager
def partial_output(
    path: PathLike,
    *,
    overwrite: bool = False,
    suffixes: tuple[str, ...] = (),
    kind: OutputKind = "file",
    needed: float = 0,
    journal: Journal | None = None,
    is_shared: bool = False,
) -> Iterator[Path]:
    """Provide a sibling path to write to, and rename it to ``path`` if the context succeeds.

    Parameters
    ----------
    path
        Path of the output, a file or a ``.zarr`` folder.
    overwrite, suffixes, kind
        As in `check_output`, which is called again, because the path may have been created in the meantime.
    needed
        Estimated size of the output in bytes, for the message if the disk is full.
    journal
        Journal of a run that can be resumed. It is removed with the incomplete output, or when the output is
        complete.
    is_shared
        Whether several runs may write the same output at once, as in a cache.

    Yields
    ------
    Path
        Path of a hidden file or folder next to ``path``, or in the journal's folder. It does not exist yet,
        and is removed if the context raises an error. With a journal that keeps its parts, it exists if the
        run is resumed, and is not removed.

    Raises
    ------
    SettingError, OutputExistsError, OutputError
        As in `check_output`, also at the end; `OutputError` if writing failed or another run writes the same
        output.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with partial_output(Path(folder, "scores.csv")) as partial:
    ...         _ = partial.write_text("method,value")
    ...     [one.name for one in Path(folder).iterdir()]
    ['scores.csv']
    """
    target = check_output(path, overwrite=overwrite, suffixes=suffixes, kind=kind)
    partial = partial_of(target) if journal is None else journal.partial
    alone = contextlib.nullcontext() if is_shared else exclusive(target)

    def keeps() -> bool:
        return journal is not None and journal.is_started

    with output_errors(target, needed=needed, keeps=keeps, left=partial.exists), alone:
        try:
            remove_stale(target)
            if journal is not None and not keeps():
                journal.begin()
            yield partial
            if target.exists():  # it may have been created in the meantime
                _check_replaceable(target, overwrite=overwrite, kind=kind)
            _rename(partial, target)
        except BaseException as error:
            if not keeps() and not _clear(partial):
                error.add_note(f"{partial} is incomplete and could not be removed.")
            if journal is not None and not journal.keeps:
                journal.remove()
            raise
    if journal is not None:
        journal.remove()


def _rename(partial: Path, target: Path) -> None:
    """Rename the complete output; the old one is removed only after the new one exists."""
    if not target.is_dir():
        partial.replace(target)
        return
    # No portable call swaps two folders, so the old one is moved aside first.
    aside = replaced_of(target)
    target.rename(aside)
    try:
        partial.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    try:
        remove(aside)
    except OSError as error:
        logger.warning("%s is complete, but the output it replaced is still at %s: %s", target, aside, error)


def _clear(partial: Path) -> bool:
    """Remove the remains of failed work, if possible; threads of zarr may still write to it for a moment."""
    is_store = partial.is_dir()
    for _ in range(20):
        with contextlib.suppress(OSError):
            remove(partial)
        if is_store:
            time.sleep(0.05)
        if not partial.exists():
            return True
    return False
