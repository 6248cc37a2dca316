"""From split photos to pairs: the rows of the manifest, and their pictures on disk."""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from cd_pipeline.data.files import digest, keep_only, seed_of
from cd_pipeline.data.images import Image, read_photo, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import PairArrays, Roots
from cd_pipeline.data.photos import Photo
from cd_pipeline.synthesis.plan import ChangePlan, label_mask, plan_changes
from cd_pipeline.synthesis.render import render
from cd_pipeline.synthesis.settings import SynthesisSettings

ID_BYTES = 120
FOLDER = "change_masks"


def pair_id(photo: Photo) -> str:
    """Name a photo's pair: class, stem and 8 hex digits of its content, safe in file names.

    At most 120 bytes of UTF-8; `a.jpg` beside `a.png` get different names.
    """
    tail = f"__{photo.sha256[:8]}"
    stem = PurePosixPath(photo.path).stem
    safe = re.sub(r"[^\w.-]", "_", f"{photo.class_name}__{stem}").lstrip(".")
    head = safe.encode()[: ID_BYTES - len(tail)].decode(errors="ignore")
    return head + tail


def plan_pairs(photos: Iterable[Photo], settings: SynthesisSettings) -> list[Pair]:
    """Plan one pair a usable photo, ordered by split and name.

    Raises:
        ValueError: two photos would get the same pair name.
    """
    pairs = [_plan_pair(photo, settings) for photo in photos if photo.split]
    pairs.sort(key=lambda pair: (pair.split, pair.pair_id))
    names = [pair.pair_id for pair in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two photos give the pair name {twice}; rename one of them")
    return pairs


def draw_plan(pair: Pair, settings: SynthesisSettings, epoch: int | None = None) -> ChangePlan:
    """Draw a pair's plan: the frozen one, or that of an epoch."""
    seed = pair.seed if epoch is None else seed_of(pair.seed, "epoch", epoch)
    rng = np.random.Generator(np.random.PCG64(seed))
    return plan_changes(rng, pair.boxes, (pair.width, pair.height), settings)


def render_pairs(
    pairs: Sequence[Pair],
    roots: Roots,
    *,
    threads: int,
    progress: Callable[[], object] = lambda: None,
) -> str:
    """Render frozen pairs to `change_masks/<split>/{before,after,mask}/<pair_id>.png`.

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

    def write(pair: Pair) -> str:
        version = _write_pair(pair, render_pair(pair, roots), roots)
        progress()
        return version

    with ThreadPoolExecutor(max_workers=threads) as pool:
        versions = list(pool.map(write, frozen))
    _delete_leftovers(frozen, roots.workspace / FOLDER)
    return digest(*versions)


def render_pair(pair: Pair, roots: Roots) -> PairArrays:
    """Render a frozen pair from its photo and the plan in its row, at the photo's own size.

    Raises:
        ValueError: the photo is no longer the one that the plan was drawn for.
    """
    if pair.plan is None:
        raise ValueError(f"pair {pair.pair_id}: no plan in the manifest; materialize pair_manifest again")
    return render(read_pair_photo(pair, roots), ChangePlan.from_row(pair.plan))


def read_pair_photo(pair: Pair, roots: Roots) -> Image:
    """Read the photo that a pair is made from: HWC uint8 RGB.

    Raises:
        PhotoError: it is no longer the photo that plans are drawn for.
    """
    return read_photo(roots.resolve(pair.photo), pair.photo_sha256)


def _plan_pair(photo: Photo, settings: SynthesisSettings) -> Pair:
    name = pair_id(photo)
    source = f"source:{photo.path}"
    folder = f"workspace:{FOLDER}/{photo.split}"
    frozen = photo.split != "train" or settings.train_pairs == "frozen"
    pair = Pair(
        pair_id=name,
        split=photo.split,
        class_name=photo.class_name,
        before=f"{folder}/before/{name}.png" if frozen and settings.reencode_jpeg else source,
        after=f"{folder}/after/{name}.png" if frozen else None,
        mask=f"{folder}/mask/{name}.png" if frozen else None,
        photo=source,
        photo_sha256=photo.sha256,
        width=photo.width,
        height=photo.height,
        boxes=photo.boxes,
        seed=seed_of(settings.seed, photo.sha256),
        changed=None,
        plan=None,
    )
    if not frozen:
        return pair
    plan = draw_plan(pair, settings)
    changed = bool(label_mask(plan, pair.width, pair.height).any())
    return replace(pair, changed=changed, plan=plan.to_row())


def _write_pair(pair: Pair, arrays: PairArrays, roots: Roots) -> str:
    written = {pair.after: arrays.after, pair.mask: arrays.mask}
    if pair.before != pair.photo:
        written[pair.before] = arrays.before
    for reference, image in written.items():
        if reference is not None:
            write_png(roots.resolve(reference), image)
    return digest(pair.pair_id, *(image.tobytes() for image in arrays))


def _delete_leftovers(frozen: Sequence[Pair], folder: Path) -> None:
    kept: dict[str, set[str]] = {}
    for pair in frozen:
        for reference in (pair.before, pair.after, pair.mask):
            parent, _, name = str(reference).rpartition("/")
            kept.setdefault(parent.rpartition(":")[2], set()).add(name)
    for kind in folder.glob("*/*"):
        keep_only(kind, kept.get(f"{FOLDER}/{kind.parent.name}/{kind.name}", set()))
