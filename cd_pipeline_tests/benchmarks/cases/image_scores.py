"""ODS and OIS: one histogram an image, or a loop over thresholds."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cd_pipeline.evaluation.image_sweep import ImageSweep
from cd_pipeline_tests.benchmarks.image_sweep import LOGITS, Counts, draw, scales, two_loops
from cd_pipeline_tests.benchmarks.measure import Side, Sizes, Spent

Answer = dict[str, tuple[npt.NDArray[np.int64], list[float]]]
"""By kind: TP, FP and FN of each image at each threshold; ODS (threshold, F1, precision, recall) and OIS."""


def prepare(folder: Path, sizes: Sizes) -> None:
    """Both sides draw the same probabilities."""


def ours(folder: Path, sizes: Sizes) -> Side:
    pictures = drawn(sizes)
    answers: Answer = {}

    def run() -> dict[str, Spent]:
        parts = {}
        for kind, images in pictures.items():
            started, sweep = Spent.now(), ImageSweep()
            for probability, truth in images:
                sweep.update(probability, truth)
            ods, ois = sweep.ods(), sweep.ois()
            parts[kind] = Spent.now().since(started)
            swept = sweep.confusions()
            answers[kind] = np.stack([swept.tp, swept.fp, swept.fn], axis=-1), [*astuple(ods), ois]
        return parts

    return Side(run, lambda: answers)


def reference(folder: Path, sizes: Sizes) -> Side:
    pictures = drawn(sizes)
    answers: Answer = {}

    def run() -> dict[str, Spent]:
        parts = {}
        for kind, images in pictures.items():
            started = Spent.now()
            counts: list[Counts] = [two_loops(probability, truth) for probability, truth in images]
            found = scales(counts)
            parts[kind] = Spent.now().since(started)
            answers[kind] = np.array(counts), found
        return parts

    return Side(run, lambda: answers)


def drawn(sizes: Sizes) -> dict[str, list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]]:
    shape = (sizes["side"], sizes["side"])
    return {kind: list(draw(kind, sizes["images"], shape)) for kind in LOGITS}


def compare(found: Answer, expected: Answer) -> str:
    for kind, (counts, scores) in expected.items():
        np.testing.assert_array_equal(found[kind][0], counts)
        np.testing.assert_allclose(found[kind][1], scores, rtol=0, atol=1e-12)
    return "equal counts of every image at 101 thresholds, ODS and OIS within 1e-12"
