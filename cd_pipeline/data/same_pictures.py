"""Pictures that are in a data set more than once: which is kept, and which are in several splits."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Protocol, TypeVar

from cd_pipeline.data.split import SPLITS


class Found(Protocol):
    """A row of an inventory."""

    @property
    def split(self) -> str:
        """train, val, test, or "" where it is not known."""

    @property
    def reason(self) -> str | None:
        """Why it is not used; None: it is."""


Row = TypeVar("Row", bound=Found)


def with_kept(
    rows: Iterable[Row], pixels: Callable[[Row], Hashable], place: Callable[[Row], tuple[str, ...]]
) -> Iterator[tuple[Row, Row]]:
    """Give with each row the one that is kept of all with the same pixels: itself, if it cannot be used.

    That of test is kept, then that of val, then the first by place: what is measured stays unseen.
    """
    first: dict[Hashable, Row] = {}
    order = (*reversed(SPLITS), "")
    for row in sorted(rows, key=lambda row: (order.index(row.split), place(row))):
        yield row, first.setdefault(pixels(row), row) if row.reason is None else row


def in_several_splits(files: Iterable[tuple[str, str, str]]) -> list[list[str]]:
    """Return the files of every picture that is in two splits or more, sorted.

    Args:
        files: the hash of its pixels, the split and the path of each.
    """
    places: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for pixels, split, path in files:
        places[pixels].add((split, path))
    return [sorted(path for _, path in same) for same in places.values() if len(dict(same)) > 1]
