"""Optional cleaning of a predicted mask."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_MAJORITY = 5  # of nine: the smallest count whose mean over nine is above 0.5


def smooth_mask(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """The published smoothing: a pixel is change where the 3x3 average of the binary mask is above 0.5.

    Outside the image counts as no change, in the average too (zero padding included in the count).

    Args:
        mask: HxW; nonzero = change.

    Returns:
        HxW uint8, 0 or 255.

    Raises:
        ValueError: The mask is not 2-D.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (H, W), got {mask.shape}")
    binary = (mask != 0).astype(np.uint8)
    votes = cv2.boxFilter(binary, -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.where(votes >= _MAJORITY, 255, 0).astype(np.uint8)


def cleaned_mask(mask: NDArray[Any], *, opening: int = 0, min_area: int = 0) -> NDArray[np.uint8]:
    """Remove what is too thin or too small to be meant.

    Args:
        mask: HxW; nonzero = marked.
        opening: side of the square, in px, that is moved around inside every area, which keeps what it covers
            (morphological opening; published: 3); 0 or 1: none. What lies beyond the image takes nothing away.
        min_area: 8-connected components of fewer px are removed after that (published: 50); 0 or 1: none.

    Returns:
        HxW uint8, 0 or 255.

    Raises:
        ValueError: The mask is not 2-D.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (H, W), got {mask.shape}")
    binary = (mask != 0).astype(np.uint8)
    if opening > 1:
        square = np.ones((opening, opening), np.uint8)
        back = opening - 1 - opening // 2  # OpenCV's own opening shifts a mask by 1 px where the side is even
        binary = cv2.dilate(cv2.erode(binary, square), square, anchor=(back, back)).astype(np.uint8)
    if min_area > 1:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
        large = stats[:, cv2.CC_STAT_AREA] >= min_area
        large[0] = False  # the background
        binary = large[labels].astype(np.uint8)
    return np.where(binary, 255, 0).astype(np.uint8)
