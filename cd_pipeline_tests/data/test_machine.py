import ctypes
import sys
from collections.abc import Iterator

import pytest

from cd_pipeline.data.machine import keep_freed_memory


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


class Recorder:
    """Stands for the C library, and remembers what its allocator is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> int:
        self.calls.append((name, value))
        return 1


def test_freed_memory_can_be_kept_twice() -> None:
    for _ in range(2):
        keep_freed_memory()
    assert keep_freed_memory.cache_info().hits == 1


def test_the_allocator_is_told_once_never_to_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Recorder()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "linux")
    for _ in range(2):
        keep_freed_memory()
    # malloc.h: M_TRIM_THRESHOLD is -1 and M_MMAP_THRESHOLD -3
    assert sorted(library.calls) == [(-3, 2**31 - 1), (-1, 2**31 - 1)]


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_asked_of_the_c_library(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    def refuse(name: object) -> object:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(sys, "platform", platform)
    keep_freed_memory()
    assert keep_freed_memory.cache_info().misses == 1


def test_a_c_library_without_the_call_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(sys, "platform", "linux")
    keep_freed_memory()
    assert keep_freed_memory.cache_info().misses == 1
