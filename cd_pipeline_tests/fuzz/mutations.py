"""Hostile input: small valid files damaged in seeded ways, and names that no one would choose."""

import gc
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, process_time

BUDGET = 2.0
"""Seconds of work that one case may take."""
PATIENCE = 30.0
"""Seconds that it may take on the clock, on a machine with other work to do."""
LONGEST_MESSAGE = 1000
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62)
"""Numbers at which sizes, counts and offsets go wrong."""
NAMES = (
    "..",
    ".",
    "/",
    "../../etc/passwd",
    "/etc/passwd",
    "a\nb",
    "a\r\nb",
    "a\tb",
    "a\x00b",
    "a\x1b[31mb",
    "\u202egpj.a",
    "\udcff\udcfe",
    "한글 이름",
    "한글",
    "x" * 255,
    "가" * 85,
    " a ",
    "a.",
    ".png",
    "a.PNG",
    "a.png.png",
    "-rf",
    "CON",
    "a|b*c?d",
    "\ufeffa",
    "\u2028",
    "%s%n",
    "{name}",
    "a\\b",
)


def damaged(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` contents: mostly damaged seeds, some of two seeds spliced, some of random bytes."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.random()
        if kind < 0.05:
            yield rng.randbytes(rng.randrange(200))
        elif kind < 0.1:
            head, tail = rng.choice(seeds), rng.choice(seeds)
            yield head[: rng.randrange(len(head) + 1)] + tail[rng.randrange(len(tail) + 1) :]
        elif kind < 0.2:
            whole = rng.choice(seeds)
            yield whole[: rng.randrange(len(whole) + 1)]
        else:
            content = bytearray(rng.choice(seeds))
            for _ in range(1 + min(int(rng.expovariate(0.5)), 12)):
                _damage(rng, content)
            yield bytes(content)


def _damage(rng: random.Random, content: bytearray) -> None:
    # every second time near the front, where headers are
    reach = len(content) if rng.random() < 0.5 else min(len(content), 64)
    place = rng.randrange(reach + 1)
    part = slice(place, place + rng.choice((1, 1, 2, 4, 16, 64)))
    match rng.randrange(7):
        case 0:
            content[part] = rng.randbytes(len(content[part]))
        case 1:
            content[part] = bytes(byte ^ (1 << rng.randrange(8)) for byte in content[part])
        case 2:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(EDGES) & ((1 << 8 * width) - 1)
            content[place : place + width] = number.to_bytes(width, rng.choice(("big", "little")))
        case 3:
            del content[part]
        case 4:
            content[place:place] = content[part] * rng.choice((1, 2, 100))
        case 5:
            content[place:place] = rng.randbytes(rng.randrange(1, 9))
        case _:
            other = rng.randrange(len(content) + 1)
            content[part] = content[other : other + len(content[part])]


def written(words: Sequence[str], count: int, seed: int, longest: int = 40) -> Iterator[str]:
    """Yield `count` texts made of the words of a grammar, in any order."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choices(words, k=rng.randrange(longest)))


def names(count: int, seed: int) -> Iterator[str]:
    """Yield `count` names: hostile ones, and pieces of them joined."""
    rng = random.Random(seed)
    for _ in range(count):
        pieces = rng.choices(NAMES, k=rng.choice((1, 1, 1, 2, 3)))
        yield rng.choice(("", "", "/", ".", " ")).join(pieces)


def outcomes(
    read: Callable[[bytes], object], contents: Iterable[bytes], refusal: type[Exception]
) -> Counter[str]:
    """Read every content; each is read within its budget, or refused in a line.

    Args:
        read: the parser.
        contents: cases.
        refusal: what the parser says it raises.

    Returns:
        How many were "read" and how many "refused".

    Raises:
        AssertionError: another error, a message of several lines, or too slow; with the case.
    """
    found: Counter[str] = Counter()
    with _own_garbage():
        for number, content in enumerate(contents):
            started = process_time(), perf_counter()
            case = f"case {number}, {len(content)} bytes, {content[:400].hex()}"
            try:
                read(content)
            except refusal as error:
                found["refused"] += 1
                assert_one_line(str(error), case)
            except Exception as error:
                raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
            else:
                found["read"] += 1
            worked, waited = process_time() - started[0], perf_counter() - started[1]
            assert worked < BUDGET and waited < PATIENCE, f"{case}: {worked:.1f} s of work in {waited:.1f} s"
    return found


@contextmanager
def _own_garbage() -> Iterator[None]:
    # no case pays for a collection of what earlier tests have left
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def assert_one_line(message: str, case: str) -> None:
    """Fail unless a message is a short line of printable text that can be stored."""
    assert message, f"{case}: no message"
    assert len(message) <= LONGEST_MESSAGE, f"{case}: a message of {len(message)} characters"
    assert len(message.splitlines()) == 1, f"{case}: several lines: {message!r}"
    message.encode()
