"""Hausdorff distance between the boundaries of two masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, isfinite

import cv2
import numpy as np
from numpy.typing import NDArray

from cd_pipeline.evaluation.metrics import AnyMask, require_same_shape

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8)
_PERCENT = 95


@dataclass(frozen=True)
class BoundaryDistance:
    """How far two boundaries lie apart, in pixels.

    Two empty masks are 0 apart. An empty mask and one that is not are infinitely far apart: no distance
    within the image would be true.

    Attributes:
        hausdorff: The farthest that a boundary pixel of either mask lies from the other boundary.
        hausdorff_95: The same with the 95th percentile (linear interpolation) of each mask's boundary pixels
            in place of the farthest; the larger of the two directions.
    """

    hausdorff: float
    hausdorff_95: float

    @classmethod
    def between(cls, prediction: AnyMask, truth: AnyMask) -> BoundaryDistance:
        """Measure one prediction.

        Args:
            prediction: HxW; nonzero = inside.
            truth: HxW; nonzero = inside.

        Raises:
            ValueError: The shapes differ, or the masks are not 2-D.
        """
        require_same_shape("prediction", prediction, "truth", truth)
        first, second = boundary(prediction), boundary(truth)
        if not first.any() or not second.any():
            apart = 0.0 if first.any() == second.any() else inf
            return cls(apart, apart)
        there, back = _distances(first, second), _distances(second, first)
        return cls(
            hausdorff=float(max(there.max(), back.max())),
            hausdorff_95=float(max(np.percentile(there, _PERCENT), np.percentile(back, _PERCENT))),
        )


@dataclass(frozen=True)
class MeanBoundaryDistance:
    """Boundary distances of a set.

    Attributes:
        hausdorff: Mean over the measured images, in pixels; None if there is none.
        hausdorff_95: Mean over the measured images, in pixels; None if there is none.
        measured: Images with a finite distance.
        unmeasured: Images of which exactly one mask is empty; they enter no mean.
    """

    hausdorff: float | None
    hausdorff_95: float | None
    measured: int
    unmeasured: int

    @classmethod
    def of(cls, distances: Iterable[BoundaryDistance]) -> MeanBoundaryDistance:
        """Average the distances of a set of images."""
        every = list(distances)
        finite = [distance for distance in every if isfinite(distance.hausdorff)]
        unmeasured = len(every) - len(finite)
        if not finite:
            return cls(None, None, 0, unmeasured)
        return cls(
            hausdorff=sum(distance.hausdorff for distance in finite) / len(finite),
            hausdorff_95=sum(distance.hausdorff_95 for distance in finite) / len(finite),
            measured=len(finite),
            unmeasured=unmeasured,
        )


def boundary(mask: AnyMask) -> NDArray[np.bool_]:
    """Pixels of a mask with a pixel outside the mask to the left, right, above or below.

    What lies beyond the image is outside: a mask that reaches the image's edge has a boundary there.

    Args:
        mask: HxW; nonzero = inside.

    Returns:
        bool, HxW; empty if the mask is.

    Raises:
        ValueError: The mask is not 2-D.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (H, W), got {mask.shape}")
    inside = (mask != 0).astype(np.uint8)
    core = cv2.erode(inside, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    edge: NDArray[np.bool_] = inside != core
    return edge


def _distances(source: NDArray[np.bool_], target: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Euclidean distance of each `source` pixel to the nearest `target` pixel, float64, 1-D."""
    away = cv2.distanceTransform((~target).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # squared distances are whole numbers; OpenCV's last bit differs between calls
    return np.sqrt(np.rint(away[source].astype(np.float64) ** 2))
