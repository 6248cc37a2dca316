"""The plan of a realistic pair: everything random is drawn here, and nothing after it.

Places and sizes are shares, so that a plan does not depend on the size it is rendered at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from cd_pipeline.data.labels import Box
from cd_pipeline.synthesis.nuisance import Nuisance, draw_nuisance
from cd_pipeline.synthesis.settings import RealisticSynthesis

SOURCE_KINDS = frozenset({"insert", "replace", "retexture"})
"""Kinds that take pixels of another photo."""
BOX_REACH = 0.15
"""Largest shift and change of size of a region on a labelled box, as a share of the box."""
INSIDE = 0.999
MAX_FEATHER = 0.006
"""Deepest soft edge, as a share of the view. At 256 an edge is then hard or 1 px deep, seldom 2: as in a photo
of that size."""


class Area(NamedTuple):
    """A rectangle in shares of an image's sides, from its top left corner."""

    left: float
    top: float
    width: float
    height: float


class PhotoSource(NamedTuple):
    """A photo to draw from: its reference, the hash of its file, its sides in px, its labelled objects."""

    photo: str
    sha256: str
    width: int
    height: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The part of a photo that both pictures of a pair show, and whether it is mirrored."""

    left: float
    top: float
    width: float
    height: float
    flipped: bool

    def place(self, box: Box) -> Area:
        """Return where a box of the photo lies in the view; parts of it can be outside 0..1."""
        left = (box.cx - box.w / 2 - self.left) / self.width
        width, height = box.w / self.width, box.h / self.height
        return Area(
            1 - left - width if self.flipped else left,
            (box.cy - box.h / 2 - self.top) / self.height,
            width,
            height,
        )


@dataclass(frozen=True, slots=True)
class Patch:
    """A part of a photo: `photo` is its reference, the rest is as in `Area`."""

    photo: str
    sha256: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class RealisticChange:
    """One change.

    Attributes:
        kind: what happens.
        shape: rectangle, ellipse, polygon, or cutout (the outline of the object in `outline`).
        left, top, width, height: the region in shares of the view.
        to_left, to_top: where `move` puts it.
        feather: depth of the soft edge inside the region, as a share of the view.
        seed: chooses polygon, noise and colours.
        outline: the labelled object that a cutout follows.
        source: pixels of another photo, for `SOURCE_KINDS`.
    """

    kind: str
    shape: str
    left: float
    top: float
    width: float
    height: float
    to_left: float
    to_top: float
    feather: float
    seed: int
    outline: Patch | None = None
    source: Patch | None = None


@dataclass(frozen=True, slots=True)
class RealisticPlan:
    """All that is drawn for a pair.

    Attributes:
        view: what both pictures show.
        changes: in the order they are made; none: a no-change pair.
        swapped: the changed picture is the before one.
        min_visible: a change whose mean difference (0-255) is smaller is undone and not labelled.
        before_nuisance, after_nuisance: of each picture; None: left as it is.
    """

    view: View
    changes: tuple[RealisticChange, ...]
    swapped: bool
    min_visible: float
    before_nuisance: Nuisance | None
    after_nuisance: Nuisance | None

    @property
    def uncovers(self) -> bool:
        """Whether a picture is shifted or warped, so that part of its border does not count."""
        return any(drawn and any(drawn.corners) for drawn in (self.before_nuisance, self.after_nuisance))

    def to_row(self) -> dict[str, Any]:
        """Return the plan as nested plain values for the manifest."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "RealisticPlan":
        """Read a plan back from the manifest."""
        return cls(
            view=View(**row["view"]),
            changes=tuple(_change_from(change) for change in row["changes"]),
            swapped=row["swapped"],
            min_visible=row["min_visible"],
            before_nuisance=_nuisance_from(row["before_nuisance"]),
            after_nuisance=_nuisance_from(row["after_nuisance"]),
        )


def plan_realistic(
    rng: np.random.Generator,
    photo: PhotoSource,
    others: Sequence[PhotoSource],
    settings: RealisticSynthesis,
    weights: Mapping[str, float],
) -> RealisticPlan:
    """Draw one pair.

    Args:
        rng: source of all randomness.
        photo: what the pair shows.
        others: photos of the same split, in a fixed order; objects and textures come from them.
        settings: shares, probabilities and ranges.
        weights: of the kinds that this split may hold.
    """
    view = _draw_view(rng, settings)
    changed = rng.random() >= settings.no_change_share
    count = int(rng.integers(1, settings.max_changes, endpoint=True)) if changed else 0
    changes = tuple(_draw_change(rng, photo, view, others, settings, weights) for _ in range(count))
    swapped = bool(rng.random() < settings.swap_probability)
    strength = 1.0 if changed else settings.no_change_strength
    before, after = (
        draw_nuisance(rng, settings.nuisance, strength=strength, warped=warped)
        if rng.random() < settings.nuisance.probability or not changed
        else None
        for warped in (True, False)
    )
    return RealisticPlan(view, changes, swapped, settings.min_visible, before, after)


