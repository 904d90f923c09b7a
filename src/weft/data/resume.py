"""What a run that writes tile by tile has done, kept beside its output, so that a killed run can go on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft._errors import SettingError, arg
from weft._typing import PathLike

logger = logging.getLogger("weft")


class Journal:
    """The numbers of the tiles that are written, and what they are tiles of.

    Parameters
    ----------
    target
        The output, absolute; the journal lies beside it in ``<name>.resume``.
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

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = Journal(Path(folder, "a.zarr"), {"seed": 0})
    ...     first.start()
    ...     first.add(3)
    ...     sorted(Journal(Path(folder, "a.zarr"), {"seed": 0}, resume=True).done)
    []
    """

    def __init__(self, target: Path, mark: Mapping[str, Any], *, resume: bool = False) -> None:
        self.folder, self.keeps = resume_folder(target), resume
        self._mark = json.loads(json.dumps(mark))
        self._partial = partial_of(target)
        self.done = self._known() if resume else frozenset()

    @property
    def is_started(self) -> bool:
        """Whether there is an incomplete output to go on with."""
        return self.keeps and self._same()

    def start(self) -> None:
        """Begin: nothing is done. The incomplete output is there and ready for its tiles."""
        self.folder.mkdir(exist_ok=True)
        self._tiles.write_text("")
        self._run.write_text(json.dumps(self._mark, indent=1))

    @property
    def parts(self) -> Path:
        """Where parts of the output lie until they are put together."""
        return self.folder / "parts"

    def add(self, number: int) -> None:
        """Note a tile that is written."""
        with self._tiles.open("a") as file:
            file.write(f"{number}\n")

    def remove(self) -> None:
        """Remove the journal, and whatever else lies in its folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _run(self) -> Path:
        return self.folder / "run.json"

    @property
    def _tiles(self) -> Path:
        return self.folder / "tiles.txt"

    def _same(self) -> bool:
        """Say whether the traces are of the same run."""
        return self.known == self._mark and self._partial.is_dir() and self._tiles.exists()

    @property
    def known(self) -> dict[str, Any] | None:
        """The mark that lies there, of this run or of another; None where there is none."""
        try:
            known = json.loads(self._run.read_text())
        except (OSError, ValueError):
            return None
        return known if isinstance(known, dict) else None

    def _known(self) -> frozenset[int]:
        if self._same():
            lines = self._tiles.read_text().split("\n")[:-1]  # what stands behind the last line's end is torn
            return frozenset(int(line) for line in lines if line.isdecimal())
        known = self.known
        if known is not None:
            others = [name for name, value in self._mark.items() if known.get(name) != value]
            what = f"with another {', '.join(others)}" if others else "and its output is gone"
            logger.warning("%s is of a run %s: starting anew.", self.folder, what)
        return frozenset()


def check_resumable(target: Path, *, resume: bool) -> None:
    """Raise `SettingError` where an output is asked to be resumed that cannot be."""
    if resume and target.suffix != ".zarr":
        raise SettingError(
            "resume",
            expected="a .zarr store, whose parts are written one by one",
            got=f"{target.name!r}",
            fix="Choose a name ending in .zarr, or leave " + arg("resume") + " out.",
        )


def kept_mark(target: Path) -> dict[str, Any]:
    """Return what the tiles of a run that was killed depended on, or nothing where there is none."""
    return Journal(target, {}, resume=False).known or {}


def resume_folder(target: PathLike) -> Path:
    """Return the folder beside an output that keeps what its run needs to go on."""
    return Path(f"{Path(target)}.resume")


def partial_of(target: PathLike) -> Path:
    """Return where an output lies while it is incomplete."""
    return Path(f"{Path(target)}.partial")


def remove_torn(target: PathLike) -> None:
    """Remove what a process was killed over in an incomplete store: these pieces are written anew."""
    for folder in (partial_of(target), resume_folder(target)):
        for torn in folder.rglob("*.partial"):
            torn.unlink(missing_ok=True)
