"""Realistic test pairs and no-change pairs: the fixed mixtures of the measuring protocol, frozen by seed.

A plan holds all that is drawn; rendering a plan is not random. The plan of a pair depends on the seed, its
index and the number of photos alone, so pairs can be rendered in any order. Photos are taken in turn: give
them in a fixed order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.evaluation.nuisance import nuisance_seed, standard_nuisance
from cd_pipeline.synthesis.photo_store import WORKING_SIDE, PhotoStore
from cd_pipeline.synthesis.published_kinds import INPAINT_RADIUS, blurred, dark_noise, pixelated
from cd_pipeline.synthesis.realistic_kinds import recoloured
from cd_pipeline.synthesis.regions import filled

Photo: TypeAlias = NDArray[np.uint8]
"""HxWx3 uint8 RGB."""

Mask: TypeAlias = NDArray[np.uint8]
"""HxW uint8, 0 or 255."""

PhotoLoader: TypeAlias = Callable[[], Photo]
"""Returns one photo; called each time the photo is needed, so wrap it in a cache where memory allows."""

SEED = 42
"""Of the frozen sets."""

PAIR_COUNT = 300
"""Fewest pairs that the measuring protocol takes a figure from."""

NO_CHANGE_SHARE = 0.15
NUISANCE_SHARE = 0.7
SWAP_SHARE = 0.5
SIDE_SHARES = (0.06, 0.55)
KIND_WEIGHTS = {
    "black": 1,
    "noise": 1,
    "inpaint": 1,
    "blur": 1,
    "pixelate": 1,
    "move": 1,
    "paste": 2,
    "recolour": 1,
}
SHAPE_SHARES = {"rectangle": 0.4, "ellipse": 0.3, "polygon": 0.3}


@dataclass(frozen=True)
class Crop:
    """A square crop of a photo of any size.

    Attributes:
        photo: Index of the photo.
        side: Side of the square as a share of the photo's short side, in [0.6, 1].
        left: Place across, in [0, 1): 0 = at the left edge, 1 = at the right edge.
        top: Place down, in [0, 1): 0 = at the top edge, 1 = at the bottom edge.
    """

    photo: int
    side: float
    left: float
    top: float


@dataclass(frozen=True)
class RealisticChange:
    """One change of a realistic pair.

    Attributes:
        kind: A key of `KIND_WEIGHTS`.
        shape: A key of `SHAPE_SHARES`.
        width: Width of the region as a share of the image, in [0.06, 0.55].
        height: Height of the region as a share of the image, in [0.06, 0.55].
        left: Place across, in [0, 1): 0 = at the left edge, 1 = at the right edge.
        top: Place down, in [0, 1): 0 = at the top edge, 1 = at the bottom edge.
        target_left: Like `left`: where "move" puts the region.
        target_top: Like `top`: where "move" puts the region.
        source: The crop that "paste" takes its pixels from, at the region's own place.
        seed: Seed of the polygon's corners, the noise values and the new colour.
    """

    kind: str
    shape: str
    width: float
    height: float
    left: float
    top: float
    target_left: float
    target_top: float
    source: Crop
    seed: int


@dataclass(frozen=True)
class RealisticPlan:
    """All that is drawn for one pair; the same plan gives the same pixels.

    Attributes:
        pair_id: Identity of the pair.
        crop: What both photos show.
        changes: Applied in order to one of the photos; empty = no change.
        swapped: Whether the changed photo is the before photo.
        before_nuisance: Seed of the standard nuisance on the before photo; None = left as it is.
        after_nuisance: Seed of the standard nuisance on the after photo; None = left as it is.
    """

    pair_id: str
    crop: Crop
    changes: tuple[RealisticChange, ...]
    swapped: bool
    before_nuisance: int | None
    after_nuisance: int | None


@dataclass(frozen=True)
class EvaluationPair:
    """A pair to score.

    Attributes:
        pair_id: Identity, unique in the set.
        before: SxSx3 uint8 RGB.
        after: SxSx3 uint8 RGB.
        mask: SxS uint8, 0 or 255. Before nuisance, every pixel that differs is 255.
        kinds: Kind of each change, in the order applied; empty = no change.
    """

    pair_id: str
    before: Photo
    after: Photo
    mask: Mask
    kinds: tuple[str, ...]

    @property
    def arrays(self) -> Sample:
        """The pair alone; every pixel counts."""
        return Sample.of_pair(self.before, self.after, self.mask)


def photo_loaders(pairs: Iterable[Pair], roots: Roots, size: int) -> list[PhotoLoader]:
    """Loaders of the photos that pairs are made from, in the order of their references.

    Args:
        pairs: Rows of a manifest, of one split; several may share a photo.
        roots: Where the photos are.
        size: Side of the images to draw; larger photos are reduced to twice that and kept in memory.
    """
    store = PhotoStore(roots)
    photos = sorted({(pair.photo, pair.photo_sha256) for pair in pairs})
    return [partial(store.reduced, *photo, WORKING_SIDE * size) for photo in photos]


def _pair_rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))


def _require_photos(photo_count: int, fewest: int) -> None:
    if photo_count < fewest:
        raise ValueError(f"these pairs need at least {fewest} photos, got {photo_count}")


def _draw_crop(rng: np.random.Generator, photo: int) -> Crop:
    left, top = rng.random(2)
    return Crop(photo, float(rng.uniform(0.6, 1.0)), float(left), float(top))


def _draw_change(rng: np.random.Generator, photo: int, photo_count: int) -> RealisticChange:
    kinds, weights = list(KIND_WEIGHTS), np.array(list(KIND_WEIGHTS.values()))
    width, height = np.exp(rng.uniform(np.log(SIDE_SHARES[0]), np.log(SIDE_SHARES[1]), size=2))
    left, top, target_left, target_top = rng.random(4)
    other = (photo + 1 + int(rng.integers(photo_count - 1))) % photo_count
    return RealisticChange(
        kind=str(rng.choice(kinds, p=weights / weights.sum())),
        shape=str(rng.choice(list(SHAPE_SHARES), p=list(SHAPE_SHARES.values()))),
        width=float(width),
        height=float(height),
        left=float(left),
        top=float(top),
        target_left=float(target_left),
        target_top=float(target_top),
        source=_draw_crop(rng, other),
        seed=int(rng.integers(2**63)),
    )


def plan_realistic_pair(index: int, seed: int, photo_count: int) -> RealisticPlan:
    """Draw one realistic pair.

    Args:
        index: Number of the pair, from 0.
        seed: Seed of the set.
        photo_count: Photos to choose from, at least 2: "paste" takes another one.

    Raises:
        ValueError: There are fewer than 2 photos.
    """
    _require_photos(photo_count, 2)
    pair_id = f"realistic_{seed}_{index:05d}"
    rng = _pair_rng(pair_id)
    photo = index % photo_count
    crop = _draw_crop(rng, photo)
    unchanged = rng.random() < NO_CHANGE_SHARE
    changes = 0 if unchanged else int(rng.integers(1, 4, endpoint=True))
    disturbed = rng.random(2) < NUISANCE_SHARE
    return RealisticPlan(
        pair_id=pair_id,
        crop=crop,
        changes=tuple(_draw_change(rng, photo, photo_count) for _ in range(changes)),
        swapped=bool(rng.random() < SWAP_SHARE),
        before_nuisance=nuisance_seed(pair_id, "before") if disturbed[0] else None,
        after_nuisance=nuisance_seed(pair_id, "after") if disturbed[1] else None,
    )


def plan_no_change_pair(index: int, seed: int, photo_count: int) -> RealisticPlan:
    """Draw one no-change pair: a crop twice, with the standard nuisance on both photos independently.

    Args:
        index: Number of the pair, from 0.
        seed: Seed of the set.
        photo_count: Photos to choose from, at least 1.

    Raises:
        ValueError: There is no photo.
    """
    _require_photos(photo_count, 1)
    pair_id = f"nochange_{seed}_{index:05d}"
    crop = _draw_crop(_pair_rng(pair_id), index % photo_count)
    return RealisticPlan(
        pair_id, crop, (), False, nuisance_seed(pair_id, "before"), nuisance_seed(pair_id, "after")
    )


def _cropped(photo: Photo, crop: Crop, size: int) -> Photo:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"photo must be uint8 of shape (H, W, 3), got {photo.dtype} of shape {photo.shape}")
    height, width = photo.shape[:2]
    side = max(1, round(crop.side * min(height, width)))
    top, left = int(crop.top * (height - side + 1)), int(crop.left * (width - side + 1))
    square = photo[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=interpolation), dtype=np.uint8)


def _placed(
    stencil: NDArray[np.bool_], left: float, top: float, size: int
) -> tuple[NDArray[np.bool_], slice, slice]:
    """Region on the whole image, size x size, and the rows and columns of its box."""
    height, width = stencil.shape
    first_row, first_column = int(top * (size - height + 1)), int(left * (size - width + 1))
    rows, columns = slice(first_row, first_row + height), slice(first_column, first_column + width)
    region = np.zeros((size, size), dtype=np.bool_)
    region[rows, columns] = stencil
    return region, rows, columns


def _inpainted(image: Photo, region: NDArray[np.bool_]) -> NDArray[Any]:
    return cv2.inpaint(image, region.astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA)


def _new_patch(change: RealisticChange, patch: Photo) -> NDArray[Any]:
    """What the box of a change shows afterwards, for the kinds that look at the box alone."""
    rng = np.random.default_rng(change.seed)
    if change.kind == "black":
        return np.zeros_like(patch)
    if change.kind == "noise":
        return dark_noise(patch.shape[0], patch.shape[1], rng)
    if change.kind == "blur":
        return blurred(patch)
    if change.kind == "pixelate":
        return pixelated(patch)
    if change.kind == "recolour":
        return recoloured(patch, rng)
    raise ValueError(f"unknown change kind {change.kind!r}; known: {', '.join(KIND_WEIGHTS)}")


def _apply(change: RealisticChange, image: Photo, photos: Sequence[PhotoLoader]) -> NDArray[np.bool_]:
    """Change the image in place; returns the changed region, S x S. No pixel outside it is written."""
    size = image.shape[0]
    height, width = round(change.height * size), round(change.width * size)
    stencil = filled(change.shape, max(2, height), max(2, width), change.seed)
    region, rows, columns = _placed(stencil, change.left, change.top, size)
    patch = image[rows, columns].copy()
    if change.kind == "paste":
        other = _cropped(photos[change.source.photo](), change.source, size)
        image[region] = other[region]
    elif change.kind in ("inpaint", "move"):
        image[region] = _inpainted(image, region)[region]
    else:
        image[region] = _new_patch(change, patch)[stencil]
    if change.kind == "move":
        target, _, _ = _placed(stencil, change.target_left, change.target_top, size)
        image[target] = patch[stencil]
        region |= target
    return region


def render_realistic_pair(
    plan: RealisticPlan, photos: Sequence[PhotoLoader], size: int = 256
) -> EvaluationPair:
    """Make the pixels of a plan.

    The mask is the union of the changed regions; of a moved region, its old and its new place.

    Args:
        plan: All that was drawn.
        photos: Loaders of the photos, as many as the plan was drawn for.
        size: Side S of the images.

    Raises:
        ValueError: A photo is not HxWx3 uint8.
    """
    original = _cropped(photos[plan.crop.photo](), plan.crop, size)
    changed, mask = original.copy(), np.zeros((size, size), dtype=np.uint8)
    for change in plan.changes:
        mask[_apply(change, changed, photos)] = 255
    before, after = (changed, original) if plan.swapped else (original, changed)
    if plan.before_nuisance is not None:
        before = standard_nuisance(before, plan.before_nuisance)
    if plan.after_nuisance is not None:
        after = standard_nuisance(after, plan.after_nuisance)
    return EvaluationPair(plan.pair_id, before, after, mask, tuple(change.kind for change in plan.changes))


def draw_realistic_pairs(
    photos: Sequence[PhotoLoader], count: int = PAIR_COUNT, *, seed: int, size: int = 256
) -> Iterator[EvaluationPair]:
    """Realistic pairs, one at a time.

    Args:
        photos: Loaders of at least 2 photos, in a fixed order.
        count: How many; a figure of the measuring protocol needs 300 or more.
        seed: Seed of the set: same photos, seed and size, same pairs; a larger count only adds to them.
        size: Side of the images.

    Raises:
        ValueError: There are fewer than 2 photos, or one is not HxWx3 uint8.
    """
    _require_photos(len(photos), 2)
    return (
        render_realistic_pair(plan_realistic_pair(index, seed, len(photos)), photos, size)
        for index in range(count)
    )


def no_change_pairs(
    photos: Sequence[PhotoLoader], count: int = PAIR_COUNT, *, seed: int, size: int = 256
) -> Iterator[EvaluationPair]:
    """No-change pairs with the standard nuisance on both photos, one at a time.

    Args:
        photos: Loaders of at least 1 photo, in a fixed order.
        count: How many; a figure of the measuring protocol needs 300 or more.
        seed: Seed of the set: same photos, seed and size, same pairs; a larger count only adds to them.
        size: Side of the images.

    Raises:
        ValueError: There is no photo, or one is not HxWx3 uint8.
    """
    _require_photos(len(photos), 1)
    return (
        render_realistic_pair(plan_no_change_pair(index, seed, len(photos)), photos, size)
        for index in range(count)
    )
