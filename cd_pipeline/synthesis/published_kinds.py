"""The six published kinds of change: each alters one region of the after image in place."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from cd_pipeline.data.images import Image
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.plan import Change

NOISE_LIMIT = 30
"""`rect` is uniform noise in [0, 30) (published)."""
INPAINT_RADIUS = 3
INPAINT_MARGIN = 16
"""Pixels around the region that Telea's method is given; it reads no further than its radius."""
PIXEL_SHARE = 0.15
"""`pixel` shrinks to this share of each side (published)."""


def black(after: Image, change: Change) -> None:
    """Fill the inclusive rectangle with black."""
    height, width = after.shape[:2]
    after[inclusive(change, width, height).slices] = 0


def rect(after: Image, change: Change) -> None:
    """Fill the rectangle with uniform noise in [0, 30)."""
    rng = np.random.Generator(np.random.PCG64(change.noise_seed))
    after[change.rect.slices] = dark_noise(change.height, change.width, rng)


def inpaint(after: Image, change: Change) -> None:
    """Inpaint the inclusive rectangle by Telea's method, radius 3."""
    height, width = after.shape[:2]
    region, window = inclusive(change, width, height), inpaint_window(change, width, height)
    hole = np.zeros((window.height, window.width), np.uint8)
    hole[Rect(region.x - window.x, region.y - window.y, region.width, region.height).slices] = 255
    surroundings = np.ascontiguousarray(after[window.slices])
    after[window.slices] = cv2.inpaint(surroundings, hole, INPAINT_RADIUS, cv2.INPAINT_TELEA)


def blur(after: Image, change: Change) -> None:
    """Blur the rectangle, as `blurred` does."""
    after[change.rect.slices] = blurred(after[change.rect.slices])


def pixel(after: Image, change: Change) -> None:
    """Pixelate the rectangle, as `pixelated` does."""
    after[change.rect.slices] = pixelated(after[change.rect.slices])


def dark_noise(height: int, width: int, rng: np.random.Generator) -> Image:
    """Draw uniform noise in [0, 30): HWC uint8."""
    return rng.integers(0, NOISE_LIMIT, (height, width, 3), np.uint8)


def blurred(patch: Image) -> Image:
    """Blur HWC uint8 with a Gaussian of `blur_kernel`."""
    kernel = blur_kernel(*patch.shape[:2])
    # a copy: the blur must not read the picture around the patch
    result: Image = cv2.GaussianBlur(np.ascontiguousarray(patch), (kernel, kernel), 0).astype(
        np.uint8, copy=False
    )
    return result


def blur_kernel(height: int, width: int) -> int:
    """Return the odd kernel that blurs a patch of that size, px: max(3, 2 * (shorter side // 10) + 1) (published)."""
    return max(3, 2 * (min(height, width) // 10) + 1)


def pixelated(patch: Image) -> Image:
    """Shrink HWC uint8 to 0.15 of each side (bilinear) and enlarge it again by nearest (published)."""
    height, width = patch.shape[:2]
    rows, columns = coarse_size(height, width)
    coarse = cv2.resize(np.ascontiguousarray(patch), (columns, rows), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)


def coarse_size(height: int, width: int) -> tuple[int, int]:
    """Return rows and columns that `pixelated` shrinks a patch of that size, px, to."""
    return max(1, int(height * PIXEL_SHARE)), max(1, int(width * PIXEL_SHARE))


def coarse_cells(height: int, width: int) -> Image:
    """Return which cell, row and column, each pixel of a pixelated patch of that size shows: HW2 uint8.

    Raises:
        ValueError: there are more than 256 rows or columns of cells.
    """
    rows, columns = coarse_size(height, width)
    if max(rows, columns) > 256:
        raise ValueError(
            f"a patch of {width}x{height} px pixelated to {columns}x{rows} cells; at most 256 a side"
        )
    cells = np.indices((rows, columns), np.uint8).transpose(1, 2, 0)
    shown = cv2.resize(np.ascontiguousarray(cells), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(shown, np.uint8).reshape(height, width, 2)


def move(after: Image, change: Change) -> None:
    """Paste the rectangle at its new place, then black out the old one, even where they overlap."""
    after[move_target(change).slices] = after[change.rect.slices].copy()
    after[change.rect.slices] = 0


PUBLISHED_KINDS: Mapping[str, Callable[[Image, Change], None]] = {
    "black": black,
    "inpaint": inpaint,
    "rect": rect,
    "blur": blur,
    "pixel": pixel,
    "move": move,
}


def move_target(change: Change) -> Rect:
    """Return the rectangle that `move` pastes to.

    Raises:
        ValueError: the change has none.
    """
    if change.to_x is None or change.to_y is None:
        raise ValueError(f"move of {change.rect} without a target")
    return Rect(change.to_x, change.to_y, change.width, change.height)


def inclusive(change: Change, width: int, height: int) -> Rect:
    """Return the rectangle of a change with its right and bottom edge, within a photo of that size in px."""
    return change.rect.grown(width, height)


def inpaint_window(change: Change, width: int, height: int) -> Rect:
    """Return what Telea's method is given to inpaint a change: all that it reads of the whole photo, and a little more."""
    region = inclusive(change, width, height)
    return Rect(
        region.x - INPAINT_MARGIN,
        region.y - INPAINT_MARGIN,
        region.width + 2 * INPAINT_MARGIN,
        region.height + 2 * INPAINT_MARGIN,
    ).clipped(width, height)
