"""Threads work a little ahead of whoever takes the results."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.ahead import AHEAD, mapped


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 99), max_size=80), st.integers(1, 5))
def test_results_come_in_the_order_of_the_items(items: list[int], threads: int) -> None:
    def slow(item: int) -> int:
        time.sleep(item % 3 / 1e4)
        return item * item

    assert list(mapped(slow, items, threads)) == [item * item for item in items]


def test_items_are_not_taken_long_before_their_turn() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for done, result in enumerate(mapped(abs, items(), 2)):
        assert result == done
        assert taken <= done + 2 * AHEAD + 1
    assert taken == 1000


def test_what_the_function_raises_comes_in_its_turn_and_ends_the_work() -> None:
    begun = []

    def fails_at_5(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("item 5")
        return item

    results = mapped(fails_at_5, range(1000), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="item 5"):
        next(results)
    assert len(begun) <= 5 + 2 * AHEAD + 1
