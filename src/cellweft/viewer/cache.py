"""What was read last, in memory: a bounded number of bytes, the oldest let go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar


class Kept(Protocol):
    """What can be kept: some neighbouring genes of a matrix (a stripe), or a column."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""


S = TypeVar("S", bound=Kept)


class StripeCache:
    """Stripes by key; those that were not asked for the longest are let go where room is needed.

    Parameters
    ----------
    budget
        Bytes that all may take together. One that is larger alone is not kept.

    Examples
    --------
    >>> import numpy as np
    >>> cache = StripeCache(32)
    >>> for key in "abc":
    ...     _ = cache.get(key, lambda: np.zeros(4, np.float32))
    >>> [key in cache for key in "abc"], cache.nbytes
    ([False, True, True], 32)
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._stripes: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[Hashable, tuple[threading.Lock, list[int]]] = {}

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._stripes

    @property
    def nbytes(self) -> int:
        """Bytes that the stripes take now."""
        with self._lock:
            return sum(one.nbytes for one in self._stripes.values())

    def get(self, key: Hashable, load: Callable[[], S]) -> S:
        """Return a stripe, loaded where it is not there; several who ask at once wait for one loading.

        Parameters
        ----------
        key
            Of the stripe.
        load
            Called without arguments.
        """
        with self._one_at_a_time(key):
            with self._lock:
                if key in self._stripes:
                    self._stripes.move_to_end(key)
                    found: S = self._stripes[key]
                    return found
            stripe = load()
            with self._lock:
                self._keep(key, stripe)
            return stripe

    def clear(self) -> None:
        """Let everything go."""
        with self._lock:
            self._stripes.clear()

    def _keep(self, key: Hashable, stripe: Kept) -> None:
        if stripe.nbytes > self.budget:
            return
        taken = sum(one.nbytes for one in self._stripes.values())
        while taken + stripe.nbytes > self.budget:
            _, old = self._stripes.popitem(last=False)
            taken -= old.nbytes
        self._stripes[key] = stripe

    @contextmanager
    def _one_at_a_time(self, key: Hashable) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._loading.setdefault(key, (threading.Lock(), [0]))
            waiting[0] += 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                waiting[0] -= 1
                if not waiting[0]:
                    self._loading.pop(key, None)
