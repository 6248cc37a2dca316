"""Applying a realistic plan; there is no randomness here."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.nuisance import Nuisance, apply_nuisance
from cd_pipeline.synthesis.photo_store import WORKING_SIDE, PhotoStore, patch_rect
from cd_pipeline.synthesis.realistic_kinds import FILLS, inpainted
from cd_pipeline.synthesis.realistic_plan import RealisticChange, RealisticPlan, View
from cd_pipeline.synthesis.regions import filled, soft_edge


class Rendering(NamedTuple):
    """A pair, and which change made each pixel differ: HW int16, the number of the change from 0, -1: none."""

    pair: Sample
    owners: npt.NDArray[np.int16]


def render_realistic(
    plan: RealisticPlan, photo: str, sha256: str, photos: PhotoStore, size: int, *, nuisance: bool = True
) -> Rendering:
    """Make the pair that a plan describes.

    Args:
        plan: all that was drawn.
        photo: reference of the pair's photo.
        sha256: hash of its file.
        photos: where photos are read.
        size: side S of the pictures, px.
        nuisance: False leaves it out: what differs then is labelled, all of it.

    Returns:
        before, after: SxSx3 uint8 RGB; mask: SxS uint8, 255 where changed; valid: SxS uint8, 0 where a shift
        or warp uncovered the border of a picture, None where the plan has neither.
    """
    scene = _view(photos.reduced(photo, sha256, WORKING_SIDE * size), plan.view, size)
    changed = scene.copy()
    owners = np.full((size, size), -1, np.int16)
    for number, change in enumerate(plan.changes):
        previous = changed.copy()
        region = _apply(change, changed, photos, flipped=plan.view.flipped)
        if _difference(scene, changed, region) < plan.min_visible:
            changed = previous
        else:
            owners[region] = number
    mask = np.where(owners >= 0, np.uint8(255), np.uint8(0))
    before, after = (changed, scene) if plan.swapped else (scene, changed)
    if not nuisance:
        return Rendering(Sample.of_pair(before, after, mask), owners)
    before, seen_before = _disturbed(before, plan.before_nuisance)
    after, seen_after = _disturbed(after, plan.after_nuisance)
    valid = seen_before & seen_after if plan.uncovers else None
    return Rendering(Sample.of_pair(before, after, mask, valid), owners)


def _view(photo: Image, view: View, size: int) -> Image:
    height, width = photo.shape[:2]
    rows = max(2, round(view.height * height))
    columns = max(2, round(view.width * width))
    top, left = min(int(view.top * height), height - rows), min(int(view.left * width), width - columns)
    part = photo[top : top + rows, left : left + columns]
    shrinks = min(rows, columns) > size
    scene = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(scene[:, ::-1] if view.flipped else scene, np.uint8)


def _apply(
    change: RealisticChange, image: Image, photos: PhotoStore, *, flipped: bool
) -> npt.NDArray[np.bool_]:
    # Changes the image in place and returns the changed region; nothing outside it is written.
    size = image.shape[0]
    rect = _rect(change.left, change.top, change, size)
    stencil = _stencil(change, rect, photos, flipped=flipped, size=size)
    weights = soft_edge(stencil, round(change.feather * size))
    rng = np.random.Generator(np.random.PCG64(change.seed))
    patch = image[rect.slices].copy()
    region = np.zeros((size, size), np.bool_)
    region[rect.slices] = stencil
    if change.kind in ("remove", "move"):
        method = cv2.INPAINT_TELEA if change.seed % 2 else cv2.INPAINT_NS
        content = inpainted(image, rect, stencil, method)
    else:
        content = FILLS[change.kind](patch, _source(change, rect, photos, size), rng)
    _blend(image, rect, content, weights)
    if change.kind == "move":
        target = _rect(change.to_left, change.to_top, change, size)
        _blend(image, target, patch, weights)
        region[target.slices] |= stencil
    return region


def _rect(left: float, top: float, change: RealisticChange, size: int) -> Rect:
    width, height = max(2, round(change.width * size)), max(2, round(change.height * size))
    return Rect(min(int(left * size), size - width), min(int(top * size), size - height), width, height)


def _stencil(
    change: RealisticChange, rect: Rect, photos: PhotoStore, *, flipped: bool, size: int
) -> npt.NDArray[np.bool_]:
    if change.outline is None:
        return filled(change.shape, rect.height, rect.width, change.seed)
    outline = photos.outline(change.outline, WORKING_SIDE * size)
    if flipped and change.kind != "insert":  # what lies in the picture is mirrored with it
        outline = np.ascontiguousarray(outline[:, ::-1])
    sized = cv2.resize(outline, (rect.width, rect.height), interpolation=cv2.INTER_LINEAR)
    found = sized > 127
    return found if found.any() else filled("ellipse", rect.height, rect.width, 0)


def _source(change: RealisticChange, rect: Rect, photos: PhotoStore, size: int) -> Image | None:
    if change.source is None:
        return None
    photo = photos.reduced(change.source.photo, change.source.sha256, WORKING_SIDE * size)
    part = photo[patch_rect(change.source, photo).slices]
    shrinks = part.shape[0] > rect.height or part.shape[1] > rect.width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(part, (rect.width, rect.height), interpolation=method).astype(np.uint8, copy=False)


def _blend(image: Image, rect: Rect, content: Image, weights: npt.NDArray[np.float32]) -> None:
    old = image[rect.slices].astype(np.float32)
    mixed = old + (content.astype(np.float32) - old) * weights[..., None]
    image[rect.slices] = np.rint(mixed).astype(np.uint8)


def _difference(scene: Image, changed: Image, region: npt.NDArray[np.bool_]) -> float:
    return float(cv2.absdiff(scene, changed)[region].mean()) if region.any() else 0.0


def _disturbed(photo: Image, nuisance: Nuisance | None) -> tuple[Image, Image]:
    if nuisance is None:
        return photo, np.full(photo.shape[:2], 255, np.uint8)
    return apply_nuisance(photo, nuisance)
