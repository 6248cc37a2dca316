"""ODS and OIS: the best F1 with one threshold for the whole set, and with one threshold for each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cd_pipeline.evaluation.metrics import AnyMask, counted_truth
from cd_pipeline.evaluation.sweep import ConfusionCurve, LevelHistogram, middle_of_best_run

STEPS = 100
"""Thresholds are 0.00 … 1.00 in steps of 1 / STEPS."""
ODS_FIRST = 10
"""Index of 0.10, the lowest threshold that ODS tries."""
_CHUNK = 1 << 17  # pixels; fits a cache, and is under 2**24, up to which calcHist's float32 counts are exact
_CHANGED_BIT = 128
_CROWDED = 1  # the level of 0 < p <= 0.01
_SPARE = slice(_CROWDED + 120, _CROWDED + 123)
_SPREAD = np.tile(np.array([0, 120, 121, 122], dtype=np.uint8), _CHUNK // 4)


@dataclass(frozen=True)
class DatasetScale:
    """The figures at the best single threshold of a set, each a mean over images, in [0, 1].

    Attributes:
        threshold: A pixel is positive above it.
        f1: Mean of the images' F1: ODS.
        precision: Mean of the images' precision.
        recall: Mean of the images' recall.
    """

    threshold: float
    f1: float
    precision: float
    recall: float


class PercentHistogram(LevelHistogram):
    """The histogram of `percent_levels`, several times as fast: truth and level share one byte a pixel.

    A trained network puts most pixels into level 1, and additions to one slot wait for each other; so three of
    four neighbours count in slots that no level uses, and are added up afterwards.
    """

    def __init__(self) -> None:
        super().__init__(STEPS + 2)

    def add(self, level: NDArray[Any], truth: NDArray[np.bool_]) -> None:
        """Count pixels.

        Args:
            level: uint8 in [0, 100], 1-D of n <= 2**17.
            truth: bool, 1-D of n; True = change.
        """
        code = level | truth.view(np.uint8) * np.uint8(_CHANGED_BIT)
        code += (code == _CROWDED).view(np.uint8) * _SPREAD[: code.size]
        counts = cv2.calcHist([code], [0], None, [256], [0, 256]).reshape(2, _CHANGED_BIT).astype(np.int64)
        counts[0, _CROWDED] += counts[0, _SPARE].sum()
        self._counts += counts[:, : self._counts.shape[1]]


def percent_levels(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """How many of the thresholds 0.00, 0.01 … 1.00, as float32, lie strictly below each probability.

    Let q be the whole part of 100 p in float32. Rounding keeps order and leaves whole numbers alone, so p lies
    above the threshold q - 1 and not above the threshold q + 1: only the threshold q itself is left to
    compare. In float32, q / 100 is that threshold to the last bit.

    Args:
        probability: float32 in [0, 1], any shape.

    Returns:
        uint8 in [0, 100], same shape.
    """
    scaled = probability * np.float32(STEPS)
    level = scaled.astype(np.uint8)
    np.trunc(scaled, out=scaled)
    scaled /= np.float32(STEPS)  # now the threshold of the same index
    level += (probability > scaled).view(np.uint8)
    return level


class ImageSweep:
    """Confusions of each image at the thresholds 0.00, 0.01 … 1.00, each image read once.

    A pixel is positive where probability > threshold, compared in float32 as in `ThresholdSweep`; the counts
    are exact. An image leaves four counts a threshold, whatever its size.

    Scores follow `metrics`: an image without positives scores F1 1 where nothing is predicted and 0 elsewhere.
    The published formula holds eps = 1e-7 in its denominators instead: it gives such an image 0 everywhere,
    and differs by less than 3e-7 on all others. At threshold 1.00 nothing is predicted, so OIS takes 1 from
    every image without positives.
    """

    def __init__(self) -> None:
        self.thresholds = np.arange(STEPS + 1) / STEPS
        self._images: list[ConfusionCurve] = []

    def __len__(self) -> int:
        return len(self._images)

    def update(self, probability: NDArray[Any], truth: AnyMask, valid: AnyMask | None = None) -> None:
        """Count one image.

        Args:
            probability: HxW in [0, 1]; compared as float32.
            truth: HxW; nonzero = change.
            valid: HxW; nonzero = counts. None: every pixel counts.

        Raises:
            ValueError: The shapes differ, or a counted probability is NaN or outside [0, 1].
        """
        if truth.dtype == np.bool_:
            truth = truth.view(np.uint8)  # NumPy compares bytes with 0 many times as fast as bools
        scored, changed = counted_truth(probability, truth, valid, "probability")
        scored = scored.astype(np.float32, copy=False)
        if scored.size and not (scored.min() >= 0 and scored.max() <= 1):
            raise ValueError(f"probability must be in [0, 1], got {scored.min()} … {scored.max()}")
        histogram = PercentHistogram()
        for start in range(0, scored.size, _CHUNK):
            piece = slice(start, start + _CHUNK)
            histogram.add(percent_levels(scored[piece]), changed[piece])
        self._images.append(histogram.curve())

    @property
    def counts(self) -> NDArray[np.int64]:
        """All that was counted, Nx4x101 of N images: tp, fp, fn and tn at each threshold."""
        counts = [[curve.tp, curve.fp, curve.fn, curve.tn] for curve in self._images]
        return np.array(counts, np.int64).reshape(len(self), 4, STEPS + 1)

    def add_counts(self, counts: NDArray[np.int64]) -> None:
        """Count the images of another sweep after those of this one.

        Args:
            counts: of it, Nx4x101.
        """
        self._images += [ConfusionCurve(*image) for image in counts]

    def confusions(self) -> ConfusionCurve:
        """Confusions of N images in the order of the updates, each count Nx101.

        Raises:
            ValueError: There is no image.
        """
        if not self._images:
            raise ValueError("the mean per image needs at least one image")
        return ConfusionCurve(
            tp=np.stack([curve.tp for curve in self._images]),
            fp=np.stack([curve.fp for curve in self._images]),
            fn=np.stack([curve.fn for curve in self._images]),
            tn=np.stack([curve.tn for curve in self._images]),
        )

    def frame(self) -> pd.DataFrame:
        """A row an image: `positives` and `negatives` in the truth, `tp` and `fp` lists, one at each threshold.

        Raises:
            ValueError: There is no image.
        """
        curves = self.confusions()
        return pd.DataFrame(
            {
                "positives": curves.tp[:, 0] + curves.fn[:, 0],
                "negatives": curves.fp[:, 0] + curves.tn[:, 0],
                "tp": list(curves.tp),
                "fp": list(curves.fp),
            }
        )

    def ods(self) -> DatasetScale:
        """The threshold in 0.10 … 1.00 of the highest mean F1; ties as in `middle_of_best_run`.

        Raises:
            ValueError: There is no image.
        """
        table = self.table()
        best = ODS_FIRST + middle_of_best_run(table["f1"][ODS_FIRST:])
        return DatasetScale(**{name: float(column[best]) for name, column in table.items()})

    def ois(self) -> float:
        """Mean of each image's highest F1 over the thresholds 0.00 … 1.00, in [0, 1].

        Raises:
            ValueError: There is no image.
        """
        return float(self.confusions().f1().max(axis=1).mean())

    def table(self) -> dict[str, NDArray[np.float64]]:
        """Columns threshold and the means over images of precision, recall, f1; each 1-D of 101.

        Raises:
            ValueError: There is no image.
        """
        confusions = self.confusions()
        return {
            "threshold": self.thresholds.copy(),
            "precision": confusions.precision().mean(axis=0),
            "recall": confusions.recall().mean(axis=0),
            "f1": confusions.f1().mean(axis=0),
        }
