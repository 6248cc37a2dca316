"""Where the time goes: the functions or ops with the largest shares of their own."""

import cProfile
from collections.abc import Callable, Sequence
from pathlib import PurePath
from types import CodeType

from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots
from cd_pipeline.synthesis.rendered_pairs import render_pairs
from cd_pipeline_tests.benchmarks.measure import Shares

SHOWN = 5


def profiled_rendering(pairs: Sequence[Pair], places: Roots) -> Shares:
    """Profile the rendering and writing of pairs in one thread: shares of the functions' own time."""
    with cProfile.Profile() as profile:
        render_pairs(pairs, places, threads=1)
    entries = profile.getstats()
    total = sum(entry.inlinetime for entry in entries)
    shares: dict[str, float] = {}
    for entry in entries:
        name = shown(entry.code)
        shares[name] = shares.get(name, 0) + entry.inlinetime / total
    return largest(shares)


def shown(code: CodeType | str) -> str:
    """Name a function with its file; one of a library in C has no file."""
    return code if isinstance(code, str) else f"{code.co_name} ({PurePath(code.co_filename).name})"


def profiled_torch(run: Callable[[], object]) -> Shares:
    """Profile torch's ops on the CPU: shares of their own time."""
    import torch

    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return largest({name: spent / sum(times.values()) for name, spent in times.items()})


def largest(shares: dict[str, float]) -> Shares:
    return sorted(shares.items(), key=lambda item: -item[1])[:SHOWN]
