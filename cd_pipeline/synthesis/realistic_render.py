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
from cd_pipeline.synthesis.published_kinds import INPAINT_MARGIN
from cd_pipeline.synthesis.realistic_kinds import FILLS, inpainted
from cd_pipeline.synthesis.realistic_plan import RealisticChange, RealisticPlan, View
from cd_pipeline.synthesis.regions import filled, soft_edge

REACH = 12
"""Ends of a part of a scene that are tried, px."""


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
    scene = scene_of(photos.reduced(photo, sha256, WORKING_SIDE * size), plan.view, size)
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


def scene_of(photo: Image, view: View, size: int) -> Image:
    """Return what both pictures of a pair show before anything changes: HWC uint8, `size` px a side.

    Args:
        photo: HWC uint8 RGB, reduced.
        view: of it.
        size: px.
    """
    part = view_rect(view, *photo.shape[:2])
    method = cv2.INTER_AREA if shrinks(part, size) else cv2.INTER_LINEAR
    scene = cv2.resize(photo[part.slices], (size, size), interpolation=method)
    return np.ascontiguousarray(scene[:, ::-1] if view.flipped else scene, np.uint8)


def scene_around(photo: Image, view: View, size: int, rect: Rect) -> tuple[Image, Rect]:
    """Return the part of a scene that `inpainted` reads for a rectangle, without making the rest of it.

    The part is a little larger, so that it begins and ends nearly between two pixels of the photo: it is that of
    `scene_of`, shifted by a few hundredths of a pixel of the photo; by at most a half, where the photo is reduced to
    nearly 1, 1/2, 1/3 ... of its side.

    Args:
        photo: HWC uint8 RGB, reduced.
        view: of it.
        size: of the scene, px.
        rect: px of the scene.

    Returns:
        HWC uint8 RGB, and which pixels of the scene it is.
    """
    shown = view_rect(view, *photo.shape[:2])
    x = size - rect.x - rect.width if view.flipped else rect.x
    (left, right), columns = _between_pixels(x, x + rect.width, shown.width, size)
    (top, bottom), rows = _between_pixels(rect.y, rect.y + rect.height, shown.height, size)
    part = photo[shown.y + rows[0] : shown.y + rows[1], shown.x + columns[0] : shown.x + columns[1]]
    method = cv2.INTER_AREA if shrinks(shown, size) else cv2.INTER_LINEAR
    scene = cv2.resize(part, (right - left, bottom - top), interpolation=method)
    if view.flipped:
        scene, left = scene[:, ::-1], size - right
    return np.ascontiguousarray(scene, np.uint8), Rect(left, top, scene.shape[1], bottom - top)


def _between_pixels(start: int, end: int, length: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    # the ends of a wider part of a side of the scene, and of the photo; the nearest ones of those that fit best
    ends = []
    for near, way in ((start - INPAINT_MARGIN, -1), (end + INPAINT_MARGIN, 1)):
        tried = [min(max(near + way * step, 0), size) for step in range(REACH)]
        ends.append(min(tried, key=lambda place: abs(place * length / size - round(place * length / size))))
    return (ends[0], ends[1]), (round(ends[0] * length / size), round(ends[1] * length / size))


def view_rect(view: View, height: int, width: int) -> Rect:
    """Return the pixels of a photo of that size that a view shows, at least 2 px a side."""
    rows, columns = max(2, round(view.height * height)), max(2, round(view.width * width))
    top, left = min(int(view.top * height), height - rows), min(int(view.left * width), width - columns)
    return Rect(left, top, columns, rows)


def shrinks(part: Rect, size: int) -> bool:
    """Tell whether a view is averaged over areas; one with a side that is enlarged is interpolated."""
    return min(part.width, part.height) > size


def _apply(
    change: RealisticChange, image: Image, photos: PhotoStore, *, flipped: bool
) -> npt.NDArray[np.bool_]:
    # Changes the image in place and returns the changed region; nothing outside it is written.
    size = image.shape[0]
    rect = change_rect(change, size)
    stencil = stencil_of(change, rect, photos, flipped=flipped, size=size)
    weights = soft_edge(stencil, edge_width(change, size))
    rng = np.random.Generator(np.random.PCG64(change.seed))
    patch = image[rect.slices].copy()
    region = np.zeros((size, size), np.bool_)
    region[rect.slices] = stencil
    if change.kind in ("remove", "move"):
        content = inpainted(image, rect, stencil, inpaint_method(change))
    else:
        content = FILLS[change.kind](patch, source_of(change, rect, photos, size), rng)
    _blend(image, rect, content, weights)
    if change.kind == "move":
        target = target_rect(change, size)
        _blend(image, target, patch, weights)
        region[target.slices] |= stencil
    return region


def change_rect(change: RealisticChange, size: int) -> Rect:
    """Return the pixels of a change's rectangle in a picture of that size."""
    return _rect(change.left, change.top, change, size)


def target_rect(change: RealisticChange, size: int) -> Rect:
    """Return the pixels that `move` puts its rectangle on."""
    return _rect(change.to_left, change.to_top, change, size)


def edge_width(change: RealisticChange, size: int) -> int:
    """Return the depth of a change's soft edge in px."""
    return round(change.feather * size)


def inpaint_method(change: RealisticChange) -> int:
    """Return how the hole of `remove` and `move` is filled: of `cv2.inpaint`."""
    return cv2.INPAINT_TELEA if change.seed % 2 else cv2.INPAINT_NS


def _rect(left: float, top: float, change: RealisticChange, size: int) -> Rect:
    width, height = max(2, round(change.width * size)), max(2, round(change.height * size))
    return Rect(min(int(left * size), size - width), min(int(top * size), size - height), width, height)


def stencil_of(
    change: RealisticChange, rect: Rect, photos: PhotoStore, *, flipped: bool, size: int
) -> npt.NDArray[np.bool_]:
    """Return the region of a change in its rectangle: HW bool, somewhere True.

    Args:
        change: what was drawn.
        rect: from `change_rect`.
        photos: where outlines are found.
        flipped: whether the view is mirrored.
        size: of the pictures, px.
    """
    if change.outline is None:
        return filled(change.shape, rect.height, rect.width, change.seed)
    outline = photos.outline(change.outline, WORKING_SIDE * size)
    if flipped and change.kind != "insert":  # what lies in the picture is mirrored with it
        outline = np.ascontiguousarray(outline[:, ::-1])
    sized = cv2.resize(outline, (rect.width, rect.height), interpolation=cv2.INTER_LINEAR)
    found = sized > 127
    return found if found.any() else filled("ellipse", rect.height, rect.width, 0)


def source_of(change: RealisticChange, rect: Rect, photos: PhotoStore, size: int) -> Image | None:
    """Return the pixels of another photo that a change shows, HWC uint8 of its rectangle's size, if it shows any."""
    if change.source is None:
        return None
    photo = photos.reduced(change.source.photo, change.source.sha256, WORKING_SIDE * size)
    part = photo[patch_rect(change.source, photo).slices]
    smaller = part.shape[0] > rect.height or part.shape[1] > rect.width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
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
