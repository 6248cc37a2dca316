"""Running a network over pairs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cd_pipeline.data.datasets import EpochSampler
from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import to_network
from cd_pipeline.models.runtime import Runtime

Predict: TypeAlias = Callable[[Image, Image], npt.NDArray[np.float32]]
"""(before, after) HWC uint8 RGB at the input size -> probability HxW."""


class Batch(NamedTuple):
    """before, after: Nx3xHxW float32 in [0, 1]; truth, valid: Nx1xHxW float32, 0 or 1; all on the device."""

    before: Tensor
    after: Tensor
    truth: Tensor
    valid: Tensor


def to_batch(samples: Tensor, runtime: Runtime) -> Batch:
    """Split uint8 samples Nx8xHxW (before, after, mask 0/255, valid 0/255) and scale them for the network."""
    placed = runtime.place_batch(samples)  # bytes travel to the device, not floats
    scaled, marks = to_network(placed[:, :6]), (placed[:, 6:] > 0).float()
    return Batch(scaled[:, 0:3], scaled[:, 3:6], marks[:, 0:1], marks[:, 1:2])


class BatchLoader:
    """The batches of a data set, epoch by epoch; loader processes live as long as this object."""

    def __init__(
        self,
        dataset: Dataset[Tensor],
        runtime: Runtime,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
    ) -> None:
        self._runtime = runtime
        self._sampler = EpochSampler(len(dataset), shuffle_seed=shuffle_seed)  # type: ignore[arg-type]
        workers = runtime.loader_processes(draws=getattr(dataset, "draws", False))
        self._loader = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=self._sampler,
            num_workers=workers,
            pin_memory=runtime.device.startswith("cuda"),
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
        )

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, in the data set's order or shuffled by seed and epoch."""
        self._sampler.epoch = number
        for samples in self._loader:
            yield to_batch(samples, self._runtime)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # pictures are small, and the other cores are training


@torch.inference_mode()
def iterate_logits(
    model: nn.Module, dataset: Dataset[Tensor], runtime: Runtime, batch_size: int
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield Nx1xHxW float32 logits and their batch, in the data set's order, in evaluation mode."""
    model.eval()
    for batch in BatchLoader(dataset, runtime, batch_size).epoch():
        with runtime.autocast():
            logits = model(batch.before, batch.after)
        yield logits.float(), batch


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
