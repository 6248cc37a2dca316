"""Training pairs drawn anew each epoch."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from cd_pipeline.data.datasets import Key, to_sample
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import CACHE_BYTES, Roots, at_input_size
from cd_pipeline.synthesis.pairs import draw_plan, photo_pools, render_plan
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.settings import SynthesisSettings


class FreshPairs(Dataset[torch.Tensor]):
    """A pair a row of the manifest, its plan drawn from the row's seed and the epoch.

    Items and form are those of `PairDataset`. The same `(epoch, index)` gives the same item in any worker.
    Decoded photos are kept in memory up to `cache_bytes`.
    """

    draws = True
    """Items cost time in every epoch: a loader process of its own is worth it."""

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
        self._settings = settings
        self._pools = photo_pools(pairs)
        self._photos = PhotoStore(roots, cache_bytes)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> torch.Tensor:
        epoch, index = key
        pair = self.pairs[index]
        plan = draw_plan(pair, self._settings, self._pools, epoch)
        return to_sample(at_input_size(render_plan(pair, plan, self._photos), self.size))
