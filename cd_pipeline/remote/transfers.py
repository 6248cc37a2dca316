"""Several transfers at a time."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

TRANSFERS = 16
"""Objects fetched or sent at a time."""

Name = TypeVar("Name")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Name], Result], names: Collection[Name]) -> list[Result]:
    """Do a work for each name, and return the results in their order; after an error no other one is begun."""
    with ThreadPoolExecutor(max_workers=TRANSFERS) as pool:
        futures = [pool.submit(work, name) for name in names]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
