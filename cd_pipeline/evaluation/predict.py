"""Running a network over pairs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cd_pipeline.data.datasets import EpochSampler, RankBatches
from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import to_network
from cd_pipeline.data.tiles import Window, padded
from cd_pipeline.evaluation.tiled import Probability, blended_strips
from cd_pipeline.models.runtime import Runtime

TILES_AT_ONCE = 8
"""Tiles in one batch."""

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
    """The batches of a data set, epoch by epoch; loader processes live as long as this object.

    Args:
        dataset: items of `PairDataset`'s form.
        runtime: device and loader processes.
        batch_size: pairs a batch, over all processes that train together.
        shuffle_seed: None: the data set's own order.
        shared: each of the runtime's training processes gets its part of every batch.
    """

    def __init__(
        self,
        dataset: Dataset[Tensor],
        runtime: Runtime,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        shared: bool = False,
    ) -> None:
        self.runtime = runtime
        self._sampler = EpochSampler(len(dataset), shuffle_seed=shuffle_seed)  # type: ignore[arg-type]
        rank, processes = (runtime.rank, runtime.processes) if shared else (0, 1)
        self._batches = RankBatches(self._sampler, batch_size, rank, processes)
        workers = runtime.loader_processes(draws=getattr(dataset, "draws", False))
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            num_workers=workers,
            pin_memory=runtime.device.startswith("cuda"),
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
        )

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def weights(self) -> list[float]:
        """What each batch of an epoch counts in the mean over processes; 1 where there is one."""
        return self._batches.weights

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, in the data set's order or shuffled by seed and epoch."""
        self._sampler.epoch = number
        for samples in self._loader:
            yield to_batch(samples, self.runtime)


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
    (probability,) = _probabilities(model, before[None], after[None], runtime)
    return probability


@torch.inference_mode()
def predict_tiled(
    model: nn.Module, before: Image, after: Image, runtime: Runtime, *, side: int, overlap: int
) -> npt.NDArray[np.float32]:
    """Predict one pair of HWC uint8 RGB of any size at its own scale: probability HxW float32 in [0, 1].

    Args:
        model: the network.
        before: the first picture.
        after: the second one.
        runtime: device and precision.
        side: of the tiles, the network's input size; smaller pictures are mirrored to it.
        overlap: of neighbouring tiles, px; there their predictions are blended.
    """

    def tiles(picture: Image, windows: list[Window]) -> npt.NDArray[np.uint8]:
        return np.stack([padded(picture[window.rows, window.columns], side) for window in windows])

    def predict_row(windows: list[Window]) -> list[npt.NDArray[np.float32]]:
        found: list[Probability] = []
        for first in range(0, len(windows), TILES_AT_ONCE):
            some = windows[first : first + TILES_AT_ONCE]
            found += _probabilities(model, tiles(before, some), tiles(after, some), runtime)
        return [tile[: window.height, : window.width] for tile, window in zip(found, windows, strict=True)]

    height, width = before.shape[:2]
    strips = list(blended_strips(predict_row, width, height, side, overlap))
    probability: npt.NDArray[np.float32] = np.concatenate(strips)
    return probability


def _probabilities(
    model: nn.Module, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], runtime: Runtime
) -> list[Probability]:
    # NHWC uint8 -> N times HW float32
    model.eval()
    stacked = torch.from_numpy(np.concatenate([before, after])).permute(0, 3, 1, 2)  # 2Nx3xHxW
    scaled = to_network(runtime.place_batch(stacked))
    with runtime.autocast():
        logits = model(scaled[: len(before)], scaled[len(before) :])
    return list(logits.float().sigmoid()[:, 0].cpu().numpy())
