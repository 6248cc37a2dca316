"""The engine of this machine: threads of this process."""

from collections.abc import Callable, Iterable, Iterator

from cd_pipeline.data.ahead import mapped
from cd_pipeline.engine.engine import Result, Shard


class LocalEngine:
    """Works on shards in threads of this process, a bounded number ahead of whoever takes the results.

    Args:
        threads: shards at a time; 1: in the thread that asks, as a network wants it, which has threads of its own.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard, as of `Engine`."""
        return map(work, shards) if self._threads == 1 else mapped(work, shards, self._threads)
