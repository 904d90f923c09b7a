"""Reads ahead and writes in the background, each in its own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar, cast

T = TypeVar("T")
P = ParamSpec("P")

_END = object()


def prefetch(items: Iterable[T], *, depth: int = 1) -> Iterator[T]:
    """Yield the items of an iterable, computed in a thread while the caller works on earlier items.

    Parameters
    ----------
    items
        Iterable, evaluated in order; its errors are raised here.
    depth
        Largest number of items that are ready before they are requested, at least 1.

    Examples
    --------
    >>> list(prefetch(number**2 for number in range(4)))
    [0, 1, 4, 9]
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="cellweft-read") as pool:
        waiting = deque(pool.submit(next, source, _END) for _ in range(depth))
        while True:
            item = waiting.popleft().result()
            if item is _END:
                return
            waiting.append(pool.submit(next, source, _END))
            yield cast(T, item)


class BackgroundWriter(Generic[P]):
    """Calls a function in a thread, in the order of the calls; use it in a ``with`` statement.

    Parameters
    ----------
    function
        The function. Its result is discarded. Its errors are raised by a later call, or at the end.
    depth
        Largest number of waiting calls, at least 1; a further call waits for the oldest.

    Examples
    --------
    >>> seen = []
    >>> with BackgroundWriter(seen.append) as put:
    ...     put(1)
    ...     put(2)
    >>> seen
    [1, 2]
    """

    def __init__(self, function: Callable[P, Any], *, depth: int = 1) -> None:
        self._function, self._depth = function, depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cellweft-write")
        self._waiting: deque[Future[Any]] = deque()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Add a call to the queue."""
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._function, *args, **kwargs))

    def __enter__(self) -> BackgroundWriter[P]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
