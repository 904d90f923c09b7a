"""One run at a time for one output: the second is told who holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from cellweft._errors import OutputError
from cellweft._typing import PathLike

LOCK = ".cellweft-lock"
"""How the name of the file ends that is locked while an output is made."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
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
    alone = _locked(lock, target)
    try:
        _HELD.set(held | {target})
        yield
    finally:
        _HELD.set(held)
        lock.unlink(missing_ok=True)  # a waiting process notices that it is gone, and creates another
        alone.release()


def _locked(lock: Path, target: Path) -> FileLock:
    """Return the lock, taken where the file system knows locks; raise where another has it."""
    alone = FileLock(lock, blocking=False, thread_local=False)
    try:
        alone.acquire()
    except Timeout as error:
        raise _held_by_other(lock, target) from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return alone
        raise
    whose = {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M"),
    }
    with contextlib.suppress(OSError):  # a full disk: the lock still works, but its owner is unknown
        lock.write_text(json.dumps(whose))
    return alone


def _held_by_other(lock: Path, target: Path) -> OutputError:
    try:
        whose = json.loads(lock.read_text())
        who = f"process {whose['process']} on {whose['machine']}, since {whose['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # it has just started or ended
        who = "another process"
    return OutputError(
        str(target),
        expected="an output that no other run is writing",
        got=f"an output that another run is writing ({who})",
        fix="Wait until that run ends, or choose another path.",
    )
