"""Independent trainings, side by side, one per device."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from cellweft._typing import Progress, no_progress

T = TypeVar("T")
D = TypeVar("D")
R = TypeVar("R")

_READY = 2  # items in progress per device, so that no device waits while the caller uses a result


def over_devices(
    work: Callable[[T, D, Progress], R],
    items: Iterable[T],
    devices: Sequence[D],
    *,
    progress: Progress = no_progress,
) -> Generator[R]:
    """Yield the result of each item, in order; each device computes one at a time.

    Parameters
    ----------
    work
        Computes the result from an item, a device and a progress callback. It does not depend on the results
        of other items, uses its own random streams, and reports to the callback.
    items
        The inputs. The first items are assigned to the devices in order, each further item to the first free
        device.
    devices
        One or more. A device that occurs twice runs two at a time.
    progress
        Called by one item at a time, in order.

    Notes
    -----
    A single device works in the calling thread, item by item as results are requested. Several devices have
    one thread each, with as many torch threads as the caller: the computation releases Python's lock, and
    sums are identical. If one fails, or no more results are requested, the others stop at their next progress
    report.

    Examples
    --------
    >>> list(over_devices(lambda item, device, report: item**2, [1, 2, 3], ["cpu", "cpu"]))
    [1, 4, 9]
    """
    if len(devices) == 1:
        for item in items:
            yield work(item, devices[0], progress)
        return
    crew = WorkerPool(work, devices, progress)
    # scikit-learn changes it temporarily: with two threads, the last may restore what the first has set
    with threadpool_limits(None, user_api="blas"):
        try:
            yield from crew.made(items)
        finally:
            crew.end()


class _EndedError(Exception):
    """No more results are requested."""


class WorkerPool(Generic[T, D, R]):
    """Threads, each of which uses one device."""

    def __init__(self, work: Callable[[T, D, Progress], R], devices: Sequence[D], progress: Progress) -> None:
        import torch

        self._work, self._devices, self._progress = work, devices, progress
        self._free: queue.SimpleQueue[D] = queue.SimpleQueue()
        self._has_ended, self._turn = threading.Event(), -1
        self._untold: dict[int, tuple[str, int, int]] = {}
        self._pool = ThreadPoolExecutor(
            len(devices),
            thread_name_prefix="cellweft-device",
            initializer=torch.set_num_threads,
            initargs=(torch.get_num_threads(),),
        )

    def made(self, items: Iterable[T]) -> Iterator[R]:
        """Yield the results."""
        waiting: deque[Future[R]] = deque()
        n_yielded = 0
        for number, item in enumerate(items):
            waiting.append(self._pool.submit(self._run, number, item))
            if len(waiting) == _READY * len(self._devices):
                yield self._result(waiting.popleft(), n_yielded)
                n_yielded += 1
        for number, future in enumerate(waiting, n_yielded):
            yield self._result(future, number)

    def end(self) -> None:
        """Discard items that have not started, and wait for the others."""
        self._has_ended.set()
        self._pool.shutdown(cancel_futures=True)

    def _result(self, future: Future[R], number: int) -> R:
        self._turn = number
        try:
            result = future.result()
        finally:
            self._turn = -1
        if number in self._untold:
            self._progress(*self._untold.pop(number))
        return result

    def _run(self, number: int, item: T) -> R:
        device = self._devices[number] if number < len(self._devices) else self._free.get()

        def report(stage: str, done: int, total: int) -> None:
            if self._has_ended.is_set():
                raise _EndedError
            self._untold[number] = (stage, done, total)
            if self._turn == number:
                del self._untold[number]
                self._progress(stage, done, total)

        try:
            return self._work(item, device, report)
        finally:
            self._free.put(device)
