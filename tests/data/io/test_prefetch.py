"""Reading ahead and writing in the background: the order is kept, nothing is lost, and errors are raised."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.data.io.prefetch import BackgroundWriter, prefetch


@given(items=st.lists(st.integers()), depth=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_nothing_is_lost_and_the_order_is_kept(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth=depth)) == items
    put: list[int] = []
    with BackgroundWriter(put.append, depth=depth) as behind:
        for item in items:
            behind(item)
    assert put == items


def test_the_next_item_is_made_while_the_caller_works() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    items = prefetch(source())
    assert next(items) == 0
    for _ in range(200):
        if len(made) > 1:
            break
        time.sleep(0.01)
    assert made == [0, 1]  # one item ahead, and no more
    assert list(items) == [1, 2]


def test_an_error_of_the_source_is_raised_at_its_position() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = prefetch(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_stopping_early_leaves_no_thread() -> None:
    before = threading.active_count()
    items = prefetch(iter(range(100)))
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_in_the_background_stops_the_work() -> None:
    done: list[int] = []

    def put(number: int) -> None:
        if number == 2:
            raise OSError("full")
        done.append(number)

    def work() -> None:
        with BackgroundWriter(put) as behind:
            for number in range(10):
                behind(number)

    with pytest.raises(OSError, match="full"):
        work()
    assert done[:2] == [0, 1]
    assert len(done) <= 4  # items that were already queued


def test_the_last_error_in_the_background_is_raised() -> None:
    def fail(_: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), BackgroundWriter(fail, depth=3) as behind:
        behind(0)


def test_an_error_of_the_work_takes_precedence() -> None:
    def fail(_: int) -> None:
        raise OSError("full")

    def work() -> None:
        with BackgroundWriter(fail, depth=3) as behind:
            behind(0)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        work()
