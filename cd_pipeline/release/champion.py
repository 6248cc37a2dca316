"""The test set as the shipped model sees it, whatever the recipe says today."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.manifest import Pair
from cd_pipeline.export.interface import ModelInterface

Row = TypeVar("Row", Pair, LabelledImage)


def as_the_model_sees(examples: Sequence[Row], interface: ModelInterface) -> list[Row]:
    """Return rows of a manifest as a model is given them: in tiles or resized, with its own CLAHE."""
    tiled = interface.fit == "tile"
    return [
        replace(row, tiled=tiled, clahe=interface.clahe)
        if isinstance(row, LabelledImage)
        else replace(row, tiled=tiled)
        for row in examples
    ]
