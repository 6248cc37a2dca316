"""The region of a change: rectangle, ellipse, polygon or an object's own outline, with a soft edge."""

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.synthesis.geometry import Rect

CUTOUT_SIDE = 96
"""Longest side, in px, of the picture on which an object's outline is found."""
CUTOUT_MARGIN = 0.15
"""Surroundings that GrabCut sees, as a share of the box."""
CUTOUT_ROUNDS = 2
CUTOUT_SHARES = (0.2, 0.95)
"""An outline that fills less or more of its box has failed; the inscribed ellipse stands in."""
INSIDE = 1 - 1e-4
"""Weight from which a pixel is wholly inside; a region too thin to have one keeps hard edges."""


def filled(shape: str, height: int, width: int, seed: int) -> npt.NDArray[np.bool_]:
    """Return a rectangle, its inscribed ellipse, or a polygon inside it: HW bool.

    Args:
        shape: rectangle, ellipse or polygon.
        height: of the rectangle, px.
        width: of the rectangle, px.
        seed: chooses the polygon.
    """
    if shape == "rectangle":
        return np.ones((height, width), dtype=np.bool_)
    canvas = np.zeros((height, width), dtype=np.uint8)
    if shape == "ellipse":
        # centre, axes and angle in float: an inscribed ellipse for even sides too
        box = (((width - 1) / 2, (height - 1) / 2), (width - 1, height - 1), 0)
        cv2.ellipse(canvas, box, 1, thickness=-1)
    else:
        cv2.fillPoly(canvas, [_polygon(np.random.default_rng(seed), height, width)], 1)
    return canvas.astype(np.bool_)


def object_outline(photo: Image, box: Rect) -> Image:
    """Find the object in a box of a photo by GrabCut.

    Args:
        photo: HWC uint8 RGB.
        box: px, inside the photo.

    Returns:
        HW uint8, 255 on the object: the box itself, at most 96 px a side.
    """
    margin_x, margin_y = int(CUTOUT_MARGIN * box.width) + 2, int(CUTOUT_MARGIN * box.height) + 2
    x0, y0 = max(0, box.x - margin_x), max(0, box.y - margin_y)
    around = photo[y0 : box.y + box.height + margin_y, x0 : box.x + box.width + margin_x]
    scale = min(1.0, CUTOUT_SIDE / max(around.shape[:2]))
    rows, columns = (max(2, round(side * scale)) for side in around.shape[:2])  # a box can be very thin
    small = cv2.resize(around, (columns, rows), interpolation=cv2.INTER_AREA)
    x, y, width, height = (round(side * scale) for side in (box.x - x0, box.y - y0, box.width, box.height))
    inside = Rect(x, y, max(2, width), max(2, height)).clipped(small.shape[1], small.shape[0]).slices
    labels = np.zeros(small.shape[:2], np.uint8)
    labels[inside] = cv2.GC_PR_FGD
    if not labels.all():  # a box that fills the picture leaves nothing to tell it from
        empty = np.zeros((1, 65), np.float64)
        cv2.setRNGSeed(0)  # GrabCut starts from clusters that OpenCV's own generator draws
        unused = (0, 0, 1, 1)  # the mask says what may be the object
        cv2.grabCut(small, labels, unused, empty, empty.copy(), CUTOUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    found = labels[inside] == cv2.GC_PR_FGD
    low, high = CUTOUT_SHARES
    if not low <= found.mean() <= high:
        found = filled("ellipse", found.shape[0], found.shape[1], seed=0)
    return np.where(found, np.uint8(255), np.uint8(0))


def soft_edge(region: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.float32]:
    """Return HW float32 weights: 0 outside a region, a half or a little more along its sides, 1 `width` px inside.

    Nothing fainter than that, on a straight side: a label of the region then ends where the change does. A label
    that held the faint half of an edge too would teach a network to mark a halo.
    """
    hard = region.astype(np.float32)
    weights = cv2.blur(hard, (2 * width + 1, 2 * width + 1), borderType=cv2.BORDER_CONSTANT) * hard
    return np.asarray(weights if weights.max(initial=0) > INSIDE else hard, np.float32)


def edge_counts(region: npt.NDArray[np.bool_], width: int) -> tuple[npt.NDArray[np.int16], int]:
    """Return the weights of `soft_edge` as HW int16 counts of pixels, 0 outside the region, and the count of weight 1.

    Raises:
        ValueError: the edge is too wide to count.
    """
    full = (2 * width + 1) ** 2
    if full > np.iinfo(np.int16).max:
        raise ValueError(f"a soft edge of {width} px; at most 90 px can be counted")
    hard = region.view(np.uint8)
    if not width:
        return hard.astype(np.int16), 1
    side = (2 * width + 1, 2 * width + 1)
    summed = cv2.boxFilter(hard, cv2.CV_16S, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    counts = np.asarray(summed * hard, np.int16)
    return (counts, full) if counts.max(initial=0) == full else (hard.astype(np.int16), 1)


def _polygon(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.int32]:
    """Corners around the middle of a box, one a sector, at 0.6-1.0 of the way to the inscribed ellipse."""
    corners = int(rng.integers(5, 9, endpoint=True))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) / corners
    reach = rng.uniform(0.6, 1.0, corners)
    across = (width - 1) / 2 * (1 + reach * np.cos(angles))
    down = (height - 1) / 2 * (1 + reach * np.sin(angles))
    return np.rint(np.stack([across, down], axis=1)).astype(np.int32)  # corners x 2, (x, y)
