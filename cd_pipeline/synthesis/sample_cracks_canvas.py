"""The canvas of the sample pictures of cracks: surfaces, soft masks, light and camera.

A canvas is painted at twice the picture's size, with integer drawing and elementwise arithmetic, and averaged
down, so that the bytes do not depend on threads or vector instructions.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from cd_pipeline.synthesis.room_canvas import box_blur
from cd_pipeline.synthesis.room_textures import Colour, Float, UInt8
from cd_pipeline.synthesis.sample_canvas import (
    OVERSAMPLE,
    SHIFT,
    averaged,
    disc,
    fill,
    fixed,
    sensor_noise,
    smooth_noise,
)
from cd_pipeline.synthesis.sample_cracks_path import Crack, Points

SURFACES = ("asphalt", "concrete", "plaster")

_ASPHALT: tuple[Colour, ...] = ((84, 84, 88), (112, 110, 108), (132, 130, 126), (98, 100, 106))
_CONCRETE: tuple[Colour, ...] = ((168, 164, 154), (150, 150, 148), (182, 178, 170), (160, 152, 138))
_PLASTER: tuple[Colour, ...] = (
    (196, 190, 178),
    (190, 168, 128),
    (168, 178, 186),
    (202, 200, 196),
    (184, 148, 124),
)


class Canvas:
    """A piece of ground or wall.

    Args:
        rng: source of randomness of its surface.
        surface: one of `SURFACES`.
        width: of the picture in px.
        height: of the picture in px.

    Attributes:
        light: colour, (2 height, 2 width, 3) float32 RGB in [0, 255] or slightly beyond.
        covered: where something lies on the surface, (2 height, 2 width) uint8, 0 or 255.
    """

    def __init__(self, rng: np.random.Generator, surface: str, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.shape = (height * OVERSAMPLE, width * OVERSAMPLE)
        self.covered = self.blank()
        lay = {"asphalt": self._asphalt, "concrete": self._concrete, "plaster": self._plaster}[surface]
        self.light: Float = lay(rng)

    def blank(self) -> UInt8:
        """Return an empty mask of the canvas."""
        return np.zeros(self.shape, np.uint8)

    def noise(self, rng: np.random.Generator, down: int, across: int | None = None) -> Float:
        """Return smooth noise in [-1, 1] with bumps of so many px of the canvas, (H, W) float32."""
        return smooth_noise(rng, self.shape, (down, across or down))

    def grain(self, rng: np.random.Generator) -> Float:
        """Return noise in [-1, 1] of each pixel of the canvas alone, (H, W) float32."""
        return rng.random(self.shape, np.float32) * 2 - 1

    def fill(self, mask: UInt8, corners: Points, value: int = 255) -> None:
        """Fill a polygon, (N, 2) in px of the picture."""
        fill(mask, corners, (value,))

    def disc(self, mask: UInt8, centre: Points, radius: float, value: int = 255) -> None:
        """Fill a circle, in px of the picture."""
        disc(mask, centre, radius, (value,))

    def line(self, mask: UInt8, points: Points, width: float, value: int = 255) -> None:
        """Draw a line through (N, 2) points, in px of the picture."""
        thick = max(1, round(width * OVERSAMPLE))
        cv2.polylines(mask, [fixed(points)], False, (value,), thick, cv2.LINE_8, SHIFT)

    def soft(self, mask: UInt8, radius: int) -> Float:
        """Return a mask of 0..255 as (H, W) float32 in [0, 1], blurred over about `radius` px, 0 for none."""
        if not radius:
            return mask.astype(np.float32) / np.float32(255)
        small = box_blur(averaged(mask).astype(np.int64) * 64, radius).astype(np.float32)
        return (small / np.float32(255 * 64)).repeat(OVERSAMPLE, 0).repeat(OVERSAMPLE, 1)

    def shade(self, share: Float) -> None:
        """Take a share of the light away, (H, W) float32; add light where it is negative."""
        self.light *= (1 - share)[..., None]

    def paint(self, share: Float, colour: Colour | Float) -> None:
        """Lay a colour over a share of the surface, (H, W) float32 in [0, 1]."""
        self.light += (np.array(colour, np.float32) - self.light) * share[..., None]

    def crack(self, lines: list[Crack]) -> UInt8:
        """Paint cracks.

        Returns:
            Where they run, (H, W) uint8, 0 or 255.
        """
        mask, depth = self.blank(), self.blank()
        for crack in lines:
            values = np.round(crack.depths * 255).astype(np.int64).tolist()
            for k, (width, value) in enumerate(zip(crack.widths[1:].tolist(), values[1:], strict=True)):
                self.line(depth, crack.points[k : k + 2], width, value)
                self.line(mask, crack.points[k : k + 2], width)
        dark = self.soft(depth, 0)
        # The far edge catches the light.
        rim = np.roll(dark, (3, 3), (0, 1)) * np.float32(0.22) * (dark == 0)
        self.shade(dark - rim)
        return mask

    def photograph(self, rng: np.random.Generator) -> UInt8:
        """Light the surface from one side and take its picture, (height, width, 3) RGB uint8."""
        small = averaged(np.clip(self.light, 0, 255).astype(np.uint8)).astype(np.float32)
        small *= self._sun(rng)[..., None]
        small *= rng.uniform(0.97, 1.03, 3).astype(np.float32)
        dust = sensor_noise(rng, self.height, self.width)
        small += dust * np.float32(rng.uniform(1.5, 5) * math.sqrt(3))
        return np.clip(np.round(small), 0, 255).astype(np.uint8)

    def _sun(self, rng: np.random.Generator) -> Float:
        turn, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.34)
        x = np.linspace(-1, 1, self.width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, self.height, dtype=np.float32)[:, None]
        ramp = np.float32(slope * math.cos(turn)) * x + np.float32(slope * math.sin(turn)) * y
        corners = np.float32(rng.uniform(0, 0.12)) * (x * x + y * y)
        return np.asarray(np.float32(rng.uniform(0.76, 1.08)) * (1 + ramp) * (1 - corners), np.float32)

    def _tinted(self, rng: np.random.Generator, colours: tuple[Colour, ...], factor: Float) -> Float:
        tone = np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.9, 1.1) + rng.uniform(
            -2, 2, 3
        )
        return factor[..., None] * tone.astype(np.float32)

    def _asphalt(self, rng: np.random.Generator) -> Float:
        """Stones in bitumen: light chips and dark gaps of 1 to 4 px."""
        chips = self.noise(rng, 5) + 0.6 * self.noise(rng, 9)
        coarse = np.float32(rng.uniform(0.12, 0.3))
        factor = 1 + coarse * chips + 0.16 * self.grain(rng) + 0.07 * self.noise(rng, 160)
        factor += 0.05 * self.noise(rng, 40)
        factor += 0.3 * (chips > 1.0) - 0.24 * (chips < -0.95)
        return self._tinted(rng, _ASPHALT, factor)

    def _concrete(self, rng: np.random.Generator) -> Float:
        """Mottled, with pores and the marks of boards or of a broom."""
        factor = 1 + 0.09 * self.noise(rng, 150) + 0.06 * self.noise(rng, 44) + 0.05 * self.noise(rng, 8)
        factor += 0.07 * self.grain(rng)
        if rng.random() < 0.5:
            factor += 0.06 * self.noise(rng, *((4, 200) if rng.random() < 0.5 else (200, 4)))
        pores = self.blank()
        for x, y, size in rng.random((int(rng.integers(30, 200)), 3)).tolist():
            self.disc(pores, np.array([x * self.width, y * self.height]), 0.5 + 1.3 * size * size)
        factor *= 1 - np.float32(0.45) * self.soft(pores, 0)
        return self._tinted(rng, _CONCRETE, factor)

    def _plaster(self, rng: np.random.Generator) -> Float:
        """A relief lit from above at the left, smooth or rough."""
        step = int(rng.integers(4, 14))
        height = self.noise(rng, step) + 0.7 * self.noise(rng, 2 * step, 3 * step)
        relief = height - np.roll(height, (2, 2), (0, 1))
        factor = 1 + np.float32(rng.uniform(0.04, 0.14)) * relief + 0.05 * self.noise(rng, 170)
        return self._tinted(rng, _PLASTER, factor + 0.035 * self.grain(rng))
