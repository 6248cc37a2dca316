"""How a sample tile looks on one date: season, sun, passing things and the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cd_pipeline.synthesis.room_textures import Colour, Float
from cd_pipeline.synthesis.tile_building import Point
from cd_pipeline.synthesis.tile_scene import PAVINGS, TileScene

SEASONS = ("spring", "summer", "autumn", "winter")
SHADOW_LENGTHS = (0.6, 1.5)
"""Of the shadow, in heights of what casts it."""

_GROUND: dict[str, tuple[Colour, ...]] = {  # RGB of each season
    "lawn": ((100, 126, 74), (116, 132, 80), (138, 134, 92), (148, 140, 108)),
    "meadow": ((96, 116, 70), (134, 134, 86), (158, 144, 102), (132, 122, 94)),
    "crop": ((90, 126, 64), (148, 150, 84), (178, 158, 110), (122, 100, 78)),
    "soil": ((150, 126, 98), (170, 148, 118), (138, 114, 90), (118, 100, 82)),
    "dry": ((164, 154, 116), (184, 168, 130), (170, 150, 112), (148, 138, 112)),
}
_PAVED: dict[str, Colour] = {"asphalt": (116, 116, 118), "concrete": (178, 174, 166), "pool": (84, 164, 180)}
_LEAVES: tuple[Colour, ...] = ((74, 102, 54), (60, 84, 46), (146, 104, 54), (112, 100, 86))
_NEEDLES: Colour = (50, 72, 46)
_PAINTS: tuple[Colour, ...] = ((226, 226, 224), (46, 48, 54), (150, 152, 156), (150, 50, 44), (52, 76, 120))


@dataclass(frozen=True, slots=True)
class Car:
    """A car: middle in px, direction in radians, RGB paint."""

    centre: Point
    angle: float
    paint: Colour


@dataclass(frozen=True, slots=True)
class Look:
    """One date, but for which buildings stand.

    Attributes:
        ground: RGB of each surface, (surfaces, 3) float32.
        shadow: where the shadow of something 1 px high ends, x and y in px.
        shade: light left in a shadow, RGB in [0, 1].
        trees: numbers of the trees that are there.
        leaves: RGB of each tree of the scene, (trees, 3) float32.
        bare: whether trees that are not evergreen have lost their leaves.
        cars: on the roads.
        gain: factor of each channel, (3,) float32.
        haze: share of the light that is haze, in [0, 1).
        noise: standard deviation of the sensor's noise in levels.
        shift: of the picture, x and y in half px.
        seed: of the grain.
    """

    ground: Float
    shadow: Point
    shade: Colour
    trees: tuple[int, ...]
    leaves: Float
    bare: bool
    cars: tuple[Car, ...]
    gain: Float
    haze: float
    noise: float
    shift: tuple[int, int]
    seed: int


def draw_look(rng: np.random.Generator, scene: TileScene, *, shifted: bool = False) -> Look:
    """Draw the look of one date by lot.

    Args:
        rng: source of randomness.
        scene: what is there.
        shifted: whether the picture may be out of register, by up to 1 px in x and y.
    """
    season = int(rng.integers(len(SEASONS)))
    sun, length = rng.uniform(0, 2 * math.pi), rng.uniform(*SHADOW_LENGTHS)
    dark = rng.uniform(0.36, 0.6)
    seen = rng.random(len(scene.trees)) < rng.uniform(0.75, 0.95)
    gain = rng.uniform(0.78, 1.2) * rng.uniform(0.95, 1.05, 3)
    shift = rng.integers(-2, 3, 2).tolist() if shifted else (0, 0)
    return Look(
        ground=_ground(rng, scene, season),
        shadow=(length * math.cos(sun), length * math.sin(sun)),
        shade=(dark, dark + 0.04, dark + 0.12),
        trees=tuple(np.flatnonzero(seen).tolist()),
        leaves=_leaves(rng, scene, season),
        bare=SEASONS[season] == "winter",
        cars=tuple(_cars(rng, scene)),
        gain=gain.astype(np.float32),
        haze=rng.uniform(0, 0.22),
        noise=rng.uniform(2, 5),
        shift=(shift[0], shift[1]),
        seed=int(rng.integers(1 << 62)),
    )


def _ground(rng: np.random.Generator, scene: TileScene, season: int) -> Float:
    """Colour the surfaces; three in ten grounds are cut, ploughed or sown at a time of their own."""
    colours = np.empty((len(scene.surfaces), 3), np.float32)
    for number, kind in enumerate(scene.surfaces):
        own = int(rng.integers(len(SEASONS))) if rng.random() < 0.3 else season
        base = _PAVED[kind] if kind in PAVINGS else _GROUND[kind][own]
        colours[number] = np.array(base) * rng.uniform(0.9, 1.1) + rng.uniform(-5, 5, 3)
    return colours


def _leaves(rng: np.random.Generator, scene: TileScene, season: int) -> Float:
    count = len(scene.trees)
    tones = rng.uniform(0.8, 1.2, (count, 1)) * np.array(_LEAVES[season]) + rng.uniform(-8, 8, (count, 3))
    needles = rng.uniform(0.85, 1.15, (count, 1)) * np.array(_NEEDLES)
    evergreen = np.array([tree.evergreen for tree in scene.trees], bool).reshape(-1, 1)
    return np.asarray(np.where(evergreen, needles, tones), np.float32)


def _cars(rng: np.random.Generator, scene: TileScene) -> list[Car]:
    """Put cars on both sides of the roads, about one in 60 px."""
    cars = []
    for road in scene.roads:
        for _ in range(int(rng.poisson(1.4 * scene.side / 60))):
            along, lane = rng.uniform(-0.7, 0.7) * scene.side, rng.choice((-1, 1)) * road.width / 4
            u, v = (along, road.v + lane) if road.along_u else (road.u + lane, along)
            turn = scene.frame.angle + (0 if road.along_u else math.pi / 2)
            cars.append(Car(scene.frame.to_tile(u, v), turn, _PAINTS[rng.integers(len(_PAINTS))]))
    return cars
