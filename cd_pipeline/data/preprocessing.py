"""The one definition of what a network sees: training, prediction and export all use it.

Images are area-interpolated to the input size and scaled to [0, 1] RGB; what a recipe asks for beyond that,
a scaling by mean and standard deviation or by each image's own range, is the network's first layer
(`cd_pipeline.models.scaling`). Masks are resized by nearest.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from cd_pipeline.data.images import Image

if TYPE_CHECKING:
    import torch

CLAHE_GRID = 8
"""Parts a side."""
PIXEL_SCALE = 1 / 255
"""Factor from stored pixel values 0..255 to the network's [0, 1]."""


def resize_photo(image: Image, size: int) -> Image:
    """Resize HWC uint8 RGB to size x size by area interpolation."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def resize_mask(mask: Image, size: int) -> Image:
    """Resize HW uint8 to size x size by nearest; no new value appears."""
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)


def equalised(image: Image, clip_limit: float) -> Image:
    """Equalise the contrast of 8x8 parts of HWC uint8 RGB (CLAHE), on the lightness of CIELAB alone."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(CLAHE_GRID, CLAHE_GRID)).apply(
        lab[..., 0]
    )
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.uint8, copy=False)


def to_network(batch: "torch.Tensor") -> "torch.Tensor":
    """Scale a uint8 tensor of any shape, values in [0, 255], to float32 in [0, 1]."""
    return batch.float().mul_(PIXEL_SCALE)
