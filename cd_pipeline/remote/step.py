"""What one step of a run holds and has fetched, so that nothing is asked of the store twice."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cd_pipeline.remote.lease import Lease


@dataclass(slots=True)
class Step:
    """A step at work.

    Attributes:
        lease: that it holds; None: its results lie on no object store.
        fetched: addresses that are mirrored as they are.
        refused: by address objects that are left out, with the reason.
    """

    lease: "Lease | None" = None
    fetched: set[str] = field(default_factory=set)
    refused: dict[str, Mapping[str, str]] = field(default_factory=dict)


_step: ContextVar[Step | None] = ContextVar("step", default=None)


def current_step() -> Step:
    """Return the step at work; outside of one a new one, that knows nothing."""
    return _step.get() or Step()


@contextmanager
def at_work(lease: "Lease | None") -> Iterator[None]:
    """Make a new step the one at work for the time of a block."""
    token = _step.set(Step(lease))
    try:
        yield
    finally:
        _step.reset(token)
