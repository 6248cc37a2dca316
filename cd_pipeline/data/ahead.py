"""Work done by several threads, a little ahead of whoever takes the results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 8
"""Items a thread that are begun before they are asked for."""


def mapped(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield what a function makes of each item, in their order.

    As `ThreadPoolExecutor.map`, which begins with all items at once and keeps all results.

    Args:
        function: of one item.
        items: taken when their turn is near.
        threads: items at work at a time.

    Raises:
        Exception: what the function raises, in the item's turn.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(function, item))
                if len(begun) > AHEAD * threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
