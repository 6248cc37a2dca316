"""Nuisance: what differs between two photos of a room in which nothing changed. Never labelled.

A draw is plain numbers; applying it is not random. Evaluation has a nuisance of its own that is fixed
(`evaluation.nuisance`); this one is wider and can be set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image, through_jpeg
from cd_pipeline.synthesis.settings import NuisanceSettings

FIELD_SIDE = 32
"""Light is computed on a grid of this side and enlarged: it is smooth."""
NOISE_SIDE = 1024
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)


@dataclass(frozen=True, slots=True)
class Nuisance:
    """One draw for one photo.

    Attributes:
        gains: factors on red, green and blue; brightness and colour temperature.
        offset: added after the gains, 0-255 scale.
        contrast: factor on the distance from the photo's mean.
        gamma: exponent on values in [0, 1], before everything else.
        gradient: change of light over half the photo to the right and downwards, as shares.
        vignette: share of light lost in the corners.
        shadow: share of light lost inside the shadow; 0: none.
        shadow_outline: x0, y0, x1, y1, ... in shares of the sides.
        blur: sigma in px; 0: none.
        noise: sigma of Gaussian noise, 0-255 scale.
        shot_noise: variance of Poisson noise for a unit of brightness, 0-255 scale.
        noise_seed: chooses the noise.
        jpeg_quality: 1..100; None: not compressed.
        corners: how far the four corners move, dx and dy in px, clockwise from the top left.
    """

    gains: tuple[float, float, float]
    offset: float
    contrast: float
    gamma: float
    gradient: tuple[float, float]
    vignette: float
    shadow: float
    shadow_outline: tuple[float, ...]
    blur: float
    noise: float
    shot_noise: float
    noise_seed: int
    jpeg_quality: int | None
    corners: tuple[float, ...]

    @property
    def lights(self) -> bool:
        """Whether light differs from place to place."""
        return any(self.gradient) or self.vignette > 0 or self.shadow > 0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Nuisance":
        """Read a draw back from the manifest."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        return cls(**values)


def draw_nuisance(
    rng: np.random.Generator, settings: NuisanceSettings, *, strength: float = 1.0, warped: bool = False
) -> Nuisance:
    """Draw the nuisance of one photo.

    Args:
        rng: source of all randomness.
        settings: ranges and probabilities.
        strength: factor on all ranges of light, blur and noise.
        warped: whether the corners may move apart, beyond a shift.
    """

    def around(reach: float) -> float:
        return float(rng.uniform(-reach, reach) * strength)

    def sometimes(probability: float, value: float) -> float:
        return value if rng.random() < probability else 0.0

    def up_to(top: float) -> float:
        return float(rng.uniform(0, top) * strength)

    brightness = around(settings.brightness)
    red, green, blue = ((1 + brightness) * (1 + around(settings.temperature)) for _ in range(3))
    slope, angle = up_to(settings.gradient), rng.uniform(0, 2 * np.pi)
    slope = sometimes(settings.gradient_probability, slope)
    low, high = settings.jpeg_quality
    quality = int(rng.integers(low, high, endpoint=True))
    return Nuisance(
        gains=(red, green, blue),
        offset=around(settings.offset),
        contrast=1 + around(settings.contrast),
        gamma=1 + around(settings.gamma),
        gradient=(float(slope * np.cos(angle)), float(slope * np.sin(angle))),
        vignette=sometimes(settings.vignette_probability, min(0.9, up_to(settings.vignette))),
        shadow=sometimes(settings.shadow_probability, min(0.9, up_to(settings.shadow))),
        shadow_outline=_draw_outline(rng),
        blur=sometimes(settings.blur_probability, up_to(settings.blur)),
        noise=up_to(settings.noise),
        shot_noise=sometimes(settings.shot_noise_probability, up_to(settings.shot_noise)),
        noise_seed=int(rng.integers(2**31)),
        jpeg_quality=quality if rng.random() < settings.jpeg_probability else None,
        corners=_draw_corners(rng, settings, warped=warped),
    )


def apply_nuisance(photo: Image, nuisance: Nuisance) -> tuple[Image, Image]:
    """Apply a draw to a photo.

    Args:
        photo: HWC uint8 RGB.
        nuisance: what was drawn.

    Returns:
        HWC uint8 RGB, and HW uint8: 255 where the result shows the photo, 0 in the border that the warp
        uncovered (there the photo is reflected).
    """
    lit = _relit(photo, nuisance)
    if nuisance.blur:
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), nuisance.blur), np.float32)
    noisy = _with_noise(lit, nuisance)
    if nuisance.jpeg_quality is not None:
        noisy = through_jpeg(noisy, nuisance.jpeg_quality)
    return _warped(noisy, nuisance.corners)


def _draw_outline(rng: np.random.Generator) -> tuple[float, ...]:
    # a quadrilateral, as a window or a piece of furniture casts it; it may reach beyond the photo
    centre, reach = rng.uniform(0, 1, 2), rng.uniform(0.15, 0.6, (4, 2))
    corners = centre + (CORNERS * 2 - 1) * reach
    return tuple(float(value) for value in corners.ravel())


def _draw_corners(rng: np.random.Generator, settings: NuisanceSettings, *, warped: bool) -> tuple[float, ...]:
    moved = np.tile(rng.uniform(-settings.shift, settings.shift, 2), (4, 1))
    if rng.random() >= settings.shift_probability:
        moved = np.zeros_like(moved)
    warps = rng.uniform(-settings.warp, settings.warp, (4, 2))
    if rng.random() < settings.warp_probability and warped:
        moved = moved + warps
    return tuple(float(value) for value in moved.ravel())


