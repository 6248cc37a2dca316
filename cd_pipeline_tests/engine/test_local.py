import random
import threading
import time
from collections.abc import Iterator

import pytest

from cd_pipeline.data.images import PhotoError
from cd_pipeline.engine.local import LocalEngine


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_shards(threads: int) -> None:
    def work(shard: int) -> int:
        time.sleep(random.random() / 200)
        return shard * shard

    assert list(LocalEngine(threads).map(work, range(40))) == [number * number for number in range(40)]


def test_several_shards_are_worked_on_at_a_time() -> None:
    both = threading.Barrier(2, timeout=20)  # passed only when two threads are there
    assert list(LocalEngine(2).map(lambda shard: both.wait() >= 0 and shard, range(4))) == [0, 1, 2, 3]


def test_one_thread_is_the_one_that_asks() -> None:
    found = set(LocalEngine(1).map(lambda _: threading.get_ident(), range(3)))
    assert found == {threading.get_ident()}


@pytest.mark.parametrize("threads", [1, 3])
def test_shards_are_taken_a_bounded_number_ahead_of_their_results(threads: int) -> None:
    taken: list[int] = []

    def shards() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = LocalEngine(threads).map(lambda shard: shard, shards())
    for _ in range(5):
        next(results)
    assert len(taken) < 100


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_is_raised_in_its_turn_and_ends_the_work(threads: int) -> None:
    worked: list[int] = []

    def work(shard: int) -> int:
        worked.append(shard)
        if shard == 3:
            raise PhotoError("kitchen.jpg: the file has changed")
        return shard

    results = LocalEngine(threads).map(work, range(10_000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PhotoError, match=r"^kitchen\.jpg: the file has changed$"):
        next(results)
    assert len(worked) < 200
