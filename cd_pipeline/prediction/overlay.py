"""A photo with what a model marked on it."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.classes import VOID_NAME
from cd_pipeline.data.images import Image
from cd_pipeline.data.palette import Palette, class_palette, colourise
from cd_pipeline.prediction.boxes import Box
from cd_pipeline.prediction.results import Prediction, Segmentation

MARKED = (0, 255, 255)
BOXED = (255, 220, 0)
TINT = 0.35
"""Colours of marked pixels and of boxes, and how much of a photo's own colour the tint replaces."""
CLASS_TINT = 0.55
UNCOVERED = 0.4
"""Brightness of what the second photo does not show."""
LINE_SHARE = 400
"""The longer side of a photo is this many lines of a box wide."""


def prediction_overlay(before: Image, prediction: Prediction) -> Image:
    """Tint what changed cyan, box it in yellow and darken what the second photo does not show.

    Args:
        before: HWC uint8 RGB.
        prediction: of this photo and another.

    Returns:
        HWC uint8 RGB.
    """
    shown = _tinted(before, ~prediction.covered, np.zeros(3, np.uint8), 1 - UNCOVERED)
    shown = _tinted(shown, prediction.mask > 0, np.array(MARKED), TINT)
    return _boxed(shown, prediction.boxes, [BOXED] * len(prediction.boxes))


def segmentation_overlay(image: Image, found: Segmentation, class_names: Sequence[str] = ()) -> Image:
    """Tint and box what was found: one class in cyan and yellow, several in their colours.

    Args:
        image: HWC uint8 RGB.
        found: of this photo.
        class_names: of several classes, in the order of their indices.

    Returns:
        HWC uint8 RGB.
    """
    if not class_names:
        shown = _tinted(image, found.mask > 0, np.array(MARKED), TINT)
        return _boxed(shown, found.boxes, [BOXED] * len(found.boxes))
    colours = palette_of(class_names)
    of_class = dict(zip(class_names, colours.tolist(), strict=True))
    boxed = {box.class_name for box in found.boxes}
    marked = np.isin(found.mask, [index for index, name in enumerate(class_names) if name in boxed])
    shown = _tinted(image, marked, colourise(found.mask, colours)[marked], CLASS_TINT)
    return _boxed(shown, found.boxes, [of_class[str(box.class_name)] for box in found.boxes])


def palette_of(class_names: Sequence[str]) -> Palette:
    """Return the colour of each class: VOC's, and that of void for a last class of that name."""
    void = class_names[-1] == VOID_NAME
    return class_palette(len(class_names) - void, void_as_class=void)


def _tinted(
    photo: Image, region: npt.NDArray[np.bool_], colour: npt.NDArray[np.integer], share: float
) -> Image:
    tinted = photo.copy()
    tinted[region] = (photo[region] * (1 - share) + colour * share).astype(np.uint8)
    return tinted


def _boxed(photo: Image, boxes: Sequence[Box], colours: Sequence[Sequence[int]]) -> Image:
    drawn = np.ascontiguousarray(photo)
    width = max(1, round(max(photo.shape[:2]) / LINE_SHARE))
    for box, colour in zip(boxes, colours, strict=True):
        corner = box.left + box.width - 1, box.top + box.height - 1
        cv2.rectangle(drawn, (box.left, box.top), corner, [int(value) for value in colour], width)
    return drawn
