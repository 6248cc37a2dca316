"""The harness itself can fail: it sees foreign errors, long messages and slow parsers."""

from collections.abc import Callable
from time import process_time, sleep

import pytest

from cd_pipeline_tests.fuzz import mutations
from cd_pipeline_tests.fuzz.mutations import damaged, outcomes


def crash(content: bytes) -> None:
    raise KeyError("not what was promised")


def ramble(content: bytes) -> None:
    raise ValueError("one line\nand another")


def say_nothing(content: bytes) -> None:
    raise ValueError


def spin(content: bytes) -> None:
    started = process_time()
    while process_time() - started < 0.1:
        pass


def hang(content: bytes) -> None:
    sleep(0.4)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (crash, "case 0, 1 bytes, 61: KeyError: 'not what was promised'"),
        (ramble, "case 0, 1 bytes, 61: several lines"),
        (say_nothing, "case 0, 1 bytes, 61: no message"),
        (spin, r"case 0, 1 bytes, 61: 0\.\d s of work"),
        (hang, r"case 0, 1 bytes, 61: 0\.\d s of work in 0\.\d s"),
    ],
)
def test_a_parser_that_breaks_its_promise_is_found(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[bytes], None], message: str
) -> None:
    monkeypatch.setattr(mutations, "BUDGET", 0.08)
    monkeypatch.setattr(mutations, "PATIENCE", 0.3)
    with pytest.raises(AssertionError, match=message):
        outcomes(read, [b"a"], ValueError)


def test_cases_are_counted_by_what_became_of_them() -> None:
    assert outcomes(lambda content: int(content), [b"1", b"x", b"2"], ValueError) == {"read": 2, "refused": 1}


def test_the_same_seed_gives_the_same_cases_and_another_one_others() -> None:
    seeds = (b"a small whole file", b"another one")
    assert list(damaged(seeds, 50, seed=1)) == list(damaged(seeds, 50, seed=1))
    assert list(damaged(seeds, 50, seed=1)) != list(damaged(seeds, 50, seed=2))
