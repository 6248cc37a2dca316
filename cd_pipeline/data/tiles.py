"""Cutting pictures into square tiles of the network's size."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from cd_pipeline.data.images import Image

AnyImage = TypeVar("AnyImage", bound=Image)


class Window(NamedTuple):
    """A part of a picture, in px."""

    left: int
    top: int
    width: int
    height: int

    @property
    def rows(self) -> slice:
        """Its rows in the picture."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Its columns in the picture."""
        return slice(self.left, self.left + self.width)


def starts(length: int, side: int, overlap: int = 0) -> list[int]:
    """Return where tiles of `side` px start along `length` px, so that they cover it.

    The last one ends where the picture does and can overlap its neighbour by more than `overlap`; a picture
    shorter than a tile has one, at 0.

    Raises:
        ValueError: the overlap is not in [0, side).

    >>> starts(1000, 256, 64)
    [0, 192, 384, 576, 744]
    """
    if not 0 <= overlap < side:
        raise ValueError(f"overlap {overlap} must be in [0, {side})")
    step, last = side - overlap, max(0, length - side)
    return [*range(0, last, step), last]


def grid(width: int, height: int, side: int, overlap: int = 0) -> Iterator[Window]:
    """Yield the tiles of a picture, row by row; one is smaller than `side` where the picture is."""
    for top in starts(height, side, overlap):
        for left in starts(width, side, overlap):
            yield Window(left, top, min(side, width), min(side, height))


def padded(image: Image, side: int, value: int | None = None) -> Image:
    """Enlarge a picture at the right and the bottom to at least side x side.

    Args:
        image: HWC or HW uint8.
        side: in px.
        value: of the new pixels; None: the picture is mirrored.
    """
    height, width = image.shape[:2]
    bottom, right = max(0, side - height), max(0, side - width)
    if not bottom and not right:
        return image
    if value is None:
        return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT), np.uint8)
    filled = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=value)
    return np.asarray(filled, np.uint8)
