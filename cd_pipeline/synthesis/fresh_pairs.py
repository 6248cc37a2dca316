"""Training pairs drawn anew each epoch."""

from collections.abc import Sequence
from functools import cached_property

import torch

from cd_pipeline.data.datasets import ItemDataset, Key, to_item
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import CACHE_BYTES, Roots, at_input_size
from cd_pipeline.data.task import Task
from cd_pipeline.synthesis.device_nuisance import UndisturbedPair, undisturbed
from cd_pipeline.synthesis.device_render import PHOTO_BYTES, DevicePhotos
from cd_pipeline.synthesis.nuisance import NOISE_SIDE
from cd_pipeline.synthesis.packed_plans import PackedPlan, Shown, pack_plan
from cd_pipeline.synthesis.pairs import draw_plan, photo_pools
from cd_pipeline.synthesis.photo_store import WORKING_SIDE, PhotoStore
from cd_pipeline.synthesis.plan import ChangePlan
from cd_pipeline.synthesis.realistic_plan import RealisticPlan
from cd_pipeline.synthesis.realistic_render import render_realistic
from cd_pipeline.synthesis.rendered_pairs import render_plan
from cd_pipeline.synthesis.settings import RealisticSynthesis, SynthesisSettings


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
        pair, plan = self._drawn(key)
        return to_item(at_input_size(render_plan(pair, plan, self._photos), self.size))

    def _drawn(self, key: Key) -> tuple[Pair, ChangePlan | RealisticPlan]:
        epoch, index = key
        pair = self._pairs[index]
        return pair, draw_plan(pair, self._settings, self._pools, epoch)


class UndisturbedPairs(FreshPairs):
    """The pairs of `FreshPairs` before their nuisance, and what it is; `BatchLoader` applies it on the device.

    Items are `UndisturbedPair`, of realistic pairs at the size they are rendered at.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        roots: Roots,
        size: int,
        settings: RealisticSynthesis,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Gather the photos.

        Raises:
            ValueError: pairs are not rendered at the input's size, or larger than the noise.
        """
        super().__init__(pairs, roots, size, settings, cache_bytes)
        if size > NOISE_SIDE:
            raise ValueError(
                f"training.nuisance_on is device, which is for inputs of at most {NOISE_SIDE} px, and input.size "
                f"is {size}; set nuisance_on to cpu"
            )
        for pair in pairs:
            if pair.side != size:
                raise ValueError(
                    f"pair {pair.pair_id}: rendered at {pair.side} px, and input.size is {size}; "
                    "materialize pair_manifest again"
                )

    def __getitem__(self, key: Key) -> UndisturbedPair:  # type: ignore[override]
        """Return a pair whose nuisance is still to be applied."""
        pair, plan = self._drawn(key)
        assert isinstance(plan, RealisticPlan)  # what realistic settings draw
        clean = render_realistic(
            plan, pair.photo, pair.photo_sha256, self._photos, self.size, nuisance=False
        ).pair
        return undisturbed(clean, plan.before_nuisance, plan.after_nuisance)


class UnrenderedPairs(UndisturbedPairs):
    """The plans of `FreshPairs`, packed; `BatchLoader` renders a batch of them on the device.

    Items are `PackedPlan`, of realistic pairs at the size they are rendered at.
    """

    @cached_property
    def _shown(self) -> dict[str, Shown]:
        photos = {pair.photo: pair.photo_sha256 for pair in self._pairs}
        return {photo: Shown(number, photo, photos[photo]) for number, photo in enumerate(sorted(photos))}

    def __getitem__(self, key: Key) -> PackedPlan:  # type: ignore[override]
        """Return a plan that is still to be rendered."""
        pair, plan = self._drawn(key)
        assert isinstance(plan, RealisticPlan)  # what realistic settings draw
        return pack_plan(plan, self.shown(pair), self._photos, self.size)

    def shown(self, pair: Pair) -> Shown:
        """Return the photo of a pair, with its number."""
        return self._shown[pair.photo]

    def photos_on(self, device: str, capacity: int = PHOTO_BYTES) -> DevicePhotos:
        """Return the photos of all pairs on a device, none of them there yet, up to `capacity` bytes at a time."""
        return DevicePhotos(
            list(self._shown.values()), self._photos, WORKING_SIDE * self.size, device, capacity
        )
