"""Training pairs varied anew each epoch."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from cd_pipeline.data.augmentation import augment, plan_augmentation
from cd_pipeline.data.datasets import Key
from cd_pipeline.data.files import seed_of
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import CACHE_BYTES, PairArrays, Roots, at_input_size, load_pictures
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.data.tiles import Window


def processes_here() -> int:
    """Return how many processes of this machine load data for one training."""
    worker = get_worker_info()
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * (worker.num_workers if worker else 1)


class AugmentedPairs(Dataset[torch.Tensor]):
    """Pairs of a manifest that are on disk, varied by plans drawn from the row's seed and the epoch.

    Few pairs are repeated within an epoch, each time varied anew. Items and form are those of `PairDataset`. The same `(epoch, index)` gives the same item in any worker.
    Decoded pictures, which rows can share, are kept in memory up to `cache_bytes` over all loader processes.
    """

    draws = True
    """Items cost time in every epoch: a loader process of its own is worth it."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        roots: Roots,
        size: int,
        settings: AugmentationSettings,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.pairs = pairs
        self.size = size
        self._roots = roots
        self._settings = settings
        self._repeats = max(1, round(settings.epoch_pairs / max(1, len(pairs))))
        self._cache_bytes = cache_bytes
        self._used_bytes = 0
        self._kept: dict[tuple[str, str | None], PairArrays] = {}

    def __len__(self) -> int:
        return len(self.pairs) * self._repeats

    def __getitem__(self, key: Key) -> torch.Tensor:
        epoch, index = key
        repeat, row = divmod(index, len(self.pairs))
        pair = self.pairs[row]
        pictures = self._pictures(pair)
        rng = np.random.Generator(np.random.PCG64(seed_of(pair.seed, "epoch", epoch, repeat)))
        plan = plan_augmentation(rng, pictures.mask, self.size, self._settings, self._crop(pair))
        return augment(pictures, plan, self.size)

    def _crop(self, pair: Pair) -> Window | None:
        if not pair.tiled:
            return Window(0, 0, self.size, self.size)
        if pair.crop is None or self._settings.crop == "random":
            return None
        return Window(**pair.crop)

    def _pictures(self, pair: Pair) -> PairArrays:
        name = (pair.before, pair.after)
        kept = self._kept.get(name)
        if kept is None:
            kept = load_pictures(pair, self._roots)
            kept = kept if pair.tiled else at_input_size(kept, self.size)
            needed = sum(part.nbytes for part in kept if part is not None)
            self._used_bytes += needed
            if self._used_bytes <= self._cache_bytes // processes_here():
                self._kept[name] = kept
            else:
                self._used_bytes -= needed
        return kept
