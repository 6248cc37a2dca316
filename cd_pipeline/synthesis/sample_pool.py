"""What drawing any sample set takes: the processes that draw it, and what may be asked of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2

from cd_pipeline.data.split import SPLITS

Item = TypeVar("Item")
Result = TypeVar("Result")


def draw_all(
    draw: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Iterator[Result]:
    """Yield what `draw` returns for each item, in order, as the files come to be.

    Args:
        draw: can be pickled.
        items: what to draw.
        workers: processes; 1 draws in this one, as does a process that may not have children.
        progress: called in this process with items done and items in all, after each item.
    """
    for done, result in enumerate(_results(draw, items, workers), start=1):
        progress(done, len(items))
        yield result


def require_workers(workers: int) -> None:
    """Raise ValueError for fewer than one process."""
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be at least 1")


def require_counts(counts: Mapping[str, int]) -> None:
    """Raise ValueError unless the counts are those of splits, and none is negative."""
    if unknown := set(counts) - set(SPLITS):
        raise ValueError(f"no such split: {', '.join(sorted(unknown))}; there are {', '.join(SPLITS)}")
    if min(counts.values(), default=0) < 0:
        raise ValueError(f"counts are {dict(counts)}; none may be negative")


def _results(draw: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    if workers == 1 or multiprocessing.current_process().daemon:
        yield from map(draw, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        yield from pool.map(draw, items)


def _begin() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # were the parent killed, this process would wait for work for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
