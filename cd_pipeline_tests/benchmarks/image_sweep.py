"""ODS and OIS by the published loop over thresholds, and drawn probabilities to try it on.

Drawn are thin lines as truth, and a probability that is confident (most pixels under 0.01), soft (noise around
the lines), or uniform in [0, 1], which no trained network gives.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from cd_pipeline.evaluation.image_sweep import ODS_FIRST

Counts = list[tuple[int, int, int]]
"""TP, FP and FN of an image at each threshold."""
Drawn = tuple[NDArray[np.float32], NDArray[np.bool_]]
LOGITS = {"confident": (-9.0, 16.0), "soft": (-4.5, 8.0), "uniform": None}
"""Logit away from lines and the rise on them."""
THRESHOLDS = np.arange(101) / 100


def draw(kind: str, images: int, shape: tuple[int, int]) -> Iterator[Drawn]:
    """Draw images one by one: probability float32 and truth bool, each HxW."""
    rng = np.random.default_rng(0)
    for _ in range(images):
        lines = draw_lines(rng, shape)
        logits = LOGITS[kind]
        if logits is None:
            yield rng.random(shape, dtype=np.float32), lines != 0
            continue
        noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 2) * 6
        logit = noise + logits[0] + logits[1] * cv2.GaussianBlur(lines, (0, 0), 1.5)
        yield (1 / (1 + np.exp(-logit))).astype(np.float32), lines != 0


def draw_lines(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Three wandering lines, 3 pixels thick, as 1 on 0."""
    lines = np.zeros(shape, dtype=np.float32)
    for _ in range(3):
        start = rng.uniform(0, 1, (1, 2)) * shape[::-1]
        walk = np.cumsum(np.vstack([start, rng.normal(0, max(shape) / 20, (20, 2))]), axis=0)
        cv2.polylines(lines, [walk.astype(np.int32)], False, 1.0, 3)
    return lines


def two_loops(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> Counts:
    """The loop for ODS and then that for OIS; the counts of the latter."""
    plain_loop(probability, truth, THRESHOLDS[ODS_FIRST:])
    return plain_loop(probability, truth)


def plain_loop(
    probability: NDArray[np.float32],
    truth: NDArray[np.bool_],
    thresholds: NDArray[np.float64] = THRESHOLDS,
) -> Counts:
    """TP, FP and FN at each threshold, every pixel compared with each."""
    counts = []
    for threshold in thresholds.tolist():
        predicted = probability > threshold
        tp = int(np.sum(predicted & truth))
        fp = int(np.sum(predicted & ~truth))
        fn = int(np.sum(~predicted & truth))
        counts.append((tp, fp, fn))
    return counts


def scales(counts: list[Counts]) -> list[float]:
    """ODS (threshold, F1, precision, recall) and OIS from the loop's counts, written out once more."""
    tp, fp, fn = np.moveaxis(np.array(counts, dtype=float), -1, 0)  # each images x 101
    f1 = np.where(tp + fp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), 1.0)
    precision = np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), fn == 0)
    recall = np.where(tp + fn > 0, tp / np.maximum(tp + fn, 1), 1.0)
    best = ODS_FIRST + int(f1.mean(axis=0)[ODS_FIRST:].argmax())
    at_best = [scores[:, best].mean() for scores in (f1, precision, recall)]
    return [float(value) for value in (THRESHOLDS[best], *at_best, f1.max(axis=1).mean())]
