"""What an engine is: it applies one piece of work to many shards."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Shard = TypeVar("Shard")
Result = TypeVar("Result")


class Engine(Protocol):
    """Applies work to shards, several at a time."""

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the result of each shard, in the shards' order; what `work` raises is raised here.

        Args:
            work: can be pickled, and keeps what it has loaded (a network, decoded photos) for the next shard.
            shards: can be pickled, as can the results; they are taken when their turn is near.
        """
        ...
