"""Boxes around the marked areas of a mask."""

from dataclasses import dataclass

import cv2
import numpy as np

from cd_pipeline.data.images import Image
from cd_pipeline.evaluation.tiled import Probability


@dataclass(frozen=True, slots=True)
class Box:
    """The bounding box of one marked area, 8-connected.

    Attributes:
        left: of the first column, px from the picture's left.
        top: of the first row, px from the picture's top.
        width: in px.
        height: in px.
        area: marked pixels.
        mean_probability: over the area's pixels, in [0, 1].
        max_probability: over the area's pixels, in [0, 1].
        class_name: of the area, where the model tells several classes apart.
    """

    left: int
    top: int
    width: int
    height: int
    area: int
    mean_probability: float
    max_probability: float
    class_name: str | None = None


def marked_boxes(mask: Image, probability: Probability, class_name: str | None = None) -> list[Box]:
    """Return the boxes of the 8-connected marked areas, the largest area first.

    Areas of one size come in the order of their uppermost, then leftmost pixels.

    Args:
        mask: HW; nonzero = marked.
        probability: HW float32 in [0, 1], of the mark at each pixel.
        class_name: of all areas.
    """
    binary = (mask != 0).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    rows, columns = np.nonzero(binary)
    areas, values = labels[rows, columns], probability[rows, columns]
    sums = np.bincount(areas, values, minlength=count)
    highest = np.zeros(count, np.float32)
    np.maximum.at(highest, areas, values)
    _, first = np.unique(areas, return_index=True)  # pixels are listed row by row
    order = np.lexsort((first, -stats[1:, cv2.CC_STAT_AREA])) + 1
    return [
        Box(
            left=int(stats[index, cv2.CC_STAT_LEFT]),
            top=int(stats[index, cv2.CC_STAT_TOP]),
            width=int(stats[index, cv2.CC_STAT_WIDTH]),
            height=int(stats[index, cv2.CC_STAT_HEIGHT]),
            area=int(stats[index, cv2.CC_STAT_AREA]),
            mean_probability=float(sums[index] / stats[index, cv2.CC_STAT_AREA]),
            max_probability=float(highest[index]),
            class_name=class_name,
        )
        for index in order
    ]
