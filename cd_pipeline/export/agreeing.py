"""Export in the lowest precision in which the package agrees with the checkpoint."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.coreml import Precision, export_mlpackage
from cd_pipeline.export.package_check import PackageAgreement, Pictures, check_package

PRECISIONS: tuple[Precision, ...] = ("float16", "mixed", "float32")
"""From the lowest to the highest."""


@dataclass(frozen=True)
class AgreementLimits:
    """How far a package may be from its checkpoint."""

    max_probability_difference: float = 0.02
    min_mask_iou: float = 0.99
    max_flipped_share: float = 0.001

    def violations(self, agreement: PackageAgreement) -> list[str]:
        """Return a sentence for each broken limit."""
        return agreement.violations(
            self.max_probability_difference, self.min_mask_iou, self.max_flipped_share
        )


@dataclass(frozen=True)
class Export:
    """A saved package: its precision, how it agrees, and which limits lower precisions broke, if any."""

    precision: Precision
    agreement: PackageAgreement
    given_up: tuple[str, ...]


def export_agreeing(
    model: nn.Module,
    path: Path,
    samples: Callable[[], Iterable[Pictures]],
    *,
    task: Task = Task(),  # noqa: B008 - frozen
    precision: Precision,
    limits: AgreementLimits,
    size: int,
    threshold: float | None,
    pixel_scale: float,
    metadata: Mapping[str, str],
    description: str,
) -> Export:
    """Export a package and compare it with the model; in a higher precision where a limit is broken.

    Args:
        model: The checkpoint's model.
        path: Where to write the `.mlpackage`.
        samples: Gives the samples to compare on, afresh each time: tuples of the task's pictures, uint8
            HxWx3 RGB at the model's size.
        task: How many pictures the model takes and how many classes it gives.
        precision: The one tried first; then mixed, then float32.
        limits: What "agrees" means.
        size: Side of the inputs in px.
        threshold: A pixel of a binary task is positive where its probability is greater; None with several
            classes.
        pixel_scale: From 0-255 to the model's input.
        metadata: User-defined metadata, with several classes `class_names` among it; `precision` is added.
        description: Short description.

    Returns:
        The export; its agreement may still break a limit, which is for the caller to judge.
    """
    given_up: list[str] = []
    for tried in PRECISIONS[PRECISIONS.index(precision) :]:
        export_mlpackage(
            model,
            path,
            task=task,
            size=size,
            pixel_scale=pixel_scale,
            metadata={**metadata, "precision": tried},
            description=description,
            precision=tried,
        )
        agreement = check_package(
            path, model, samples(), task=task, threshold=threshold, pixel_scale=pixel_scale
        )
        broken = limits.violations(agreement)
        if not broken:
            break
        given_up += [f"{tried}: {sentence}" for sentence in broken]
    return Export(tried, agreement, tuple(given_up))
