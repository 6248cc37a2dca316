"""Registration: the second photo of a view brought to the first one's coordinates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.prediction.ecc import align_intensities
from cd_pipeline.prediction.features import align_features

Method = Literal["ecc", "features"]
Transform = npt.NDArray[np.float64]
"""3x3: pixel (x, y, 1) of the first picture -> pixel of the second, up to a factor; centres are whole numbers."""
Align = Callable[[Image, Image, Transform], Transform]
"""Two grey pictures and where to start -> their transform."""

LONGEST = {"ecc": 800, "features": 1600}
"""Longer side, px, that photos are registered at; the result is as exact as a fraction of a pixel there."""
MIN_AGREEMENT = 0.5
"""Share of the textured pixels that must look alike afterwards. On 168 real views with known transforms, it was
0.59 at least where they were found to 3 px; on other views it is below 0.3."""
MIN_COVERED = 0.25
"""Share of the first photo that the second must show."""
MAX_SCALE = 3.0
"""By which the second photo can be nearer or farther."""
_AGREEMENT_SIDE, _NEIGHBOURHOOD, _ALIKE, _TEXTURE = 320, 15, 0.5, 25.0
_BLUR_BELOW, _HALF = 1.5, 128


class RegistrationError(ValueError):
    """Two photos that could not be registered; the message says why."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The second photo in the first one's coordinates.

    Attributes:
        picture: HWC uint8 RGB, of the first photo's size; beyond the second's edge it is mirrored.
        covered: HW bool, where the second photo shows the view.
        transform: of the first photo's pixels to the second one's.
        agreement: share of the textured pixels whose surroundings look alike, in [0, 1].
    """

    picture: Image
    covered: npt.NDArray[np.bool_]
    transform: Transform
    agreement: float


def register(before: Image, after: Image, method: Method) -> Registered:
    """Bring the second photo of a view to the first one's coordinates.

    Args:
        before: HWC uint8 RGB.
        after: HWC uint8 RGB, of any size: the same view, shifted, turned, nearer or a little from the side.
        method: ecc: by intensities, for small movements, exact to a tenth of a pixel where little changed;
            features: by SIFT key points, for larger ones.

    Raises:
        RegistrationError: no transform was found that can be right.
    """
    align = align_intensities if method == "ecc" else align_features
    first, second = _of_one_area(before, after, LONGEST[method])
    try:
        found = align(first, second, _centred(first, second))
    except (cv2.error, ValueError) as error:
        reason = "no convergence" if isinstance(error, cv2.error) else str(error)
        raise RegistrationError(_refusal(method, reason)) from None
    transform = _shrinking(after, second, back=True) @ found @ _shrinking(before, first)
    transform /= transform[2, 2]
    if problem := _implausible(transform, before, after):
        raise RegistrationError(_refusal(method, problem))
    agreement = alike_share(before, after, transform)
    if agreement < MIN_AGREEMENT:
        raise RegistrationError(
            _refusal(
                method,
                f"after it {agreement:.0%} of their textured parts look alike, {MIN_AGREEMENT:.0%} are needed",
            )
        )
    picture, covered = warped(before, after, transform)
    if covered.mean() < MIN_COVERED:
        raise RegistrationError(
            _refusal(method, f"the second would show {covered.mean():.0%} of the first one's view")
        )
    return Registered(picture, covered, transform, agreement)


def warped(before: Image, after: Image, transform: Transform) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Resample the second photo at the first one's pixels.

    Args:
        before: HWC uint8 RGB.
        after: HWC uint8 RGB, of any size.
        transform: of the first photo's pixels to the second one's.

    Returns:
        HWC uint8 RGB, mirrored beyond the second photo's edge; and HW bool, what that photo shows.
    """
    height, width = before.shape[:2]
    scale = float(np.sqrt(abs(np.linalg.det(transform[:2, :2]))))
    source = after
    if scale > _BLUR_BELOW:  # otherwise every second pixel would be skipped
        smaller = tuple(max(1, round(side / scale)) for side in after.shape[1::-1])
        source = np.asarray(cv2.resize(after, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        transform = _shrinking(after, source) @ transform
    way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(source, transform, (width, height), flags=way, borderMode=cv2.BORDER_REFLECT)
    full = np.full(source.shape[:2], 255, np.uint8)
    covered = np.asarray(cv2.warpPerspective(full, transform, (width, height), flags=way)) >= _HALF
    return np.asarray(moved, np.uint8), covered


def alike_share(before: Image, after: Image, transform: Transform) -> float:
    """Return how much of two photos of a view looks alike, in [0, 1].

    It is the share of the textured pixels whose surroundings correlate, whatever their brightness and contrast.

    Args:
        before: HWC uint8 RGB.
        after: HWC uint8 RGB, of any size.
        transform: of the first photo's pixels to the second one's.
    """
    first, second = (_grey(picture, _AGREEMENT_SIDE) for picture in (before, after))
    small = _shrinking(after, second) @ transform @ _shrinking(before, first, back=True)
    size, way = first.shape[::-1], cv2.WARP_INVERSE_MAP
    x = first.astype(np.float32)
    y = np.asarray(
        cv2.warpPerspective(second.astype(np.float32), small, size, flags=cv2.INTER_LINEAR | way), np.float32
    )
    shown = cv2.warpPerspective(np.ones_like(second), small, size, flags=cv2.INTER_NEAREST | way)
    inside = cv2.erode(shown, np.ones((_NEIGHBOURHOOD, _NEIGHBOURHOOD), np.uint8)) > 0
    mean_x, mean_y = _mean(x), _mean(y)
    spread_x, spread_y = _mean(x * x) - mean_x**2, _mean(y * y) - mean_y**2
    correlation = (_mean(x * y) - mean_x * mean_y) / np.sqrt(np.maximum(spread_x * spread_y, 1e-3))
    textured = inside & (np.maximum(spread_x, spread_y) > _TEXTURE)
    return float((correlation[textured] > _ALIKE).mean()) if textured.any() else 0.0


def _mean(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.blur(values, (_NEIGHBOURHOOD, _NEIGHBOURHOOD)), np.float32)


def _grey(picture: Image, longest: float) -> Image:
    height, width = picture.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA), np.uint8
    )


