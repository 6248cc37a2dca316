"""Variation of training samples: a plan is drawn, then applied.

Geometry is one for all pictures, mask and valid area; light, colour and blur are drawn for each picture.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample, cut, padded_sample
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.data.tiles import Window

CROP_TRIES = 10
"""Draws of a crop before one is taken as it is, as in mmsegmentation's RandomCrop."""
BLUR_SIDE = 3


@dataclass(frozen=True, slots=True)
class Colours:
    """What happens to one picture: factors, a turn of the colour circle (1: all round), and whether it is blurred."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    blurred: bool


@dataclass(frozen=True, slots=True)
class AugmentationPlan:
    """All that is drawn for one sample.

    `window` is cut out, padded to `side` px (mirrored, and not counted) and resized. `turns` are quarter turns
    to the left, after the flips. `colours` are of each picture, before it is swapped.
    """

    window: Window
    side: int
    flipped: bool
    flipped_down: bool
    turns: int
    swapped: bool
    colours: tuple[Colours, ...]


def plan_augmentation(
    rng: np.random.Generator, mask: Image, size: int, settings: AugmentationSettings, crop: Window | None
) -> AugmentationPlan:
    """Draw the variation of a sample of one or two pictures.

    Args:
        rng: all randomness comes from it.
        mask: HW uint8 of the whole pictures, 0 where nothing is marked.
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
        colours=(_colours(rng, settings), _colours(rng, settings)),
    )


def augment(sample: Sample, plan: AugmentationPlan, size: int) -> Tensor:
    """Apply a plan: uint8 C x size x size, the pictures' RGB, the mask as it is stored, valid 0/255.

    Args:
        sample: the whole pictures.
        plan: what to do; of a single picture its first colours are used, and nothing is swapped.
        size: of the network's input, px.
    """
    sample = padded_sample(cut(sample, plan.window), plan.side)
    valid = np.full_like(sample.mask, 255) if sample.valid is None else sample.valid
    pictures = torch.from_numpy(np.stack(sample.pictures)).permute(0, 3, 1, 2)  # Px3xHxW
    marks = torch.from_numpy(np.stack([sample.mask, valid]))[:, None]  # 2x1xHxW
    pictures = _geometry(pictures, plan, size, InterpolationMode.BILINEAR)
    marks = _geometry(marks, plan, size, InterpolationMode.NEAREST_EXACT)  # as centred as bilinear
    coloured = [_coloured(picture, colours) for picture, colours in zip(pictures, plan.colours, strict=False)]
    return torch.cat([*(reversed(coloured) if plan.swapped else coloured), marks[:, 0]])


def _random_window(
    rng: np.random.Generator, mask: Image, size: int, settings: AugmentationSettings
) -> tuple[Window, int]:
    height, width = mask.shape
    low, high = (math.log(value) for value in settings.scale)
    # beyond the pictures there is only padding to be had
    side = min(round(size / math.exp(rng.uniform(low, high))), max(size, min(width, height)))
    window = Window(0, 0, min(side, width), min(side, height))
    if settings.positive_crops and rng.random() < settings.positive_crops and mask.any():
        return _around_a_marked_pixel(rng, mask, window), side
    for _ in range(CROP_TRIES):
        left = int(rng.integers(width - window.width + 1))
        top = int(rng.integers(height - window.height + 1))
        window = window._replace(left=left, top=top)
        changed = np.count_nonzero(mask[window.rows, window.columns]) / (window.width * window.height)
        if max(changed, 1 - changed) <= settings.max_dominant_share:
            break
    return window, side


def _around_a_marked_pixel(rng: np.random.Generator, mask: Image, window: Window) -> Window:
    # any place of the window is as likely to hold the pixel, as far as the picture reaches
    marked = np.flatnonzero(mask)
    top, left = divmod(int(marked[rng.integers(marked.size)]), mask.shape[1])
    top -= int(rng.integers(window.height))
    left -= int(rng.integers(window.width))
    return window._replace(
        top=min(max(0, top), mask.shape[0] - window.height),
        left=min(max(0, left), mask.shape[1] - window.width),
    )


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
