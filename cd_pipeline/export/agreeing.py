"""Export in the lowest precision in which the package agrees with the checkpoint."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cd_pipeline.data.preprocessing import PIXEL_SCALE
from cd_pipeline.export.agreement import (
    Agreement,
    AgreementLimits,
    Pictures,
    Reference,
    measure_agreement,
)
from cd_pipeline.export.coreml import PackageLabel, Precision, export_mlpackage, float32_ops, load_spec
from cd_pipeline.export.package_check import package_forms

PRECISIONS: tuple[Precision, ...] = ("float16", "mixed", "float32")
"""From the lowest to the highest."""


@dataclass(frozen=True)
class PackageExport:
    """A saved package.

    Attributes:
        precision: It was exported in.
        agreements: How it agrees with the checkpoint, by the ways it was run, see `package_forms`.
        given_up: Which limits lower precisions broke, if any.
        float32_ops: Ops that "mixed" keeps in float32.
    """

    precision: Precision
    agreements: Mapping[str, Agreement]
    given_up: tuple[str, ...]
    float32_ops: tuple[str, ...]


def export_agreeing(
    reference: Reference,
    path: Path,
    samples: Callable[[], Iterable[Pictures]],
    *,
    precision: Precision,
    limits: AgreementLimits,
    size: int,
    metadata: Mapping[str, str],
    description: str,
    label: PackageLabel = PackageLabel(),  # noqa: B008 - frozen
    mask: bool = False,
) -> PackageExport:
    """Export a package and compare it with the checkpoint; in a higher precision where a limit is broken.

    Args:
        reference: The checkpoint's model with its task and threshold.
        path: Where to write the `.mlpackage`.
        samples: Gives the samples to compare on, afresh each time: tuples of the task's pictures, uint8
            HxWx3 RGB at the model's size.
        precision: The one tried first; then mixed, then float32.
        limits: What "agrees" means.
        size: Side of the inputs in px.
        metadata: User-defined metadata, with several classes `class_names` among it.
        description: Short description.
        label: Author, licence and version.
        mask: The package also gives the mask at the reference's threshold.

    Returns:
        The export; its agreement may still break a limit, which is for the caller to judge.
    """
    given_up: list[str] = []
    for tried in PRECISIONS[PRECISIONS.index(precision) :]:
        export_mlpackage(
            reference.model,
            path,
            task=reference.task,
            size=size,
            pixel_scale=PIXEL_SCALE,
            metadata=metadata,
            description=description,
            label=label,
            precision=tried,
            mask_threshold=reference.threshold if mask else None,
        )
        agreements = measure_agreement(reference, package_forms(path, reference), samples())
        broken = broken_limits(limits, agreements)
        if not broken:
            break
        given_up += [f"{tried}: {sentence}" for sentence in broken]
    kept = float32_ops(load_spec(path)) if tried == "mixed" else ()
    return PackageExport(tried, agreements, tuple(given_up), kept)


def broken_limits(limits: AgreementLimits, agreements: Mapping[str, Agreement]) -> list[str]:
    """Return a sentence for each limit that a form breaks; those that two forms share stand once."""
    found = [sentence for agreement in agreements.values() for sentence in limits.violations(agreement)]
    return list(dict.fromkeys(found))
