"""Measures the two sides of a case, each in a process of its own, in turn.

A side is prepared once; then rounds are asked for one by one, the two sides alternating. Peak memory is what the
system counted for the process, or for the largest of its child processes that have ended where that is more, and
what living ones hold. (A sum with those that have ended would count pages twice: Linux counts for a child what its
parent held when it began.)
"""

import importlib
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, cast

import psutil

Sizes = Mapping[str, int]
Shares = Sequence[tuple[str, float]]
"""What a profile found: (function or op, its share of the time), the largest first."""
RoundsOf = dict[str, list[dict[str, list[float]]]]
"""Of each side, what each round took: (seconds, CPU seconds) of the whole, as "", and of its parts."""
OURS, REFERENCE = "ours", "reference"
ROUNDS, QUICK_ROUNDS = 5, 2
ROUND_SECONDS = 0.3
"""What takes less is run several times in a round."""
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of one unit of `ru_maxrss`."""
TOLD = 3000
"""Characters of a failed side's log."""


class MeasureError(RuntimeError):
    """A side failed, or the two sides do not agree; the message says which case and why."""


class Spent(NamedTuple):
    """Seconds on the clock, and of CPU time over all cores."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Self:
        """Times of this process alone, since some moment in the past: of a part, as it is cheap."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, earlier: Self) -> "Spent":
        return Spent(self.wall - earlier.wall, self.cpu - earlier.cpu)


@dataclass(frozen=True)
class Side:
    """One way of doing a case's work, ready to run.

    Attributes:
        run: does the work once; returns what its parts took, by name, where it knows.
        answer: what came out, for the comparison; not timed.
        profile: finds out where the time goes; not timed.
    """

    run: Callable[[], Mapping[str, Spent] | None]
    answer: Callable[[], Any]
    profile: Callable[[], Shares] | None = None


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        name: of the case.
        module: of the package `cases` that holds its two sides.
        what: is done, in a few words.
        ours: how the product does it.
        reference: how the other side does it.
        sizes: numbers given to the module.
        quick: those of a short look.
    """

    name: str
    module: str
    what: str
    ours: str
    reference: str
    sizes: Sizes = field(default_factory=dict)
    quick: Sizes = field(default_factory=dict)


class CaseModule(Protocol):
    """What the module of a case defines."""

    def prepare(self, folder: Path, sizes: Sizes) -> None:
        """Make the files that both sides read; those that are there already stay."""

    def ours(self, folder: Path, sizes: Sizes) -> Side:
        """Prepare the product's side."""

    def reference(self, folder: Path, sizes: Sizes) -> Side:
        """Prepare the other side."""

    def compare(self, found: Any, expected: Any) -> str:  # noqa: ANN401 - of the module's own kind
        """Say within what the answers of ours and the reference agree.

        Raises:
            AssertionError: they do not.
        """


