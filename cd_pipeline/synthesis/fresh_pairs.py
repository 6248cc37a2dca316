"""Training pairs drawn anew each epoch."""

from collections.abc import Sequence

import torch

from cd_pipeline.data.datasets import ItemDataset, Key, to_item
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import CACHE_BYTES, Roots, at_input_size
from cd_pipeline.data.task import Task
from cd_pipeline.synthesis.pairs import draw_plan, photo_pools
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.rendered_pairs import render_plan
from cd_pipeline.synthesis.settings import SynthesisSettings


class FreshPairs(ItemDataset):
    """A pair a row of the manifest, its plan drawn from the row's seed and the epoch.

    Items and form are those of `SampleDataset`. The same `(epoch, index)` gives the same item in any worker.
    Decoded photos are kept in memory up to `cache_bytes`.
    """

    draws = True

    def __init__(
        self,
        pairs: Sequence[Pair],
        roots: Roots,
        size: int,
        settings: SynthesisSettings,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.examples = self._pairs = pairs
        self.task = Task()
        self.size = size
        self._settings = settings
        self._pools = photo_pools(pairs)
        self._photos = PhotoStore(roots, cache_bytes)

    def __getitem__(self, key: Key) -> torch.Tensor:
        epoch, index = key
        pair = self._pairs[index]
        plan = draw_plan(pair, self._settings, self._pools, epoch)
        return to_item(at_input_size(render_plan(pair, plan, self._photos), self.size))
