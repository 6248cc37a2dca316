"""The one definition of what a network sees: training, prediction and export all use it.

Images are area-interpolated to the input size and scaled to [0, 1] RGB, without mean or standard
deviation; masks are resized by nearest, and any value above 0 is change (published).
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from cd_pipeline.data.images import Image

if TYPE_CHECKING:
    import torch

PIXEL_SCALE = 1 / 255
"""Factor from stored pixel values 0..255 to the network's [0, 1]."""


def resize_photo(image: Image, size: int) -> Image:
    """Resize HWC uint8 RGB to size x size by area interpolation."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def resize_mask(mask: Image, size: int) -> Image:
    """Resize HW uint8 to size x size by nearest; the result holds only 0 and 255."""
    resized = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.where(resized > 0, np.uint8(255), np.uint8(0))


def to_network(batch: "torch.Tensor") -> "torch.Tensor":
    """Scale a uint8 tensor of any shape, values in [0, 255], to float32 in [0, 1]."""
    return batch.float().mul_(PIXEL_SCALE)
