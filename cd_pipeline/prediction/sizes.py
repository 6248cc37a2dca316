"""Bringing photos of any size to what a network is given, and its probability back."""

from typing import Literal

import cv2
import numpy as np

from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import resize_photo
from cd_pipeline.data.tiles import padded
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.tiled import Probability

Fit = Literal["resize", "letterbox", "tile"]
"""resize: the whole picture becomes the input, whatever its shape; letterbox: so too, but in its own shape,
and the rest is filled by mirroring and cut off again; tile: at its own scale, in overlapping tiles."""
ASPECT_TOLERANCE = 0.02
"""By which the shapes of two photos can differ, as a share: 4000x3000 beside 4032x3000."""


def same_shape(before: Image, after: Image, tolerance: float = ASPECT_TOLERANCE) -> bool:
    """Tell whether two pictures have the same ratio of width to height, within a tolerance."""
    ratio = before.shape[1] * after.shape[0] / (before.shape[0] * after.shape[1])
    return bool(max(ratio, 1 / ratio) <= 1 + tolerance)


def brought_to(picture: Image, like: Image) -> Image:
    """Resize HWC uint8 RGB to the size of another: by area where it gets smaller, otherwise linearly."""
    if picture.shape == like.shape:
        return picture
    height, width = like.shape[:2]
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=way), np.uint8)


def letterboxed(picture: Image, size: int) -> Image:
    """Resize HWC uint8 RGB in its own shape to size px on its longer side, by area; mirror the rest.

    Returns:
        size x size x 3 uint8; the picture fills its first rows and columns, `letterbox_extent` of them.
    """
    height, width = letterbox_extent(picture, size)
    inside = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return padded(np.asarray(inside, np.uint8), size)


def letterbox_extent(picture: Image, size: int) -> tuple[int, int]:
    """Return the height and width, px, that a picture has in a letterbox of size x size."""
    scale = size / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return height, width


def whole_probability(predictor: Predictor, *pictures: Image, fit: Fit) -> Probability:
    """Predict whole pictures, not in tiles, at the network's own scale.

    Args:
        predictor: a network.
        pictures: HWC uint8 RGB, of one size.
        fit: resize or letterbox.

    Returns:
        float32 in [0, 1], hxw or Cxhxw: of the pictures alone, without what a letterbox adds.
    """
    size = predictor.size
    if fit == "resize":
        return predictor.probability(*(resize_photo(picture, size) for picture in pictures))
    height, width = letterbox_extent(pictures[0], size)
    found = predictor.probability(*(letterboxed(picture, size) for picture in pictures))
    return found[..., :height, :width]
