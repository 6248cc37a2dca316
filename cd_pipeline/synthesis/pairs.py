"""From split photos to pairs: the rows of the manifest, and their pictures on disk."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import digest, keep_only, seed_of
from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.names import safe_name
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.plan import ChangePlan, label_mask, label_owners, plan_changes
from cd_pipeline.synthesis.realistic_plan import PhotoSource, RealisticPlan, plan_realistic
from cd_pipeline.synthesis.realistic_render import Rendering, render_realistic
from cd_pipeline.synthesis.render import render
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
    usable = [photo for photo in photos if photo.split]
    if isinstance(settings, RealisticSynthesis):
        draws = draws_a_photo(usable, settings)
        rows = [
            _realistic_row(photo, draw, settings, size)
            for photo in usable
            for draw in range(draws[photo.split])
        ]
    else:
        rows = [_published_row(photo, settings) for photo in usable]
    rows.sort(key=lambda pair: (pair.split, pair.pair_id))
    names = [pair.pair_id for pair in rows]
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"two photos give the pair name {twice}; rename one of them")
    pools = photo_pools(rows)
    return [_with_plan(pair, settings, pools) if pair.after is not None else pair for pair in rows]


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


def render_plan(pair: Pair, plan: ChangePlan | RealisticPlan, photos: PhotoStore) -> Sample:
    """Render a plan of a pair: a realistic one at the pair's `side`, a published one at the photo's size.

    Raises:
        PhotoError: a photo is no longer the one that plans are drawn for.
    """
    if isinstance(plan, RealisticPlan):
        return _rendering(pair, plan, photos).pair
    return render(photos.photo(pair.photo, pair.photo_sha256), plan)


def render_pairs(
    pairs: Sequence[Pair],
    roots: Roots,
    *,
    threads: int,
    progress: Callable[[], object] = lambda: None,
) -> str:
    """Render frozen pairs to `change_masks/<split>/{before,after,mask,valid}/<pair_id>.png`.

    `before` is written where it is not the photo itself, `valid` where part of the area does not count.

    Files of pairs that are no longer in the manifest are deleted.

    Args:
        pairs: rows of the manifest; those that are drawn anew each epoch are left out.
        roots: where photos are read and pictures written.
        threads: pairs rendered at a time; the bytes do not depend on it.
        progress: called once a pair.

    Returns:
        The content hash of all pictures.
    """
    frozen = [pair for pair in pairs if pair.after is not None]
    # published pairs need each photo once, at its own size: nothing to keep
    photos = PhotoStore(roots) if any(pair.side for pair in frozen) else PhotoStore(roots, cache_bytes=0)

    def write(pair: Pair) -> str:
        version = _write_pair(pair, render_pair(pair, photos), roots)
        progress()
        return version

    with ThreadPoolExecutor(max_workers=threads) as pool:
        versions = list(pool.map(write, frozen))
    _delete_leftovers(frozen, roots.workspace / FOLDER)
    return digest(*versions)


def render_pair(pair: Pair, photos: PhotoStore, *, nuisance: bool = True) -> Sample:
    """Render a frozen pair from its photo and the plan in its row.

    Args:
        pair: its row.
        photos: where photos are read.
        nuisance: False leaves it out; then the mask holds all that differs.

    Raises:
        ValueError: there is no plan, or a photo is no longer the one that it was drawn for.
    """
    plan = plan_of(pair)
    if isinstance(plan, RealisticPlan):
        return _rendering(pair, plan, photos, nuisance=nuisance).pair
    return render_plan(pair, plan, photos)


def change_owners(pair: Pair, photos: PhotoStore) -> tuple[npt.NDArray[np.int16], list[str]]:
    """Tell which change of a frozen pair each pixel belongs to.

    Returns:
        HW int16, the number of the change, -1: none, at the size the pair is rendered at; and the kinds of
        all changes in order.
    """
    plan = plan_of(pair)
    kinds = [change.kind for change in plan.changes]
    if isinstance(plan, RealisticPlan):
        return _rendering(pair, plan, photos, nuisance=False).owners, kinds
    return label_owners(plan, pair.width, pair.height), kinds


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


def _rendering(pair: Pair, plan: RealisticPlan, photos: PhotoStore, *, nuisance: bool = True) -> Rendering:
    if pair.side is None:
        raise ValueError(f"pair {pair.pair_id}: no side in the manifest; materialize pair_manifest again")
    return render_realistic(plan, pair.photo, pair.photo_sha256, photos, pair.side, nuisance=nuisance)


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
    return replace(pair, changed=changed, plan=plan.to_row())


def _write_pair(pair: Pair, arrays: Sample, roots: Roots) -> str:
    written = {pair.after: arrays.after, pair.mask: arrays.mask, pair.valid: arrays.valid}
    if pair.before != pair.photo:
        written[pair.before] = arrays.before
    for reference, image in written.items():
        if reference is not None and image is not None:
            write_png(roots.resolve(reference), image)
    return digest(pair.pair_id, *(image.tobytes() for image in arrays.arrays))


def _delete_leftovers(frozen: Sequence[Pair], folder: Path) -> None:
    kept: dict[str, set[str]] = {}
    for pair in frozen:
        for reference in (pair.before, pair.after, pair.mask, pair.valid):
            parent, _, name = str(reference).rpartition("/")
            kept.setdefault(parent.rpartition(":")[2], set()).add(name)
    for kind in folder.glob("*/*"):
        keep_only(kind, kept.get(f"{FOLDER}/{kind.parent.name}/{kind.name}", set()))
