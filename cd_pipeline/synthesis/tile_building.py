"""The buildings of the sample tiles: outlines and roofs, in px of the tile, x to the right, y down."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cd_pipeline.synthesis.room_textures import Colour

Points = npt.NDArray[np.float64]
Point = tuple[float, float]

SIDES = (14.0, 45.0)
"""Shortest and longest side of a building in px."""
HEIGHTS = (6.0, 11.0)
"""Of buildings, in px."""

_ROOFS: tuple[Colour, ...] = (
    (128, 126, 124), (88, 86, 88), (122, 98, 82), (164, 106, 82), (186, 168, 142), (222, 220, 214),
    (120, 132, 146), (146, 80, 68), (152, 148, 140),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wing:
    """The shorter part of an L: `width` px along the building from its end, `reach` px beyond its side."""

    width: float
    reach: float


@dataclass(frozen=True, slots=True)
class Building:
    """A building; in its own axes x runs along the ridge and y across, from `centre`.

    Attributes:
        centre: middle of the main part, x and y in px.
        angle: of the ridge in radians.
        length: of the main part along the ridge in px.
        width: of the main part in px, at most the length.
        height: in px; gives the length of the shadow.
        roof: "gable", "hip" or "flat".
        colour: of the roof, RGB in [0, 255].
        wing: makes it an L.
        details: chimneys and the like: x, y and side in px, in the building's axes.
        before: whether it stands at the first date.
        after: whether it stands at the second date.
    """

    centre: Point
    angle: float
    length: float
    width: float
    height: float
    roof: str
    colour: Colour
    wing: Wing | None
    details: tuple[tuple[float, float, float], ...]
    before: bool
    after: bool

    @property
    def changed(self) -> bool:
        """Whether it is new or has vanished."""
        return self.before != self.after

    def to_tile(self, local: Points) -> Points:
        """Return (N, 2) points of the building's axes in px of the tile."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = local[:, 0], local[:, 1]
        return np.stack([self.centre[0] + cos * x - sin * y, self.centre[1] + sin * x + cos * y], axis=1)

    def distance(self, x: float, y: float) -> float:
        """Return how far a point of the tile is from the box about the outline, in px; 0 inside."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = x - self.centre[0], y - self.centre[1]
        along, across = cos * x + sin * y, cos * y - sin * x
        reach = self.wing.reach if self.wing else 0.0
        beyond = max(-across - self.width / 2, across - self.width / 2 - reach, 0.0)
        return math.hypot(max(abs(along) - self.length / 2, 0.0), beyond)

    def parts(self) -> list[Points]:
        """Return the outline as one or two convex boxes, each (4, 2) x and y in px of the tile."""
        a, b = self.length / 2, self.width / 2
        boxes = [[(-a, -b), (a, -b), (a, b), (-a, b)]]
        if self.wing is not None:
            inner, outer = a - self.wing.width, b + self.wing.reach
            boxes.append([(inner, 0), (a, 0), (a, outer), (inner, outer)])
        return [self.to_tile(np.array(box)) for box in boxes]

    def facets(self) -> list[tuple[Points, Point]]:
        """Return the faces of the roof in painting order.

        Returns:
            Corners, (N, 2) x and y in px of the tile, and the direction in which the face falls, a unit
            vector of the tile or (0, 0).
        """
        a, b = self.length / 2, self.width / 2
        if self.roof == "flat":
            return [(part, (0.0, 0.0)) for part in self.parts()]
        top = a - b if self.roof == "hip" else a
        faces: list[tuple[list[Point], Point]] = [
            ([(-a, -b), (a, -b), (top, 0), (-top, 0)], (0, -1)),
            ([(-a, b), (a, b), (top, 0), (-top, 0)], (0, 1)),
        ]
        if self.roof == "hip":
            faces += [([(s * a, -b), (s * a, b), (s * top, 0)], (s, 0)) for s in (-1, 1)]
        if self.wing is not None:
            half, outer = self.wing.width / 2, b + self.wing.reach
            ridge, start = a - half, b - min(half, b)
            for s in (-1, 1):
                side = ridge + s * half
                faces.append(([(ridge, start), (ridge, outer), (side, outer), (side, b)], (s, 0)))
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return [
            (self.to_tile(np.array(corners)), (cos * x - sin * y, sin * x + cos * y))
            for corners, (x, y) in faces
        ]


def draw_building(
    rng: np.random.Generator, middle: Point, angle: float, *, before: bool, after: bool
) -> Building:
    """Draw a building by lot.

    Args:
        rng: source of randomness.
        middle: of the whole outline, x and y in px.
        angle: of the street grid in radians; the building lies along or across it, give or take 3 degrees.
        before: whether it stands at the first date.
        after: whether it stands at the second date.
    """
    length, width, wing = _sizes(rng)
    turn = angle + rng.integers(4) * math.pi / 2 + rng.uniform(-0.05, 0.05)
    back = wing.reach / 2 if wing else 0.0  # so that `middle` is that of the whole L
    roof = str(rng.choice(("gable", "hip", "flat"), p=(0.4, 0.4, 0.2)))
    tone = rng.uniform(0.88, 1.1) * np.array(_ROOFS[rng.integers(len(_ROOFS))]) + rng.uniform(-6, 6, 3)
    spots = rng.uniform(-0.38, 0.38, (int(rng.integers(0, 5 if roof == "flat" else 3)), 2))
    return Building(
        centre=(middle[0] + math.sin(turn) * back, middle[1] - math.cos(turn) * back),
        angle=turn,
        length=length,
        width=width,
        height=rng.uniform(*HEIGHTS),
        roof=roof,
        colour=(float(tone[0]), float(tone[1]), float(tone[2])),
        wing=wing,
        details=tuple((a * length, b * width, rng.uniform(1.6, 3.4)) for a, b in spots.tolist()),
        before=before,
        after=after,
    )


def _sizes(rng: np.random.Generator) -> tuple[float, float, Wing | None]:
    shortest, longest = SIDES
    if rng.random() < 0.15:
        length = rng.uniform(16, 26)
        return length, rng.uniform(shortest, min(length, 20)), None
    length = rng.uniform(30, longest)
    width = rng.uniform(20, min(length, 38))
    if width > 34 or rng.random() < 0.55:
        return length, width, None
    return length, width, Wing(rng.uniform(0.35, 0.5) * length, rng.uniform(6, longest - width))
