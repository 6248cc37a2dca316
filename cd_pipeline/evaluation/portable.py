"""A network on its way to another process, which can have another device."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from cd_pipeline.evaluation.tiled import Probabilities, Probability
from cd_pipeline.models.runtime import Runtime


class PortableNetwork:
    """A network that is brought to a device where and when it is first asked; what is pickled stays on the CPU.

    Args:
        model: on the CPU.
        runtime: says what the device of the process that calls it is.
    """

    def __init__(self, model: nn.Module, runtime: Callable[[], Runtime]) -> None:
        self._made_of = model, runtime
        self._placed: Probabilities | None = None

    def __reduce__(self) -> tuple[type["PortableNetwork"], tuple[nn.Module, Callable[[], Runtime]]]:
        return PortableNetwork, self._made_of

    def __call__(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Probability]:
        """Predict as `Probabilities`."""
        if self._placed is None:
            from cd_pipeline.evaluation.predict import network_probabilities

            model, of_this_process = self._made_of
            runtime = of_this_process().exact()
            runtime.prepare()
            self._placed = network_probabilities(runtime.place(model), runtime)
        return self._placed(pictures)
