"""The journal of a run that writes tile by tile, stored next to its output, to resume interrupted runs.

This file also defines the names of temporary files next to an output. Files with such a name, and folders
that contain `MARK`, belong to cellweft and may be removed; nothing else may.
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
"""File that marks a folder as belonging to cellweft."""

_RUN = "run.json"
_SCHEMA = 1  # version of the files in such a folder
PARTIAL, _REPLACED = ".cellweft-partial", ".cellweft-replaced"  # suffix of incomplete files


class Journal:
    """The numbers of the written tiles, and the inputs that they depend on.

    Parameters
    ----------
    target
        Absolute path of the output. The journal is next to it in ``<name>.resume``, together with the
        incomplete output.
    mark
        All that the tiles depend on, by name, as values that JSON can store. A run is resumed only if all are
        the same.
    resume
        Whether to resume an interrupted run; otherwise its remains are removed.

    Attributes
    ----------
    done
        Numbers of the written tiles.
    keeps
        Whether written tiles are kept if the run fails, which requires ``resume``.
    partial
        Path of the incomplete output: a new one, or that of the resumed run.
    is_started
        Whether there is an incomplete output to resume.

    Raises
    ------
    OutputExistsError
        The folder contains files that are not from a run.

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
        """Prepare the folder for a new run; only the fit of an earlier run is kept."""
        claim(self.folder)
        self._run.unlink(missing_ok=True)
        for path in self.folder.glob(f".*{PARTIAL}"):
            remove(path)

    def start(self) -> None:
        """Record that no tile is written yet. The incomplete output must exist."""
        self._tiles.write_text("")
        run = {"schema": _SCHEMA, "partial": self.partial.name, "mark": self._mark}
        self._run.write_text(json.dumps(run, indent=1))
        self.is_started = self.keeps

    @property
    def parts(self) -> Path:
        """Folder of the parts of the output until they are joined."""
        return self.folder / "parts"

    def add(self, number: int) -> None:
        """Record a written tile."""
        with self._tiles.open("a") as file:
            file.write(f"{number}\n")

    def remove_torn(self) -> None:
        """Remove partially written files from the incomplete output; they are written again."""
        for torn in self.folder.rglob("*.partial"):
            torn.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the journal, and everything else in its folder."""
        remove_own(self.folder)

    def _is_same(self, previous_run: Mapping[str, Any]) -> bool:
        """Return whether the earlier run was the same; log the reason if not."""
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
    """Return the record of a run in its folder; empty if it is missing or damaged."""
    try:
        note = json.loads((folder / _RUN).read_text())
        return dict(note) if note["schema"] == _SCHEMA else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def kept_mark(target: Path) -> dict[str, Any]:
    """Return all that the tiles of an interrupted run depend on; empty if there is no such run."""
    return dict(_run_in(resume_folder(target)).get("mark", {}))


def resume_folder(target: PathLike) -> Path:
    """Return the folder, next to an output, with the files to resume its run."""
    return Path(f"{Path(target)}.resume")


def claim(folder: Path) -> None:
    """Create and mark a folder; raise `OutputExistsError` if it does not belong to cellweft."""
    check_own(folder)
    folder.mkdir(exist_ok=True)
    note = {"schema": _SCHEMA, "made by": "cellweft, for a run that can be resumed here"}
    (folder / MARK).write_text(json.dumps(note))


def check_own(folder: Path) -> None:
    """Raise `OutputExistsError` if a folder does not belong to cellweft, unless it is missing or empty."""
    if folder.exists() and not _is_own(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputExistsError(
            str(folder),
            expected="nothing at this path, or the folder of an interrupted run",
            got=f"a folder without {MARK}" if folder.is_dir() else "a file",
            fix="Move it away, or choose another path for the output.",
        )


def remove_own(folder: Path) -> None:
    """Remove a folder if it belongs to cellweft."""
    if not _is_own(folder):
        return
    for entry in folder.iterdir():  # the mark is last, so that the folder is recognised after an interruption
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
    """Remove the files of a run next to its output if the context fails, unless the run may be resumed.

    Parameters
    ----------
    target
        The output.
    resume
        Whether to keep them; a note on the error then says so.
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
    """Return a new hidden path next to an output, to use while it is incomplete.

    Parameters
    ----------
    target
        Absolute path of the output.

    Returns
    -------
    ``.<name>.<machine>-<process>-<random>.cellweft-partial``, from which `remove_stale` recognises the
    process.

    Examples
    --------
    >>> partial_of(Path("scores.csv")).suffix
    '.cellweft-partial'
    """
    whose = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return target.with_name(f".{target.name}.{whose}{PARTIAL}")


def replaced_of(target: Path) -> Path:
    """Return a new hidden path for an old output while it is being replaced."""
    return partial_of(target).with_suffix(_REPLACED)


def remove_stale(target: Path) -> None:
    """Remove temporary files, next to an output, of interrupted runs on this machine."""
    # Otherwise only the replaced output exists
    kinds = (PARTIAL, _REPLACED) if target.exists() else (PARTIAL,)
    names = f".{glob.escape(target.name)}.*"
    for path in itertools.chain.from_iterable(target.parent.glob(names + kind) for kind in kinds):
        whose = re.fullmatch(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{8}", path.name.split(".")[-2])
        if whose is None or whose[1] != _machine() or _is_running(int(whose[2])):
            continue
        remove(path, ignore_errors=True)


def remove(path: Path, *, ignore_errors: bool = False) -> None:
    """Remove a file, or a folder with its contents; errors may be ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors)
    else:
        path.unlink(missing_ok=True)


def _machine() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _is_running(process: int) -> bool:
    """Return whether a process of this machine is running; True if the system cannot tell."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True
