"""Running a network over samples."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cd_pipeline.data.datasets import EpochSampler, ItemDataset, RankBatches
from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import to_network
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.tiled import Probabilities, Probability
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.synthesis.device_nuisance import UndisturbedPair, disturbed
from cd_pipeline.synthesis.device_render import render_items
from cd_pipeline.synthesis.fresh_pairs import UnrenderedPairs
from cd_pipeline.synthesis.plan_chunks import pack_chunks

Predict: TypeAlias = Callable[[Image, Image], npt.NDArray[np.float32]]
"""(before, after) HWC uint8 RGB at the input size -> probability HxW."""


class Batch(NamedTuple):
    """What a network is given and should answer, on the device.

    pictures: Nx3xHxW float32 RGB in [0, 1] each: before and after, or one image.
    truth: Nx1xHxW, float32 0 or 1; of several classes int64 indices.
    valid: Nx1xHxW float32, 0 or 1.
    """

    pictures: tuple[Tensor, ...]
    truth: Tensor
    valid: Tensor


def to_batch(items: Tensor | UndisturbedPair, task: Task, runtime: Runtime) -> Batch:
    """Split stacked uint8 items, NxCxHxW as of `to_item`, and scale their pictures for the network.

    Pairs that come without their nuisance are given it first, on the device.
    """
    if isinstance(items, UndisturbedPair):
        items = disturbed(items, runtime.device)
    placed = runtime.place_batch(items)  # bytes travel to the device, not floats
    channels = 3 * task.pictures
    scaled = to_network(placed[:, :channels])
    mask, valid = placed[:, channels : channels + 1], placed[:, channels + 1 :]
    truth = mask.long() if task.multi_class else (mask > 0).float()
    return Batch(scaled.tensor_split(task.pictures, dim=1), truth, (valid > 0).float())


class BatchLoader:
    """The batches of a data set, epoch by epoch; loader processes live as long as this object.

    Args:
        dataset: what is loaded.
        runtime: device and loader processes.
        batch_size: items a batch, over all processes that train together.
        shuffle_seed: None: the data set's own order.
        shared: each of the runtime's training processes gets its part of every batch.
    """

    def __init__(
        self,
        dataset: ItemDataset,
        runtime: Runtime,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        shared: bool = False,
    ) -> None:
        self.runtime = runtime
        self.task = dataset.task
        self._sampler = EpochSampler(len(dataset), shuffle_seed=shuffle_seed)
        rank, processes = (runtime.rank, runtime.processes) if shared else (0, 1)
        self._batches = RankBatches(self._sampler, batch_size, rank, processes)
        workers = runtime.loader_processes(draws=dataset.draws)
        collate, self._photos = None, None
        if isinstance(dataset, UnrenderedPairs):
            collate, self._photos = partial(pack_chunks, size=dataset.size), dataset.photos_on(runtime.device)
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=runtime.device.startswith("cuda"),
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),  # loading must not move the generator that layers draw from
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
        for loaded in self._loader:
            items = render_items(loaded, self._photos, self.runtime.device) if self._photos else loaded
            yield to_batch(items, self.task, self.runtime)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # pictures are small, and the other cores are training


@torch.inference_mode()
def iterate_logits(
    model: nn.Module, dataset: ItemDataset, runtime: Runtime, batch_size: int
) -> Iterator[tuple[Tensor, Batch]]:
    """Yield NxCxHxW float32 logits and their batch, in the data set's order, in evaluation mode."""
    model.eval()
    for batch in BatchLoader(dataset, runtime, batch_size).epoch():
        with runtime.autocast():
            logits = model(*batch.pictures)
        yield logits.float(), batch


def predict_probability(model: nn.Module, *pictures: Image, runtime: Runtime) -> Probability:
    """Predict HWC uint8 RGB at the input size: probability in [0, 1], HxW float32, or CxHxW of C classes."""
    (probability,) = _probabilities(model, runtime, [picture[None] for picture in pictures])
    return probability


def network_probabilities(model: nn.Module, runtime: Runtime) -> Probabilities:
    """Return what a network, on the runtime's device, says of batches of pictures at the input size."""
    return partial(_probabilities, model, runtime)


@torch.inference_mode()
def _probabilities(
    model: nn.Module, runtime: Runtime, pictures: Sequence[npt.NDArray[np.uint8]]
) -> list[Probability]:
    model.eval()
    stacked = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2)  # PNx3xHxW
    scaled = to_network(runtime.place_batch(stacked))
    with runtime.autocast():
        logits = model(*scaled.tensor_split(len(pictures))).float()
    if logits.shape[1] > 1:
        return list(logits.softmax(dim=1).cpu().numpy())
    return list(logits.sigmoid()[:, 0].cpu().numpy())
