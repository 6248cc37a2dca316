"""How far an exported network is from its checkpoint, measured on samples of its task."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cd_pipeline.data.preprocessing import PIXEL_SCALE
from cd_pipeline.data.task import Task
from cd_pipeline.export.network import evaluation_copy

Pictures = tuple[NDArray[np.uint8], ...]
"""The pictures of one sample, in the task's order: HxWx3 in RGB."""


@dataclass(frozen=True)
class Agreement:
    """How far an export is from its checkpoint over a set of samples.

    Attributes:
        samples: How many were compared; a sample is a pair of photos, or one image.
        non_empty_samples: Those in which the checkpoint predicts at least one pixel of a class other than 0.
        max_probability_difference: Largest difference of any pixel and class, in [0, 1]; infinite if one is
            NaN.
        mean_probability_difference: Mean over all pixels and classes of all samples.
        flipped_share: Share of pixels whose class differs, in [0, 1].
        mask_iou: Intersection over union of the two masks, in [0, 1], pooled over the non-empty samples and
            the classes other than 0; None where there is no such sample.
        non_finite_ops: Ops and weights that gave NaN or infinity.
        decision_faults: Pixels at which the export's own class map or mask is not what its own probability
            says.
    """

    samples: int
    non_empty_samples: int
    max_probability_difference: float
    mean_probability_difference: float
    flipped_share: float
    mask_iou: float | None
    non_finite_ops: tuple[str, ...] = ()
    decision_faults: int = 0

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> "Agreement":
        """Read what `dataclasses.asdict` gave, also after a journey through JSON.

        Raises:
            TypeError: A field is missing or unknown.
        """
        return cls(**{**values, "non_finite_ops": tuple(values.get("non_finite_ops", ()))})


@dataclass(frozen=True)
class AgreementLimits:
    """How far an export may be from its checkpoint."""

    max_probability_difference: float = 0.02
    min_mask_iou: float = 0.99
    max_flipped_share: float = 0.001

    def violations(self, agreement: Agreement) -> list[str]:
        """Return a sentence for each broken limit; empty if the export agrees."""
        found = []
        if not agreement.max_probability_difference <= self.max_probability_difference:
            found.append(
                f"The largest probability difference is {agreement.max_probability_difference:.4f}, "
                f"allowed is {self.max_probability_difference:g}."
            )
        if agreement.mask_iou is not None and not agreement.mask_iou >= self.min_mask_iou:
            found.append(
                f"The IoU of the masks over {agreement.non_empty_samples} non-empty samples is "
                f"{agreement.mask_iou:.4f}, required is {self.min_mask_iou:g}."
            )
        if not agreement.flipped_share <= self.max_flipped_share:
            found.append(
                f"{agreement.flipped_share:.3%} of the pixels change class, allowed is "
                f"{self.max_flipped_share:.3%}."
            )
        if agreement.non_finite_ops:
            found.append(f"These ops gave NaN or infinity: {', '.join(agreement.non_finite_ops)}.")
        if agreement.decision_faults:
            found.append(
                f"At {agreement.decision_faults} pixels the mask or class_map is not what its own probability "
                "says."
            )
        return found


@dataclass(frozen=True)
class Answer:
    """What checkpoint or export says of one sample.

    Attributes:
        probability: Float 1xCxHxW.
        classes: Int 1xHxW.
        decision_faults: Pixels at which `classes` contradicts `probability`.
    """

    probability: NDArray[np.number]
    classes: NDArray[np.number]
    decision_faults: int = 0

    @classmethod
    def of(cls, probability: NDArray[np.number], threshold: float | None) -> "Answer":
        """Classes by a threshold, or without one by the largest probability, of equal ones the first."""
        if threshold is None:
            return cls(probability, probability.argmax(axis=1))
        return cls(probability, (probability > threshold)[:, 0].astype(np.int32))


