"""The proof that a saved package agrees with its checkpoint.

Core ML predicts on macOS alone, and coremltools has no other way to run an ML Program; so the reference runs
torch where ours runs the package op by op.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cd_pipeline.data.preprocessing import PIXEL_SCALE
from cd_pipeline.data.samples import Sample
from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import Reference, measure_agreement
from cd_pipeline.export.coreml import export_mlpackage
from cd_pipeline.export.package_check import package_forms
from cd_pipeline.export.torchscript import export_torchscript, load_torchscript
from cd_pipeline_tests.benchmarks.cases.rooms import SIZE, prepare_pictures
from cd_pipeline_tests.benchmarks.cases.whole_prediction import network, pairs
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

TASK = Task()
FORMS = 2
"""The package as stored, and in float32."""
TOLERANCE = 1e-3
Answer = dict[str, Any]
"""Pairs, pairs with a prediction, and the largest difference to the checkpoint in float32."""


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_pictures(folder, "test")
    model, package, script = network(), folder / "checked.mlpackage", folder / "checked_ts.pt"
    if not script.exists():
        export_mlpackage(
            model,
            package,
            task=TASK,
            size=SIZE,
            pixel_scale=PIXEL_SCALE,
            metadata={},
            description="benchmark",
        )
        export_torchscript(model, script, task=TASK, size=SIZE, metadata={})


def ours(folder: Path, sizes: Sizes) -> Side:
    samples = pairs(folder, sizes)
    checkpoint = Reference.of(network(), TASK, threshold_of(samples))
    answers: list[Answer] = []

    def run() -> None:
        forms = package_forms(folder / "checked.mlpackage", checkpoint)
        found = measure_agreement(checkpoint, forms, (sample.pictures for sample in samples))
        answers[:] = [asdict(found["float32"])]

    return Side(run, lambda: answers[0])


def reference(folder: Path, sizes: Sizes) -> Side:
    samples, model = pairs(folder, sizes), network().eval()
    threshold = threshold_of(samples)
    script, _ = load_torchscript(folder / "checked_ts.pt")
    answers: list[Answer] = []

    @torch.no_grad()
    def run() -> None:
        marked, largest = 0, 0.0
        for sample in samples:
            before, after = (
                torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 for picture in sample.pictures
            )
            expected = model(before, after).sigmoid().numpy()
            marked += bool((expected > threshold).any())
            for _ in range(FORMS):
                largest = max(largest, float(np.abs(script(before, after).numpy() - expected).max()))
        answers[:] = [
            {"samples": len(samples), "non_empty_samples": marked, "max_probability_difference": largest}
        ]

    return Side(run, lambda: answers[0])


def threshold_of(samples: list[Sample]) -> float:
    """A threshold in the middle of the first prediction, so that masks are not empty."""
    found = Reference.of(network(), TASK, 0.5).answer(samples[0].pictures)
    return float(np.median(found.probability))


def compare(found: Answer, expected: Answer) -> str:
    for name in ("samples", "non_empty_samples"):
        assert found[name] == expected[name], f"{name}: {found[name]} and {expected[name]}"
    for side in (found, expected):
        assert side["max_probability_difference"] < TOLERANCE, side
    return f"{found['samples']} pairs: in float32 both within {TOLERANCE:.0e} of the checkpoint"
