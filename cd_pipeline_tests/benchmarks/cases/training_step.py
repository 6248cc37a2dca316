"""A step of the published network: forward, backward, optimiser and average, apart and together."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cd_pipeline.data.datasets import SampleDataset
from cd_pipeline.evaluation.predict import to_batch
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.training.losses import ChangeLoss
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.benchmarks.cases.our_trainer import OurTrainer
from cd_pipeline_tests.benchmarks.cases.profiles import profiled_torch
from cd_pipeline_tests.benchmarks.cases.rooms import SIZE, first_pairs, prepare_pictures, rendered_roots
from cd_pipeline_tests.benchmarks.cases.step_clock import AVERAGE, BACKWARD, FORWARD, OPTIMISER, StepClock
from cd_pipeline_tests.benchmarks.measure import Side, Sizes, Spent
from cd_pipeline_tests.benchmarks.published_reference import PublishedNet, PublishedTrainer, published_loss

PARTS = (FORWARD, BACKWARD, OPTIMISER, AVERAGE)
BATCH = 8
POS_WEIGHT = 2.0
"""Of `published_loss`."""
TOLERANCE = 1e-3
Answer = tuple[float, dict[str, npt.NDArray[np.float32]]]


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_pictures(folder, "train")


def dataset(folder: Path, sizes: Sizes) -> SampleDataset:
    pairs = first_pairs(folder, "published", "train", BATCH * sizes["steps"])
    return SampleDataset(pairs, rendered_roots(folder, "train"), SIZE)


def ours(folder: Path, sizes: Sizes) -> Side:
    data = dataset(folder, sizes)
    trainer = OurTrainer(data, TrainingSettings(), resolve_runtime(device="cpu"))
    clock = StepClock(trainer.model, trainer.optimizer)
    trainer.average.update = clock.averaging(trainer.average.update)  # type: ignore[method-assign]
    batches = list(islice(trainer.batches.epoch(0), sizes["steps"]))
    rates, weights = [trainer.settings.learning_rate] * len(batches), [1.0] * len(batches)

    def run() -> dict[str, Spent]:
        trainer.run(batches, rates, weights)
        return clock.taken(*PARTS)

    def answer() -> Answer:
        model = TinyChangeUNet()
        model.load_published_state(published_net().state_dict())
        batch = to_batch(changed_items(data), data.task, trainer.runtime)
        loss = ChangeLoss(pos_weight=POS_WEIGHT)
        return learnt(
            trainer.runtime.place(model),
            lambda logits: loss(logits, batch.truth, batch.valid),
            batch.pictures,
        )

    return Side(run, answer, lambda: profiled_torch(run))


def reference(folder: Path, sizes: Sizes) -> Side:
    data = dataset(folder, sizes)
    trainer = PublishedTrainer()
    clock = StepClock(trainer.model, trainer.optimizer)
    trainer.update_average = clock.averaging(trainer.update_average)  # type: ignore[method-assign]
    batches = [
        plain_batch(torch.stack([data[0, index] for index in range(first, min(first + BATCH, len(data)))]))
        for first in range(0, len(data), BATCH)
    ]

    def run() -> dict[str, Spent]:
        for batch in batches:
            trainer.step(*batch)
        return clock.taken(*PARTS)

    def answer() -> Answer:
        before, after, truth = plain_batch(changed_items(data))
        return learnt(published_net(), lambda logits: published_loss(logits, truth), (before, after))

    return Side(run, answer)


def plain_batch(items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Before, after and truth of NxCxHxW uint8 items, in the default memory format."""
    before, after = (items[:, first : first + 3].float() / 255 for first in (0, 3))
    return before, after, (items[:, 6:7] > 0).float()


def published_net() -> PublishedNet:
    torch.manual_seed(7)
    return PublishedNet()


def changed_items(data: SampleDataset) -> Tensor:
    """Pairs with a change: of others the published loss has no gradient, which is a known fault."""
    items = [item for item in (data[0, index] for index in range(len(data))) if item[6].any()]
    return torch.stack(items[:4])


def learnt(model: nn.Module, loss: Callable[[Tensor], Tensor], pictures: Sequence[Tensor]) -> Answer:
    """Loss of a batch in training, and what it teaches the weights, by their names."""
    value = loss(model.train()(*pictures))
    value.backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return float(value), gradients


def compare(found: Answer, expected: Answer) -> str:
    assert found[1].keys() == expected[1].keys(), "other weights are taught"
    np.testing.assert_allclose(found[0], expected[0], rtol=TOLERANCE)
    norm = max(float(np.linalg.norm(gradient)) for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        assert np.linalg.norm(found[1][name] - gradient) < TOLERANCE * norm, f"{name}: another gradient"
    return f"loss and gradients of one batch within {TOLERANCE:.0e}"
