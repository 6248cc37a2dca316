"""Pairs as a torch data set at the network's input size, and the order of an epoch."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import (
    CACHE_BYTES,
    PairArrays,
    Roots,
    cropped,
    load_pictures,
    network_view,
    network_windows,
)

Key = tuple[int, int]
"""(epoch, index): data sets that draw fresh pairs need both."""


def to_sample(arrays: PairArrays) -> torch.Tensor:
    """Stack a pair to one uint8 tensor 8xHxW: before RGB, after RGB, mask 0/255, valid 0/255."""
    valid = np.full_like(arrays.mask, 255) if arrays.valid is None else arrays.valid
    stacked = np.dstack([arrays.before, arrays.after, arrays.mask, valid])  # HW8
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(2, 0, 1)))


class PairDataset(Dataset[torch.Tensor]):
    """Frozen pairs of a manifest.

    Items are asked for by `(epoch, index)`, so that data sets that draw fresh pairs share the form; here
    the epoch changes nothing. An item is a uint8 tensor 8xSxS: before, after, mask, valid. Decoded items are kept
    in memory up to `cache_bytes`.
    """

    def __init__(
        self, pairs: Sequence[Pair], roots: Roots, size: int, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.pairs = pairs
        self.size = size
        self._roots = roots
        self._capacity = cache_bytes // (8 * size * size)
        self._cache: dict[int, torch.Tensor] = {}
        self._last: tuple[tuple[str, str | None], PairArrays] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> torch.Tensor:
        _, index = key
        cached = self._cache.get(index)
        if cached is None:
            pair = self.pairs[index]
            (window,) = network_windows(pair, self.size)  # training and validation pairs are one tile each
            cached = to_sample(network_view(cropped(self._pictures(pair), pair), window, self.size))
            if len(self._cache) < self._capacity:
                self._cache[index] = cached
        return cached

    def _pictures(self, pair: Pair) -> PairArrays:
        # the tiles of one picture follow each other
        if self._last is None or self._last[0] != (pair.before, pair.after):
            self._last = (pair.before, pair.after), load_pictures(pair, self._roots)
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