@dataclass
class AgreementSums:
    """Running totals over the samples; `values` counts probabilities, one for each pixel and class."""

    samples: int = 0
    non_empty_samples: int = 0
    values: int = 0
    pixels: int = 0
    flipped: int = 0
    intersection: int = 0
    union: int = 0
    decision_faults: int = 0
    largest: float = 0.0
    total: float = 0.0

    def add(self, expected: Answer, found: Answer) -> None:
        """Add the answers of checkpoint and export to one sample.

        Raises:
            ValueError: They differ in shape.
        """
        shapes = expected.probability.shape, found.probability.shape
        if shapes[0] != shapes[1]:
            raise ValueError(f"the model gives {shapes[0]}, the export {shapes[1]}; export this model")
        difference = np.abs(expected.probability.astype(np.float64) - found.probability)
        difference[~np.isfinite(difference)] = math.inf
        self.samples += 1
        self.values += difference.size
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum())
        self.pixels += expected.classes.size
        self.flipped += int((expected.classes != found.classes).sum())
        self.decision_faults += found.decision_faults
        expected_mask, found_mask = expected.classes != 0, found.classes != 0
        if expected_mask.any():
            shared = int((expected_mask & (expected.classes == found.classes)).sum())
            self.non_empty_samples += 1
            self.intersection += shared
            self.union += int(expected_mask.sum()) + int(found_mask.sum()) - shared

    def agreement(self, non_finite_ops: tuple[str, ...] = ()) -> Agreement:
        """Return the figures.

        Raises:
            ValueError: There was no sample.
        """
        if self.samples == 0:
            raise ValueError("no samples to check the export on; give at least one")
        return Agreement(
            samples=self.samples,
            non_empty_samples=self.non_empty_samples,
            max_probability_difference=self.largest,
            mean_probability_difference=self.total / self.values,
            flipped_share=self.flipped / self.pixels,
            mask_iou=self.intersection / self.union if self.union else None,
            non_finite_ops=non_finite_ops,
            decision_faults=self.decision_faults,
        )


@dataclass(frozen=True)
class Reference:
    """The checkpoint's model, run in float32 on the CPU.

    Args:
        model: In evaluation mode on the CPU, `model(*pictures) -> logits`, float NxCxHxW.
        task: How many pictures it takes and how many classes it gives.
        threshold: A pixel of a binary task is positive where its probability is greater than this; None with
            several classes.

    Raises:
        ValueError: The threshold does not fit the task.
    """

    model: nn.Module
    task: Task
    threshold: float | None

    def __post_init__(self) -> None:
        if self.task.multi_class != (self.threshold is None):
            raise ValueError(
                f"threshold {self.threshold}: expected a number with one class, None with several"
            )

    @classmethod
    def of(cls, model: nn.Module, task: Task, threshold: float | None) -> "Reference":
        """Copy a model of any device and mode."""
        return cls(evaluation_copy(model), task, threshold)

    def answer(self, pictures: Pictures) -> Answer:
        """Run it on one sample."""
        with torch.inference_mode():
            logits = self.model(*as_tensors(pictures))
            probability = torch.sigmoid(logits) if self.threshold is not None else torch.softmax(logits, 1)
        return Answer.of(probability.numpy(), self.threshold)


def as_tensors(pictures: Pictures) -> list[torch.Tensor]:
    """Return what the network is given of one sample: float32 1x3xHxW in [0, 1] a picture."""
    return [torch.from_numpy(np.array(p)).permute(2, 0, 1)[None].float() * PIXEL_SCALE for p in pictures]


class Form(Protocol):
    """One form of an exported network that can be run here."""

    @property
    def non_finite_ops(self) -> tuple[str, ...]:
        """Ops and weights that have given NaN or infinity so far, where their names are known."""

    def answer(self, pictures: Pictures) -> Answer:
        """Run it on one sample.

        Raises:
            ValueError: A picture is not of the form's size.
        """


def measure_agreement(
    reference: Reference, forms: Mapping[str, Form], samples: Iterable[Pictures]
) -> dict[str, Agreement]:
    """Compare forms of an export with the checkpoint; the samples are read once, one at a time.

    Args:
        reference: The checkpoint.
        forms: By their names.
        samples: The pictures of each, (before, after) or (image,), uint8 HxWx3 in RGB, of the export's size.

    Returns:
        The agreement of each form.

    Raises:
        ValueError: There is no sample, or one has another number of pictures or another size.
    """
    sums = {name: AgreementSums() for name in forms}
    for index, pictures in enumerate(samples):
        if len(pictures) != reference.task.pictures:
            raise ValueError(
                f"sample {index}: found {len(pictures)} pictures, expected {reference.task.pictures}"
            )
        expected = reference.answer(pictures)
        for name, form in forms.items():
            sums[name].add(expected, form.answer(pictures))
    return {name: sums[name].agreement(form.non_finite_ops) for name, form in forms.items()}
