"""The network that every export is made from: pictures in, probabilities out."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task

PROBABILITY = "probability"
"""The output that every export has."""
CLASS_MAP = "class_map"
"""The output that an export of several classes has besides."""
MASK = "mask"
"""The output that a package of one class has where it is asked for."""


class ExportedNetwork(nn.Module):
    """The trained network as an app sees it: images in, probabilities out, and what is decided by them.

    Args:
        model: A network in evaluation mode, `model(*pictures) -> logits`, float NxCxHxW.
        task: How many pictures it takes and how many classes C it gives.
        mask_threshold: Of one class: a mask is given too. None: there is none.

    Raises:
        ValueError: A mask is asked for and there are several classes.
    """

    def __init__(self, model: nn.Module, task: Task, mask_threshold: float | None = None) -> None:
        super().__init__()
        if task.multi_class and mask_threshold is not None:
            raise ValueError(
                f"mask_threshold {mask_threshold}: {task.classes} classes have a class_map, no mask"
            )
        self.model = model
        self.task = task
        self.mask_threshold = mask_threshold

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of what `forward` gives, in its order."""
        if self.task.multi_class:
            return PROBABILITY, CLASS_MAP
        return (PROBABILITY,) if self.mask_threshold is None else (PROBABILITY, MASK)

    def forward(self, *pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the probability of each pixel.

        Args:
            pictures: As many as the task has, float Nx3xHxW each, RGB in [0, 1].

        Returns:
            Of a binary task the probability, float Nx1xHxW in [0, 1], and with a mask threshold the mask,
            float Nx1xHxW, 0 or 255. Of several classes theirs, float NxCxHxW that sum to 1 over C, and the
            index of the largest, int NxHxW.
        """
        if self.task.multi_class:
            probability = torch.softmax(self.model(*pictures), 1)
            return probability, probability.argmax(1)
        if self.mask_threshold is None:  # the tracer names ops after variables: one more changes the package
            return torch.sigmoid(self.model(*pictures))
        probability = torch.sigmoid(self.model(*pictures))
        return probability, (probability > self.mask_threshold).float() * 255


def evaluation_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the CPU in float32, contiguous and in evaluation mode.

    Args:
        model: Any module, on any device; it is left as it is.

    Returns:
        The copy.
    """
    copied = copy.deepcopy(model).to(device="cpu", dtype=torch.float32)
    return copied.to(memory_format=torch.contiguous_format).eval()


def traced(wrapper: ExportedNetwork, size: int) -> torch.jit.ScriptModule:
    """Trace a network on two pictures of size x size px.

    Raises:
        ValueError: The network does not give one logit for each class and pixel of its input.
    """
    task, examples = wrapper.task, example_pictures(wrapper.task, size)
    with torch.no_grad(), _torch_as_imported(), without_deprecations():
        # sizes are fixed in an export, so what is traced of them holds
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        shape = tuple(wrapper.model(*examples).shape)
        if shape != (1, task.classes, size, size):
            raise ValueError(
                f"model output: found shape {shape}, expected (1, {task.classes}, {size}, {size}); "
                "the model must give one logit for each class and input pixel"
            )
        # unchecked: every export is compared with the checkpoint on real samples
        script = torch.jit.trace(wrapper, examples, check_trace=False)  # type: ignore[no-untyped-call]
    assert isinstance(script, torch.jit.ScriptModule)
    return script


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Keep torch from saying inside the block that TorchScript is deprecated.

    It is no longer developed, but is the one form that loads fast and without a network's code.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        yield


@contextmanager
def _torch_as_imported() -> Iterator[None]:
    # a trace keeps how convolutions were to be computed when it was made, such as for the training before it
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def example_pictures(task: Task, size: int) -> tuple[Tensor, ...]:
    """Return pictures to trace with: float32 1x3xSxS each, in [0, 1]."""
    example = torch.linspace(0, 1, 3 * size * size).reshape(1, 3, size, size)
    return (example, example.flip(-1))[: task.pictures]