class Process:
    """A side in a process of its own that does what it is asked, a line at a time."""

    def __init__(self, case: Case, side: str, folder: Path, sizes: Sizes) -> None:
        self._name = f"{case.name}, {side}"
        self._log = folder / f"{case.name}_{side}.log"
        command = [sys.executable, "-m", __spec__.name, case.module, side, str(folder), json.dumps(sizes)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, what: str, *paths: Path) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([what, *map(str, paths)]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise MeasureError(f"{self._name}: {what} failed:\n{self._log.read_text()[-TOLD:].strip()}")
        return json.loads(line)


def measure(case: Case, folder: Path, *, quick: bool, profiled: bool = False) -> dict[str, Any]:
    """Measure a case.

    Args:
        case: what is compared.
        folder: for the files of all cases; what one of them has prepared serves the others.
        quick: smaller sizes and fewer rounds.
        profiled: also find out where ours spends its time, where the case can tell.

    Returns:
        The figures as plain values: `rows` has the whole and its parts.

    Raises:
        MeasureError: a side failed, or the answers differ.
    """
    sizes, rounds = (case.quick or case.sizes, QUICK_ROUNDS) if quick else (case.sizes, ROUNDS)
    with Process(case, "prepare", folder, sizes) as process:
        process.ask("ready")
    with Process(case, OURS, folder, sizes) as ours, Process(case, REFERENCE, folder, sizes) as reference:
        sides = {OURS: ours, REFERENCE: reference}
        before = {name: side.ask("ready") for name, side in sides.items()}
        rounds_of = _alternating(sides, rounds)
        memory = {name: {**side.ask("memory"), "before_mb": before[name]} for name, side in sides.items()}
        answer = folder / f"{case.name}_answer.pickle"
        ours.ask("answer", answer)
        agreement = reference.ask("compare", answer)
        profile = ours.ask("profile") if profiled else None
    return {
        "name": case.name,
        "what": case.what,
        OURS: case.ours,
        REFERENCE: case.reference,
        "sizes": dict(sizes),
        "rounds": rounds,
        "agreement": agreement,
        "memory": memory,
        "memory_ratio": memory[REFERENCE]["peak_mb"] / memory[OURS]["peak_mb"],
        "rows": list(_rows(case.name, rounds_of)),
        **({"profile": profile} if profile else {}),
    }


def _alternating(sides: Mapping[str, Process], rounds: int) -> RoundsOf:
    for side in sides.values():
        side.ask("run")  # the first one loads code and fills caches
    found: RoundsOf = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            found[name].append(sides[name].ask("run"))
    return found


def _rows(name: str, rounds_of: RoundsOf) -> Iterator[dict[str, Any]]:
    whole = {side: figures([spent[""] for spent in rounds]) for side, rounds in rounds_of.items()}
    for part in rounds_of[OURS][0]:
        sides = {side: [spent[part] for spent in rounds] for side, rounds in rounds_of.items()}
        found = {side: figures(spent) for side, spent in sides.items()}
        for side in found:
            found[side]["share"] = found[side]["seconds"] / whole[side]["seconds"]
        pairs = list(zip(sides[REFERENCE], sides[OURS], strict=True))
        yield {
            "name": f"{name}: {part}" if part else name,
            **found,
            **_ratio("ratio", [(theirs[0], ours[0]) for theirs, ours in pairs]),
            **_ratio("cpu_ratio", [(theirs[1], ours[1]) for theirs, ours in pairs]),
        }


def figures(spent: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return median and spread of rounds, each (seconds, CPU seconds)."""
    wall, cpu = [one[0] for one in spent], [one[1] for one in spent]
    return {
        "seconds": statistics.median(wall),
        "low": min(wall),
        "high": max(wall),
        "cpu_seconds": statistics.median(cpu),
    }


def _ratio(name: str, pairs: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Median, lowest and highest of reference / ours, round by round; None where ours took no time."""
    if any(ours <= 0 for _, ours in pairs):
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    ratios = [theirs / ours for theirs, ours in pairs]
    return {name: statistics.median(ratios), f"{name}_low": min(ratios), f"{name}_high": max(ratios)}


def peak_mb() -> float:
    """Peak memory of this process and its children, in MB, as said above."""
    both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    ended = max(resource.getrusage(who).ru_maxrss for who in both) * RSS_UNIT
    return (ended + sum(_of_children(lambda child: child.memory_info().rss))) / 1e6


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(one.ru_utime + one.ru_stime for one in used)
    return ended + sum(_of_children(lambda child: sum(child.cpu_times()[:2])))


def _of_children(figure: Callable[[psutil.Process], float]) -> Iterator[float]:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended just now, and is counted with those that have
            yield figure(child)


def _timed(side: Side) -> dict[str, Spent]:
    """Run as often as fills a round; return what one run took, as "", and its parts."""
    cpu, started = _cpu_seconds(), time.perf_counter()
    parts: dict[str, list[Spent]] = {}
    runs = 0
    while runs == 0 or time.perf_counter() - started < ROUND_SECONDS:
        for name, spent in (side.run() or {}).items():
            parts.setdefault(name, []).append(spent)
        runs += 1
    whole = Spent(time.perf_counter() - started, _cpu_seconds() - cpu)
    totals = {"": [whole], **parts}
    return {
        name: Spent(*(sum(each) / runs for each in zip(*spent, strict=True)))
        for name, spent in totals.items()
    }


def _serve(module: CaseModule, name: str, folder: Path, sizes: Sizes) -> None:
    """Do what is asked on stdin; what libraries print goes to the log."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side: Side | None = None
    if name == "prepare":
        module.prepare(folder, sizes)
    else:
        side = (module.ours if name == OURS else module.reference)(folder, sizes)
    for line in sys.stdin:
        asked, *paths = json.loads(line)
        print(json.dumps(_done(module, side, asked, *map(Path, paths))), file=channel, flush=True)


def _done(module: CaseModule, side: Side | None, asked: str, *paths: Path) -> object:
    if side is None or asked == "ready":
        return peak_mb()
    match asked:
        case "run":
            return _timed(side)
        case "memory":
            return {"peak_mb": peak_mb()}
        case "answer":
            paths[0].write_bytes(pickle.dumps(side.answer()))
        case "compare":
            return module.compare(pickle.loads(paths[0].read_bytes()), side.answer())
        case "profile":
            return side.profile() if side.profile else None
    return None


if __name__ == "__main__":
    case_module = importlib.import_module(f"{__spec__.parent}.cases.{sys.argv[1]}")
    _serve(cast(CaseModule, case_module), sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4]))
