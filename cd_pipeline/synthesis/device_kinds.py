"""What a region shows after a realistic change, as tensor operations on the pixels of many regions.

Each does what the kind of that name in `realistic_kinds` and `published_kinds` does, in whole numbers where OpenCV does
so. P pixels of regions lie one after the other, row by row.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from cd_pipeline.synthesis.device_nuisance import reflected, rounded
from cd_pipeline.synthesis.published_kinds import blur_kernel

KERNEL_UNIT = 256
"""OpenCV blurs 8-bit pictures by a kernel of whole numbers, which sum to this."""
BLUR_VALUES = 1 << 22
"""Pixels that are weighed at a time, about 250 MB whatever is blurred."""
LINEAR_UNIT = 2048
"""Its linear interpolation counts weights in this part of 1."""
HUES = 180
"""OpenCV counts hue in 2 degrees."""


class Places(NamedTuple):
    """Where P pixels lie, int64 each.

    rows, columns: in their rectangle.
    heights, widths: of it.
    corners: of its top left pixel in all pictures, one pixel after the other.
    side: of a picture, px.
    """

    rows: Tensor
    columns: Tensor
    heights: Tensor
    widths: Tensor
    corners: Tensor
    side: int

    def part(self, chosen: slice) -> "Places":
        """Return those of some of the pixels."""
        rows, columns, heights, widths, corners = (values[chosen] for values in self[:5])
        return Places(rows, columns, heights, widths, corners, self.side)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return where pixels of the rectangles lie in all pictures."""
        return self.corners + rows * self.side + columns


def painted(old: Tensor, numbers: Tensor) -> Tensor:
    """Apply `Paint`: Px3 uint8 and Px6 float32, its factors and what is added, to Px3 uint8.

    A value differs by a level where the exact one is within the error of float32 from a whole number.
    """
    return (old * numbers[:, :3] + numbers[:, 3:]).clamp_(0, 255).to(torch.uint8)


def textured(old: Tensor, other: Tensor, shares: Tensor) -> Tensor:
    """Mix Px3 uint8 of another photo, of a share P, into Px3 uint8."""
    return rounded(other * shares[:, None] + old * (1 - shares[:, None]))


def hue_turned(old: Tensor, turns: Tensor, gains: Tensor) -> Tensor:
    """Apply `Hue` to Px3 uint8; turns and gains are P int64.

    A value differs by a level where OpenCV, which rounds some pixels of a row so and some down, rounds it down.
    """
    hue, saturation, value = _hsv(old)
    return _rgb((hue + turns) % HUES, (saturation + gains).clamp(max=255), value)


