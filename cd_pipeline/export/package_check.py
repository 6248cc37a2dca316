"""The proof that a saved package gives what the checkpoint gives, measured on samples of its task."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.coreml import CLASS_MAP, PROBABILITY, evaluation_copy
from cd_pipeline.export.mil_executor import ExecutionPrecision, PackageExecutor

Pictures = tuple[NDArray[np.uint8], ...]
"""The pictures of one sample, in the task's order: HxWx3 in RGB."""


@dataclass(frozen=True)
class PackageAgreement:
    """How far a package is from its checkpoint over a set of samples.

    Attributes:
        pairs: Number of samples compared; a sample is a pair of photos, or one image.
        non_empty_pairs: Samples in which the checkpoint predicts at least one pixel of a class other than 0.
        max_probability_difference: Largest difference of any pixel and class, in [0, 1]; infinite if one is
            NaN.
        mean_probability_difference: Mean over all pixels and classes of all samples.
        flipped_share: Share of pixels whose class differs, in [0, 1].
        mask_iou: Intersection over union of the two masks, in [0, 1], pooled over the non-empty samples and
            the classes other than 0; None where there is no such sample.
        non_finite_ops: Ops and weights of the package that gave NaN or infinity.
        class_map_faults: Pixels whose class in the package's `class_map` has not the largest of the package's
            own probabilities.
    """

    pairs: int
    non_empty_pairs: int
    max_probability_difference: float
    mean_probability_difference: float
    flipped_share: float
    mask_iou: float | None
    non_finite_ops: tuple[str, ...]
    class_map_faults: int = 0

    def violations(
        self, max_difference: float = 0.02, min_mask_iou: float = 0.99, max_flipped_share: float = 0.001
    ) -> list[str]:
        """Name the limits that the package breaks.

        Args:
            max_difference: Largest allowed difference of a probability.
            min_mask_iou: Smallest allowed IoU of the masks over non-empty pairs.
            max_flipped_share: Largest allowed share of pixels that change class.

        Returns:
            One sentence for each broken limit; empty if the package agrees.
        """
        found = []
        if not self.max_probability_difference <= max_difference:
            found.append(
                f"The largest probability difference is {self.max_probability_difference:.4f}, "
                f"allowed is {max_difference:g}."
            )
        if self.mask_iou is not None and not self.mask_iou >= min_mask_iou:
            found.append(
                f"The IoU of the masks over {self.non_empty_pairs} non-empty samples is {self.mask_iou:.4f}, "
                f"required is {min_mask_iou:g}."
            )
        if not self.flipped_share <= max_flipped_share:
            found.append(
                f"{self.flipped_share:.3%} of the pixels change class, allowed is {max_flipped_share:.3%}."
            )
        if self.non_finite_ops:
            found.append(f"These ops gave NaN or infinity: {', '.join(self.non_finite_ops)}.")
        if self.class_map_faults:
            found.append(
                f"At {self.class_map_faults} pixels class_map is not the class of the package's own largest "
                "probability."
            )
        return found


@dataclass(frozen=True)
class _Answer:
    """What checkpoint or package says of one sample: probability, float 1xCxHxW, and classes, int 1xHxW."""

    probability: NDArray[np.number]
    classes: NDArray[np.number]

    @classmethod
    def of(cls, probability: NDArray[np.number], threshold: float | None) -> "_Answer":
        """Classes by a threshold, or without one by the largest probability, of equal ones the first."""
        if threshold is None:
            return cls(probability, probability.argmax(axis=1))
        return cls(probability, (probability > threshold)[:, 0].astype(np.int32))


@dataclass
class _Sums:
    """Running totals over the samples; `values` counts probabilities, one for each pixel and class."""

    pairs: int = 0
    non_empty_pairs: int = 0
    values: int = 0
    pixels: int = 0
    flipped: int = 0
    intersection: int = 0
    union: int = 0
    class_map_faults: int = 0
    largest: float = 0.0
    total: float = 0.0

    def add(self, expected: _Answer, found: _Answer) -> None:
        """Add the answers of checkpoint and package to one sample.

        Raises:
            ValueError: They differ in shape.
        """
        shapes = expected.probability.shape, found.probability.shape
        if shapes[0] != shapes[1]:
            raise ValueError(f"the model gives {shapes[0]}, the package {shapes[1]}; export this model")
        difference = np.abs(expected.probability.astype(np.float64) - found.probability)
        difference[~np.isfinite(difference)] = math.inf
        self.pairs += 1
        self.values += difference.size
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum())
        self.pixels += expected.classes.size
        self.flipped += int((expected.classes != found.classes).sum())
        expected_mask, found_mask = expected.classes != 0, found.classes != 0
        if expected_mask.any():
            shared = int((expected_mask & (expected.classes == found.classes)).sum())
            self.non_empty_pairs += 1
            self.intersection += shared
            self.union += int(expected_mask.sum()) + int(found_mask.sum()) - shared


