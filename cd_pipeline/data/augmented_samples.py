"""Training examples varied anew each epoch."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import get_worker_info

from cd_pipeline.data.augmentation import augment, plan_augmentation
from cd_pipeline.data.datasets import ItemDataset, Key, task_of
from cd_pipeline.data.example import Example, PictureFile
from cd_pipeline.data.files import seed_of
from cd_pipeline.data.samples import CACHE_BYTES, Roots, Sample, at_input_size, load_whole
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.data.tiles import Window


def processes_here() -> int:
    """Return how many processes of this machine load data for one training."""
    worker = get_worker_info()
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * (worker.num_workers if worker else 1)


class AugmentedSamples(ItemDataset):
    """Examples of a manifest that are on disk, varied by plans drawn from the row's seed and the epoch.

    Few examples are repeated within an epoch, each time varied anew. Items are those of `SampleDataset`. The
    same `(epoch, index)` gives the same item in any worker. Decoded pictures, which rows can share, are kept in memory up to `cache_bytes` over all loader processes.
    """

    draws = True

    def __init__(
        self,
        examples: Sequence[Example],
        roots: Roots,
        size: int,
        settings: AugmentationSettings,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.examples = examples
        self.task = task_of(examples)
        self.size = size
        self._roots = roots
        self._settings = settings
        self._repeats = max(1, round(settings.epoch_pairs / max(1, len(examples))))
        self._cache_bytes = cache_bytes
        self._used_bytes = 0
        self._kept: dict[Sequence[PictureFile], Sample] = {}

    def __len__(self) -> int:
        return len(self.examples) * self._repeats

    def __getitem__(self, key: Key) -> torch.Tensor:
        epoch, index = key
        repeat, row = divmod(index, len(self.examples))
        example = self.examples[row]
        whole = self._whole(example)
        rng = np.random.Generator(np.random.PCG64(seed_of(example.seed, "epoch", epoch, repeat)))
        plan = plan_augmentation(rng, whole.mask, self.size, self._settings, self._crop(example))
        return augment(whole, plan, self.size)

    def _crop(self, example: Example) -> Window | None:
        if not example.tiled:
            return Window(0, 0, self.size, self.size)
        if example.crop is None or self._settings.crop == "random":
            return None
        return Window(**example.crop)

    def _whole(self, example: Example) -> Sample:
        kept = self._kept.get(example.pictures)
        if kept is None:
            kept = load_whole(example, self._roots)
            kept = kept if example.tiled else at_input_size(kept, self.size)
            needed = sum(array.nbytes for array in kept.arrays)
            self._used_bytes += needed
            if self._used_bytes <= self._cache_bytes // processes_here():
                self._kept[example.pictures] = kept
            else:
                self._used_bytes -= needed
        return kept
