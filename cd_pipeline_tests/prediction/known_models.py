"""Models whose answers can be computed by hand, written as users get them."""

import json
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.interface import ModelInterface

SIZE = 32


class Difference(nn.Module):
    """The logit of change: 12 times (the mean difference of the channels in [0, 1], less 0.25)."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return 12 * ((before - after).abs().mean(1, keepdim=True) - 0.25)


class Redness(nn.Module):
    """The logit of a mark: 12 times (red in [0, 1], less a half)."""

    def forward(self, image: Tensor) -> Tensor:
        return 12 * (image[:, :1] - 0.5)


class Brightest(nn.Module):
    """Logits of three classes: 9 times red, green and blue."""

    def forward(self, image: Tensor) -> Tensor:
        return 9 * image


class _Probability(nn.Module):
    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, *pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.model(*pictures)
        if self.classes == 1:
            return logits.sigmoid()
        probability = logits.softmax(1)
        return probability, probability.argmax(1)


MODELS = {(2, 1): Difference, (1, 1): Redness, (1, 3): Brightest}


def known_interface(pictures: int = 2, classes: int = 1, **changes: object) -> ModelInterface:
    settings: dict[str, object] = {
        "task": Task(pictures=pictures, classes=classes),
        "size": SIZE,
        "threshold": 0.5 if classes == 1 else None,
        "class_names": ("sky", "road", "car") if classes == 3 else (),
        "recipe": "known",
        "checkpoint_version": "c" * 64,
        **changes,
    }
    return ModelInterface(**settings)  # type: ignore[arg-type]


def write_torchscript(path: Path, pictures: int = 2, classes: int = 1, **changes: object) -> Path:
    """Write a known model of a task with its metadata; `changes` are those of the interface."""
    interface = known_interface(pictures, classes, **changes)
    wrapper = _Probability(MODELS[pictures, classes](), classes).eval()
    examples = tuple(torch.rand(1, 3, interface.size, interface.size) for _ in range(pictures))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(wrapper, examples, check_trace=False)
        torch.jit.save(traced, path, _extra_files={"metadata.json": json.dumps(interface.to_metadata())})
    return path


def change_probability(
    before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """Compute by hand what `Difference` says of two pictures of one size, pixel by pixel."""
    difference = np.abs(before / 255 - after / 255).mean(axis=2)
    return 1 / (1 + np.exp(-12 * (difference - 0.25)))
