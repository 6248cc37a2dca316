"""Results and models as plain values, for JSON and tables."""

from dataclasses import asdict
from typing import Any

from cd_pipeline.prediction.detector import Model
from cd_pipeline.prediction.results import Prediction, Segmentation


def describe_result(found: Prediction | Segmentation) -> dict[str, Any]:
    """Return what a result says, without its pictures.

    Returns:
        `width` and `height` in px; the shares `changed_fraction` and `covered_fraction`, with `transform` of a
        registered photo as 3 rows, or `marked_fraction` and `fractions`; `boxes`.
    """
    height, width = found.mask.shape
    size: dict[str, Any] = {"width": width, "height": height}
    boxes = [{name: value for name, value in asdict(box).items() if value is not None} for box in found.boxes]
    if isinstance(found, Segmentation):
        shares = {"marked_fraction": found.marked_fraction, "fractions": dict(found.fractions)}
        return {**size, **shares, "boxes": boxes}
    shares = {"changed_fraction": found.changed_fraction, "covered_fraction": found.covered_fraction}
    moved = {} if found.transform is None else {"transform": found.transform.tolist()}
    return {**size, **shares, **moved, "boxes": boxes}


def describe_model(model: Model) -> dict[str, Any]:
    """Return what a model is, and by which rule its masks are made."""
    known, opened = model.interface, model.opened
    return {
        "path": str(opened.path),
        "form": opened.form,
        "device": opened.device,
        "recipe": known.recipe,
        "checkpoint_version": known.checkpoint_version,
        "data_version": known.data_version,
        "input_size": known.size,
        "fit": known.fit,
        "threshold": model.threshold,
        "class_names": list(model.class_names),
    }
