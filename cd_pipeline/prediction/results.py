"""What a prediction says of photos."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.evaluation.tiled import Probability
from cd_pipeline.prediction.boxes import Box


@dataclass(frozen=True, slots=True)
class Prediction:
    """What changed between two photos, in the first one's coordinates and at its own size, HxW.

    Attributes:
        probability: HxW float32 in [0, 1], that a pixel changed; 0 where the second photo shows nothing.
        mask: HxW uint8, 255 where it changed, otherwise 0.
        boxes: around each 8-connected marked area, the largest first.
        changed_fraction: share of the covered pixels that are marked, in [0, 1].
        covered: HxW bool, what both photos show; all, unless the second was registered.
        transform: 3x3 float64, the first photo's pixels to the second one's, where it was registered.
    """

    probability: Probability
    mask: Image
    boxes: tuple[Box, ...]
    changed_fraction: float
    covered: npt.NDArray[np.bool_]
    transform: npt.NDArray[np.float64] | None = None

    @property
    def covered_fraction(self) -> float:
        """Share of the first photo that both show, in [0, 1]."""
        return float(self.covered.mean())


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What a photo shows, at its own size, HxW.

    Attributes:
        probability: HxW float32 in [0, 1], of the mark; of several classes that of the class that is taken.
        mask: HxW uint8, 255 where it is marked and otherwise 0; of several classes their indices.
        boxes: around each 8-connected area, the largest first; of several classes class by class, background
            and void left out.
        marked_fraction: share of the pixels that are marked; of several classes of all but background and void.
        fractions: of several classes the share of each by name, in the order of their indices; otherwise empty.
    """

    probability: Probability
    mask: Image
    boxes: tuple[Box, ...]
    marked_fraction: float
    fractions: Mapping[str, float]
