"""Stripes in memory: the oldest goes, the budget holds, one who loads is enough."""

import threading
import time
from dataclasses import dataclass

import pytest

from cellweft.viewer.cache import StripeCache


@dataclass
class Stripe:
    nbytes: int


def test_the_one_not_asked_for_the_longest_goes() -> None:
    cache = StripeCache(10)
    for key in "ab":
        cache.get(key, lambda: Stripe(5))
    cache.get("a", lambda: pytest.fail("it is there"))
    cache.get("c", lambda: Stripe(4))
    assert [key in cache for key in "abc"] == [True, False, True]
    assert cache.nbytes == 9


def test_one_too_large_is_returned_and_not_kept() -> None:
    cache = StripeCache(10)
    cache.get("a", lambda: Stripe(10))
    assert cache.get("b", lambda: Stripe(11)).nbytes == 11
    assert "a" in cache
    assert "b" not in cache


def test_several_who_ask_at_once_load_once() -> None:
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
    assert cache.get("a", lambda: pytest.fail("it is there")).nbytes == 1


def test_a_load_that_fails_can_be_tried_again() -> None:
    cache = StripeCache(10)

    def fail() -> Stripe:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        cache.get("a", fail)
    assert cache.get("a", lambda: Stripe(1)).nbytes == 1
    cache.clear()
    assert cache.nbytes == 0
