"""From split photos to pairs: the rows of the manifest, with their plans."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np

from cd_pipeline.data.files import seed_of
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.names import safe_name
from cd_pipeline.data.photos import Photo
from cd_pipeline.synthesis.plan import ChangePlan, label_mask, plan_changes
from cd_pipeline.synthesis.realistic_plan import PhotoSource, RealisticPlan, plan_realistic
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis, SynthesisSettings

FOLDER = "change_masks"


def pair_id(photo: Photo, draw: int | None = None) -> str:
    """Name a photo's pair: class, stem and 8 hex digits of its content, safe in file names.

    At most 120 bytes of UTF-8; `a.jpg` beside `a.png` get different names. Where a photo has several pairs,
    the number of the draw follows.
    """
    stem = PurePosixPath(photo.path).stem
    return safe_name(f"{photo.class_name}__{stem}", photo.sha256, draw)


def plan_pairs(photos: Iterable[Photo], settings: SynthesisSettings, size: int = 256) -> list[Pair]:
    """Plan the pairs of all usable photos, ordered by split and name.

    Args:
        photos: with their splits; those without one are left out.
        settings: of the preset, which also decides how many pairs a photo gives.
        size: side in px that realistic pairs are rendered at; published ones keep the photo's size.

    Raises:
        ValueError: two photos would get the same pair name.
    """
    return list(each_planned(photos, settings, size))


def each_planned(photos: Iterable[Photo], settings: SynthesisSettings, size: int = 256) -> Iterator[Pair]:
    """Plan pairs one by one, as `plan_pairs` does: of all that are asked for, one plan is in memory."""
    rows = _rows_of(photos, settings, size)
    rows.sort(key=lambda pair: (pair.split, pair.pair_id))
    for name, other in pairwise(sorted(pair.pair_id for pair in rows)):
        if name == other:
            raise ValueError(f"two photos give the pair name {name}; rename one of them")
    pools = photo_pools(rows)
    for pair in rows:
        yield _with_plan(pair, settings, pools) if pair.after is not None else pair


def _rows_of(photos: Iterable[Photo], settings: SynthesisSettings, size: int) -> list[Pair]:
    # in any order; the photos go as their rows come
    if not isinstance(settings, RealisticSynthesis):
        return [_published_row(photo, settings) for photo in photos if photo.split]
    usable = [photo for photo in photos if photo.split]
    draws = draws_a_photo(usable, settings)
    rows: list[Pair] = []
    while usable:
        photo = usable.pop()
        rows += [_realistic_row(photo, draw, settings, size) for draw in range(draws[photo.split])]
    return rows


def draws_a_photo(photos: Sequence[Photo], settings: RealisticSynthesis) -> dict[str, int]:
    """Return how many pairs a photo of each split gives: enough for `epoch_pairs` or `frozen_pairs`."""
    counts = Counter(photo.split for photo in photos)
    return {
        split: -(-(settings.epoch_pairs if split == "train" else settings.frozen_pairs) // count)
        for split, count in counts.items()
    }


Pools: TypeAlias = Mapping[str, Sequence[PhotoSource]]
"""The photos of each split, in path order: objects and textures never come from another split."""


def photo_pools(pairs: Iterable[Pair]) -> Pools:
    """Gather the photos that pairs are made from."""
    pools: dict[str, dict[str, PhotoSource]] = defaultdict(dict)
    for pair in pairs:
        source = PhotoSource(pair.photo, pair.photo_sha256, pair.width, pair.height, pair.boxes)
        pools[pair.split][pair.photo] = source
    return {split: [members[name] for name in sorted(members)] for split, members in pools.items()}


def draw_plan(
    pair: Pair, settings: SynthesisSettings, pools: Pools, epoch: int | None = None
) -> ChangePlan | RealisticPlan:
    """Draw a pair's plan: the frozen one, or that of an epoch.

    Args:
        pair: its row.
        settings: of the preset.
        pools: from `photo_pools`; the published preset takes nothing from other photos.
        epoch: None: the frozen plan.
    """
    seed = pair.seed if epoch is None else seed_of(pair.seed, "epoch", epoch)
    rng = np.random.Generator(np.random.PCG64(seed))
    if isinstance(settings, RealisticSynthesis):
        photo = PhotoSource(pair.photo, pair.photo_sha256, pair.width, pair.height, pair.boxes)
        weights = settings.weights_of(pair.split)
        return plan_realistic(rng, photo, pools[pair.split], settings, weights)
    return plan_changes(rng, pair.boxes, (pair.width, pair.height), settings)


def plan_of(pair: Pair) -> ChangePlan | RealisticPlan:
    """Return the plan in a frozen pair's row.

    Raises:
        ValueError: there is none.
    """
    if pair.realistic_plan is not None:
        return RealisticPlan.from_row(pair.realistic_plan)
    if pair.plan is not None:
        return ChangePlan.from_row(pair.plan)
    raise ValueError(f"pair {pair.pair_id}: no plan in the manifest; materialize pair_manifest again")


def _published_row(photo: Photo, settings: PublishedSynthesis) -> Pair:
    row = _row(photo, pair_id(photo), seed_of(settings.seed, photo.sha256), settings.train_pairs)
    keeps_photo = row.after is None or not settings.reencode_jpeg
    return replace(row, before=row.photo, before_sha256=row.photo_sha256) if keeps_photo else row


def _realistic_row(photo: Photo, draw: int, settings: RealisticSynthesis, size: int) -> Pair:
    seed = seed_of(settings.seed, photo.sha256, draw)
    return replace(_row(photo, pair_id(photo, draw), seed, settings.train_pairs), side=size)


def _row(photo: Photo, name: str, seed: int, train_pairs: str) -> Pair:
    source, folder = f"source:{photo.path}", f"workspace:{FOLDER}/{photo.split}"
    frozen = photo.split != "train" or train_pairs == "frozen"
    return Pair(
        pair_id=name,
        split=photo.split,
        class_name=photo.class_name,
        before=f"{folder}/before/{name}.png" if frozen else source,
        after=f"{folder}/after/{name}.png" if frozen else None,
        mask=f"{folder}/mask/{name}.png" if frozen else None,
        photo=source,
        photo_sha256=photo.sha256,
        width=photo.width,
        height=photo.height,
        boxes=photo.boxes,
        seed=seed,
        changed=None,
        plan=None,
    )


def _with_plan(pair: Pair, settings: SynthesisSettings, pools: Pools) -> Pair:
    plan = draw_plan(pair, settings, pools)
    if isinstance(plan, RealisticPlan):
        valid = f"workspace:{FOLDER}/{pair.split}/valid/{pair.pair_id}.png" if plan.uncovers else None
        return replace(pair, changed=bool(plan.changes), realistic_plan=plan.to_row(), valid=valid)
    changed = bool(label_mask(plan, pair.width, pair.height).any())
    row = replace(pair, changed=changed, plan=plan.to_row())
    keeps_photo = not plan.changes and plan.jpeg_quality is None
    return replace(row, after=pair.photo, after_sha256=pair.photo_sha256) if keeps_photo else row
