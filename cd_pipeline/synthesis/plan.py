"""The plan of a pair: everything random is drawn here, and nothing after it.

A plan is plain numbers. The pair manifest stores it, and `render` turns photo and plan into the same
bytes on any machine, in any order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.data.labels import Box
from cd_pipeline.synthesis.geometry import Rect, box_to_rect, jittered
from cd_pipeline.synthesis.settings import JPEG_QUALITY, PublishedSynthesis

INCLUSIVE_KINDS = frozenset({"black", "inpaint"})
"""Kinds that change the rectangle with its right and bottom edge, as published."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one region, in px of the photo.

    `to_x`, `to_y`: where `move` pastes. `noise_seed`: the noise of `rect`. `erased`: polygons (flat
    x0, y0, x1, y1, ...) that after this change are taken out of the mask again.
    """

    kind: str
    x: int
    y: int
    width: int
    height: int
    to_x: int | None = None
    to_y: int | None = None
    noise_seed: int | None = None
    erased: tuple[tuple[int, ...], ...] = ()

    @property
    def rect(self) -> Rect:
        """The region."""
        return Rect(self.x, self.y, self.width, self.height)


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """The changes of a pair in order; none: a no-change pair.

    `truthful`: erased regions are restored in the picture and masks are exact. `jpeg_quality`: both
    photos pass through JPEG at that quality; None: they do not.
    """

    changes: tuple[Change, ...] = ()
    truthful: bool = True
    jpeg_quality: int | None = None

    def to_row(self) -> dict[str, Any]:
        """Return the plan as nested plain values for the manifest."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ChangePlan":
        """Read a plan back from the manifest."""
        changes = tuple(
            Change(**{**change, "erased": tuple(tuple(polygon) for polygon in change["erased"])})
            for change in row["changes"]
        )
        return cls(changes, row["truthful"], row["jpeg_quality"])


def plan_changes(
    rng: np.random.Generator, boxes: Sequence[Box], size: tuple[int, int], settings: PublishedSynthesis
) -> ChangePlan:
    """Draw the changes of one pair by the published rules.

    Args:
        rng: source of all randomness.
        boxes: the photo's labelled objects.
        size: (width, height) of the photo in px.
        settings: probabilities, weights and faults to keep.
    """
    jpeg_quality = JPEG_QUALITY if settings.reencode_jpeg else None
    changes: list[Change] = []
    if boxes and rng.random() < settings.change_probability:
        label = np.zeros((size[1], size[0]), np.uint8)
        count = int(rng.integers(1, len(boxes) + 1))
        for index in rng.choice(len(boxes), size=count, replace=False):
            change = _draw_change(rng, boxes[index], size, settings)
            if change is not None:
                changes.append(_with_partial_keep(rng, change, label, settings))
    return ChangePlan(tuple(changes), settings.truthful_masks, jpeg_quality)


def label_rects(change: Change, width: int, height: int, *, truthful: bool) -> list[Rect]:
    """Return the rectangles that a change marks in the mask.

    Truthful: just the pixels that it may alter. Otherwise one pixel more on the right and bottom for
    rect, blur, pixel and move (a published fault).
    """
    rects = [change.rect]
    if change.to_x is not None and change.to_y is not None:
        rects.append(Rect(change.to_x, change.to_y, change.width, change.height))
    grows = change.kind in INCLUSIVE_KINDS or not truthful
    return [rect.grown(width, height) if grows else rect for rect in rects]


def label_mask(plan: ChangePlan, width: int, height: int) -> Image:
    """Return the mask of a plan, HW uint8: 255 where changed. It can be empty: all may have been erased."""
    mask = np.zeros((height, width), np.uint8)
    for change in plan.changes:
        _mark(mask, change, truthful=plan.truthful)
        _draw_polygons(mask, change.erased, 0)
    return mask


def label_owners(plan: ChangePlan, width: int, height: int) -> npt.NDArray[np.int16]:
    """Return which change each pixel of the mask belongs to: HW int16, its number in the plan; -1: none."""
    owners = np.full((height, width), -1, np.int16)
    for number, change in enumerate(plan.changes):
        for rect in label_rects(change, width, height, truthful=plan.truthful):
            owners[rect.slices] = number
        if change.erased:
            owners[fill_polygons((height, width), change.erased) > 0] = -1
    return owners


def fill_polygons(shape: tuple[int, int], polygons: Sequence[Sequence[int]]) -> Image:
    """Return HW uint8 with 255 inside and on the border of flat x0, y0, ... polygons."""
    canvas = np.zeros(shape, np.uint8)
    _draw_polygons(canvas, polygons, 255)
    return canvas


def _draw_polygons(canvas: Image, polygons: Sequence[Sequence[int]], value: int) -> None:
    contours = [np.asarray(polygon, np.int32).reshape(-1, 1, 2) for polygon in polygons]
    cv2.drawContours(canvas, contours, -1, value, cv2.FILLED)


def _mark(mask: Image, change: Change, *, truthful: bool) -> None:
    height, width = mask.shape
    for rect in label_rects(change, width, height, truthful=truthful):
        mask[rect.slices] = 255


def _draw_change(
    rng: np.random.Generator, box: Box, size: tuple[int, int], settings: PublishedSynthesis
) -> Change | None:
    width, height = size
    rect = box_to_rect(box, width, height)
    if rect.width * rect.height < settings.min_box_area:
        return None
    rect = jittered(rect, rng, settings.jitter, width, height)
    kind = _draw_kind(rng, settings.kind_weights)
    if not rect.width or not rect.height:
        return None
    if kind == "move":
        to_x = int(rng.integers(0, width - rect.width + 1))
        to_y = int(rng.integers(0, height - rect.height + 1))
        return Change(kind, *rect, to_x=to_x, to_y=to_y)
    noise_seed = int(rng.integers(0, 2**63 - 1)) if kind == "rect" else None
    return Change(kind, *rect, noise_seed=noise_seed)


def _draw_kind(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    kinds = sorted(weights)
    shares = np.array([weights[kind] for kind in kinds])
    return kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]


def _with_partial_keep(
    rng: np.random.Generator, change: Change, label: Image, settings: PublishedSynthesis
) -> Change:
    # `label` is the mask so far; it is updated in place, with the erased contours taken out.
    _mark(label, change, truthful=settings.truthful_masks)
    if rng.random() >= settings.partial_keep_probability:
        return change
    contours, _ = cv2.findContours(label, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    erased = [
        tuple(int(value) for value in contour.ravel())
        for contour in contours
        if cv2.contourArea(contour) >= settings.partial_keep_min_area
        and rng.random() < settings.partial_keep_drop_probability
    ]
    _draw_polygons(label, erased, 0)
    return replace(change, erased=tuple(erased))
