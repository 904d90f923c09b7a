"""Feed damaged files to every reader: ``python fuzz/run.py --seconds 60``; see fuzz/README.md.

Each reader runs in a separate process, so that a crash of compiled code ends only that process and is
reported like any other fault. If atheris is installed, ``--atheris TARGET`` uses coverage-guided bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zarr.core.sync

sys.path.insert(0, str(Path(__file__).parent))

_MOST_SECONDS = 20.0  # of CPU that one file may take, so that a busy machine is no fault...
_MOST_WAITING = 60.0  # ...and in all, for one that waits forever or is stuck in compiled code
_MOST_BYTES = 6 * 2**30  # of address space: a size that is damaged must not ask for all memory
_BATCH = 5000  # files at most that a process reads before another takes its place
_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # files are written there often


class TooSlow(KeyboardInterrupt):
    """One file took too long; neither `except Exception` nor an event loop may take it for its own."""


class _LoopOfThread(asyncio.SelectorEventLoop):
    """An event loop that does its work in the thread that asks for it, and is at rest otherwise.

    zarr asks another thread for each of the hundreds of reads of one store, and waits for it: on a busy
    machine, that is most of the time of a file.
    """

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        handle = self.call_soon(callback, *args, context=context)
        if not self.is_running():
            self.run_until_complete(_others())
        return handle

    def run_in_executor(self, _executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


async def _others() -> None:
    """Wait until all other tasks of this loop are done."""
    await asyncio.sleep(0)
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@contextlib.contextmanager
def _zarr_in_this_thread() -> Iterator[None]:
    """Let zarr read in the present thread; its reads in others remain as they are."""
    here, of_zarr = threading.get_ident(), zarr.core.sync._get_loop
    with contextlib.closing(asyncio.Runner(loop_factory=_LoopOfThread)) as runner:
        # A file that takes too long leaves tasks behind: closing the runner ends them.
        zarr.core.sync._get_loop = lambda: runner.get_loop() if threading.get_ident() == here else of_zarr()
        try:
            yield
        finally:
            zarr.core.sync._get_loop = of_zarr


def _contents(source: Path) -> dict[str, bytes | None]:
    """Return the bytes of a file, or of each file of a folder by its path; None for a folder inside."""
    below = [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]
    return {str(one.relative_to(source)): None if one.is_dir() else one.read_bytes() for one in below}


def _write_copy(contents: dict[str, bytes | None], target: Path) -> None:
    """Write the contents of a file or folder to a path, in place of what a file before has left there."""
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    for name, values in contents.items():
        if values is None:
            (target / name).mkdir()
        else:
            (target / name).write_bytes(values)


def _fault_of(name: str, path: Path, rng: random.Random) -> str | None:
    """Damage a copy, read it, and return the unexpected error, or None."""
    from cellweft.errors import CellweftError

    from targets import TARGETS

    TARGETS[name].damage(path, rng)
    signal.setitimer(signal.ITIMER_PROF, _MOST_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _MOST_WAITING)
    try:
        with _zarr_in_this_thread():
            TARGETS[name].read(path)
    except CellweftError as error:
        return None if "expected" in str(error) else f"an error without an expectation: {error}"
    except TooSlow:
        return f"more than {_MOST_SECONDS:g} s of CPU, or {_MOST_WAITING:g} s in all"
    except BaseException as error:
        frames = [one for one in traceback.extract_tb(error.__traceback__) if "cellweft" in one.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:100]}"
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
    return None


def _work(name: str, source: Path, seeds: range, stop: float, found: Any, done: Any) -> None:
    """Read the files of some seeds in a separate process, until a given time."""
    from targets import memory_is_used

    def too_slow(*_: object) -> None:
        raise TooSlow

    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, too_slow)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    contents = _contents(source)
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder:
        path = Path(folder, source.name)
        for seed in seeds:
            _write_copy(contents, path)
            fault = _fault_of(name, path, random.Random(f"{name} {seed}"))
            if fault is not None:
                found.put((seed, fault))
            done.value = seed + 1
            if fault is not None or memory_is_used() or time.monotonic() > stop:
                break
    found.put(None)
    found.close()
    found.join_thread()


def fuzz(name: str, source: Path, first: int, stop: float, most: int) -> tuple[int, list[tuple[int, str]]]:
    """Read damaged files of one kind until a time or number is reached; return the number and the faults."""
    context = multiprocessing.get_context("fork")
    faults: list[tuple[int, str]] = []
    seed = first
    while seed < first + most and (time.monotonic() < stop or seed == first):
        seeds = range(seed, min(seed + _BATCH, first + most))
        found, done = context.Queue(), context.Value("q", seed)
        process = context.Process(target=_work, args=(name, source, seeds, stop, found, done))
        process.start()
        last, since = seed, time.monotonic()
        while process.is_alive() or not found.empty():
            if done.value != last:
                last, since = done.value, time.monotonic()
            elif time.monotonic() - since > 1.5 * _MOST_WAITING:  # Python could not interrupt it
                process.kill()
            try:
                one = found.get(timeout=0.2)
            except Exception:  # nothing yet
                continue
            if one is None:
                break
            faults.append(one)
        process.join()
        if process.exitcode:
            faults.append((done.value, f"the process ended with {process.exitcode}"))
            seed = done.value + 1
        else:
            seed = done.value
    return seed - first, faults


def _with_atheris(name: str, source: Path, arguments: list[str]) -> None:
    """Let atheris choose the bytes of a file."""
    import atheris

    from cellweft.errors import CellweftError

    from targets import TARGETS

    folder = Path(tempfile.mkdtemp())
    path = folder / source.name

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(CellweftError):
            TARGETS[name].read(path)

    (folder / "corpus").mkdir()
    shutil.copyfile(source, folder / "corpus" / source.name)
    atheris.Setup([sys.argv[0], *arguments, str(folder / "corpus")], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz all targets, or some; print a line for each, and return 1 if a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="kinds of files; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--executions", type=int, default=10**9, help="of each target at most")
    seed = int(os.environ.get("CELLWEFT_FUZZ_SEED", "0"))
    parser.add_argument("--seed", type=int, default=seed, help="of the first file; each next has the next")
    parser.add_argument(
        "--table", type=Path, help="add what was run to this table, and continue at its seeds"
    )
    parser.add_argument("--atheris", action="store_true", help="let coverage guide the bytes of one kind")
    options, rest = parser.parse_known_args()
    if options.atheris:
        import atheris

        # From here on, all modules of cellweft report which lines are reached.
        contextlib.ExitStack().enter_context(atheris.instrument_imports(include=["cellweft"]))
    from corpus import make
    from table import Row, add_to_table, read_table
    from targets import TARGETS

    names = options.targets or list(TARGETS)
    with tempfile.TemporaryDirectory() as folder:
        sources = make(Path(folder), names)
        if options.atheris:
            _with_atheris(names[0], sources[names[0]], rest)
        n_all, n_faults = 0, 0
        rows = read_table(options.table) if options.table else {}
        for name in names:
            start = time.monotonic()
            first_seed = rows[name].last + 1 if name in rows else options.seed
            stop = start + options.seconds / len(names)
            n_done, faults = fuzz(name, sources[name], first_seed, stop, options.executions)
            if options.table:
                last, seconds = first_seed + n_done - 1, round(time.monotonic() - start)
                row = Row(first=first_seed, last=last, n_faults=len(faults), seconds=seconds)
                add_to_table(options.table, name, row)
            n_all, n_faults = n_all + n_done, n_faults + len(faults)
            print(f"{name}: {n_done:,} files, {len(faults)} faults", flush=True)
            first = {fault.split(":")[0]: (seed, fault) for seed, fault in reversed(faults)}
            counted = Counter(fault.split(":")[0] for _, fault in faults)
            for key, (seed, fault) in first.items():
                print(f"  {counted[key]} x, first with seed {seed}: {fault}", flush=True)
    print(f"{n_all:,} files, {n_faults} faults")
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
