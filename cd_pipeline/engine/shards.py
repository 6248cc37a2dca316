"""The rows of a manifest in shards: what is worked on, and resumed, as a whole."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Shards(Generic[Row]):
    """Rows cut into shards, which are made as they are asked for, anew each time.

    Args:
        rows: in their order; can be gone through again.
        size: rows a shard; the last one can have fewer.

    Raises:
        TypeError: the rows can be gone through once only.
    """

    def __init__(self, rows: Iterable[Row], size: int) -> None:
        if iter(rows) is rows:
            raise TypeError(
                "Shards: expected rows that can be gone through again, such as a list, not an iterator"
            )
        self._rows = rows
        self._size = size

    def __iter__(self) -> Iterator[Sequence[Row]]:
        left = iter(self._rows)
        while shard := list(islice(left, self._size)):
            yield shard
