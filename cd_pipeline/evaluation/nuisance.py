"""The standard nuisance: the fixed disturbance of photos in evaluation (measuring protocol)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cd_pipeline.data.images import through_jpeg


@dataclass(frozen=True)
class StandardNuisance:
    """One draw of the standard nuisance; the same values give the same pixels.

    Attributes:
        gain: Factor on all values, in [0.8, 1.2].
        offset: Added after the gain, in [-15, 15] on the 0-255 scale.
        contrast: Factor on the distance from the image's mean, in [0.85, 1.15].
        channel_gains: Factors on red, green, blue, in [0.94, 1.06].
        gradient: Factors at the left and the right edge, in [0.8, 1.2], linear between; None = no gradient.
        blur: Whether a 3x3 Gaussian blur is applied.
        noise_sigma: Standard deviation of the additive noise, in [0, 5] on the 0-255 scale.
        noise_seed: Seed of the noise field, in [0, 2**63).
        jpeg_quality: 50 … 95; None = not compressed.
        shift_x: Shift to the right in pixels, in [-2, 2].
        shift_y: Shift downwards in pixels, in [-2, 2].
    """

    gain: float
    offset: float
    contrast: float
    channel_gains: tuple[float, float, float]
    gradient: tuple[float, float] | None
    blur: bool
    noise_sigma: float
    noise_seed: int
    jpeg_quality: int | None
    shift_x: float
    shift_y: float


def nuisance_seed(pair_id: str, role: str) -> int:
    """Seed of the nuisance on one photo of a pair.

    Args:
        pair_id: Identity of the pair.
        role: Which photo, such as "before" or "after".

    Returns:
        An integer in [0, 2**63), from SHA-256, so equal on every machine.
    """
    digest = hashlib.sha256(f"{pair_id}\0{role}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw_standard_nuisance(rng: np.random.Generator) -> StandardNuisance:
    """Draw all parameters from the ranges that the measuring protocol fixes."""
    red, green, blue = (float(gain) for gain in rng.uniform(0.94, 1.06, size=3))
    left, right = (float(factor) for factor in rng.uniform(0.8, 1.2, size=2))
    quality = int(rng.integers(50, 95, endpoint=True))
    return StandardNuisance(
        gain=float(rng.uniform(0.8, 1.2)),
        offset=float(rng.uniform(-15, 15)),
        contrast=float(rng.uniform(0.85, 1.15)),
        channel_gains=(red, green, blue),
        gradient=(left, right) if rng.random() < 0.3 else None,
        blur=bool(rng.random() < 0.3),
        noise_sigma=float(rng.uniform(0, 5)),
        noise_seed=int(rng.integers(2**63)),
        jpeg_quality=quality if rng.random() < 0.5 else None,
        shift_x=float(rng.uniform(-2, 2)),
        shift_y=float(rng.uniform(-2, 2)),
    )


def _relit(image: NDArray[np.uint8], nuisance: StandardNuisance) -> NDArray[np.float32]:
    """Gain, offset, contrast, channel gains and gradient, in float on 0-255 and clipped once at the end."""
    # the mean after gain and offset, from the exact integer mean of the image
    mean = nuisance.gain * (int(image.sum(dtype=np.int64)) / image.size) + nuisance.offset
    lit = image.astype(np.float32) * np.float32(nuisance.gain) + np.float32(nuisance.offset)
    lit = (lit - np.float32(mean)) * np.float32(nuisance.contrast) + np.float32(mean)
    lit *= np.array(nuisance.channel_gains, dtype=np.float32)
    if nuisance.gradient is not None:
        lit *= np.linspace(*nuisance.gradient, image.shape[1], dtype=np.float32)[:, None]  # W x 1
    clipped: NDArray[np.float32] = np.clip(lit, 0, 255)
    return clipped


def _noisy(lit: NDArray[np.float32], nuisance: StandardNuisance) -> NDArray[np.uint8]:
    noise = np.random.default_rng(nuisance.noise_seed).standard_normal(lit.shape, dtype=np.float32)
    noisy = lit + np.float32(nuisance.noise_sigma) * noise
    return np.asarray(np.rint(np.clip(noisy, 0, 255)), dtype=np.uint8)


def _shifted(image: NDArray[np.uint8], right: float, down: float) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    matrix = np.array([[1, 0, right], [0, 1, down]], dtype=np.float64)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(moved, dtype=np.uint8)


def apply_nuisance(image: NDArray[np.uint8], nuisance: StandardNuisance) -> NDArray[np.uint8]:
    """Apply one draw, in the protocol's order.

    Args:
        image: HxWx3 uint8 RGB at the model's input size.
        nuisance: The parameters; nothing else is random.

    Returns:
        HxWx3 uint8 RGB, a new array.

    Raises:
        ValueError: The image is not HxWx3 uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 of shape (H, W, 3), got {image.dtype} of shape {image.shape}")
    lit = _relit(image, nuisance)
    if nuisance.blur:
        lit = np.asarray(cv2.GaussianBlur(lit, (3, 3), 0), dtype=np.float32)
    result = _noisy(lit, nuisance)
    if nuisance.jpeg_quality is not None:
        result = through_jpeg(result, nuisance.jpeg_quality)
    return _shifted(result, nuisance.shift_x, nuisance.shift_y)


def standard_nuisance(image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Draw and apply the standard nuisance.

    Args:
        image: HxWx3 uint8 RGB at the model's input size.
        seed: From `nuisance_seed`.

    Returns:
        HxWx3 uint8 RGB, a new array; the same bytes for the same image and seed.

    Raises:
        ValueError: The image is not HxWx3 uint8.
    """
    return apply_nuisance(image, draw_standard_nuisance(np.random.default_rng(seed)))
