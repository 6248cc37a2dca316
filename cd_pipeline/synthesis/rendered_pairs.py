"""From the rows of the manifest to pictures: a pair rendered from its photo and plan."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import digest, keep_only
from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.synthesis.pairs import FOLDER, plan_of
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.plan import ChangePlan, label_owners
from cd_pipeline.synthesis.realistic_plan import RealisticPlan
from cd_pipeline.synthesis.realistic_render import Rendering, render_realistic
from cd_pipeline.synthesis.render import render


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


def _rendering(pair: Pair, plan: RealisticPlan, photos: PhotoStore, *, nuisance: bool = True) -> Rendering:
    if pair.side is None:
        raise ValueError(f"pair {pair.pair_id}: no side in the manifest; materialize pair_manifest again")
    return render_realistic(plan, pair.photo, pair.photo_sha256, photos, pair.side, nuisance=nuisance)


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
