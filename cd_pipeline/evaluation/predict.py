"""Running a network over pairs."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cd_pipeline.data.datasets import EpochSampler
from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import to_network
from cd_pipeline.models.runtime import Runtime


class Batch(NamedTuple):
    """before, after: Nx3xHxW float32 in [0, 1]; truth: Nx1xHxW float32, 0 or 1; all on the device."""

    before: Tensor
    after: Tensor
    truth: Tensor


def to_batch(samples: Tensor, runtime: Runtime) -> Batch:
    """Split uint8 samples Nx7xHxW (before, after, mask 0/255) and scale them for the network."""
    scaled = to_network(runtime.place_batch(samples))  # bytes travel to the device, not floats
    return Batch(scaled[:, 0:3], scaled[:, 3:6], (scaled[:, 6:7] > 0).float())


def load_batches(
    dataset: Dataset[Tensor],
    runtime: Runtime,
    batch_size: int,
    *,
    epoch: int = 0,
    shuffle_seed: int | None = None,
) -> Iterator[Batch]:
    """Yield the batches of one epoch, in the data set's order or shuffled by seed and epoch."""
    sampler = EpochSampler(len(dataset), epoch=epoch, shuffle_seed=shuffle_seed)  # type: ignore[arg-type]
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=runtime.workers,
        pin_memory=runtime.device.startswith("cuda"),
        multiprocessing_context="spawn" if runtime.workers else None,
    )
    for samples in loader:
        yield to_batch(samples, runtime)


@torch.inference_mode()
def iterate_logits(
    model: nn.Module, dataset: Dataset[Tensor], runtime: Runtime, batch_size: int
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield Nx1xHxW float32 logits and their batch, in the data set's order, in evaluation mode."""
    model.eval()
    for batch in load_batches(dataset, runtime, batch_size):
        with runtime.autocast():
            logits = model(batch.before, batch.after)
        yield logits.float(), batch


def iterate_probabilities(
    model: nn.Module, dataset: Dataset[Tensor], runtime: Runtime, batch_size: int = 8
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """Yield, pair by pair in the data set's order, probability HxW float32 in [0, 1] and truth HxW bool."""
    for logits, batch in iterate_logits(model, dataset, runtime, batch_size):
        for probability, truth in zip(logits.sigmoid()[:, 0].cpu(), batch.truth[:, 0].cpu(), strict=True):
            yield probability.numpy(), truth.numpy() > 0


@torch.inference_mode()
def predict_probability(
    model: nn.Module, before: Image, after: Image, runtime: Runtime
) -> npt.NDArray[np.float32]:
    """Predict one pair of HWC uint8 RGB at the input size: probability HxW float32 in [0, 1]."""
    model.eval()
    stacked = torch.from_numpy(np.stack([before, after])).permute(0, 3, 1, 2)  # 2x3xHxW
    scaled = to_network(runtime.place_batch(stacked))
    with runtime.autocast():
        logits = model(scaled[0:1], scaled[1:2])
    probability: npt.NDArray[np.float32] = logits.float().sigmoid()[0, 0].cpu().numpy()
    return probability
