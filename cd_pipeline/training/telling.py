"""What processes that train together tell the one that has started them: plain messages, a dict each."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cd_pipeline.training.progress import EpochRecord

OnEpoch = Callable[[EpochRecord], None]
OnResume = Callable[[list[EpochRecord]], None]


class Tell(Protocol):
    """Sends a message, the values by their names."""

    def __call__(self, **message: object) -> None:
        """Send it."""
        ...


def tell_line(**message: object) -> None:
    """Send a message to the standard output as one line, in one write: other processes write there too.

    A pipe takes as much as 4,096 bytes at once on Linux, so a message holds one epoch or one line of a log.
    """
    # `print` writes the end of the line by itself where the output is unbuffered, as torchrun starts its processes
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


def heard(line: str) -> dict[str, Any]:
    """Return the message of a line; any other text is a log line."""
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    return message if isinstance(message, dict) else {"log": line.rstrip()}


class Teller:
    """One of the processes: the first tells of epochs and what it logs, each of its failure."""

    def __init__(self, tell: Tell, *, first: bool) -> None:
        self._tell = tell
        self._first = first
        self.logger = logging.getLogger("cd_pipeline")
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO if first else logging.CRITICAL)
        self.logger.addHandler(_TellingHandler(tell))

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell of an epoch that has ended."""
        if self._first:
            self._tell(epoch=asdict(record))

    def on_resume(self, history: list[EpochRecord]) -> None:
        """Tell of the epochs of before."""
        if self._first:
            for record in history:
                self._tell(resumed=asdict(record))

    def failed(self, error: Exception) -> None:
        """Tell why this process cannot go on: each reads pictures of its own."""
        self._tell(failure=str(error))


class _TellingHandler(logging.Handler):
    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(log=record.getMessage())


@dataclass(slots=True)
class Listener:
    """The process that has started them. It passes no epoch on twice.

    Ray starts them again by itself where a machine is taken back by its provider, and they tell all epochs again.

    Attributes:
        logger: gets what the first process logs.
        on_epoch: called with each epoch.
        on_resume: called with the epochs of before, one at a time.
        failure: the first that was told; "": none.
        epochs: how many were passed on.
    """

    logger: logging.Logger
    on_epoch: OnEpoch
    on_resume: OnResume
    failure: str = ""
    epochs: int = 0

    def hear(self, message: dict[str, Any]) -> None:
        """Pass a message on."""
        told = message.get("resumed") or message.get("epoch")
        if told and told["epoch"] > self.epochs:
            self.epochs = told["epoch"]
            record = EpochRecord(**told)
            if "resumed" in message:
                self.on_resume([record])
            else:
                self.on_epoch(record)
        self.failure = self.failure or message.get("failure", "")
        if "log" in message:
            self.logger.info(message["log"])
