"""The comparison of one form of a package with its model."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import Agreement, Reference, measure_agreement
from cd_pipeline.export.mil_executor import ExecutionPrecision
from cd_pipeline.export.package_check import ExecutedPackage


def check_package(
    path: Path,
    model: nn.Module,
    samples: Iterable[tuple[np.ndarray, ...]],
    *,
    threshold: float | None,
    task: Task = Task(),  # noqa: B008 - frozen
    precision: ExecutionPrecision = "package",
) -> Agreement:
    """Run a saved package op by op, and its model, on samples."""
    reference = Reference.of(model, task, threshold)
    form = ExecutedPackage(path, reference, precision)
    return measure_agreement(reference, {"package": form}, samples)["package"]
