"""The differencing oracle: what plain subtraction reaches, printed beside every F1 (measuring protocol)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cd_pipeline.evaluation.metrics import AnyMask, counted_truth, require_same_shape
from cd_pipeline.evaluation.sweep import LevelHistogram, middle_of_best_run

BLUR_KERNELS = (0, 3, 5, 9, 15)
"""Sides of the Gaussian blur in pixels, 0 = none (measuring protocol)."""

_LEVELS = 3 * 255 + 2  # sums 0 … 765, and one cut above them all


@dataclass(frozen=True)
class OracleResult:
    """The best that differencing reaches on a set.

    Attributes:
        f1: Pooled F1 of the change class, in [0, 1].
        threshold: Mean absolute difference above which a pixel is change, in [0, 255], a multiple of 1/3.
        kernel: Side of the blur in pixels, one of `BLUR_KERNELS`.
    """

    f1: float
    threshold: float
    kernel: int


def _blurred(image: NDArray[np.uint8], kernel: int) -> NDArray[Any]:
    return cv2.GaussianBlur(image, (kernel, kernel), 0) if kernel else image


def difference_sum(before: NDArray[np.uint8], after: NDArray[np.uint8], kernel: int) -> NDArray[np.uint16]:
    """Sum over channels of |blur(before) - blur(after)|, three times the d of the measuring protocol.

    Blurred 8-bit images are 8-bit again, so the sum is an integer and a histogram of it is exact.

    Args:
        before: HxWx3 uint8.
        after: HxWx3 uint8, same channel order.
        kernel: Side of the Gaussian blur in pixels, odd, its sigma derived from it by OpenCV; 0 = none.

    Returns:
        HxW uint16 in [0, 765].

    Raises:
        ValueError: The shapes differ or are not HxWx3, or an image is not uint8.
    """
    require_same_shape("before", before, "after", after)
    if before.ndim != 3 or before.shape[2] != 3:
        raise ValueError(f"before must have shape (H, W, 3), got {before.shape}")
    if before.dtype != np.uint8 or after.dtype != np.uint8:
        raise ValueError(f"before and after must be uint8, got {before.dtype} and {after.dtype}")
    difference = cv2.absdiff(_blurred(before, kernel), _blurred(after, kernel)).astype(np.uint16)
    return np.asarray(difference[..., 0] + difference[..., 1] + difference[..., 2], dtype=np.uint16)


class DifferencingOracle:
    """Differencing with kernel and threshold chosen on the scored set itself: one pass, constant memory."""

    def __init__(self) -> None:
        self._histograms = {kernel: LevelHistogram(_LEVELS) for kernel in BLUR_KERNELS}

    def update(
        self,
        before: NDArray[np.uint8],
        after: NDArray[np.uint8],
        truth: AnyMask,
        valid: AnyMask | None = None,
    ) -> None:
        """Count one pair.

        Args:
            before: HxWx3 uint8.
            after: HxWx3 uint8, same channel order.
            truth: HxW; nonzero = change.
            valid: HxW; nonzero = counts. None: every pixel counts.

        Raises:
            ValueError: The shapes differ, or an image is not HxWx3 uint8.
        """
        for kernel, histogram in self._histograms.items():
            level = difference_sum(before, after, kernel)
            histogram.add(*counted_truth(level, truth, valid, "the image"))

    @property
    def counts(self) -> NDArray[np.int64]:
        """All that was counted, Kx2xL of K kernels and L levels: unchanged pixels by level, then changed ones."""
        return np.stack([histogram.counts for histogram in self._histograms.values()])

    def add_counts(self, counts: NDArray[np.int64]) -> None:
        """Count the pairs of another oracle.

        Args:
            counts: of it, Kx2xL.
        """
        for histogram, its in zip(self._histograms.values(), counts, strict=True):
            histogram.add_counts(its)

    def best(self) -> OracleResult:
        """The highest pooled F1 over kernels and thresholds.

        Thresholds run over 0, 1/3, … 255. Ties as in `middle_of_best_run`; between kernels, the smaller one.
        """
        results = []
        for kernel, histogram in self._histograms.items():
            f1 = histogram.curve().f1()
            index = middle_of_best_run(f1)
            results.append(OracleResult(float(f1[index]), index / 3, kernel))
        return max(results, key=lambda result: result.f1)