def _of_one_area(before: Image, after: Image, longest: int) -> tuple[Image, Image]:
    # in grey, so that a camera with more pixels does not look like a nearer one
    areas = [picture.shape[0] * picture.shape[1] for picture in (before, after)]
    sides = [
        max(picture.shape[:2]) * float(np.sqrt(min(areas) / area))
        for picture, area in zip((before, after), areas, strict=True)
    ]
    limit = min(1.0, longest / max(sides))
    first, second = (
        _grey(picture, side * limit) for picture, side in zip((before, after), sides, strict=True)
    )
    return first, second


def _shrinking(picture: Image, smaller: Image, *, back: bool = False) -> Transform:
    # pixels of a picture to those of its resized copy (back: the reverse), centre to centre
    ratios = [smaller.shape[axis] / picture.shape[axis] for axis in (1, 0)]
    matrix = np.diag([*ratios, 1.0])
    matrix[:2, 2] = [(ratio - 1) / 2 for ratio in ratios]
    return np.linalg.inv(matrix) if back else matrix


def _centred(first: Image, second: Image) -> Transform:
    start = np.eye(3)
    start[:2, 2] = [(second.shape[axis] - first.shape[axis]) / 2 for axis in (1, 0)]
    return start


def _implausible(transform: Transform, before: Image, after: Image) -> str:
    height, width = before.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64)
    x, y, depth = transform @ corners.T
    if not np.isfinite(transform).all() or (depth <= 0).any():
        return "it would turn the view inside out"
    points = np.stack([x / depth, y / depth], axis=1)
    sides = np.roll(points, -1, axis=0) - points
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    if (turns <= 0).any():
        return "it would fold or mirror the view"
    area = float(cv2.contourArea(points.astype(np.float32)))
    scale = np.sqrt(area / (after.shape[0] * after.shape[1]))
    if not 1 / MAX_SCALE <= scale <= MAX_SCALE:
        return f"it would scale the view by {scale:.2g}"
    return ""


def _refusal(method: Method, reason: str) -> str:
    other = "features" if method == "ecc" else "ecc"
    return f"the photos could not be registered by {method}: {reason}; are they of one view? {other} may do better"
