"""The shipped model, opened from its own TorchScript: neither its code nor its recipe is needed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.manifest import Pair
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.export.interface import ModelInterface
from cd_pipeline.prediction.opened_model import OpenedModel

Row = TypeVar("Row", Pair, LabelledImage)


def predictor_of_opened(opened: OpenedModel) -> Predictor:
    """Return an opened model with its own threshold and mask rule."""
    known = opened.interface
    return Predictor(
        network=opened.network,
        size=known.size,
        threshold=known.threshold,
        smooth=known.smooth,
        overlap=known.overlap,
        opening=known.opening,
        min_area=known.min_area,
    )


def as_the_model_sees(examples: Sequence[Row], interface: ModelInterface) -> list[Row]:
    """Return rows of a manifest as a model is given them: in tiles or resized, with its own CLAHE."""
    tiled = interface.fit == "tile"
    return [
        replace(row, tiled=tiled, clahe=interface.clahe)
        if isinstance(row, LabelledImage)
        else replace(row, tiled=tiled)
        for row in examples
    ]
