"""Pixel confusions, image-level alarms and the figures made of them (measuring protocol, rows 1-3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any, Self, TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

AnyMask: TypeAlias = NDArray[Any]
"""HxW of any dtype; nonzero = change (or, for a `valid` mask, counts)."""

ALARM_MIN_SHARE = 0.005
"""Smallest component that is an alarm, as a share of the image's pixels (measuring protocol, row 3)."""


def _ratio(numerator: ArrayLike, denominator: ArrayLike, empty: ArrayLike) -> NDArray[np.float64]:
    """Elementwise numerator / denominator, and `empty` where the denominator is 0."""
    denominator = np.asarray(denominator)
    share = np.asarray(numerator) / np.maximum(denominator, 1)
    return np.asarray(np.where(denominator > 0, share, empty), dtype=np.float64)


def precision_score(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FP), elementwise over integer counts; with nothing predicted 1 on an empty truth, else 0."""
    return _ratio(tp, np.add(tp, fp), np.equal(fn, 0))


def recall_score(tp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FN), elementwise over integer counts; 1 where the truth is empty."""
    return _ratio(tp, np.add(tp, fn), 1.0)


def f1_score(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """2TP / (2TP + FP + FN), elementwise over integer counts; 1 where truth and prediction are both empty."""
    doubled = np.multiply(2, tp)
    return _ratio(doubled, doubled + np.add(fp, fn), 1.0)


def iou_score(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> NDArray[np.float64]:
    """TP / (TP + FP + FN), elementwise over integer counts; 1 where truth and prediction are both empty."""
    return _ratio(tp, np.add(tp, np.add(fp, fn)), 1.0)


def require_same_shape(first_name: str, first: NDArray[Any], second_name: str, second: NDArray[Any]) -> None:
    """Refuse two arrays of unequal shape.

    Raises:
        ValueError: The shapes differ; the message holds both.
    """
    if first.shape != second.shape:
        raise ValueError(f"{first_name} has shape {first.shape}, but {second_name} has shape {second.shape}")


def counted_truth(
    scored: NDArray[Any], truth: AnyMask, valid: AnyMask | None, scored_name: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Flatten what is scored and its truth, leaving out the pixels that do not count.

    Args:
        scored: Any shape and dtype: a prediction, a probability or a level for each pixel.
        truth: Same shape; nonzero = change.
        valid: Same shape; nonzero = counts. None: every pixel counts.
        scored_name: What to call `scored` in an error.

    Returns:
        `scored`, 1-D of n counted pixels, and the truth as bool, 1-D of n.

    Raises:
        ValueError: The shapes differ.
    """
    require_same_shape(scored_name, scored, "truth", truth)
    if valid is None:
        return scored.reshape(-1), truth.reshape(-1) != 0
    require_same_shape(scored_name, scored, "valid", valid)
    counted = valid != 0
    if counted.all():
        return scored.reshape(-1), truth.reshape(-1) != 0
    return scored[counted], truth[counted] != 0


@dataclass(frozen=True)
class Confusion:
    """Pixel counts of the change class; add two to pool them.

    Attributes:
        tp: Changed pixels predicted as change.
        fp: Unchanged pixels predicted as change.
        fn: Changed pixels predicted as no change.
        tn: Unchanged pixels predicted as no change.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, prediction: AnyMask, truth: AnyMask, valid: AnyMask | None = None) -> Self:
        """Count one prediction.

        Args:
            prediction: HxW; nonzero = predicted change.
            truth: HxW; nonzero = change.
            valid: HxW; nonzero = counts. None: every pixel counts.

        Raises:
            ValueError: The shapes differ.
        """
        scored, changed = counted_truth(prediction, truth, valid, "prediction")
        predicted = scored != 0
        tp = int(np.count_nonzero(predicted & changed))
        fp = int(np.count_nonzero(predicted)) - tp
        fn = int(np.count_nonzero(changed)) - tp
        return cls(tp, fp, fn, changed.size - tp - fp - fn)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def pixels(self) -> int:
        """All counted pixels."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def precision(self) -> float:
        """TP / (TP + FP), in [0, 1]; with nothing predicted 1 if the truth is empty, else 0."""
        return float(precision_score(self.tp, self.fp, self.fn))

    @property
    def recall(self) -> float:
        """TP / (TP + FN), in [0, 1]; 1 if the truth is empty."""
        return float(recall_score(self.tp, self.fn))

    @property
    def f1(self) -> float:
        """2TP / (2TP + FP + FN), in [0, 1]; 1 if truth and prediction are both empty."""
        return float(f1_score(self.tp, self.fp, self.fn))

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), in [0, 1]; 1 if truth and prediction are both empty."""
        return float(iou_score(self.tp, self.fp, self.fn))


def pooled(confusions: Iterable[Confusion]) -> Confusion:
    """Sum the counts of all images; of none, all counts are 0."""
    return sum(confusions, Confusion())


def _mean(values: list[float]) -> float:
    if not values:
        raise ValueError("the mean per image needs at least one image")
    return sum(values) / len(values)


def mean_image_f1(confusions: Iterable[Confusion]) -> float:
    """Mean of the images' own F1; an empty prediction on an unchanged image scores 1.

    Raises:
        ValueError: There is no image.
    """
    return _mean([confusion.f1 for confusion in confusions])


def mean_image_iou(confusions: Iterable[Confusion]) -> float:
    """Mean of the images' own IoU; an empty prediction on an unchanged image scores 1.

    Raises:
        ValueError: There is no image.
    """
    return _mean([confusion.iou for confusion in confusions])


def everything_changed_f1(positive_pixels: int, pixels: int) -> float:
    """F1 of predicting change everywhere, the floor that any model has to beat.

    Args:
        positive_pixels: Changed pixels of the whole set.
        pixels: All counted pixels of the set.

    Raises:
        ValueError: `positive_pixels` is not in [0, pixels].
    """
    if not 0 <= positive_pixels <= pixels:
        raise ValueError(f"positive_pixels must be in [0, {pixels}], got {positive_pixels}")
    return Confusion(tp=positive_pixels, fp=pixels - positive_pixels).f1


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share.

    Args:
        successes: How often it happened, in [0, n].
        n: Trials. With none, nothing is known: the interval is (0, 1).
        z: Standard normal quantile; 1.96 is the measuring protocol's 95 %.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: `successes` is not in [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in [0, {n}], got {successes}")
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at the ends the exact bound is 0 or 1; rounding must not leave the range
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def has_alarm(prediction_mask: AnyMask, min_share: float = ALARM_MIN_SHARE) -> bool:
    """Say whether a predicted region is large enough to raise an alarm.

    Args:
        prediction_mask: HxW; nonzero = predicted change.
        min_share: Smallest 8-connected component that counts, as a share of H*W (measuring protocol: 0.005).

    Raises:
        ValueError: The mask is not 2-D.
    """
    if prediction_mask.ndim != 2:
        raise ValueError(f"prediction_mask must have shape (H, W), got {prediction_mask.shape}")
    binary = (prediction_mask != 0).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # row 0 is the background
    # a quotient, not a product: 7 / 1400 is 0.005 exactly as written, 0.005 * 1400 is not 7
    return bool(np.any(areas / binary.size >= min_share))
