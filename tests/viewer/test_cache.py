"""Cached stripes: the oldest is dropped first, the budget is respected, and each is loaded once."""

import threading
import time
from dataclasses import dataclass

import pytest

from cellweft.viewer.cache import StripeCache


@dataclass
class Stripe:
    nbytes: int


def test_the_least_recently_used_stripe_is_dropped() -> None:
    cache = StripeCache(10)
    for key in "ab":
        cache.get(key, lambda: Stripe(5))
    cache.get("a", lambda: pytest.fail("it is cached"))
    cache.get("c", lambda: Stripe(4))
    assert [key in cache for key in "abc"] == [True, False, True]
    assert cache.nbytes == 9


def test_a_stripe_larger_than_the_cache_is_returned_and_not_kept() -> None:
    cache = StripeCache(10)
    cache.get("a", lambda: Stripe(10))
    assert cache.get("b", lambda: Stripe(11)).nbytes == 11
    assert "a" in cache
    assert "b" not in cache


def test_simultaneous_requests_load_a_stripe_once() -> None:
    cache, loads = StripeCache(10), []

    def load() -> Stripe:
        loads.append(1)
        time.sleep(0.05)
        return Stripe(1)

    threads = [threading.Thread(target=cache.get, args=("a", load)) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(loads) == 1
    assert cache.nbytes == 1
    assert cache.get("a", lambda: pytest.fail("it is cached")).nbytes == 1


def test_a_failed_load_can_be_repeated() -> None:
    cache = StripeCache(10)

    def fail() -> Stripe:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        cache.get("a", fail)
    assert cache.get("a", lambda: Stripe(1)).nbytes == 1
    cache.clear()
    assert cache.nbytes == 0
