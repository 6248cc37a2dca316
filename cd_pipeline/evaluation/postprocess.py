"""Optional smoothing of a predicted mask."""

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
