"""The threshold sweep: one pass over the pixels into a histogram, cumulated into a confusion a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cd_pipeline.evaluation.metrics import (
    AnyMask,
    Confusion,
    counted_truth,
    f1_score,
    iou_score,
    precision_score,
    recall_score,
    require_same_shape,
)


def linear_thresholds(low: float, high: float, steps: int) -> NDArray[np.float64]:
    """Evenly spaced thresholds, both ends included.

    Args:
        low: First threshold.
        high: Last threshold, above `low`.
        steps: How many, at least 2.

    Returns:
        float64, 1-D of `steps`, ascending.

    Raises:
        ValueError: `low` is not below `high`, or `steps` is under 2.
    """
    if not low < high or steps < 2:
        raise ValueError(f"need low < high and steps >= 2, got low={low}, high={high}, steps={steps}")
    return np.linspace(low, high, steps)


def middle_of_best_run(scores: NDArray[np.float64]) -> int:
    """Index of the best score; among ties the one farthest from any worse score.

    That is the middle of the longest unbroken run of maxima: of several longest runs the first, of two
    middles the lower.

    Args:
        scores: 1-D, not empty, without NaN.
    """
    tied = np.flatnonzero(scores == scores.max())
    runs = np.split(tied, np.flatnonzero(np.diff(tied) > 1) + 1)
    longest = max(runs, key=len)
    return int(longest[(len(longest) - 1) // 2])


@dataclass(frozen=True)
class ConfusionCurve:
    """A confusion for each of K cuts.

    Attributes:
        tp: int64, 1-D of K: changed pixels predicted as change.
        fp: int64, 1-D of K: unchanged pixels predicted as change.
        fn: int64, 1-D of K: changed pixels predicted as no change.
        tn: int64, 1-D of K: unchanged pixels predicted as no change.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    tn: NDArray[np.int64]

    def at(self, index: int) -> Confusion:
        """The confusion of one cut."""
        return Confusion(int(self.tp[index]), int(self.fp[index]), int(self.fn[index]), int(self.tn[index]))

    def precision(self) -> NDArray[np.float64]:
        """Precision at each cut, 1-D of K, defined as in `Confusion`."""
        return precision_score(self.tp, self.fp, self.fn)

    def recall(self) -> NDArray[np.float64]:
        """Recall at each cut, 1-D of K, defined as in `Confusion`."""
        return recall_score(self.tp, self.fn)

    def f1(self) -> NDArray[np.float64]:
        """F1 at each cut, 1-D of K, defined as in `Confusion`."""
        return f1_score(self.tp, self.fp, self.fn)

    def iou(self) -> NDArray[np.float64]:
        """IoU at each cut, 1-D of K, defined as in `Confusion`."""
        return iou_score(self.tp, self.fp, self.fn)


