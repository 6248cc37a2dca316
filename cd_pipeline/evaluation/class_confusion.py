"""The confusion matrix of several classes and the figures made of it, with void as a class or left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cd_pipeline.evaluation.metrics import (
    f1_score,
    iou_score,
    precision_score,
    recall_score,
    require_same_shape,
)

ClassMap: TypeAlias = NDArray[Any]
"""HxW of any integer dtype; each pixel holds the index of its class."""

Row: TypeAlias = dict[str, str | int | float | None]


def _require_classes(name: str, indices: ClassMap, classes: int) -> None:
    if indices.size and not (indices.min() >= 0 and indices.max() < classes):
        raise ValueError(f"{name} must hold classes in [0, {classes}), got {indices.min()} … {indices.max()}")


@dataclass(frozen=True, eq=False)
class ClassConfusion:
    """Pixel counts of C classes by truth and prediction; add two to pool them.

    A class is absent if no counted pixel has it in the truth or in the prediction. Its scores are NaN, and
    means leave it out. A class that is predicted and not in the truth has an IoU of 0 and enters the means.

    Attributes:
        counts: int64, CxC: row = class in the truth, column = predicted class.
        void: The class that is left out, None for none. Its row is 0 and it has no scores; a counted pixel
            predicted as void is a miss of its true class.
    """

    counts: NDArray[np.int64]
    void: int | None = None

    @classmethod
    def of(cls, prediction: ClassMap, truth: ClassMap, classes: int, ignore: int | None = None) -> Self:
        """Count one prediction.

        Args:
            prediction: HxW, in [0, classes).
            truth: HxW, in [0, classes), or `ignore`.
            classes: C, the number of classes; with void as a class of its own, void included.
            ignore: Pixels with this index in the truth do not count, say 255. If it is one of the classes,
                that class is left out as in `without`. None: every pixel counts.

        Raises:
            ValueError: The shapes differ, or an index is out of range.
        """
        require_same_shape("prediction", prediction, "truth", truth)
        if ignore is not None:
            counted = truth != ignore
            prediction, truth = prediction[counted], truth[counted]
        _require_classes("prediction", prediction, classes)
        _require_classes("truth", truth, classes)
        code = truth.reshape(-1).astype(np.int64) * classes + prediction.reshape(-1)
        counts = np.bincount(code, minlength=classes * classes).reshape(classes, classes)
        return cls(counts, ignore if ignore is not None and 0 <= ignore < classes else None)

    def __add__(self, other: ClassConfusion) -> ClassConfusion:
        require_same_shape("counts", self.counts, "the other's counts", other.counts)
        if self.void != other.void:
            raise ValueError(f"void is {self.void} in one confusion and {other.void} in the other")
        return ClassConfusion(self.counts + other.counts, self.void)

    def without(self, void: int) -> ClassConfusion:
        """The same set without the pixels of class `void`, as if they had been ignored while counting.

        Raises:
            ValueError: `void` is not a class, or another class has been left out already.
        """
        if not 0 <= void < len(self.counts) or self.void not in (None, void):
            raise ValueError(
                f"void must be one of {len(self.counts)} classes, got {void}, left out: {self.void}"
            )
        counts = self.counts.copy()
        counts[void] = 0
        return ClassConfusion(counts, void)

    def everywhere(self, index: int | None = None) -> ClassConfusion:
        """The baseline: the same truth, with one class predicted everywhere.

        Args:
            index: The class. None: the most frequent one of this truth, the first of several.
        """
        pixels = self.counts.sum(axis=1)
        counts = np.zeros_like(self.counts)
        counts[:, int(pixels.argmax()) if index is None else index] = pixels
        return ClassConfusion(counts, self.void)

    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP) of each class, 1-D of C in [0, 1]; 0 if never predicted, NaN if absent."""
        tp, fp, fn = self._parts()
        return self._scored(precision_score(tp, fp, fn))

    def recall(self) -> NDArray[np.float64]:
        """TP / (TP + FN) of each class, 1-D of C in [0, 1]; 1 if only predicted, NaN if absent."""
        tp, _, fn = self._parts()
        return self._scored(recall_score(tp, fn))

    def iou(self) -> NDArray[np.float64]:
        """TP / (TP + FP + FN) of each class, 1-D of C in [0, 1]; NaN if absent."""
        return self._scored(iou_score(*self._parts()))

    def dice(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN) of each class, 1-D of C in [0, 1]; NaN if absent."""
        return self._scored(f1_score(*self._parts()))

    def mean_dice(self) -> float:
        """Mean Dice of the classes that are not absent, in [0, 1].

        Raises:
            ValueError: There is no counted pixel.
        """
        self._require_pixels()
        return float(np.nanmean(self.dice()))

    def mean_iou(self) -> float:
        """Mean IoU of the classes that are not absent, in [0, 1].

        Raises:
            ValueError: There is no counted pixel.
        """
        self._require_pixels()
        return float(np.nanmean(self.iou()))

    def pixel_accuracy(self) -> float:
        """Share of counted pixels with the right class, in [0, 1].

        Raises:
            ValueError: There is no counted pixel.
        """
        self._require_pixels()
        return float(np.trace(self.counts) / self.counts.sum())

    def table(self, names: Sequence[str]) -> list[Row]:
        """One row a class: class, pixels in the truth, iou, precision, recall; None for NaN. Void has no row.

        Args:
            names: The C class names.

        Raises:
            ValueError: There are more or fewer names than classes.
        """
        pixels = self.counts.sum(axis=1)
        scores = {"iou": self.iou(), "precision": self.precision(), "recall": self.recall()}
        rows: list[Row] = []
        for index, (name, count) in enumerate(zip(names, pixels, strict=True)):
            plain = {
                key: None if np.isnan(column[index]) else float(column[index])
                for key, column in scores.items()
            }
            rows.append({"class": name, "pixels": int(count), **plain})
        return [row for index, row in enumerate(rows) if index != self.void]

    def summary(self) -> dict[str, float]:
        """Keys miou, pixel_accuracy, and the same of the most frequent class everywhere: baseline_….

        Raises:
            ValueError: There is no counted pixel.
        """
        baseline = self.everywhere()
        return {
            "miou": self.mean_iou(),
            "pixel_accuracy": self.pixel_accuracy(),
            "baseline_miou": baseline.mean_iou(),
            "baseline_pixel_accuracy": baseline.pixel_accuracy(),
        }

    def _parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """TP, FP and FN of each class, each 1-D of C."""
        tp = np.diagonal(self.counts)
        return tp, self.counts.sum(axis=0) - tp, self.counts.sum(axis=1) - tp

    def _scored(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        present = (self.counts.sum(axis=0) + self.counts.sum(axis=1)) > 0
        if self.void is not None:
            present[self.void] = False
        return np.where(present, scores, np.nan)

    def _require_pixels(self) -> None:
        if not self.counts.any():
            raise ValueError("the confusion holds no counted pixel")


def pooled_classes(confusions: Iterable[ClassConfusion]) -> ClassConfusion:
    """Sum the counts of all images.

    Raises:
        ValueError: There is no image, or the images differ in their classes or in void.
    """
    every = list(confusions)
    if not every:
        raise ValueError("pooling needs at least one image")
    return sum(every[1:], every[0])
