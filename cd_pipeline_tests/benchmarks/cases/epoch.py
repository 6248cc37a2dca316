"""A whole training epoch on frozen pairs, and how much of it is waiting for batches."""

from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cd_pipeline.data.datasets import SampleDataset
from cd_pipeline.data.samples import load_sample
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.benchmarks.cases.our_trainer import OurTrainer
from cd_pipeline_tests.benchmarks.cases.published_files import write_published_pair
from cd_pipeline_tests.benchmarks.cases.rooms import SIZE, first_pairs, prepare_pictures, rendered_roots
from cd_pipeline_tests.benchmarks.cases.step_clock import WAITING, StepClock
from cd_pipeline_tests.benchmarks.measure import Side, Sizes, Spent
from cd_pipeline_tests.benchmarks.published_reference import (
    PublishedDataset,
    PublishedTrainer,
    published_loader,
)

TOLERANCE = 0.02
"""Of the mean of a picture: the reference's pictures went through JPEG."""
Answer = list[list[float]]


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_pictures(folder, "train")
    places = rendered_roots(folder, "train")
    for pair in first_pairs(folder, "published", "train", sizes["pairs"]):
        if not (copies(folder) / "mask" / f"{pair.pair_id}.png").exists():
            sample = load_sample(pair, places)
            write_published_pair(copies(folder), pair.pair_id, sample.before, sample.after, sample.mask)


def ours(folder: Path, sizes: Sizes) -> Side:
    pairs = first_pairs(folder, "published", "train", sizes["pairs"])
    dataset = SampleDataset(pairs, rendered_roots(folder, "train"), SIZE)
    trainer = OurTrainer(dataset, TrainingSettings(), resolve_runtime(device="cpu"))
    clock, epochs = StepClock(trainer.model, trainer.optimizer), count()

    def run() -> dict[str, Spent]:
        epoch = next(epochs)
        batches = clock.waiting(trainer.batches.epoch(epoch))
        trainer.run(batches, trainer.schedule.epoch(epoch), trainer.batches.weights)
        return clock.taken(WAITING)

    def answer() -> Answer:
        return [
            means(item[:3] / 255, item[3:6] / 255, item[6:7] > 0)
            for item in (dataset[0, i] for i in range(len(dataset)))
        ]

    return Side(run, answer)


def reference(folder: Path, sizes: Sizes) -> Side:
    pairs = first_pairs(folder, "published", "train", sizes["pairs"])
    dataset = PublishedDataset(copies(folder), [pair.pair_id for pair in pairs], SIZE)
    trainer, loader = PublishedTrainer(), published_loader(dataset)
    clock = StepClock(trainer.model, trainer.optimizer)

    def run() -> dict[str, Spent]:
        trainer.epoch_seconds(clock.waiting(loader))
        return clock.taken(WAITING)

    return Side(run, lambda: [means(*dataset[index]) for index in range(len(dataset))])


def copies(folder: Path) -> Path:
    return folder / "published_copies"


def means(*pictures: Tensor) -> list[float]:
    """Of before, after and mask."""
    return [float(picture.to(torch.float32).mean()) for picture in pictures]


def compare(found: Answer, expected: Answer) -> str:
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    masks = [[item[2] for item in side] for side in (found, expected)]
    np.testing.assert_allclose(*masks, rtol=1e-6)
    return f"{len(found)} pairs: equal shares of change, mean brightness within {TOLERANCE} of JPEG copies"
