"""What was read last, in memory: a bounded number of bytes, the oldest let go first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from cachetools import LRUCache, cached


class Kept(Protocol):
    """What can be kept: some neighbouring genes of a matrix (a stripe), or a column."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""


S = TypeVar("S", bound=Kept)


class StripeCache:
    """Stripes by key; when the cache is full, the least recently requested are dropped.

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
        self._stripes: Any = LRUCache(budget, getsizeof=attrgetter("nbytes"))
        self._turn = threading.Condition()
        by_key = cached(self._stripes, key=lambda key, _: key, condition=self._turn)
        self._load_once = by_key(lambda _, load: load())

    def __contains__(self, key: Hashable) -> bool:
        with self._turn:
            return key in self._stripes

    @property
    def nbytes(self) -> int:
        """Bytes that the stripes take now."""
        with self._turn:
            return int(self._stripes.currsize)

    def get(self, key: Hashable, load: Callable[[], S]) -> S:
        """Return a stripe, loaded where it is not there; several who ask at once wait for one loading.

        Parameters
        ----------
        key
            Of the stripe.
        load
            Called without arguments.
        """
        stripe: S = self._load_once(key, load)
        return stripe

    def clear(self) -> None:
        """Let everything go."""
        with self._turn:
            self._stripes.clear()
