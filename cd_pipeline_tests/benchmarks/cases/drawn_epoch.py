"""A training epoch whose pairs are drawn in it: between its steps or beside them, the product's choice and the other."""

from itertools import count
from pathlib import Path

import torch

from cd_pipeline.data.files import digest
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.synthesis.fresh_pairs import FreshPairs
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.benchmarks.cases.our_trainer import OurTrainer
from cd_pipeline_tests.benchmarks.cases.rooms import PRESETS, SIZE, first_pairs, prepare_plans, roots
from cd_pipeline_tests.benchmarks.cases.step_clock import WAITING, StepClock
from cd_pipeline_tests.benchmarks.measure import Side, Sizes, Spent


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_plans(folder)


def ours(folder: Path, sizes: Sizes) -> Side:
    return side(folder, sizes, chosen())


def reference(folder: Path, sizes: Sizes) -> Side:
    return side(folder, sizes, 0 if chosen() else 1)


def chosen() -> int:
    """Return how many loader processes the product takes here."""
    return resolve_runtime(device="cpu").loader_processes(draws=True)


def side(folder: Path, sizes: Sizes, workers: int) -> Side:
    """Train on the same pairs, loaded by so many processes beside this one."""
    pairs = first_pairs(folder, "realistic", "train", sizes["pairs"])
    dataset = FreshPairs(pairs, roots(folder, "drawn"), SIZE, PRESETS["realistic"])
    settings = TrainingSettings(max_pos_weight=1.0)  # as the recipe rooms: no weight to estimate
    trainer = OurTrainer(dataset, settings, resolve_runtime(device="cpu", workers=workers))
    clock, epochs = StepClock(trainer.model, trainer.optimizer), count()

    def run() -> dict[str, Spent]:
        epoch = next(epochs)
        batches = clock.waiting(trainer.batches.epoch(epoch))
        trainer.run(batches, trainer.schedule.epoch(epoch), trainer.batches.weights)
        return clock.taken(WAITING)

    def answer() -> list[str]:
        return [hashed(*batch.pictures, batch.truth, batch.valid) for batch in trainer.batches.epoch(0)]

    return Side(run, answer)


def hashed(*tensors: torch.Tensor) -> str:
    return digest(*(tensor.contiguous().numpy().tobytes() for tensor in tensors))


def compare(found: list[str], expected: list[str]) -> str:
    assert found == expected, "other pairs are drawn"
    return f"{len(found)} batches of one epoch, equal bytes"
