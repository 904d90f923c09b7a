"""What a run that writes tile by tile has done, kept beside its output, so that a killed run can go on.

The names of what lies beside an output until it is complete are made here, too: what bears one, and a folder
that contains `MARK`, is ours and may be removed; nothing else is.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellweft._errors import OutputExistsError
from cellweft._typing import PathLike

logger = logging.getLogger("cellweft")

MARK = "cellweft-run.json"
"""File in a folder that says that the folder is ours."""

_RUN = "run.json"
_SCHEMA = 1  # of the files in such a folder
PARTIAL, _REPLACED = ".cellweft-partial", ".cellweft-replaced"  # suffix of incomplete files


class Journal:
    """The numbers of the tiles that are written, and what they are tiles of.

    Parameters
    ----------
    target
        The output, absolute; the journal lies next to it in ``<name>.resume``, and the incomplete output in
        the same folder.
    mark
        What the tiles depend on, by name, as values that JSON stores: a run goes on only where all are the
        same.
    resume
        Whether to go on with a run that was killed; else its traces are dropped.

    Attributes
    ----------
    done
        Numbers of the tiles that are written.
    keeps
        Whether what is written stays if the run fails: only where it may be resumed.
    partial
        Where the output lies while it is incomplete: under a new name, or under that of the run that is gone
        on with.
    is_started
        Whether there is an incomplete output to go on with.

    Raises
    ------
    OutputExistsError
        The folder contains what no run has left.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = Journal(Path(folder, "a.zarr"), {"seed": 0}, resume=True)
    ...     first.begin()
    ...     first.partial.mkdir()
    ...     first.start()
    ...     first.add(3)
    ...     sorted(Journal(Path(folder, "a.zarr"), {"seed": 0}, resume=True).done)
    [3]
    """

    def __init__(self, target: Path, mark: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder, self.keeps = resume_folder(target), resume
        check_own(self.folder)
        self._run, self._tiles = self.folder / _RUN, self.folder / "tiles.txt"
        self._mark = json.loads(json.dumps(mark))
        previous_run = _run_in(self.folder)
        self.partial = self.folder / partial_of(target).name
        self.is_started = resume and self._is_same(previous_run)
        self.done: frozenset[int] = frozenset()
        if self.is_started:
            self.partial = self.folder / previous_run["partial"]
            lines = self._tiles.read_text().split("\n")[:-1]  # text after the last line break is incomplete
            self.done = frozenset(int(line) for line in lines if line.isdecimal())

    def begin(self) -> None:
        """Make the folder ready for another run: of an earlier one nothing is left but its fit."""
        claim(self.folder)
        self._run.unlink(missing_ok=True)
        for path in self.folder.glob(f".*{PARTIAL}"):
            remove(path)

    def start(self) -> None:
        """Note that nothing is done. The incomplete output is there and ready for its tiles."""
        self._tiles.write_text("")
        run = {"schema": _SCHEMA, "partial": self.partial.name, "mark": self._mark}
        self._run.write_text(json.dumps(run, indent=1))
        self.is_started = self.keeps

    @property
    def parts(self) -> Path:
        """Where parts of the output lie until they are put together."""
        return self.folder / "parts"

    def add(self, number: int) -> None:
        """Note a tile that is written."""
        with self._tiles.open("a") as file:
            file.write(f"{number}\n")

    def remove_torn(self) -> None:
        """Remove what a process was killed over in the incomplete output: these pieces are written again."""
        for torn in self.folder.rglob("*.partial"):
            torn.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the journal, and whatever else lies in its folder."""
        remove_own(self.folder)

    def _is_same(self, previous_run: Mapping[str, Any]) -> bool:
        """Say whether the traces are of the same run, and say why where they are not."""
        mark = previous_run.get("mark", {})
        others = [name for name, value in self._mark.items() if mark.get(name) != value]
        is_there = (
            bool(previous_run) and (self.folder / previous_run["partial"]).is_dir() and self._tiles.exists()
        )
        if previous_run and (others or not is_there):
            difference = f"with another {', '.join(others)}" if others else "and its output is gone"
            logger.warning("%s belongs to a run %s: starting over.", self.folder, difference)
        return is_there and mark == self._mark


