"""What lies in a sample tile: ground, roads, buildings and trees, drawn by lot but not yet painted.

Lengths are px of the tile (half a metre each), x to the right, y down. Everything follows one street grid:
`Frame` has u along the first road and v across it, from the middle of the tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cd_pipeline.synthesis.tile_building import SIDES, Building, Point, Points, draw_building

MIN_TILE = 64
"""Shortest side of a tile in px: room for a road and a lot."""
GROUNDS = ("lawn", "meadow", "crop", "soil", "dry")
"""Kinds of ground that change with the season."""
PAVINGS = ("asphalt", "concrete", "pool")
PATCHES = 40
"""Different grounds in a tile; fields and yards share them."""

_LOT = (62.0, 72.0)  # px along and across the road: the longest building turned by a few degrees fits
_UNCHANGED = 0.15  # share of the tiles


@dataclass(frozen=True, slots=True)
class Frame:
    """The street grid: turned by `angle` radians about `middle`, the same number for x and y."""

    angle: float
    middle: float

    def to_tile(self, u: float, v: float) -> Point:
        """Return x and y in px."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.middle + cos * u - sin * v, self.middle + sin * u + cos * v

    def box(self, u: float, v: float, length: float, width: float) -> Points:
        """Return the corners, (4, 2) x and y, of a box about (u, v), `length` along u and `width` along v."""
        ends = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        return np.array([self.to_tile(u + a * length / 2, v + b * width / 2) for a, b in ends])


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree: middle and radius in px; `seed` shapes its crown."""

    centre: Point
    radius: float
    evergreen: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Strip:
    """A paved or planted box on the ground: corners (4, 2) in px, and its number among the surfaces."""

    corners: Points
    surface: int


@dataclass(frozen=True, slots=True)
class Road:
    """A straight road: u and v of its middle, along u or along v, and its width in px."""

    u: float
    v: float
    along_u: bool
    width: float


@dataclass(frozen=True, slots=True)
class TileScene:
    """All that two dates have in common.

    Attributes:
        side: of the tile in px.
        frame: the street grid.
        surfaces: kind of each surface, of `GROUNDS` or `PAVINGS`; a surface has one colour a date.
        bands: edges of the rows of fields, v in px, ascending.
        fields: surfaces of the fields, (row, column).
        cells: length of the fields of each row along u, and where they begin, (row, 2) in px.
        strips: yards, drives and roads in painting order.
        roads: for what stands and drives on them.
        buildings: of both dates.
        trees: all that there may be.
        seed: of the texture of the ground.
    """

    side: int
    frame: Frame
    surfaces: tuple[str, ...]
    bands: Points
    fields: npt.NDArray[np.int64]
    cells: Points
    strips: tuple[Strip, ...]
    roads: tuple[Road, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    seed: int


def compose_scene(rng: np.random.Generator, side: int) -> TileScene:
    """Draw a scene by lot.

    Args:
        rng: source of randomness.
        side: of the tile in px, at least `MIN_TILE`.

    Raises:
        ValueError: the side is too short.
    """
    require_side(side)
    lots: list[Point] = []
    while not lots:
        frame = Frame(rng.uniform(0, math.pi), side / 2)
        roads = _roads(rng, side)
        every = _lots(rng.uniform(0, _LOT[0]), roads, side)
        lots = [lot for lot in every if _inside(frame.to_tile(*lot), side, 10)]
    surfaces = (*rng.choice(GROUNDS, PATCHES, p=(0.4, 0.3, 0.1, 0.1, 0.1)).tolist(), *PAVINGS)
    buildings, strips = _built(rng, frame, roads[0], lots, every)
    strips += [_road_strip(frame, road, side) for road in reversed(roads)]
    bands = np.cumsum(rng.uniform(90, 230, 4 + side // 60)) - side * 0.9 - 70
    return TileScene(
        side=side,
        frame=frame,
        surfaces=surfaces,
        bands=bands,
        fields=rng.integers(0, PATCHES, (len(bands) + 1, 3 + side // 30)),
        cells=np.stack([rng.uniform(80, 260, len(bands) + 1), rng.uniform(0, 80, len(bands) + 1)], axis=1),
        strips=tuple(strips),
        roads=tuple(roads),
        buildings=tuple(buildings),
        trees=tuple(_trees(rng, frame, roads, buildings, side)),
        seed=int(rng.integers(1 << 62)),
    )


def require_side(side: int) -> None:
    """Refuse a tile of a side in px that is too short.

    Raises:
        ValueError: the side is under `MIN_TILE`.
    """
    if side < MIN_TILE:
        raise ValueError(f"a tile of {side} px; at least {MIN_TILE} px a side are needed to show buildings")


def _inside(point: Point, side: int, margin: float) -> bool:
    return all(margin <= value <= side - margin for value in point)


def _roads(rng: np.random.Generator, side: int) -> list[Road]:
    away = max(0.35 * side, 0.75 * _LOT[1])  # in a small tile the road may be out of sight
    roads = [Road(0, rng.uniform(-away, away), True, rng.uniform(13, 18))]
    if rng.random() < 0.6:
        roads.append(Road(rng.uniform(-0.4, 0.4) * side, 0, False, rng.uniform(11, 15)))
    return roads


def _lots(start: float, roads: list[Road], side: int) -> list[Point]:
    """List the middles (u, v) of the lots in rows along the first road from `start`, clear of both roads."""
    main, (length, depth) = roads[0], _LOT
    reach = int(side / length) + 1
    lots = []
    for row in range(-reach, reach):
        v = main.v + math.copysign(main.width / 2 + 4 + depth * (abs(row + 0.5)), row + 0.5)
        for column in range(-reach - 1, reach + 1):
            u = start + column * length
            if all(abs(u - road.u) >= (length + road.width) / 2 for road in roads if not road.along_u):
                lots.append((u, v))
    return lots


def _built(
    rng: np.random.Generator, frame: Frame, road: Road, inside: list[Point], every: list[Point]
) -> tuple[list[Building], list[Strip]]:
    """Build on some lots: on those inside the tile at one date or both, on those at its edge at both."""
    changed_share = 0.0 if rng.random() < _UNCHANGED else rng.uniform(0.14, 0.66)
    count = max(1, round(changed_share * len(inside))) if changed_share else 0
    changed = {inside[k] for k in rng.permutation(len(inside))[:count]}
    standing, vanishing = rng.uniform(0.15, 0.9), rng.uniform(0, 0.3)
    buildings, strips = [], []
    for lot in every:
        if not _inside(frame.to_tile(*lot), round(2 * frame.middle), -40):
            continue
        if rng.random() < 0.4:
            strips.append(Strip(frame.box(*lot, *_LOT), int(rng.integers(PATCHES))))
        stands, gone = rng.random() < standing, rng.random() < vanishing
        if lot in changed or stands:
            before, after = (gone, not gone) if lot in changed else (True, True)
            jitter = rng.uniform(-1, 1, 2) * ((_LOT[0] - SIDES[1]) / 2 - 3)
            middle = frame.to_tile(lot[0] + jitter[0], lot[1] + jitter[1])
            buildings.append(draw_building(rng, middle, frame.angle, before=before, after=after))
            strips += _extras(rng, frame, road, lot, before)
    return buildings, strips


def _extras(rng: np.random.Generator, frame: Frame, road: Road, lot: Point, lived_in: bool) -> list[Strip]:
    """A drive to the road beside which the lot lies, and here and there a pool."""
    (u, v), (length, depth) = lot, _LOT
    extras = []
    if abs(v - road.v) < depth and rng.random() < (0.75 if lived_in else 0.3):
        at = u + rng.uniform(-0.3, 0.3) * length
        extras.append(
            Strip(frame.box(at, (v + road.v) / 2, rng.uniform(6, 10), abs(v - road.v)), PATCHES + 1)
        )
    if lived_in and rng.random() < 0.12:
        away = math.copysign(depth * 0.42, v - road.v)
        box = frame.box(u + rng.uniform(-15, 15), v + away, rng.uniform(9, 15), rng.uniform(6, 8))
        extras.append(Strip(box, PATCHES + 2))
    return extras


def _road_strip(frame: Frame, road: Road, side: int) -> Strip:
    sizes = (4.0 * side, road.width) if road.along_u else (road.width, 4.0 * side)
    return Strip(frame.box(road.u, road.v, *sizes), PATCHES)


def _trees(
    rng: np.random.Generator, frame: Frame, roads: list[Road], buildings: list[Building], side: int
) -> list[Tree]:
    """Plant trees alone and in groups, clear of roads and of every building of either date."""
    count = round(rng.uniform(60, 260) * (side / 512) ** 2) + 2
    groves = rng.uniform(-0.1, 1.1, (3 + side // 128, 2)) * side
    loose = rng.uniform(-0.02, 1.02, (count, 2)) * side
    grouped = groves[rng.integers(len(groves), size=count)] + rng.normal(0, 22, (count, 2))
    places = np.where(rng.random((count, 1)) < 0.55, grouped, loose)
    radii, kinds = rng.uniform(3, 9.5, count), rng.random(count) < 0.35
    seeds = rng.integers(1 << 62, size=count)
    trees = []
    for (x, y), radius, evergreen, seed in zip(
        places.tolist(), radii.tolist(), kinds.tolist(), seeds.tolist(), strict=True
    ):
        if _clear(x, y, radius, frame, roads, buildings):
            trees.append(Tree((x, y), radius, evergreen, seed))
    return trees


def _clear(
    x: float, y: float, radius: float, frame: Frame, roads: list[Road], buildings: list[Building]
) -> bool:
    cos, sin = math.cos(frame.angle), math.sin(frame.angle)
    u = cos * (x - frame.middle) + sin * (y - frame.middle)
    v = cos * (y - frame.middle) - sin * (x - frame.middle)
    for road in roads:
        if abs(v - road.v if road.along_u else u - road.u) < road.width / 2 + radius * 0.6:
            return False
    return all(building.distance(x, y) > radius + 2 for building in buildings)
