"""One run at a time for one output: the second is told who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from cellweft._errors import OutputError
from cellweft._typing import PathLike

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has other locks
    fcntl = None

LOCK = ".cellweft-lock"
"""How the name of the file ends that is locked while an output is made."""

_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())  # by this run


@contextlib.contextmanager
def exclusive(path: PathLike) -> Iterator[None]:
    """Hold an output for the work inside, so that no other run writes it meanwhile.

    Parameters
    ----------
    path
        Where the output shall lie; its folder is there. What this run holds already, it may hold again.

    Raises
    ------
    OutputError
        Another run holds it, of this process or another.

    Notes
    -----
    The system lets go of the lock when the process ends, however it ends. File systems that know no locks
    give none.
    """
    target, held = Path(path).resolve(), _HELD.get()
    if target in held:
        yield
        return
    lock = target.with_name(f".{target.name}{LOCK}")
    file = _locked(lock, target)
    try:
        _HELD.set(held | {target})
        yield
    finally:
        _HELD.set(held)
        with file:
            lock.unlink(missing_ok=True)


def _locked(lock: Path, target: Path) -> Any:
    """Return the file, open and locked; raise where another has locked it."""
    while True:
        file = lock.open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                raise _held_by_other(file, target) from error
        except OSError:  # no locks here
            return file
        if lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()  # whoever held it removed it meanwhile
    whose = {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M"),
    }
    with contextlib.suppress(OSError):  # a full disk: it is locked all the same, and nobody is told by whom
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), json.dumps(whose).encode())
    return file


def _held_by_other(file: Any, target: Path) -> OutputError:
    file.seek(0)
    try:
        whose = json.loads(file.read())
        who = f"process {whose['process']} on {whose['machine']}, since {whose['since']}"
    except (ValueError, TypeError, KeyError):  # it has just begun
        who = "another process"
    return OutputError(
        str(target),
        expected="an output that no other run is making",
        got=f"one that another run is making ({who})",
        fix="Wait until that run has ended, or choose another path.",
    )
