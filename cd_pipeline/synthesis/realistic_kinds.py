"""What a region shows after a realistic change."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.published_kinds import (
    INPAINT_MARGIN,
    INPAINT_RADIUS,
    blurred,
    dark_noise,
    pixelated,
)

INPAINT_SIDE = 64
"""Larger holes are inpainted at this longest side and enlarged: time grows with the hole's area."""

Fill = Callable[[Image, Image | None, np.random.Generator], Image]
"""(what the region's rectangle shows, pixels of another photo at its size, randomness) -> what it shows then."""


class Hue(NamedTuple):
    """Another hue: how far it is turned, in steps of 2 degrees as OpenCV counts, and what saturation gains, 0-255."""

    turn: int
    gain: int


class Paint(NamedTuple):
    """Paint of another colour: each channel darker or lighter by a factor, then lifted, 0-255; shading is kept."""

    factors: npt.NDArray[np.float64]
    floor: npt.NDArray[np.float64]


def draw_hue(rng: np.random.Generator) -> Hue:
    """Draw a turn by 40-320 degrees, and a higher saturation, so that grey things get a colour too."""
    turn = int(rng.integers(20, 160, endpoint=True))
    return Hue(turn, int(rng.integers(40, 120, endpoint=True)))


def draw_colour(rng: np.random.Generator) -> Hue | Paint:
    """Draw what `recolour` does."""
    if rng.random() < 0.5:
        return draw_hue(rng)
    return Paint(rng.uniform(0.35, 1.5, 3), rng.uniform(0, 60, 3))


def draw_share(rng: np.random.Generator) -> float:
    """Draw the share of the other photo in what `retexture` shows."""
    return float(rng.uniform(0.4, 0.75))


def recoloured(patch: Image, rng: np.random.Generator) -> Image:
    """Turn the hue by 40-320 degrees and raise the saturation."""
    return _turned(patch, draw_hue(rng))


def _turned(patch: Image, hue: Hue) -> Image:
    hsv = cv2.cvtColor(patch, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + hue.turn) % 180
    hsv[..., 1] = np.minimum(hsv[..., 1] + hue.gain, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False)


def inpainted(image: Image, rect: Rect, region: npt.NDArray[np.bool_], method: int) -> Image:
    """Return what a rectangle shows when a region in it is filled from its surroundings.

    Args:
        image: HWC uint8 RGB.
        rect: px.
        region: HW bool of the rectangle's size.
        method: of `cv2.inpaint`.
    """
    height, width = image.shape[:2]
    window = Rect(
        rect.x - INPAINT_MARGIN,
        rect.y - INPAINT_MARGIN,
        rect.width + 2 * INPAINT_MARGIN,
        rect.height + 2 * INPAINT_MARGIN,
    ).clipped(width, height)
    inside = Rect(rect.x - window.x, rect.y - window.y, rect.width, rect.height).slices
    hole = np.zeros((window.height, window.width), np.uint8)
    hole[inside] = region
    scene = np.ascontiguousarray(image[window.slices])
    scale = min(1.0, INPAINT_SIDE / max(rect.width, rect.height))
    if scale < 1:
        size = (max(4, round(window.width * scale)), max(4, round(window.height * scale)))
        scene = cv2.resize(scene, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        small = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        hole = (small > 0).astype(np.uint8)  # no pixel of the old content shines through
    filled = cv2.inpaint(scene, hole, INPAINT_RADIUS, method)
    if scale < 1:
        filled = cv2.resize(filled, (window.width, window.height), interpolation=cv2.INTER_LINEAR)
    return filled[inside].astype(np.uint8, copy=False)


def _black(patch: Image, _other: Image | None, _rng: np.random.Generator) -> Image:
    return np.zeros_like(patch)


def _rect(patch: Image, _other: Image | None, rng: np.random.Generator) -> Image:
    return dark_noise(patch.shape[0], patch.shape[1], rng)


def _blur(patch: Image, _other: Image | None, _rng: np.random.Generator) -> Image:
    return blurred(patch)


def _pixel(patch: Image, _other: Image | None, _rng: np.random.Generator) -> Image:
    return pixelated(patch)


def _recolour(patch: Image, _other: Image | None, rng: np.random.Generator) -> Image:
    colour = draw_colour(rng)
    if isinstance(colour, Hue):
        return _turned(patch, colour)
    return np.clip(patch * colour.factors + colour.floor, 0, 255).astype(np.uint8)


def _replaced(patch: Image, other: Image | None, _rng: np.random.Generator) -> Image:
    return patch if other is None else other


def _retexture(patch: Image, other: Image | None, rng: np.random.Generator) -> Image:
    if other is None:
        return patch
    share = draw_share(rng)
    return cv2.addWeighted(other, share, patch, 1 - share, 0).astype(np.uint8, copy=False)


FILLS: Mapping[str, Fill] = {
    "black": _black,
    "rect": _rect,
    "blur": _blur,
    "pixel": _pixel,
    "recolour": _recolour,
    "retexture": _retexture,
    "replace": _replaced,
    "insert": _replaced,
}
"""Kinds that look at their own rectangle alone; `remove` and `move` are inpainted from around it."""
