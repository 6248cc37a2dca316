"""Training pairs drawn anew each epoch."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from cd_pipeline.data.datasets import CACHE_BYTES, Key, to_sample
from cd_pipeline.data.images import Image
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import Roots, at_input_size
from cd_pipeline.synthesis.pairs import draw_plan, read_pair_photo
from cd_pipeline.synthesis.render import render
from cd_pipeline.synthesis.settings import SynthesisSettings


class FreshPairs(Dataset[torch.Tensor]):
    """One pair a photo, its plan drawn from the pair's seed and the epoch.

    Items and form are those of `PairDataset`. The same `(epoch, index)` gives the same item in any worker.
    Decoded photos are kept in memory up to `cache_bytes`.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        roots: Roots,
        size: int,
        settings: SynthesisSettings,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.pairs = pairs
        self.size = size
        self._roots = roots
        self._settings = settings
        self._free_bytes = cache_bytes
        self._photos: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> torch.Tensor:
        epoch, index = key
        pair = self.pairs[index]
        plan = draw_plan(pair, self._settings, epoch)
        return to_sample(at_input_size(render(self._photo(index), plan), self.size))

    def _photo(self, index: int) -> Image:
        photo = self._photos.get(index)
        if photo is None:
            photo = read_pair_photo(self.pairs[index], self._roots)
            if photo.nbytes <= self._free_bytes:
                self._photos[index] = photo
                self._free_bytes -= photo.nbytes
        return photo
