"""Variation of training pairs: a plan is drawn, then applied.

Geometry is one for both dates, mask and valid area; light, colour and blur are drawn for each date.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cd_pipeline.data.images import Image
from cd_pipeline.data.pairs import PairArrays, cut, padded_pair
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.data.tiles import Window

CROP_TRIES = 10
"""Draws of a crop before one is taken as it is, as in mmsegmentation's RandomCrop."""
BLUR_SIDE = 3


@dataclass(frozen=True, slots=True)
class Colours:
    """What happens to one date: factors, a turn of the colour circle (1: all round), and whether it is blurred."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    blurred: bool


@dataclass(frozen=True, slots=True)
class AugmentationPlan:
    """All that is drawn for one pair.

    `window` is cut out, padded to `side` px (mirrored, and not counted) and resized. `turns` are quarter turns
    to the left, after the flips.
    """

    window: Window
    side: int
    flipped: bool
    flipped_down: bool
    turns: int
    swapped: bool
    before: Colours
    after: Colours


def plan_augmentation(
    rng: np.random.Generator, mask: Image, size: int, settings: AugmentationSettings, crop: Window | None
) -> AugmentationPlan:
    """Draw the variation of a pair.

    Args:
        rng: all randomness comes from it.
        mask: HW uint8 of the whole pictures, 0 or 255.
        size: of the network's input, px.
        settings: ranges and probabilities.
        crop: what is cut out; None: drawn, size / scale px a side.
    """
    window, side = _random_window(rng, mask, size, settings) if crop is None else (crop, size)
    return AugmentationPlan(
        window=window,
        side=side,
        flipped=bool(rng.random() < settings.horizontal_flip),
        flipped_down=bool(rng.random() < settings.vertical_flip),
        turns=int(rng.integers(4)) if settings.quarter_turns else 0,
        swapped=bool(rng.random() < settings.swap),
        before=_colours(rng, settings),
        after=_colours(rng, settings),
    )


def augment(arrays: PairArrays, plan: AugmentationPlan, size: int) -> Tensor:
    """Apply a plan: uint8 8 x size x size, before RGB, after RGB, mask 0/255, valid 0/255.

    Args:
        arrays: the whole pictures.
        plan: what to do.
        size: of the network's input, px.
    """
    arrays = padded_pair(cut(arrays, plan.window), plan.side)
    valid = np.full_like(arrays.mask, 255) if arrays.valid is None else arrays.valid
    dates = torch.from_numpy(np.stack([arrays.before, arrays.after])).permute(0, 3, 1, 2)  # 2x3xHxW
    marks = torch.from_numpy(np.stack([arrays.mask, valid]))[:, None]  # 2x1xHxW
    dates = _geometry(dates, plan, size, InterpolationMode.BILINEAR)
    marks = _geometry(marks, plan, size, InterpolationMode.NEAREST_EXACT)  # as centred as bilinear
    first, second = (
        _coloured(date, colours) for date, colours in zip(dates, (plan.before, plan.after), strict=True)
    )
    if plan.swapped:
        first, second = second, first
    return torch.cat([first, second, marks[:, 0]])


def _random_window(
    rng: np.random.Generator, mask: Image, size: int, settings: AugmentationSettings
) -> tuple[Window, int]:
    height, width = mask.shape
    low, high = (math.log(value) for value in settings.scale)
    # beyond the pictures there is only padding to be had
    side = min(round(size / math.exp(rng.uniform(low, high))), max(size, min(width, height)))
    window = Window(0, 0, min(side, width), min(side, height))
    for _ in range(CROP_TRIES):
        left = int(rng.integers(width - window.width + 1))
        top = int(rng.integers(height - window.height + 1))
        window = window._replace(left=left, top=top)
        changed = np.count_nonzero(mask[window.rows, window.columns]) / (window.width * window.height)
        if max(changed, 1 - changed) <= settings.max_dominant_share:
            break
    return window, side


def _colours(rng: np.random.Generator, settings: AugmentationSettings) -> Colours:
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4)
    return Colours(
        brightness=1 + float(brightness) * settings.brightness,
        contrast=1 + float(contrast) * settings.contrast,
        saturation=1 + float(saturation) * settings.saturation,
        hue=float(hue) * settings.hue,
        blurred=bool(rng.random() < settings.blur),
    )


def _geometry(
    pictures: Tensor, plan: AugmentationPlan, size: int, interpolation: InterpolationMode
) -> Tensor:
    if plan.side != size:
        pictures = F.resize(pictures, [size, size], interpolation=interpolation, antialias=True)
    if plan.flipped:
        pictures = F.horizontal_flip(pictures)
    if plan.flipped_down:
        pictures = F.vertical_flip(pictures)
    return torch.rot90(pictures, plan.turns, (2, 3))


def _coloured(date: Tensor, colours: Colours) -> Tensor:
    date = F.adjust_brightness(date, colours.brightness)
    date = F.adjust_contrast(date, colours.contrast)
    date = F.adjust_saturation(date, colours.saturation)
    if colours.hue:
        date = F.adjust_hue(date, colours.hue)
    return F.gaussian_blur(date, [BLUR_SIDE, BLUR_SIDE]) if colours.blurred else date
