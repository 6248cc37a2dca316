"""The threshold sweep of val: a histogram, or every pixel compared with every threshold."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cd_pipeline.evaluation.threshold import ScoredSample, choose, sweep_predictions
from cd_pipeline_tests.benchmarks.image_sweep import draw
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

LOW, HIGH, STEPS = 0.02, 0.40, 40
"""The published sweep."""
Answer = tuple[npt.NDArray[np.int64], float, float]
"""TP, FP and FN at each threshold, 3 x 40; the best threshold and its F1."""


def prepare(folder: Path, sizes: Sizes) -> None:
    """Both sides draw the same probabilities."""


def ours(folder: Path, sizes: Sizes) -> Side:
    samples = [ScoredSample(probability, truth, np.ones_like(truth)) for probability, truth in drawn(sizes)]
    answers: list[Answer] = []

    def run() -> None:
        sweep = sweep_predictions(samples, low=LOW, high=HIGH, steps=STEPS)
        chosen, curve = choose(sweep, "benchmark"), sweep.confusions()
        answers[:] = [(np.stack([curve.tp, curve.fp, curve.fn]), chosen.threshold, chosen.f1)]

    return Side(run, lambda: answers[0])


def reference(folder: Path, sizes: Sizes) -> Side:
    pictures = drawn(sizes)
    probability, truth = (np.stack(arrays) for arrays in zip(*pictures, strict=True))
    del pictures
    thresholds = np.linspace(LOW, HIGH, STEPS).astype(np.float32)
    answers: list[Answer] = []

    def run() -> None:
        predicted = probability.reshape(-1, 1) > thresholds  # NHW x 40
        changed = truth.reshape(-1, 1)
        counts = [(predicted & changed).sum(0), (predicted & ~changed).sum(0), (~predicted & changed).sum(0)]
        tp, fp, fn = counts
        f1 = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
        answers[:] = [(np.stack(counts), float(thresholds[f1.argmax()]), float(f1.max()))]

    return Side(run, lambda: answers[0])


def drawn(sizes: Sizes) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    return list(draw("soft", sizes["images"], (sizes["side"], sizes["side"])))


def compare(found: Answer, expected: Answer) -> str:
    np.testing.assert_array_equal(found[0], expected[0])
    assert abs(found[2] - expected[2]) < 1e-12, f"best F1 {found[2]} and {expected[2]}"
    tp, fp, fn = found[0]
    tied = np.flatnonzero(2 * tp / np.maximum(2 * tp + fp + fn, 1) > found[2] - 1e-12)
    assert len(tied) > 1 or abs(found[1] - expected[1]) < 1e-6, f"thresholds {found[1]} and {expected[1]}"
    return f"equal counts at {STEPS} thresholds, best F1 {found[2]:.4f} on both sides"
