"""Trainings that do not depend on each other, each on a device of its own."""

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

_READY = 2  # items on their way, for each device: so that none waits while the caller looks at a result


def over_devices(
    work: Callable[[T, D, Progress], R],
    items: Iterable[T],
    devices: Sequence[D],
    *,
    progress: Progress = no_progress,
) -> Generator[R]:
    """Yield what is made of each item, in their order; each device makes one at a time.

    Parameters
    ----------
    work
        From an item, a device and a progress to what is made. It depends on nothing that another item makes,
        draws from random streams of its own, and tells the progress that it is handed.
    items
        What is to be done. The first ones go to the devices in their order, a further one to the first
        device that is free.
    devices
        One or more. A device that occurs twice runs two at a time.
    progress
        Told by one item at a time, in their order.

    Notes
    -----
    One device works in the calling thread, item by item as results are requested. Several work in a thread
    each, with as many threads of torch as the caller: what is computed takes place outside of Python's lock,
    and the sums come out the same. Where one fails, or no more results are requested, the others end when
    they next tell their progress.

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
    # scikit-learn changes it for a while: of two at a time, the last may put back what the first has set
    with threadpool_limits(None, user_api="blas"):
        try:
            yield from crew.made(items)
        finally:
            crew.end()


class _EndedError(Exception):
    """No more is requested."""


class WorkerPool(Generic[T, D, R]):
    """Threads, each of which keeps one device busy."""

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
        """Drop what was not begun, and wait for the rest to end."""
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