def _hsv(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # whole numbers, as cv2.COLOR_RGB2HSV
    red, green, blue = pixels.long().unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    span = value - torch.minimum(torch.minimum(red, green), blue)
    by_value, by_span = _dividers(pixels.device)
    saturation = (span * by_value[value] + (1 << 11)) >> 12
    turned = torch.where(value == green, blue - red + 2 * span, red - green + 4 * span)
    turned = torch.where(value == red, green - blue, turned)
    hue = (turned * by_span[span] + (1 << 11)) >> 12
    return torch.where(hue < 0, hue + HUES, hue), saturation, value


@lru_cache(maxsize=8)
def _dividers(device: torch.device) -> tuple[Tensor, Tensor]:
    numbers = np.maximum(np.arange(256), 1)
    tables = (np.rint((255 << 12) / numbers), np.rint((HUES << 12) / (6 * numbers)))
    for table in tables:
        table[0] = 0
    by_value, by_span = (torch.from_numpy(table.astype(np.int64)).to(device) for table in tables)
    return by_value, by_span


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    # float32, as cv2.COLOR_HSV2RGB
    place = hue.float() * (6 / HUES)
    sector = place.floor()
    share, grey, light = place - sector, saturation.float() / 255, value.float() / 255
    low = light * (1 - grey)
    falling, rising = light * (1 - grey * share), light * (1 - grey * (1 - share))
    levels = torch.stack([light, low, falling, rising], dim=1)
    channels = _sectors(hue.device)[sector.long() % 6]  # Px3
    return rounded(levels.gather(1, channels) * 255)


@lru_cache(maxsize=8)
def _sectors(device: torch.device) -> Tensor:
    # of red, green and blue: 0 the lightest, 1 the darkest, 2 falling, 3 rising
    return torch.tensor(
        [[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]], dtype=torch.int64, device=device
    )


def blurred(pictures: Tensor, places: Places, reaches: Tensor, longest: int) -> Tensor:
    """Blur rectangles as `published_kinds.blurred`, to the last bit.

    Args:
        pictures: Nx3 uint8, the pixels of all pictures.
        places: of P pixels, all of each rectangle.
        reaches: P int64, half the kernels, at least 1.
        longest: the largest of them.
    """
    reach = blur_kernel(places.side, places.side) // 2
    kernels = _kernels(reach, pictures.device)[:, reach - longest : reach + longest + 1]
    firsts = places.at(places.rows, torch.zeros_like(places.rows))
    ones = torch.ones_like(places.rows)
    wide = _smoothed(pictures, firsts, ones, places.columns, places.widths, kernels, reaches)
    own = torch.arange(len(reaches), device=pictures.device) - places.rows * places.widths
    tall = _smoothed(wide, own, places.widths, places.rows, places.heights, kernels, reaches)
    return ((tall + KERNEL_UNIT**2 / 2) / KERNEL_UNIT**2).floor_().to(torch.uint8)


def _smoothed(
    pixels: Tensor,
    firsts: Tensor,
    strides: Tensor,
    along: Tensor,
    sides: Tensor,
    kernels: Tensor,
    reaches: Tensor,
) -> Tensor:
    # whole numbers below 2**24, whose sum is exact in float32 in any order
    steps = torch.arange(kernels.shape[1], device=pixels.device) - kernels.shape[1] // 2
    block, smooth = max(1, BLUR_VALUES // len(steps)), []
    for start in range(0, len(reaches), block):
        part = slice(start, start + block)
        places = reflected(along[part, None] + steps, 2 * (sides[part, None] - 1))  # PxT
        at = firsts[part, None] + places * strides[part, None]
        values = pixels.index_select(0, at.flatten()).view(*at.shape, 3)
        weights = kernels.index_select(0, reaches[part])[..., None]
        smooth.append((values * weights).sum(1))
    return torch.cat(smooth)


@lru_cache(maxsize=32)
def _kernels(longest: int, device: torch.device) -> Tensor:
    # a row for each reach up to the longest, its middle in the middle
    kernels = np.zeros((longest + 1, 2 * longest + 1), np.float32)
    for reach in range(1, longest + 1):
        exact = cv2.getGaussianKernel(2 * reach + 1, 0, cv2.CV_64F)[:reach, 0] * KERNEL_UNIT
        lost = 0.0
        for place, value in enumerate(exact):  # from the end inwards, each takes over what rounding has lost
            kept = np.rint(value + lost)
            lost += value - kept
            kernels[reach, longest - reach + place] = kernels[reach, longest + reach - place] = kept
        kernels[reach, longest] = KERNEL_UNIT - kernels[reach].sum()
    return torch.from_numpy(kernels).to(device)


def pixelated(pictures: Tensor, places: Places, cells: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixelate rectangles as `published_kinds.pixelated`; a cell can differ by a level.

    Args:
        pictures: Nx3 uint8, the pixels of all pictures.
        places: of P pixels.
        cells: Px3 uint8, row and column of the cell that each shows, and 0.
        rows: P int64, how many rows of cells their rectangles have.
        columns: P int64, how many columns.
    """
    shown_row, shown_column, _ = cells.long().unbind(1)
    upper, lower, share_down = _between(shown_row, rows, places.heights)
    left, right, share_across = _between(shown_column, columns, places.widths)

    def row(number: Tensor) -> Tensor:
        near, far = (pictures.index_select(0, places.at(number, column)).long() for column in (left, right))
        return near * (LINEAR_UNIT - share_across) + far * share_across

    # cut off twice, as OpenCV
    sums = [
        (weight * (row(number) >> 4)) >> 16
        for number, weight in ((upper, LINEAR_UNIT - share_down), (lower, share_down))
    ]
    return ((sums[0] + sums[1] + 2) >> 2).to(torch.uint8)


def _between(cells: Tensor, counts: Tensor, sides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # the two pixels that the middle of a cell lies between, and the weight of the second one, Px1
    place = ((2 * cells + 1) * sides - counts).clamp(min=0)
    near = place // (2 * counts)
    share = (place - near * 2 * counts).float() / (2 * counts)
    far = torch.minimum(near + 1, sides - 1)
    return near, far, (share * LINEAR_UNIT).round_().long()[:, None]
