"""What the machine offers, and what runs on it."""

import ctypes
import functools
import os
import socket
import sys
from collections.abc import Callable

import psutil

CLOCK_SECONDS = 60
"""By so much the clock may have been set since a process began."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAX_INT = 2**31 - 1
"""Of glibc's malloc.h, and the most that mallopt takes."""


def usable_cores() -> int:
    """Return the number of CPU cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc's allocator keep large blocks instead of giving each back to the system; elsewhere nothing.

    A training step frees and asks again for the same hundreds of megabytes; clearing them anew each time
    takes 10-25 % of it on a CPU.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAX_INT)
        mallopt(M_TRIM_THRESHOLD, MAX_INT)


def give_back_freed_memory() -> None:
    """Give what glibc's allocator keeps of freed memory back to the system; elsewhere nothing.

    What is kept grows as it falls into pieces: by 200 MB in eight epochs of the rooms.
    """
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def this_process() -> str:
    """Return what tells this process from all others: the host, its number, and when it began."""
    own = psutil.Process()
    return f"{socket.gethostname()} {own.pid} {own.create_time():.0f}"


def has_ended(process: str) -> bool:
    """Tell whether a process that `this_process` named has ended; of another host's that is not known: False."""
    host, number, began = process.rsplit(" ", 2)
    return host == socket.gethostname() and is_gone(int(number), float(began))


def is_gone(number: int, at_work: float) -> bool:
    """Tell whether a process of this machine has ended.

    Args:
        number: its pid.
        at_work: a time at which it ran, in seconds since 1970; one that began later is another one.
    """
    try:
        found = psutil.Process(number)
        return found.status() == psutil.STATUS_ZOMBIE or found.create_time() > at_work + CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
