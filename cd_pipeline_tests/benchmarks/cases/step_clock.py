"""Times of the parts of training steps, whoever runs them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from cd_pipeline_tests.benchmarks.measure import Spent

P = ParamSpec("P")
Item = TypeVar("Item")
FORWARD, BACKWARD, OPTIMISER, AVERAGE = "forward and loss", "backward", "clip and optimiser", "average"
WAITING = "waiting for batches"


class StepClock:
    """Adds up what the parts of a network's steps take, from its hooks and its optimiser's.

    `backward` of a tensor has no hook: it is replaced for the whole process, which trains this network alone.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._parts: dict[str, Spent] = {}
        self._since = Spent.now()
        model.register_forward_pre_hook(lambda *_: self._start())
        optimizer.register_step_post_hook(lambda *_: self._end(OPTIMISER))
        backward = torch.Tensor.backward

        def timed_backward(tensor: torch.Tensor, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - torch's
            self._end(FORWARD)
            backward(tensor, *arguments, **options)
            self._end(BACKWARD)

        torch.Tensor.backward = timed_backward  # type: ignore[method-assign]

    def averaging(self, update: Callable[P, None]) -> Callable[P, None]:
        """Return the update of the average, which ends a step, timed."""

        def timed_update(*arguments: P.args, **options: P.kwargs) -> None:
            update(*arguments, **options)
            self._end(AVERAGE)

        return timed_update

    def waiting(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield batches, and count how long each is waited for."""
        found = iter(batches)
        while True:
            self._start()
            try:
                batch = next(found)
            except StopIteration:
                return
            self._end(WAITING)
            yield batch

    def taken(self, *names: str) -> dict[str, Spent]:
        """Return the sums since the last call, of these parts."""
        found, self._parts = self._parts, {}
        return {name: found[name] for name in names}

    def _start(self) -> None:
        self._since = Spent.now()

    def _end(self, part: str) -> None:
        spent, before = Spent.now().since(self._since), self._parts.get(part, Spent(0, 0))
        self._parts[part] = Spent(before.wall + spent.wall, before.cpu + spent.cpu)
        self._start()
