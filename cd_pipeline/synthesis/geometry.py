"""Rectangles in pixels: box conversion, jitter, and which pixels a change covers."""

from typing import NamedTuple

import numpy as np

from cd_pipeline.data.labels import Box


class Rect(NamedTuple):
    """Pixels x..x+width-1, y..y+height-1."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices into an HW array."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def clipped(self, width: int, height: int) -> "Rect":
        """Return the part inside a width x height image; its size can be 0."""
        x0, x1 = (min(max(edge, 0), width) for edge in (self.x, self.x + self.width))
        y0, y1 = (min(max(edge, 0), height) for edge in (self.y, self.y + self.height))
        return Rect(x0, y0, x1 - x0, y1 - y0)

    def grown(self, width: int, height: int) -> "Rect":
        """Return the rectangle one pixel larger on the right and bottom, clipped to the image."""
        return Rect(self.x, self.y, self.width + 1, self.height + 1).clipped(width, height)


def box_to_rect(box: Box, width: int, height: int) -> Rect:
    """Convert a normalised box to pixels by truncation, at least 2 px a side (published)."""
    x, w = _span(box.cx, box.w, width)
    y, h = _span(box.cy, box.h, height)
    return Rect(x, y, w, h)


def _span(centre: float, share: float, length: int) -> tuple[int, int]:
    start = max(0, int((centre - share / 2) * length))
    end = min(length - 1, start + int(share * length))
    return start, max(2, end - start)


def jittered(rect: Rect, rng: np.random.Generator, jitter: float, width: int, height: int) -> Rect:
    """Move and resize a rectangle by uniform integers of up to `jitter` of its sides, then clip (published)."""
    reach_x, reach_y = int(jitter * rect.width), int(jitter * rect.height)
    dx, dy, dw, dh = (int(rng.integers(-r, r + 1)) for r in (reach_x, reach_y, reach_x, reach_y))
    moved = Rect(rect.x + dx, rect.y + dy, max(2, rect.width + dw), max(2, rect.height + dh))
    return moved.clipped(width, height)