def _relit(photo: Image, nuisance: Nuisance) -> npt.NDArray[np.float32]:
    lit = cv2.LUT(photo, tone_tables(photo, nuisance)[None])
    if nuisance.lights:
        field = cv2.resize(light_field(nuisance), photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        lit = cv2.multiply(lit, cv2.merge([field] * 3))
    return np.asarray(lit, np.float32)


def tone_tables(photo: Image, nuisance: Nuisance) -> npt.NDArray[np.float32]:
    """Return what a draw makes of each stored value of a photo, before light: 256x3 float32 in [0, 255].

    Args:
        photo: HWC uint8 RGB; contrast is about its mean.
        nuisance: gamma, contrast, gains and offset of it.
    """
    mean = sum(cv2.mean(photo)[:3]) / 3
    values = (tone_curve(nuisance) - mean) * nuisance.contrast + mean
    tables = values[:, None] * np.array(nuisance.gains) + nuisance.offset
    return np.asarray(np.clip(tables, 0, 255), np.float32)


def tone_curve(nuisance: Nuisance) -> npt.NDArray[np.float64]:
    """Return what gamma makes of each stored value, before all else: 256 values in [0, 255]."""
    return np.asarray(255 * (np.arange(256) / 255) ** nuisance.gamma)


def light_field(nuisance: Nuisance) -> npt.NDArray[np.float32]:
    """Return the factors of gradient, vignette and shadow on a grid over the photo, `FIELD_SIDE` a side."""
    x = np.linspace(-1, 1, FIELD_SIDE)
    across, down = np.meshgrid(x, x)
    field = 1 + nuisance.gradient[0] * across + nuisance.gradient[1] * down
    field *= 1 - nuisance.vignette * (across**2 + down**2) / 2
    if nuisance.shadow:
        outline = np.array(nuisance.shadow_outline).reshape(-1, 2) * (FIELD_SIDE - 1)
        shade = np.zeros((FIELD_SIDE, FIELD_SIDE), np.float32)
        cv2.fillConvexPoly(shade, np.rint(outline).astype(np.int32), nuisance.shadow)
        field *= 1 - cv2.GaussianBlur(shade, (0, 0), FIELD_SIDE / 20)
    return np.asarray(field, np.float32)


def _with_noise(lit: npt.NDArray[np.float32], nuisance: Nuisance) -> Image:
    # adding in 8 bit rounds and clips in the same pass
    if not nuisance.noise and not nuisance.shot_noise:
        return np.asarray(cv2.add(lit, np.zeros_like(lit), dtype=cv2.CV_8U), np.uint8)
    noise = _noise_of(nuisance.noise_seed, lit.shape)
    if not nuisance.shot_noise:
        return np.asarray(cv2.addWeighted(lit, 1, noise, nuisance.noise, 0, dtype=cv2.CV_8U), np.uint8)
    sigmas = np.sqrt(nuisance.noise**2 + nuisance.shot_noise * np.arange(256))
    level = cv2.add(lit, np.zeros_like(lit), dtype=cv2.CV_8U)
    scaled = cv2.multiply(noise, cv2.LUT(level, sigmas.astype(np.float32)))
    return np.asarray(cv2.add(lit, scaled, dtype=cv2.CV_8U), np.uint8)


def _noise_of(seed: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    height, width = shape[:2]
    if max(height, width) > NOISE_SIDE:
        return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, np.float32)
    y, x = noise_place(seed, height, width)
    return noise_field()[y : y + height, x : x + width]


def noise_place(seed: int, height: int, width: int) -> tuple[int, int]:
    """Return the top left corner of a seed's window of `noise_field`, for a photo of at most `NOISE_SIDE` a side.

    Drawing the noise anew would cost more than all the rest.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return int(rng.integers(NOISE_SIDE - height + 1)), int(rng.integers(NOISE_SIDE - width + 1))


@lru_cache(maxsize=1)
def noise_field() -> npt.NDArray[np.float32]:
    """Return the noise that all photos take a window of: HWC float32, normal, of mean 0 and variance 1."""
    rng = np.random.Generator(np.random.PCG64(0))
    return rng.standard_normal((NOISE_SIDE, NOISE_SIDE, 3), np.float32)


def _warped(photo: Image, corners: tuple[float, ...]) -> tuple[Image, Image]:
    height, width = photo.shape[:2]
    whole = np.full((height, width), 255, np.uint8)
    if not any(corners):
        return photo, whole
    matrix, size = warp_matrix(corners, width, height), (width, height)
    moved = cv2.warpPerspective(
        photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    covered = cv2.warpPerspective(whole, matrix, size, flags=cv2.INTER_NEAREST, borderValue=0)
    return moved.astype(np.uint8, copy=False), covered.astype(np.uint8, copy=False)


def warp_matrix(corners: tuple[float, ...], width: int, height: int) -> npt.NDArray[np.float64]:
    """Return the 3x3 homography that moves the corners of a photo; places are those of pixel centres."""
    start = (CORNERS * (width - 1, height - 1)).astype(np.float32)
    moved = start + np.array(corners, np.float32).reshape(4, 2)
    return np.asarray(cv2.getPerspectiveTransform(start, moved), np.float64)
