"""Put an output in its place: whole under its own name, or not there at all.

Everything goes to a sibling with a random name that takes the asked one only when it is complete. An output
that is replaced stays in its place until then.
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
    """A file that HDF5 can always close: after its first failure, what it takes stays in memory.

    HDF5 cannot let go of a file whose last writes fail (a full disk): the process crashes at its end. So the
    failure is kept here, for the writer to raise. Until it does, HDF5 reads back what it wrote, and would
    crash on anything else.

    Parameters
    ----------
    path
        Where the file is made, empty.

    Attributes
    ----------
    failure
        The first error of the file, an interrupt too; None as long as all is well.

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
            left = left[self._attempt(self._file.write, left) :]  # a full disk takes a part
        if self.failure is not None:
            self._unwritten.append((start, bytes(data)))
        return len(data)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from here on, with zeros behind the end; return how much was read."""
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
        """Cut or lengthen the file to ``size`` bytes, unless it has failed."""
        if self.failure is None:
            self._attempt(self._file.truncate, size)
        return size

    def sync(self) -> None:
        """Hand everything to the disk: some file systems say only then that they are full."""
        self._attempt(os.fsync, self._file.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)  # methods that cannot fail, such as ``seek``, ``tell`` and ``close``

    def _attempt(self, action: Callable[..., int | None], *arguments: Any) -> int:
        try:
            return action(*arguments) or 0
        except BaseException as error:  # an interrupt, too, must not unwind through HDF5
            self.failure = self.failure or error
            return 0


@contextlib.contextmanager
def hdf5_output(path: Path) -> Iterator[Any]:
    """Lend the root of a new HDF5 file, and raise what the disk refused in place of what HDF5 made of it."""
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
"""Of stores and files that hold an AnnData."""
_ZARR_MARKS = (".zgroup", ".zarray", ".zattrs", "zarr.json")
_MODEL_MARK = "weights.safetensors"


OutputKind: TypeAlias = Literal["file", "model"]
"""A file (or a store, by the name's ending), or the folder of a model."""


def check_output(
    path: PathLike, *, overwrite: bool = False, suffixes: tuple[str, ...] = (), kind: OutputKind = "file"
) -> Path:
    """Check that an output can be put at ``path``, before any work is done for it; changes nothing.

    Parameters
    ----------
    path
        Where the output shall lie. Links are followed.
    overwrite
        Whether an output that is there may be replaced: a file by a file, a zarr store by a zarr store,
        a model by a model.
    suffixes
        Endings that the name may have, with their dot; empty for any.
    kind
        What it will be.

    Returns
    -------
    Path
        The absolute path.

    Raises
    ------
    SettingError
        The name has none of the ``suffixes``.
    OutputExistsError
        Something is there that may not be replaced.
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
        target = output_path.resolve()  # of a link, not the link but what it points to is replaced
        _check_folder(target.parent)
        if target.exists():
            _check_replaceable(target, overwrite=overwrite, kind=kind)
    return target


Asked: TypeAlias = "Mapping[str, tuple[PathLike | None, tuple[str, ...] | Literal['model']]]"
"""Outputs by the name of their argument: path (None: not requested), and endings it may have, or "model"."""


def check_outputs(outputs: Asked, *, overwrite: bool = False) -> list[Path]:
    """Check that all outputs of one command can be put in their places, before any work; changes nothing.

    Parameters
    ----------
    outputs
        What is requested.
    overwrite
        As in `check_output`.

    Returns
    -------
    list of Path
        The absolute paths of those that are requested.

    Raises
    ------
    SettingError
        Two outputs in one place, or one inside another; and as `check_output`.
    OutputExistsError
        One or more exist; the error names all of them.
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
    """Raise `OutputExistsError` where an output would change an input: replace it, or lie inside it.

    Parameters
    ----------
    outputs
        Paths; None is ignored.
    inputs
        Paths; whatever else they are, such as data in memory, is passed over.
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
    # Effective ids, if the platform has them, because a program may have dropped its rights.
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
    """Return the zarr store or the model in which a folder lies, None if it lies in none."""
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
    """Turn an `OSError` of the work inside into an `OutputError` with the path, the space and the next step.

    Parameters
    ----------
    path
        The output that is being written.
    needed
        Bytes that the output may take; 0 if that is not known.
    keeps
        Says whether what is written so far stays, for a run that resumes.
    left
        Says whether something incomplete could not be removed.

    Raises
    ------
    OutputError
        The work inside raised an `OSError` that is not cellweft's own.

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
    """Lend a sibling path to write to, and give it the name ``path`` if the work inside ends well.

    Parameters
    ----------
    path
        Where the output, a file or a ``.zarr`` folder, shall lie.
    overwrite, suffixes, kind
        As in `check_output`, which is asked once more: something may have come there since the work began.
    needed
        Bytes that the output may take, for the message when the disk is full.
    journal
        Of a run that can be resumed; it is removed with the incomplete output, and once that is complete.
    is_shared
        Whether several runs may write it at once, all the same, as into a cache.

    Yields
    ------
    Path
        Of a hidden file or folder beside ``path``, or in the journal's folder. Nothing is there yet, and it
        is removed when the work raises anything. A journal that keeps changes both: what it goes on with is
        there, and stays.

    Raises
    ------
    SettingError, OutputExistsError, OutputError
        As in `check_output`, and once more at the end; `OutputError` when writing failed or another run makes
        the same output.

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
    """Put the complete output in its place; the old one is lost only once the new one is there."""
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
    """Remove what failed work left behind, if possible; threads of zarr may write to it for a moment yet."""
    is_store = partial.is_dir()
    for _ in range(20):
        with contextlib.suppress(OSError):
            remove(partial)
        if is_store:
            time.sleep(0.05)
        if not partial.exists():
            return True
    return False
