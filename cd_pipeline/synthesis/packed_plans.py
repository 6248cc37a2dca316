"""Plans of pairs as tables of numbers, for a device that renders a whole batch.

The loader does here what needs OpenCV or the plan's random numbers: stencils, noise, colours, parts of other photos
and inpainted holes. `device_render` does the rest. A hole is filled from the scene as it was before any change, of
which the loader makes no more than the surroundings.
"""

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cd_pipeline.data.images import Image
from cd_pipeline.synthesis.device_nuisance import Effects, Tones, effects_of, tones_of
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.photo_store import WORKING_SIDE, PhotoStore
from cd_pipeline.synthesis.published_kinds import blur_kernel, coarse_cells, coarse_size, dark_noise
from cd_pipeline.synthesis.realistic_kinds import Hue, draw_colour, draw_share, inpainted
from cd_pipeline.synthesis.realistic_plan import RealisticChange, RealisticPlan
from cd_pipeline.synthesis.realistic_render import (
    change_rect,
    edge_width,
    inpaint_method,
    scene_around,
    source_of,
    stencil_of,
    target_rect,
    view_rect,
)
from cd_pipeline.synthesis.regions import edge_counts


class Content(IntEnum):
    """What a region shows, in the order in which a chunk holds the pixels of a step.

    The loader makes something for those from PIXEL on.
    """

    BLACK = 0
    KEPT = 1
    PAINT = 2
    HUE = 3
    BLUR = 4
    PIXEL = 5
    TEXTURE = 6
    SHOWN = 7
    MOVED = 8


class Column(IntEnum):
    """Columns of the table of changes.

    start: of the change's pixels among those of its step.
    content: see `Content`.
    left, top, width, height: its rectangle, px; to_left, to_top: where it is moved to.
    full: the count of an edge that weighs 1.
    limit: the change is undone where its differences sum to less.
    first, second: of hue turn and gain, of blur the reach, of pixel the rows and columns it shrinks to.
    """

    START = 0
    CONTENT = 1
    LEFT = 2
    TOP = 3
    WIDTH = 4
    HEIGHT = 5
    TO_LEFT = 6
    TO_TOP = 7
    FULL = 8
    LIMIT = 9
    FIRST = 10
    SECOND = 11


class PackedChange(NamedTuple):
    """One change.

    row: of the table, `start` still 0.
    numbers: 6: of paint the factors and what is added, of texture the share of the other photo.
    edge: n int16, counts of `edge_counts` in its rectangle, row by row.
    pixels: nx3 uint8, what the loader made for the rectangle, of pixel the cells: row, column, 0; None: the device
        makes it.
    """

    row: tuple[int, ...]
    numbers: tuple[float, ...]
    edge: NDArray[np.int16]
    pixels: NDArray[np.uint8] | None


class PackedPlan(NamedTuple):
    """One pair.

    photo: its number among the photos of the data set.
    size: height and width of the reduced photo, px.
    view: what of it is shown, px; `flipped`: mirrored.
    swapped: the changed picture is the before one.
    changes: in the order they are made.
    tones, effects: the nuisance of before and after.
    """

    photo: int
    size: tuple[int, int]
    view: Rect
    flipped: bool
    swapped: bool
    changes: list[PackedChange]
    tones: tuple[Tones, Tones]
    effects: tuple[Effects, Effects]


class Shown(NamedTuple):
    """The photo of a pair: its number among those of the data set, its reference, the hash of its file."""

    number: int
    reference: str
    sha256: str


