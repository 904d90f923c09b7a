"""Allows one run at a time per output; the error of a second run names the first."""

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
"""Suffix of the file that is locked while an output is written."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_HELD: ContextVar[frozenset[Path]] = ContextVar("_HELD", default=frozenset())  # by this run


@contextlib.contextmanager
def exclusive(path: PathLike) -> Iterator[None]:
    """Lock an output for the context, so that no other run writes it.

    Parameters
    ----------
    path
        Path of the output; its folder must exist. The same run may lock an output more than once.

    Raises
    ------
    OutputError
        Another run, in this or another process, has locked it.

    Notes
    -----
    The system releases the lock when the process ends for any reason. On file systems without locks, outputs
    are not locked.
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
    """Return the lock, acquired if the file system supports locks; raise if another run has it."""
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
    except (OSError, ValueError, TypeError, KeyError):  # the other run has just started or ended
        who = "another process"
    return OutputError(
        str(target),
        expected="an output that no other run is writing",
        got=f"an output that another run is writing ({who})",
        fix="Wait until that run ends, or choose another path.",
    )
