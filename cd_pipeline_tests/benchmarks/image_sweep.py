"""ODS and OIS from one histogram an image, against a loop that compares every pixel with every threshold.

    python -m cd_pipeline_tests.benchmarks.image_sweep [--images 100] [--height 512] [--width 512] [--json]

All see the same drawn images: thin lines as truth, and a probability that is confident (most pixels under
0.01), soft (noise around the lines), or uniform in [0, 1], which no trained network gives.

- sweep: `ImageSweep`, ODS and OIS included.
- two loops: as published, 91 thresholds for ODS and 101 for OIS; TP, FP and FN summed as they are defined.
- one loop: the same sums at the 101 thresholds once, for both.
- lean loop: one loop with as few passes as NumPy needs: a comparison, a product and two `count_nonzero` a
  threshold, the rest worked out from the totals.

Counts must be equal, ODS and OIS the same, and the sweep 50 times as fast as the two loops.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cd_pipeline.evaluation.image_sweep import ODS_FIRST, ImageSweep

T = TypeVar("T")
Counts = list[tuple[int, int, int]]
Drawn = tuple[NDArray[np.float32], NDArray[np.bool_]]
LOGITS = {"confident": (-9.0, 16.0), "soft": (-4.5, 8.0), "uniform": None}
"""Logit away from lines and the rise on them."""
THRESHOLDS = np.arange(101) / 100
WANTED = 50


def main() -> None:
    options = parse_options()
    rows = [measure(kind, options.images, (options.height, options.width)) for kind in LOGITS]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print("  ".join(f"{name} {shown(value)}" for name, value in row.items()))
    if any(not row["equal"] for row in rows):
        raise SystemExit("the results differ")
    if any(row["two loops / sweep"] < WANTED for row in rows):
        raise SystemExit(f"less than {WANTED} times as fast as the two loops")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def measure(kind: str, images: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Seconds of each way over the whole set, and whether they agree; every image goes through all of them."""
    sweep = ImageSweep()
    loops: dict[str, list[Counts]] = {"two loops": [], "one loop": [], "lean loop": []}
    seconds = dict.fromkeys(["sweep", *loops], 0.0)
    ImageSweep().update(*next(draw(kind, 1, shape)))  # the first call loads code
    for probability, truth in draw(kind, images, shape):
        seconds["sweep"] += timed(partial(sweep.update, probability, truth))[0]
        for name, loop in (("two loops", two_loops), ("one loop", plain_loop), ("lean loop", lean_loop)):
            spent, counts = timed(partial(loop, probability, truth))
            seconds[name] += spent
            loops[name].append(counts)
    spent, (ods, ois) = timed(lambda: (sweep.ods(), sweep.ois()))
    seconds["sweep"] += spent
    swept = sweep.confusions()
    equal = all(
        np.array_equal(np.stack([swept.tp, swept.fp, swept.fn], axis=-1), counts) for counts in loops.values()
    )
    expected = scales(loops["one loop"])
    return {
        "data": kind,
        "images": images,
        "size": f"{shape[0]}x{shape[1]}",
        **seconds,
        **{f"{name} / sweep": seconds[name] / seconds["sweep"] for name in loops},
        "ods": ods.f1,
        "ois": ois,
        "equal": equal and np.allclose([*astuple(ods), ois], expected, rtol=0, atol=1e-12),
    }


def timed(call: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


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


def lean_loop(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> Counts:
    """The same with as few passes a threshold as NumPy needs."""
    positives = int(np.count_nonzero(truth))
    counts = []
    for threshold in THRESHOLDS.tolist():
        predicted = probability > threshold
        tp = int(np.count_nonzero(predicted & truth))
        counts.append((tp, int(np.count_nonzero(predicted)) - tp, positives - tp))
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


if __name__ == "__main__":
    main()
