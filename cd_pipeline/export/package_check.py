"""A saved package as a form that can be compared with its checkpoint, on any machine."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from cd_pipeline.export.agreement import Answer, Form, Pictures, Reference
from cd_pipeline.export.coreml import import_coremltools
from cd_pipeline.export.mil_executor import ExecutionPrecision, PackageExecutor
from cd_pipeline.export.network import CLASS_MAP, MASK, PROBABILITY

Outputs = Callable[[Mapping[str, NDArray[np.uint8]]], dict[str, NDArray[np.number]]]
AT_THRESHOLD = 1e-3
"""A mask is judged where the probability is farther than this from the threshold, which float16 rounds."""


def package_forms(path: Path, reference: Reference) -> dict[str, Form]:
    """Return the ways a saved package can be run here.

    `package` is op by op in the types that the package declares, `float32` op by op without rounding, and on
    macOS `core_ml` by Core ML itself.

    Raises:
        FileNotFoundError: No package is at `path`.
        UnknownOpError: The package holds an op that cannot be executed.
        ValueError: The package is one of another task.
    """
    forms: dict[str, Form] = {
        "package": ExecutedPackage(path, reference),
        "float32": ExecutedPackage(path, reference, "float32"),
    }
    if sys.platform == "darwin":
        forms["core_ml"] = CoreMLPackage(path, reference)
    return forms


class ExecutedPackage:
    """A package read back from disk and executed op by op.

    Args:
        path: A `.mlpackage` with the inputs and outputs of the task, see `export_mlpackage`.
        reference: What it is compared with; it gives task and threshold.
        precision: "package" for the types that the package declares, "float32" for no rounding.

    Raises:
        FileNotFoundError: No package is at `path`.
        UnknownOpError: The package holds an op that cannot be executed.
        ValueError: The package is one of another task.
    """

    def __init__(self, path: Path, reference: Reference, precision: ExecutionPrecision = "package") -> None:
        self._executor = PackageExecutor(path, precision)
        self._reference = reference
        _check_ports(self._executor, reference, path)

    @property
    def non_finite_ops(self) -> tuple[str, ...]:
        """Ops and weights that have given NaN or infinity so far."""
        return self._executor.non_finite_ops

    def answer(self, pictures: Pictures) -> Answer:
        """Run it on one sample.

        Raises:
            ValueError: A picture is not of the package's size.
        """
        names = self._reference.task.picture_names
        outputs = self._executor.run(dict(zip(names, pictures, strict=True)))
        return answer_of(outputs, self._reference)


class CoreMLPackage:
    """A package run by Core ML itself, which is on macOS alone.

    Args:
        path: As of `ExecutedPackage`.
        reference: As of `ExecutedPackage`.
    """

    non_finite_ops: tuple[str, ...] = ()

    def __init__(self, path: Path, reference: Reference) -> None:
        self._run = core_ml_outputs(path)
        self._reference = reference

    def answer(self, pictures: Pictures) -> Answer:
        """Run it on one sample.

        Raises:
            ValueError: A picture is not of the package's size.
        """
        names = self._reference.task.picture_names
        return answer_of(self._run(dict(zip(names, pictures, strict=True))), self._reference)


def core_ml_outputs(path: Path, units: str = "ALL") -> Outputs:
    """Return what runs a package by Core ML itself, on macOS: pictures by input name to outputs by name.

    Args:
        path: A `.mlpackage`.
        units: Where it may compute, a name of coremltools' `ComputeUnit`.
    """
    coremltools = import_coremltools()
    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit[units])

    def run(pictures: Mapping[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.number]]:
        found = model.predict({name: PillowImage.fromarray(picture) for name, picture in pictures.items()})
        return {name: np.asarray(value) for name, value in found.items()}

    return run


def answer_of(outputs: dict[str, NDArray[np.number]], reference: Reference) -> Answer:
    """Read the outputs of a package: its own class map or mask counts, where it has one."""
    probability, threshold = outputs[PROBABILITY], reference.threshold
    if CLASS_MAP in outputs:
        classes = outputs[CLASS_MAP]
        return Answer(probability, classes, class_map_faults(probability, classes))
    if MASK in outputs and threshold is not None:
        mask = outputs[MASK].reshape(1, *probability.shape[2:])
        return Answer(probability, (mask > 0).astype(np.int32), mask_faults(probability[0], mask, threshold))
    return Answer.of(probability, threshold)


def class_map_faults(probability: NDArray[np.number], classes: NDArray[np.number]) -> int:
    """Count the pixels of a class whose probability is not the largest, nor equal to it.

    Args:
        probability: 1xCxHxW.
        classes: 1xHxW.
    """
    index, largest = classes[:, None], probability.max(axis=1, keepdims=True)  # 1x1xHxW
    known = (index >= 0) & (index < probability.shape[1])
    own = np.take_along_axis(probability, np.where(known, index, 0), axis=1)
    return int((~known | (own != largest)).sum())


def mask_faults(probability: NDArray[np.number], mask: NDArray[np.number], threshold: float) -> int:
    """Count the pixels of a mask that are neither 0 nor 255, or not what the probability says.

    Args:
        probability: 1xHxW.
        mask: 1xHxW.
        threshold: Above it a pixel is 255; pixels within `AT_THRESHOLD` of it may be either.
    """
    marked = probability > threshold
    unclear = np.abs(probability - threshold) <= AT_THRESHOLD
    right = np.where(marked, mask == 255, mask == 0) | (unclear & ((mask == 0) | (mask == 255)))
    return int((~right).sum())


def _check_ports(executor: PackageExecutor, reference: Reference, path: Path) -> None:
    task = reference.task
    outputs = {PROBABILITY, CLASS_MAP} if task.multi_class else {PROBABILITY}
    found = set(executor.outputs)
    if set(executor.inputs) != set(task.picture_names) or found - {MASK} != outputs:
        raise ValueError(
            f"{path}: found inputs {sorted(executor.inputs)} and outputs {sorted(found)}, expected "
            f"{sorted(task.picture_names)} and {sorted(outputs)}; export it for the task {task.plain()}"
        )
    shape = executor.outputs[PROBABILITY].shape
    if shape[1:2] != (task.classes,):
        raise ValueError(
            f"{path}: found a probability of shape {shape}, expected {task.classes} at its second place; "
            f"export it for the task {task.plain()}"
        )