def _draw_view(rng: np.random.Generator, settings: RealisticSynthesis) -> View:
    width, height = (float(share) for share in rng.uniform(*settings.view_shares, 2))
    left, top = (float(place) for place in rng.random(2))
    return View(left * (1 - width), top * (1 - height), width, height, bool(rng.random() < 0.5))


def _draw_change(
    rng: np.random.Generator,
    photo: PhotoSource,
    view: View,
    others: Sequence[PhotoSource],
    settings: RealisticSynthesis,
    weights: Mapping[str, float],
) -> RealisticChange:
    kind = _weighted(rng, weights)
    other = others[int(rng.integers(len(others)))]
    shape = _weighted(rng, settings.shape_weights)
    on_box = rng.random() < settings.box_share
    seen = [box for box in photo.boxes if _fits(view.place(box), settings.side_shares)]
    outline = None
    if kind == "insert":
        area, outline = _draw_object(rng, other, settings)
    elif on_box and seen:
        box = seen[int(rng.integers(len(seen)))]
        area, outline = _jittered(rng, view.place(box), still=shape == "cutout"), _patch(photo, box)
    else:
        area = _draw_area(rng, settings.side_shares)
    if outline is None and shape == "cutout":
        shape = _weighted(rng, {k: w for k, w in settings.shape_weights.items() if k != "cutout"})
    to_left, to_top = (float(place) for place in rng.random(2))
    return RealisticChange(
        kind=kind,
        shape=shape,
        left=area.left,
        top=area.top,
        width=area.width,
        height=area.height,
        to_left=to_left * (1 - area.width),
        to_top=to_top * (1 - area.height),
        feather=float(rng.uniform(0, MAX_FEATHER)),
        seed=int(rng.integers(2**31)),
        outline=outline if shape == "cutout" else None,
        source=_draw_source(rng, kind, other, outline, area),
    )


def _draw_area(rng: np.random.Generator, sides: tuple[float, float]) -> Area:
    low, high = np.log(sides)
    width, height = np.exp(rng.uniform(low, high, 2))
    left, top = rng.random(2) * (1 - width, 1 - height)
    return Area(float(left), float(top), float(width), float(height))


def _draw_object(
    rng: np.random.Generator, other: PhotoSource, settings: RealisticSynthesis
) -> tuple[Area, Patch | None]:
    # an object of the other photo, about in its own proportions, at any size and place
    area = _draw_area(rng, settings.side_shares)
    if not other.boxes:
        return area, None
    box = other.boxes[int(rng.integers(len(other.boxes)))]
    proportion = box.w * other.width / (box.h * other.height)
    side = float(np.sqrt(area.width * area.height))
    root = float(np.sqrt(np.clip(proportion, 0.25, 4.0)))
    width, height = (float(np.clip(side * factor, *settings.side_shares)) for factor in (root, 1 / root))
    left, top = rng.random(2) * (1 - width, 1 - height)
    return Area(float(left), float(top), width, height), _patch(other, box)


def _draw_source(
    rng: np.random.Generator, kind: str, other: PhotoSource, outline: Patch | None, area: Area
) -> Patch | None:
    width, height = (min(1.0, side * float(rng.uniform(0.6, 1.4))) for side in (area.width, area.height))
    left, top = (float(place) for place in rng.random(2))
    if kind not in SOURCE_KINDS:
        return None
    if kind == "insert" and outline is not None:
        return outline
    return Patch(other.photo, other.sha256, left * (1 - width), top * (1 - height), width, height)


def _fits(area: Area, sides: tuple[float, float]) -> bool:
    inside = min(area.left, area.top) >= 0 and max(area.left + area.width, area.top + area.height) <= 1
    return inside and min(area.width, area.height) >= sides[0] and max(area.width, area.height) <= INSIDE


def _jittered(rng: np.random.Generator, area: Area, *, still: bool) -> Area:
    dx, dy, dw, dh = rng.uniform(-BOX_REACH, BOX_REACH, 4)
    if still:  # a cutout lies exactly on its object
        return area
    width, height = min(1.0, area.width * (1 + dw)), min(1.0, area.height * (1 + dh))
    left = float(np.clip(area.left + dx * area.width, 0, 1 - width))
    top = float(np.clip(area.top + dy * area.height, 0, 1 - height))
    return Area(left, top, float(width), float(height))


def _patch(photo: PhotoSource, box: Box) -> Patch:
    # the part of the box inside the photo
    left, top = max(0.0, box.cx - box.w / 2), max(0.0, box.cy - box.h / 2)
    right, bottom = min(1.0, box.cx + box.w / 2), min(1.0, box.cy + box.h / 2)
    return Patch(photo.photo, photo.sha256, left, top, right - left, bottom - top)


def _weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    names = sorted(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _change_from(row: Mapping[str, Any]) -> RealisticChange:
    patches = {key: row[key] and Patch(**row[key]) for key in ("outline", "source")}
    return RealisticChange(**{**row, **patches})


def _nuisance_from(row: Mapping[str, Any] | None) -> Nuisance | None:
    return None if row is None else Nuisance.from_row(row)
