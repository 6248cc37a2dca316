"""What the canvases of the drawn samples share: drawing at twice the picture's size, noise, and averaging down.

Integer drawing and elementwise arithmetic alone, so that the bytes do not depend on threads or vector
instructions. Points are px of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.synthesis.room_textures import Float, UInt8, cloud

OVERSAMPLE = 2
SHIFT = 4
"""Bits of a fraction of a pixel in OpenCV's drawing calls."""

Points = npt.NDArray[np.float64]


def fixed(points: Points) -> npt.NDArray[np.int32]:
    """Return px of the picture as fixed-point px of the canvas."""
    return np.round((points * OVERSAMPLE - 0.5) * (1 << SHIFT)).astype(np.int32)


def fill(canvas: UInt8, corners: Points, colour: tuple[float, ...]) -> None:
    """Fill a polygon, (N, 2)."""
    cv2.fillPoly(canvas, [fixed(corners)], colour, shift=SHIFT)


def disc(canvas: UInt8, centre: Points, radius: float, colour: tuple[float, ...]) -> None:
    """Fill a circle."""
    x, y = fixed(centre).tolist()
    cv2.circle(canvas, (x, y), round(radius * OVERSAMPLE * (1 << SHIFT)), colour, -1, shift=SHIFT)


def averaged(image: UInt8) -> UInt8:
    """Average blocks of 2x2: (H, W) or (H, W, C) uint8 to half of the size."""
    wide = image.astype(np.uint16)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return np.asarray((total + 2) // 4, np.uint8)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], steps: tuple[int, int]) -> Float:
    """Return noise in [-1, 1] with bumps of so many px down and across, of a shape, float32."""
    down, across = (-(-side // step) + 1 for side, step in zip(shape, steps, strict=True))
    return cloud(rng, (down * steps[0], across * steps[1]), (down, across))[: shape[0], : shape[1]]


def sensor_noise(rng: np.random.Generator, height: int, width: int) -> Float:
    """Return noise of each value of a picture, close to a Gaussian of deviation 1/sqrt(3).

    It is the sum of four uniform numbers, which is the same on every machine; (height, width, 3) float32.
    """
    return np.asarray(rng.random((4, height, width, 3), np.float32).sum(axis=0) - 2, np.float32)