def check_package(
    path: Path,
    model: nn.Module,
    samples: Iterable[Pictures],
    *,
    task: Task = Task(),  # noqa: B008 - frozen
    threshold: float | None,
    pixel_scale: float,
    precision: ExecutionPrecision = "package",
) -> PackageAgreement:
    """Compare a saved package with the model it was made from.

    The package is read back from disk and executed op by op; the model runs in float32 on the CPU. The
    samples are read one at a time. With several classes a pixel's class is that of the largest probability;
    the package's is what its `class_map` says.

    Args:
        path: A `.mlpackage` with the inputs and outputs of the task, see `export_mlpackage`.
        model: The checkpoint's model, `model(*pictures) -> logits`, float NxCxHxW.
        samples: The pictures of each, (before, after) or (image,), uint8 HxWx3 in RGB, of the package's size.
        task: How many pictures the model takes and how many classes it gives.
        threshold: A pixel of a binary task is positive where its probability is greater than this; None with
            several classes.
        pixel_scale: What the model's input is of the pixel values 0-255 (1/255 for [0, 1]).
        precision: "package" for the types that the package declares, "float32" for no rounding.

    Returns:
        The agreement over all samples.

    Raises:
        FileNotFoundError: No package is at `path`.
        UnknownOpError: The package holds an op that cannot be executed.
        ValueError: There are no samples, one has another number of pictures or another shape than the
            package, the package is one of another task, or the threshold does not fit the task.
    """
    if task.multi_class != (threshold is None):
        raise ValueError(f"threshold {threshold}: expected a number with one class, None with several")
    executor = PackageExecutor(path, precision)
    _check_ports(executor, task, path)
    reference = evaluation_copy(model)
    sums = _Sums()
    for pictures in samples:
        if len(pictures) != task.pictures:
            raise ValueError(f"sample {sums.pairs}: found {len(pictures)} pictures, expected {task.pictures}")
        outputs = executor.run(dict(zip(task.picture_names, pictures, strict=True)))
        found = _Answer.of(outputs[PROBABILITY], threshold)
        if task.multi_class:
            found = _Answer(outputs[PROBABILITY], outputs[CLASS_MAP])
            sums.class_map_faults += _class_map_faults(found)
        sums.add(_predict(reference, pictures, pixel_scale, threshold), found)
    if sums.pairs == 0:
        raise ValueError(f"{path}: no samples to check it on; give at least one")
    return PackageAgreement(
        pairs=sums.pairs,
        non_empty_pairs=sums.non_empty_pairs,
        max_probability_difference=sums.largest,
        mean_probability_difference=sums.total / sums.values,
        flipped_share=sums.flipped / sums.pixels,
        mask_iou=sums.intersection / sums.union if sums.union else None,
        non_finite_ops=executor.non_finite_ops,
        class_map_faults=sums.class_map_faults,
    )


def _check_ports(executor: PackageExecutor, task: Task, path: Path) -> None:
    outputs = [PROBABILITY, CLASS_MAP] if task.multi_class else [PROBABILITY]
    if set(executor.inputs) != set(task.picture_names) or set(executor.outputs) != set(outputs):
        raise ValueError(
            f"{path}: found inputs {sorted(executor.inputs)} and outputs {sorted(executor.outputs)}, expected "
            f"{sorted(task.picture_names)} and {sorted(outputs)}; export it for the task {task.plain()}"
        )
    shape = executor.outputs[PROBABILITY].shape
    if shape[1:2] != (task.classes,):
        raise ValueError(
            f"{path}: found a probability of shape {shape}, expected {task.classes} at its second place; "
            f"export it for the task {task.plain()}"
        )


def _predict(model: nn.Module, pictures: Pictures, pixel_scale: float, threshold: float | None) -> _Answer:
    """Run the checkpoint's model on one sample."""
    tensors = [
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(torch.float32) * pixel_scale
        for image in pictures
    ]
    with torch.inference_mode():
        logits = model(*tensors)
        probability = torch.softmax(logits, 1) if threshold is None else torch.sigmoid(logits)
    return _Answer.of(probability.numpy(), threshold)


def _class_map_faults(found: _Answer) -> int:
    """Count the pixels of a class whose probability is not the largest, nor equal to it."""
    index, largest = found.classes[:, None], found.probability.max(axis=1, keepdims=True)  # 1x1xHxW
    known = (index >= 0) & (index < found.probability.shape[1])
    own = np.take_along_axis(found.probability, np.where(known, index, 0), axis=1)
    return int((~known | (own != largest)).sum())