def _run_in(folder: Path) -> dict[str, Any]:
    """Return what a run has noted of itself in its folder; nothing if there is none, or a damaged note."""
    try:
        note = json.loads((folder / _RUN).read_text())
        return dict(note) if note["schema"] == _SCHEMA else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def kept_mark(target: Path) -> dict[str, Any]:
    """Return what the tiles of a run that was killed depended on, or nothing if there is none."""
    return dict(_run_in(resume_folder(target)).get("mark", {}))


def resume_folder(target: PathLike) -> Path:
    """Return the folder beside an output that keeps what its run needs to go on."""
    return Path(f"{Path(target)}.resume")


def claim(folder: Path) -> None:
    """Make a folder, and say in it that it is ours; raise `OutputExistsError` where it is another's."""
    check_own(folder)
    folder.mkdir(exist_ok=True)
    note = {"schema": _SCHEMA, "made by": "cellweft, for a run that goes on here"}
    (folder / MARK).write_text(json.dumps(note))


def check_own(folder: Path) -> None:
    """Raise `OutputExistsError` where a folder is not ours; one that is missing or empty may become it."""
    if folder.exists() and not _is_own(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputExistsError(
            str(folder),
            expected="nothing at this path, or the folder of an interrupted run",
            got=f"a folder without {MARK}" if folder.is_dir() else "a file",
            fix="Move it away, or choose another path for the output.",
        )


def remove_own(folder: Path) -> None:
    """Remove a folder if it is ours."""
    if not _is_own(folder):
        return
    for (
        entry
    ) in folder.iterdir():  # the mark is removed last, so that the folder is still recognised after a kill
        if entry.name != MARK and entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != MARK:
            with contextlib.suppress(OSError):
                entry.unlink()
    if [entry.name for entry in folder.iterdir()] == [MARK]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    return (folder / MARK).is_file()


@contextlib.contextmanager
def kept_until_failure(target: Path, *, resume: bool) -> Iterator[None]:
    """Remove what a run has left beside its output where the work inside fails, unless it shall be resumed.

    Parameters
    ----------
    target
        The output.
    resume
        Whether to keep it nevertheless; the error then says so in a note.
    """
    folder = resume_folder(target)
    try:
        yield
    except BaseException as error:
        if not resume:
            remove_own(folder)
            if _is_own(folder):
                error.add_note(f"{folder} could not be removed.")
        elif _is_own(folder):
            error.add_note(f"Finished work is kept in {folder}. Resume the run to continue it.")
        raise


def partial_of(target: Path) -> Path:
    """Return a new name beside an output, hidden, for what it is while it is incomplete.

    Parameters
    ----------
    target
        The output, absolute.

    Returns
    -------
    ``.<name>.<machine>-<process>-<random>.cellweft-partial``, of which `remove_stale` knows whose it is.

    Examples
    --------
    >>> partial_of(Path("scores.csv")).suffix
    '.cellweft-partial'
    """
    whose = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.name}.{whose}{PARTIAL}")


def replaced_of(target: Path) -> Path:
    """Return a new name likewise, for an output until the one that replaces it is in its place."""
    return partial_of(target).with_suffix(_REPLACED)


def remove_stale(target: Path) -> None:
    """Remove what runs that were killed on this machine have left beside an output."""
    # Otherwise only the replaced output exists
    kinds = (PARTIAL, _REPLACED) if target.exists() else (PARTIAL,)
    names = f".{glob.escape(target.name)}.*"
    for path in itertools.chain.from_iterable(target.parent.glob(names + kind) for kind in kinds):
        whose = re.fullmatch(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{8}", path.name.split(".")[-2])
        if whose is None or whose[1] != _machine() or _is_running(int(whose[2])):
            continue
        remove(path, ignore_errors=True)


def remove(path: Path, *, ignore_errors: bool = False) -> None:
    """Remove a file, or a folder with what is in it, of which errors may be ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors)
    else:
        path.unlink(missing_ok=True)


def _machine() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _is_running(process: int) -> bool:
    """Say whether a process of this machine runs; where the system cannot be asked, it may."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True