class LevelHistogram:
    """Pixels counted by level and truth, in constant memory.

    Args:
        levels: Number of levels L, at least 2; a level is an integer in [0, L).
    """

    def __init__(self, levels: int) -> None:
        self._counts = np.zeros((2, levels), dtype=np.int64)  # row 0: unchanged, row 1: changed

    def add(self, level: NDArray[Any], truth: NDArray[np.bool_]) -> None:
        """Count pixels.

        Args:
            level: Integers in [0, L), 1-D of n.
            truth: bool, 1-D of n; True = change.
        """
        levels = self._counts.shape[1]
        both = np.bincount(level.astype(np.intp) * 2 + truth, minlength=2 * levels)
        self._counts += both.reshape(levels, 2).T

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels, 2xL: unchanged ones by level, then changed ones."""
        return self._counts.copy()

    def add_counts(self, counts: NDArray[np.int64]) -> None:
        """Count the pixels of another histogram.

        Args:
            counts: of it, 2xL.

        Raises:
            ValueError: it has other levels.
        """
        require_same_shape("counts", counts, "the histogram", self._counts)
        self._counts += counts

    def curve(self) -> ConfusionCurve:
        """Confusions of the cuts k = 0 … L-2, where a pixel is positive if its level is above k."""
        below = np.cumsum(self._counts, axis=1)
        (tn, fn), (negatives, positives) = below[:, :-1], below[:, -1]
        return ConfusionCurve(tp=positives - fn, fp=negatives - tn, fn=fn, tn=tn)


class LevelTable:
    """How many edges lie strictly below a number: `np.searchsorted`, five times as fast for numbers in [0, 1].

    The first bits of a float32 that is not negative sort as the numbers do. A table tells the level of all numbers
    with the same ones; only where an edge is among them is it searched for.

    Args:
        edges: float32, 1-D, ascending.
    """

    _DROPPED_BITS = 14
    _SEARCHED = np.iinfo(np.uint16).max

    def __init__(self, edges: NDArray[np.float32]) -> None:
        self._edges = edges
        self._table: NDArray[np.uint16] | None = None
        if edges[0] > 0 and edges[-1] <= 1 and len(edges) < self._SEARCHED:
            held = self._first_bits(edges)
            last = int(self._first_bits(np.ones(1, np.float32))[0])
            edges_of = np.bincount(held, minlength=last + 1)
            self._table = (np.cumsum(edges_of) - edges_of).astype(np.uint16)
            self._table[held] = self._SEARCHED

    def of(self, numbers: NDArray[np.float32]) -> NDArray[Any]:
        """Return the level of each number, integers in [0, number of edges].

        Raises:
            ValueError: a number is NaN.
        """
        low, high = (numbers.min(), numbers.max()) if numbers.size else (np.float32(0), np.float32(0))
        if np.isnan(low):
            raise ValueError("probability holds NaN")
        if self._table is None or low < 0 or high > 1:
            return np.searchsorted(self._edges, numbers, side="left")
        levels = self._table[self._first_bits(numbers)]
        near = np.flatnonzero(levels == self._SEARCHED)
        levels[near] = np.searchsorted(self._edges, numbers[near], side="left")
        return levels

    def _first_bits(self, numbers: NDArray[np.float32]) -> NDArray[np.uint32]:
        bits = np.ascontiguousarray(numbers).view(np.uint32) & np.uint32(0x7FFFFFFF)  # -0.0 is 0.0
        return bits >> np.uint32(self._DROPPED_BITS)


class ThresholdSweep:
    """Confusions of a whole set at many thresholds, gathered image by image.

    A pixel is positive where probability > threshold, compared in float32: what NumPy 2 and torch do with a
    float32 array and a Python float. The counts are exact for any thresholds.

    Args:
        thresholds: 1-D of K, ascending, K >= 1.

    Raises:
        ValueError: `thresholds` is empty, not 1-D, not ascending or not finite.
    """

    def __init__(self, thresholds: ArrayLike) -> None:
        self.thresholds = np.array(thresholds, dtype=np.float64)
        if self.thresholds.ndim != 1 or self.thresholds.size == 0:
            raise ValueError(f"thresholds must be 1-D and not empty, got shape {self.thresholds.shape}")
        if not np.all(np.isfinite(self.thresholds)) or np.any(np.diff(self.thresholds) < 0):
            raise ValueError("thresholds must be finite and ascending")
        self._levels = LevelTable(self.thresholds.astype(np.float32))
        self._histogram = LevelHistogram(self.thresholds.size + 1)

    def update(self, probability: NDArray[Any], truth: AnyMask, valid: AnyMask | None = None) -> None:
        """Count one image or batch.

        Args:
            probability: Any shape, in [0, 1]; compared as float32.
            truth: Same shape; nonzero = change.
            valid: Same shape; nonzero = counts. None: every pixel counts.

        Raises:
            ValueError: The shapes differ, or a counted probability is NaN.
        """
        scored, changed = counted_truth(probability, truth, valid, "probability")
        self._histogram.add(self._levels.of(scored.astype(np.float32, copy=False)), changed)

    def confusions(self) -> ConfusionCurve:
        """Confusions pooled over everything counted, one a threshold."""
        return self._histogram.curve()

    def f1(self) -> NDArray[np.float64]:
        """Pooled F1 at each threshold, float64, 1-D of K."""
        return self.confusions().f1()

    def best(self) -> tuple[float, int]:
        """Threshold of the highest pooled F1, and its index; ties as in `middle_of_best_run`."""
        index = middle_of_best_run(self.f1())
        return float(self.thresholds[index]), index

    def highest_within(self, tolerance: float) -> int:
        """Index of the highest threshold whose pooled F1 is at most `tolerance` below the best."""
        scores = self.f1()
        return int(np.flatnonzero(scores >= scores.max() - tolerance)[-1])

    def table(self) -> dict[str, NDArray[Any]]:
        """Columns threshold, precision, recall, f1, iou (float64), tp, fp, fn, tn (int64), each 1-D of K."""
        curve = self.confusions()
        return {
            "threshold": self.thresholds.copy(),
            "precision": curve.precision(),
            "recall": curve.recall(),
            "f1": curve.f1(),
            "iou": curve.iou(),
            "tp": curve.tp,
            "fp": curve.fp,
            "fn": curve.fn,
            "tn": curve.tn,
        }