def pack_plan(plan: RealisticPlan, shown: Shown, photos: PhotoStore, size: int) -> PackedPlan:
    """Pack a plan.

    Args:
        plan: all that was drawn.
        shown: the photo.
        photos: where photos are read and outlines are found.
        size: of the pictures, px.

    Raises:
        PhotoError: a photo is no longer the one with its hash.
    """
    photo = photos.reduced(shown.reference, shown.sha256, WORKING_SIDE * size)

    def pack(change: RealisticChange) -> PackedChange:
        rect = change_rect(change, size)
        stencil = stencil_of(change, rect, photos, flipped=plan.view.flipped, size=size)
        target = target_rect(change, size) if change.kind == "move" else rect
        edge, full = edge_counts(stencil, edge_width(change, size))
        if change.kind in ("remove", "move"):
            content = Content.MOVED if change.kind == "move" else Content.SHOWN
            scene, around = scene_around(photo, plan.view, size, rect)
            hole = Rect(rect.x - around.x, rect.y - around.y, rect.width, rect.height)
            made = _Made(content, inpainted(scene, hole, stencil, inpaint_method(change)))
        else:
            made = _made(change, rect, photos, size)
        values = 3 * _covered(stencil, rect, target)
        limit = math.ceil(min(plan.min_visible, 256) * values)  # no value differs by more than 255
        row = (0, made.content, *rect[:2], *rect[2:], *target[:2], full, limit, *made.whole)
        pixels = None if made.pixels is None else made.pixels.reshape(-1, 3)
        return PackedChange(row, made.numbers, edge.reshape(-1), pixels)

    draws = (plan.before_nuisance, plan.after_nuisance)
    before, after = (effects_of(drawn, size, size) for drawn in draws)
    first, second = map(tones_of, draws)
    return PackedPlan(
        shown.number,
        (photo.shape[0], photo.shape[1]),
        view_rect(plan.view, *photo.shape[:2]),
        plan.view.flipped,
        plan.swapped,
        [pack(change) for change in plan.changes],
        (first, second),
        (before, after),
    )


class _Made(NamedTuple):
    content: Content
    pixels: Image | None = None
    numbers: tuple[float, ...] = (0.0,) * 6
    whole: tuple[int, int] = (0, 0)


def _made(change: RealisticChange, rect: Rect, photos: PhotoStore, size: int) -> _Made:
    # draws what the CPU renderer draws, in its order
    rng = np.random.Generator(np.random.PCG64(change.seed))
    if change.kind == "black":
        return _Made(Content.BLACK)
    if change.kind == "rect":
        return _Made(Content.SHOWN, dark_noise(rect.height, rect.width, rng))
    if change.kind == "blur":
        return _Made(Content.BLUR, whole=(blur_kernel(rect.height, rect.width) // 2, 0))
    if change.kind == "pixel":
        cells = np.pad(coarse_cells(rect.height, rect.width), ((0, 0), (0, 0), (0, 1)))
        return _Made(Content.PIXEL, cells, whole=coarse_size(rect.height, rect.width))
    if change.kind == "recolour":
        colour = draw_colour(rng)
        if isinstance(colour, Hue):
            return _Made(Content.HUE, whole=(colour.turn, colour.gain))
        return _Made(Content.PAINT, numbers=(*colour.factors.tolist(), *colour.floor.tolist()))
    other = source_of(change, rect, photos, size)
    if other is None:
        return _Made(Content.KEPT)
    if change.kind == "retexture":
        return _Made(Content.TEXTURE, other, (draw_share(rng), *(0.0,) * 5))
    return _Made(Content.SHOWN, other)


def _covered(stencil: NDArray[np.bool_], rect: Rect, target: Rect) -> int:
    # pixels of the stencil at either place
    count = int(np.count_nonzero(stencil))
    if rect == target:
        return count
    x, y = target.x - rect.x, target.y - rect.y
    there = stencil[max(0, y) : rect.height + min(0, y), max(0, x) : rect.width + min(0, x)]
    moved = stencil[max(0, -y) : rect.height - max(0, y), max(0, -x) : rect.width - max(0, x)]
    apart = abs(x) >= rect.width or abs(y) >= rect.height
    return 2 * count - (0 if apart else int(np.count_nonzero(there & moved)))
