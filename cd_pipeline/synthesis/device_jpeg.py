"""A round trip through JPEG as tensor operations, for a whole batch on any device.

It is the baseline codec of libjpeg that OpenCV uses, with its defaults: YCbCr with 4:2:0 chroma, the accurate
integer transforms, and smoothed enlargement of chroma. Every step is on whole numbers, so that the result is the same on
every device and in every batch, and equal to `cd_pipeline.data.images.through_jpeg`.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 8
CONSTANT_BITS, PASS_BITS = 13, 2
"""Bits after the point of the transform's constants, and of what passes between rows and columns."""
EVEN = (
    (8192, 8192, 8192, 8192),
    (10703, 4433, -4433, -10703),
    (8192, -8192, -8192, 8192),
    (4433, -10704, 10704, -4433),
)
ODD = (
    (11363, 9633, 6437, 2260),
    (9633, -2259, -11362, -6436),
    (6437, -11362, 2261, 9633),
    (2260, -6436, 9633, -11363),
)
"""The transform of 8 values on their sums and differences about the middle; each row makes a coefficient. Sums
of libjpeg's constants, thus not all rounded cosines."""
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Quantisation steps at quality 50, of the JPEG standard (annex K)."""


def batch_through_jpeg(photos: Tensor, qualities: NDArray[np.int64]) -> Tensor:
    """Return photos as they are after being stored as JPEG.

    Args:
        photos: Nx3xHxW uint8 RGB, at least 16 px a side, on any device.
        qualities: of each, 1..100.
    """
    height, width = photos.shape[2:]
    luma, chroma = _to_luma_and_chroma(photos)
    steps = [_steps(table, qualities).to(photos.device, non_blocking=True) for table in (LUMA, CHROMA)]
    luma = _through_blocks(luma, steps[0])[..., :height, :width]
    # both kinds of chroma as one batch: 2NxH/2xW/2
    stored = _through_blocks(chroma, torch.cat([steps[1]] * 2))
    stored = stored[..., : (height + 1) // 2, : (width + 1) // 2]
    blue, red = (_enlarged(stored)[..., :height, :width] - 128).chunk(2)
    return _to_rgb(luma, blue, red)


def _to_luma_and_chroma(photos: Tensor) -> tuple[Tensor, Tensor]:
    # the constants have 16 bits after the point
    height, width = photos.shape[2:]
    red, green, blue = photos.int().unbind(1)  # NxHxW
    luma = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16
    offset = (128 << 16) + (1 << 15) - 1
    chroma = torch.cat(
        [
            (-11059 * red - 21709 * green + 32768 * blue + offset) >> 16,
            (32768 * red - 27439 * green - 5329 * blue + offset) >> 16,
        ]
    )
    chroma = _repeated_border(chroma, height + height % 2, -(-width // 16) * 16)
    # squares of four; what is lost in rounding alternates from column to column
    four = chroma[:, ::2, ::2] + chroma[:, ::2, 1::2] + chroma[:, 1::2, ::2] + chroma[:, 1::2, 1::2]
    bias = 1 + torch.arange(four.shape[2], device=four.device, dtype=torch.int32) % 2
    return luma, (four + bias) >> 2


def _through_blocks(planes: Tensor, steps: Tensor) -> Tensor:
    # NxHxW of 0..255 -> the same after transform, quantisation and back, enlarged to whole blocks
    count, height, width = planes.shape
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    padded = _repeated_border(planes, rows * BLOCK, columns * BLOCK) - 128
    blocks = padded.reshape(count, rows, BLOCK, columns, BLOCK).permute(2, 4, 0, 1, 3)  # 8x8xNxRxC
    even, odd = _transform(planes.device)
    across = _forward(blocks.transpose(0, 1).contiguous(), even, odd, CONSTANT_BITS - PASS_BITS)
    down = _forward(across.transpose(0, 1), even, odd, CONSTANT_BITS + PASS_BITS)
    scaled = steps.permute(1, 2, 0)[..., None, None]  # 8x8xNx1x1
    quantised = _quantised(down, scaled * 8) * scaled  # coefficients come out 8 times as large
    down = _inverse(quantised, even.T, odd.T, CONSTANT_BITS - PASS_BITS)
    across = _inverse(down.transpose(0, 1), even.T, odd.T, CONSTANT_BITS + PASS_BITS + 3)
    values = (across + 128).clamp_(0, 255)  # [column, row, N, R, C]
    return values.permute(2, 3, 1, 4, 0).reshape(count, rows * BLOCK, columns * BLOCK)


def _forward(values: Tensor, even: Tensor, odd: Tensor, shift: int) -> Tensor:
    # 8x...: values -> coefficients along the first axis
    near, far = values[:4], values[4:].flip(0)
    mixed = torch.stack([_mixed(even, near + far), _mixed(odd, near - far)], dim=1).flatten(0, 1)
    return mixed.add_(1 << (shift - 1)) >> shift


def _inverse(coefficients: Tensor, even: Tensor, odd: Tensor, shift: int) -> Tensor:
    near, far = _mixed(even, coefficients[::2]), _mixed(odd, coefficients[1::2])
    mixed = torch.cat([near + far, (near - far).flip(0)])
    return mixed.add_(1 << (shift - 1)) >> shift


def _mixed(matrix: Tensor, parts: Tensor) -> Tensor:
    # a product of matrices of whole numbers, which GPUs have no call for
    factors = matrix.reshape(4, 4, *[1] * (parts.ndim - 1))
    total = factors[:, 0] * parts[0]
    for column in range(1, 4):
        total += factors[:, column] * parts[column]
    return total


def _quantised(coefficients: Tensor, steps: Tensor) -> Tensor:
    # rounded half away from 0; below 2**24 the quotient of floats has the right whole part
    size = torch.div((coefficients.abs() + (steps >> 1)).float(), steps.float()).floor_().int()
    return size * coefficients.sign()


def _enlarged(planes: Tensor) -> Tensor:
    # NxHxW -> Nx2Hx2W: each value is 3/4 of the nearest and 1/4 of the next, in both directions
    height, width = planes.shape[1:]
    padded = _repeated_border(planes, height + 1, width + 1, start=-1)
    middle = 3 * padded[:, 1:-1]
    rows = torch.stack([middle + padded[:, :-2], middle + padded[:, 2:]], dim=2)
    rows = rows.reshape(-1, 2 * height, width + 2)
    middle = 3 * rows[..., 1:-1]
    pairs = torch.stack([middle + rows[..., :-2] + 8, middle + rows[..., 2:] + 7], dim=3) >> 4
    return pairs.reshape(-1, 2 * height, 2 * width)


def _to_rgb(luma: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    half = 1 << 15
    channels = (
        luma + ((91881 * red + half) >> 16),
        luma + ((-22554 * blue - 46802 * red + half) >> 16),
        luma + ((116130 * blue + half) >> 16),
    )
    return torch.stack(channels, dim=1).clamp_(0, 255).to(torch.uint8)


def _repeated_border(planes: Tensor, height: int, width: int, start: int = 0) -> Tensor:
    # rows start to height and columns start to width; those outside are like the nearest
    rows, columns = planes.shape[1:]
    if (start, rows, columns) == (0, height, width):
        return planes
    y = torch.arange(start, height, device=planes.device).clamp_(0, rows - 1)
    x = torch.arange(start, width, device=planes.device).clamp_(0, columns - 1)
    return planes.index_select(1, y).index_select(2, x)


def _steps(table: tuple[tuple[int, ...], ...], qualities: NDArray[np.int64]) -> Tensor:
    # Nx8x8 int32
    scale = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)[:, None, None]
    return torch.from_numpy(np.clip((np.array(table) * scale + 50) // 100, 1, 255).astype(np.int32))


@lru_cache(maxsize=8)
def _transform(device: torch.device) -> tuple[Tensor, Tensor]:
    even, odd = (torch.tensor(matrix, dtype=torch.int32).to(device) for matrix in (EVEN, ODD))
    return even, odd
