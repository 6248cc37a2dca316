"""Pairs as a torch data set at the network's input size, and the order of an epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import CACHE_BYTES, PairArrays, Roots, at_input_size, load_pair

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

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> torch.Tensor:
        _, index = key
        cached = self._cache.get(index)
        if cached is None:
            cached = to_sample(at_input_size(load_pair(self.pairs[index], self._roots), self.size))
            if len(self._cache) < self._capacity:
                self._cache[index] = cached
        return cached


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
