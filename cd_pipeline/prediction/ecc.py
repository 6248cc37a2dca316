"""Registration by intensities: enhanced correlation (ECC), coarse to fine, without what changed."""

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.float32]

SMALLEST = 32
"""Shorter side of the coarsest level is at least this, px."""
KEPT = 0.65
"""Share of the pixels that the photos are aligned by: those that differ least, as what changed misleads."""
FINE_LEVELS = 2
"""The finest levels are aligned by a homography, coarser ones by an affine transform."""
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-6)
_SMOOTHING = 5
_MATCHING_ROUNDS = 3
_NO_SPREAD = 1e-3


def align_intensities(
    first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], start: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the homography of the first picture's pixels to the second one's.

    Args:
        first: HW uint8.
        second: HW uint8.
        start: 3x3, where to begin.

    Raises:
        cv2.error: it does not converge.
    """
    levels = [(first.astype(np.float32), second.astype(np.float32))]
    while min(*levels[-1][0].shape, *levels[-1][1].shape) >= 2 * SMALLEST:
        levels.append(tuple(cv2.pyrDown(picture) for picture in levels[-1]))  # type: ignore[arg-type]
    found = start
    for level in range(len(levels) - 1, -1, -1):
        factor = np.diag([2.0**level, 2.0**level, 1.0])
        small = np.linalg.inv(factor) @ found @ factor
        for motion in _motions(level, coarsest=level == len(levels) - 1):
            small = _refined(*levels[level], small / small[2, 2], motion)
        found = factor @ small @ np.linalg.inv(factor)
    return np.asarray(found / found[2, 2], np.float64)


def _motions(level: int, *, coarsest: bool) -> list[int]:
    rough = [cv2.MOTION_TRANSLATION, cv2.MOTION_EUCLIDEAN] if coarsest else []
    return [*rough, cv2.MOTION_HOMOGRAPHY if level < FINE_LEVELS else cv2.MOTION_AFFINE]


def _refined(
    first: Grey, second: Grey, start: npt.NDArray[np.float64], motion: int
) -> npt.NDArray[np.float64]:
    whole = np.full(second.shape, 255, np.uint8)
    kept = np.full(first.shape, 255, np.uint8)
    if motion != cv2.MOTION_TRANSLATION:
        kept = _least_different(first, second, start)
    rows = 3 if motion == cv2.MOTION_HOMOGRAPHY else 2
    _, matrix = cv2.findTransformECCWithMask(
        first, second, kept, whole, start[:rows].astype(np.float32), motion, _CRITERIA, _SMOOTHING
    )
    found = np.eye(3)
    found[:rows] = matrix
    return found


def _least_different(first: Grey, second: Grey, transform: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    # brightness and contrast are matched on the pixels that are kept, so what changed does not bend them
    size, way = first.shape[::-1], cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(
        second, transform, size, flags=cv2.INTER_LINEAR | way, borderMode=cv2.BORDER_REPLICATE
    )
    shown = cv2.warpPerspective(np.ones_like(second), transform, size, flags=cv2.INTER_NEAREST | way) > 0
    kept = shown
    for _ in range(_MATCHING_ROUNDS):
        if kept.sum() < SMALLEST:
            raise ValueError("the second photo moved out of the first one's view")
        mean, wanted = moved[kept].mean(), first[kept].mean()
        spread = ((moved[kept] - mean) ** 2).mean()
        gain = ((moved[kept] - mean) * (first[kept] - wanted)).mean() / max(spread, _NO_SPREAD)
        matched = gain * (moved - mean) + wanted
        difference = cv2.GaussianBlur(np.abs(first - matched), (0, 0), 1.5)
        kept = shown & (difference <= np.quantile(difference[shown], KEPT))
    return np.where(kept, np.uint8(255), np.uint8(0))
