import json
import logging
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, fields
from typing import Any

import pytest

from cd_pipeline.training.progress import EpochRecord
from cd_pipeline.training.telling import Listener, Teller, heard


def epoch(number: int) -> EpochRecord:
    return EpochRecord(number, 1e-3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, None, 1.0, 1.0, 4.0, 0.5, None)


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def listener(told: list[Any]) -> Listener:
    return Listener(
        logging.getLogger(__name__), on_epoch=told.append, on_resume=lambda history: told.append(history)
    )


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the test the project's logger is as it was."""
    own = logging.getLogger("cd_pipeline")
    for name in ("propagate", "level", "handlers"):
        monkeypatch.setattr(own, name, own.handlers.copy() if name == "handlers" else getattr(own, name))


@pytest.fixture
def teller(listener: Listener, as_before: None) -> Teller:
    return Teller(lambda **message: listener.hear(message), first=True)


def test_what_the_first_process_tells_is_heard(
    teller: Teller, listener: Listener, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    teller.on_resume([epoch(1), epoch(2)])
    teller.on_epoch(epoch(3))
    teller.logger.info("almost done")
    assert told == [[epoch(1)], [epoch(2)], epoch(3)]
    assert (__name__, logging.INFO, "almost done") in caplog.record_tuples
    assert not listener.failure


def test_the_first_failure_of_any_process_is_kept(teller: Teller, listener: Listener) -> None:
    teller.failed(ValueError("a.png: cannot be decoded"))
    teller.failed(ValueError("connection lost"))
    assert listener.failure == "a.png: cannot be decoded"


def test_of_processes_that_were_started_again_no_epoch_is_heard_twice(
    listener: Listener, told: list[Any]
) -> None:
    for number in (1, 2):
        listener.hear({"epoch": asdict(epoch(number))})
    listener.hear({"resumed": asdict(epoch(1))})  # the second was not kept in time
    listener.hear({"epoch": asdict(epoch(2))})
    for number in (1, 2, 3):
        listener.hear({"resumed": asdict(epoch(number))})
    assert told == [epoch(1), epoch(2), [epoch(3)]]


@pytest.mark.parametrize("message", [{"log": "a line"}, {}])
def test_other_messages_are_no_epochs(listener: Listener, told: list[Any], message: dict[str, Any]) -> None:
    listener.hear(message)
    assert not told


def test_what_several_processes_tell_at_once_arrives_line_by_line() -> None:
    # unbuffered, as torchrun starts them
    program = (
        "from cd_pipeline.training.telling import tell_line\nfor n in range(2000): tell_line(failure=f'{n}')"
    )
    read, written = os.pipe()
    processes = [subprocess.Popen([sys.executable, "-u", "-c", program], stdout=written) for _ in range(2)]
    os.close(written)
    with os.fdopen(read) as lines:
        messages = [heard(line) for line in lines]
    assert [process.wait() for process in processes] == [0, 0]
    assert Counter(message.get("failure") for message in messages) == {str(n): 2 for n in range(2000)}


@pytest.mark.usefixtures("as_before")
def test_the_epochs_of_a_long_training_that_goes_on_are_told_in_messages_that_a_pipe_takes_at_once() -> None:
    numbers = {field.name: -1.2345678901234567e-300 for field in fields(EpochRecord)}  # as long as they get
    history = [EpochRecord(**{**numbers, "epoch": number}) for number in range(1, 100_001, 2500)]
    sent: list[dict[str, object]] = []
    Teller(lambda **message: sent.append(message), first=True).on_resume(history)
    assert [message["resumed"] for message in sent] == [asdict(record) for record in history]
    assert max(len(json.dumps(message)) + 1 for message in sent) <= 4096  # of Linux; POSIX has 512 at least


@pytest.mark.parametrize("line", ["Epoch 1 of 3\n", "3\n", "[1, 2]\n", '{"log": \n'])
def test_a_line_that_is_no_message_is_logged(line: str) -> None:
    assert heard(line) == {"log": line.rstrip()}
