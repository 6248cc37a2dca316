"""Examples as a torch data set at the network's input size, and the order of an epoch."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from cd_pipeline.data.example import Example, PictureFile
from cd_pipeline.data.samples import (
    CACHE_BYTES,
    Roots,
    Sample,
    cropped,
    load_whole,
    network_view,
    network_windows,
)
from cd_pipeline.data.task import Task

Key = tuple[int, int]
"""(epoch, index): data sets that draw anew need both."""


def to_item(sample: Sample) -> torch.Tensor:
    """Stack a sample to one uint8 tensor CxHxW: its pictures' RGB, the mask, and what counts (0/255)."""
    item = np.empty((3 * len(sample.pictures) + 2, *sample.mask.shape), np.uint8)
    for number, picture in enumerate(sample.pictures):
        item[3 * number : 3 * number + 3] = picture.transpose(2, 0, 1)
    item[-2], item[-1] = sample.mask, 255 if sample.valid is None else sample.valid
    return torch.from_numpy(item)


class ItemDataset(Dataset[torch.Tensor]):
    """What training loads: items of `to_item`, asked for by `(epoch, index)`."""

    examples: Sequence[Example]
    task: Task
    draws = False
    """Whether items cost time in every epoch, so that a loader process of its own is worth it."""

    def __len__(self) -> int:
        return len(self.examples)


def task_of(examples: Sequence[Example]) -> Task:
    """Return what a network for frozen examples of one manifest is given and answers."""
    first = examples[0]
    return Task(pictures=len(first.pictures), classes=first.mask_form.outputs)


class SampleDataset(ItemDataset):
    """Frozen examples of a manifest.

    Items are asked for by `(epoch, index)`, so that data sets that draw fresh ones share the form; here
    the epoch changes nothing. An item is `to_item` of the sample as the network sees it. Decoded items are
    kept in memory up to `cache_bytes`.
    """

    def __init__(
        self, examples: Sequence[Example], roots: Roots, size: int, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.examples = examples
        self.task = task_of(examples)
        self.size = size
        self._roots = roots
        self._capacity = cache_bytes // ((3 * self.task.pictures + 2) * size * size)
        self._cache: dict[int, torch.Tensor] = {}
        self._last: tuple[Sequence[PictureFile], Sample] | None = None

    def __getitem__(self, key: Key) -> torch.Tensor:
        _, index = key
        cached = self._cache.get(index)
        if cached is None:
            example = self.examples[index]
            (window,) = network_windows(example, self.size)  # training and validation rows are one tile each
            cached = to_item(network_view(cropped(self._whole(example), example), window, self.size))
            if len(self._cache) < self._capacity:
                self._cache[index] = cached
        return cached

    def _whole(self, example: Example) -> Sample:
        # the tiles of one picture follow each other
        if self._last is None or self._last[0] != example.pictures:
            self._last = example.pictures, load_whole(example, self._roots)
        return self._last[1]


class EpochSampler(Sampler[Key]):
    """The order of an epoch: shuffled by seed and epoch alone, or the data set's own.

    `epoch` may be set between two passes.
    """

    def __init__(self, count: int, *, epoch: int = 0, shuffle_seed: int | None = None) -> None:
        self.epoch = epoch
        self._count = count
        self._shuffle_seed = shuffle_seed

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self._count)
        if self._shuffle_seed is not None:
            # numpy, not torch: the order must not depend on what else drew random numbers
            order = np.random.Generator(np.random.PCG64([self._shuffle_seed, self.epoch])).permutation(order)
        return ((self.epoch, int(index)) for index in order)


class RankBatches(Sampler[list[Key]]):
    """The batches of one of several processes that train together.

    Every batch is dealt out like cards, so that all processes together see the batches of a single one. One
    that would get nothing of a short last batch gets an item that weighs 0: all take the same number of steps.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        self._sampler = sampler
        self._batch_size = batch_size
        self._rank = rank
        self._processes = processes

    def __len__(self) -> int:
        return -(-len(self._sampler) // self._batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        keys = iter(self._sampler)
        while batch := list(islice(keys, self._batch_size)):
            yield batch[self._rank :: self._processes] or batch[:1]

    @property
    def weights(self) -> list[float]:
        """What each batch's mean counts in the mean over processes: its share of the pairs, 1 on average."""
        sizes = [self._batch_size] * (len(self) - 1) + [
            len(self._sampler) - self._batch_size * (len(self) - 1)
        ]
        return [len(range(self._rank, size, self._processes)) * self._processes / size for size in sizes]
