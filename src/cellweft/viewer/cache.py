"""A cache of limited size in memory; the least recently used entries are removed first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from cachetools import LRUCache, cached


class Kept(Protocol):
    """An entry of the cache: some neighbouring genes of a matrix (a stripe), or a column."""

    @property
    def nbytes(self) -> int:
        """Its memory, in bytes."""


S = TypeVar("S", bound=Kept)


class StripeCache:
    """Stripes by key; if the cache is full, the least recently requested are removed.

    Parameters
    ----------
    budget
        Maximum memory of all stripes, in bytes. A stripe that exceeds it alone is not kept.

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
        """Current memory of the stripes, in bytes."""
        with self._turn:
            return int(self._stripes.currsize)

    def get(self, key: Hashable, load: Callable[[], S]) -> S:
        """Return a stripe, loading it if necessary; simultaneous requests wait for a single load.

        Parameters
        ----------
        key
            Key of the stripe.
        load
            Called without arguments.
        """
        stripe: S = self._load_once(key, load)
        return stripe

    def clear(self) -> None:
        """Remove everything."""
        with self._turn:
            self._stripes.clear()
