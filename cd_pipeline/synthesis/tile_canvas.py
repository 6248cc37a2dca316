"""Painting sample tiles: a scene on one date, seen from above, at half a metre a pixel.

Everything is painted at twice the tile's size, with integer drawing and elementwise arithmetic, and averaged
down, so that the bytes do not depend on threads or vector instructions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cd_pipeline.synthesis.room_textures import Colour, Float, UInt8
from cd_pipeline.synthesis.sample_canvas import (
    OVERSAMPLE,
    SHIFT,
    averaged,
    disc,
    fill,
    fixed,
    sensor_noise,
    smooth_noise,
)
from cd_pipeline.synthesis.tile_building import Building, Point, Points
from cd_pipeline.synthesis.tile_look import Look
from cd_pipeline.synthesis.tile_scene import TileScene

_HAZE: Colour = (196, 204, 216)
_MOTTLE = {"lawn": 0.14, "meadow": 0.22, "crop": 0.1, "soil": 0.16, "dry": 0.2}
_GRAIN = {"lawn": 0.11, "meadow": 0.17, "crop": 0.1, "soil": 0.11, "dry": 0.13}
_FURROWS = {"crop": 0.09, "soil": 0.05}


@dataclass(frozen=True, slots=True)
class Ground:
    """What is the same on the ground at both dates, at the size N of the canvas.

    Attributes:
        surface: number of the surface, (N, N) uint8.
        texture: factor of its colour, (N, N) float32: patches and furrows.
    """

    surface: UInt8
    texture: Float


def lay_ground(scene: TileScene) -> Ground:
    """Lay out fields, yards, drives and roads."""
    rng = np.random.default_rng(scene.seed)
    surface, u = _field_map(scene, rng)
    for strip in scene.strips:
        fill(surface, strip.corners, (strip.surface, 0, 0))
    size = len(surface)
    smooth = 1.0 * _noise(rng, size, 96) + 0.6 * _noise(rng, size, 32) + 0.4 * _noise(rng, size, 12)
    ramp = np.abs(u / 5 - np.floor(u / 5) - np.float32(0.5)) * 4 - 1
    texture = 1 + _strength(scene, _MOTTLE, 0.05)[surface] * smooth
    return Ground(surface, texture + _strength(scene, _FURROWS, 0)[surface] * ramp)


def paint_tile(scene: TileScene, ground: Ground, look: Look, *, after: bool) -> UInt8:
    """Paint a scene on one date.

    Args:
        scene: what is there.
        ground: of the scene.
        look: of the date.
        after: whether the buildings of the second date stand, or those of the first.

    Returns:
        (side, side, 3) RGB uint8.
    """
    standing = [b for b in scene.buildings if (b.after if after else b.before)]
    canvas = _paint_ground(scene, ground, look)
    _paint_roads(canvas, scene)
    for car in look.cars:
        _paint_car(canvas, car.centre, car.angle, car.paint)
    _cast_shadows(canvas, scene, look, standing)
    for building in standing:
        _paint_roof(canvas, building, look)
    for number in look.trees:
        _paint_tree(canvas, scene, look, number)
    return _photograph(canvas, look)


def roof_mask(scene: TileScene, buildings: list[Building]) -> UInt8:
    """Mark where roofs are.

    Returns:
        (side, side) uint8, 255 where at least half of a pixel is roof, else 0.
    """
    mask = np.zeros((scene.side * OVERSAMPLE,) * 2, np.uint8)
    for building in buildings:
        for part in building.parts():
            fill(mask, part, (255, 255, 255))
    return np.where(averaged(mask) >= 128, np.uint8(255), np.uint8(0))


def _noise(rng: np.random.Generator, size: int, step: int) -> Float:
    """Return smooth noise in [-1, 1] with bumps of `step` px, (size, size) float32."""
    return smooth_noise(rng, (size, size), (step, step))


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(max(value * factor, 0.0), 255.0) for value in colour)
    return red, green, blue


def _field_map(scene: TileScene, rng: np.random.Generator) -> tuple[UInt8, Float]:
    """Return the surface of every pixel of the canvas, (N, N), and u in px for the furrows, (N, N)."""
    size = scene.side * OVERSAMPLE
    cos, sin = np.float32(math.cos(scene.frame.angle)), np.float32(math.sin(scene.frame.angle))
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(OVERSAMPLE)
    line -= np.float32(scene.frame.middle)
    x, y = line[None, :] + 3 * _noise(rng, size, 64), line[:, None] + 3 * _noise(rng, size, 64)
    u, v = cos * x + sin * y, cos * y - sin * x
    row = np.searchsorted(scene.bands, v)
    along = (u + scene.side + scene.cells[row, 1]) / scene.cells[row, 0]
    column = np.clip(along.astype(np.int64), 0, scene.fields.shape[1] - 1)
    return scene.fields[row, column].astype(np.uint8), u.astype(np.float32)


def _paint_ground(scene: TileScene, ground: Ground, look: Look) -> UInt8:
    """Paint fields, yards and paving in the colours of a date, (N, N, 3) RGB."""
    rng = np.random.default_rng(look.seed)
    size = len(ground.surface)
    fine = rng.random((size, size), np.float32) * 2 - 1 + _noise(rng, size, 4)
    factor = ground.texture + _strength(scene, _GRAIN, 0.05)[ground.surface] * fine
    painted = look.ground[ground.surface] * factor[..., None]
    return np.asarray(np.clip(painted, 0, 255), np.uint8)


def _strength(scene: TileScene, table: dict[str, float], otherwise: float) -> Float:
    return np.array([table.get(kind, otherwise) for kind in scene.surfaces], np.float32)


def _paint_roads(canvas: UInt8, scene: TileScene) -> None:
    """Paint a broken line in the middle of the first road."""
    road = scene.roads[0]
    for start in range(-scene.side, scene.side, 16):
        fill(canvas, scene.frame.box(start, road.v, 7, 0.8), (190, 188, 178))


def _paint_car(canvas: UInt8, centre: Point, angle: float, paint: Colour) -> None:
    along, across = (
        np.array([math.cos(angle), math.sin(angle)]),
        np.array([-math.sin(angle), math.cos(angle)]),
    )
    for length, width, colour in ((8.6, 3.8, paint), (4.6, 3.2, _scaled(paint, 0.55)), (3.0, 3.0, paint)):
        a, b = along * length / 2, across * width / 2
        fill(canvas, np.array(centre) + np.array([-a - b, a - b, a + b, b - a]), colour)


def _cast_shadows(canvas: UInt8, scene: TileScene, look: Look, standing: list[Building]) -> None:
    """Darken the ground where buildings and trees keep the sun off."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    along = np.array(look.shadow)
    for building in standing:
        for part in building.parts():
            both = np.concatenate([part, part + along * building.height]).astype(np.float32)
            fill(mask, cv2.convexHull(both)[:, 0].astype(np.float64), (255, 255, 255))
    for number in look.trees:
        tree = scene.trees[number]
        end = np.array(tree.centre) + along * tree.radius * 0.9
        if look.bare and not tree.evergreen:
            _twigs(mask, end, tree.radius, tree.seed, (255, 255, 255))
        else:
            disc(mask, end, tree.radius * 0.95, (255, 255, 255))
    canvas[mask > 0] = (canvas[mask > 0] * np.array(look.shade, np.float32)).astype(np.uint8)


def _paint_roof(canvas: UInt8, building: Building, look: Look) -> None:
    """Paint the faces of a roof by how they lie to the sun, with ridges, eaves and what stands on them."""
    length = math.hypot(*look.shadow)
    for corners, fall in building.facets():
        towards = -(fall[0] * look.shadow[0] + fall[1] * look.shadow[1]) / length
        colour = _scaled(building.colour, (0.92 if any(fall) else 1.0) + 0.24 * towards)
        fill(canvas, corners, colour)
        outline = fixed(corners)
        edge = _scaled(colour, 0.82 if any(fall) else 1.22)
        cv2.polylines(canvas, [outline], True, edge, 1, shift=SHIFT)
    offset = np.array(look.shadow) / length
    for x, y, side in building.details:
        square = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)])
        spot = building.to_tile(square)
        fill(canvas, spot + offset * 1.5, _scaled(building.colour, 0.55))
        fill(canvas, spot, _scaled(building.colour, 1.2))


def _twigs(canvas: UInt8, centre: Points, radius: float, seed: int, colour: Colour) -> None:
    rng = np.random.default_rng(seed)
    for turn, reach in rng.random((13, 2)).tolist():
        tip = np.array([math.cos(turn * 2 * math.pi), math.sin(turn * 2 * math.pi)])
        ends = fixed(np.stack([centre, centre + tip * radius * (0.5 + 0.5 * reach)])).tolist()
        cv2.line(canvas, ends[0], ends[1], colour, 1, shift=SHIFT)


def _paint_tree(canvas: UInt8, scene: TileScene, look: Look, number: int) -> None:
    """Paint a crown of leaves lit from the side of the sun, or bare twigs."""
    tree = scene.trees[number]
    red, green, blue = look.leaves[number].tolist()
    centre = np.array(tree.centre)
    if look.bare and not tree.evergreen:
        _twigs(canvas, centre, tree.radius, tree.seed, (red, green, blue))
        return
    disc(canvas, centre, tree.radius * 0.85, _scaled((red, green, blue), 0.6))
    sun = -np.array(look.shadow) / math.hypot(*look.shadow)
    rng = np.random.default_rng(tree.seed)
    for turn, reach, size, tone in rng.random((14, 4)).tolist():
        away = np.array([math.cos(turn * 2 * math.pi), math.sin(turn * 2 * math.pi)]) * reach * 0.7
        light = 0.78 + 0.3 * float(away @ sun) + 0.35 * tone
        disc(
            canvas,
            centre + away * tree.radius,
            tree.radius * (0.2 + 0.25 * size),
            _scaled((red, green, blue), light),
        )


def _photograph(canvas: UInt8, look: Look) -> UInt8:
    """Turn the canvas into the picture that a camera took of it that day."""
    size = len(canvas)
    rows = np.clip(np.arange(size) + look.shift[1], 0, size - 1)
    columns = np.clip(np.arange(size) + look.shift[0], 0, size - 1)
    small = averaged(canvas[rows][:, columns])
    rng = np.random.default_rng(look.seed + 1)
    side = size // OVERSAMPLE
    veil = np.float32(look.haze) * (1 + np.float32(0.5) * _noise(rng, side, 160)[..., None])
    light = small * look.gain
    light += (np.array(_HAZE, np.float32) - light) * veil
    light += sensor_noise(rng, side, side) * np.float32(look.noise * math.sqrt(3))
    return np.clip(np.round(light), 0, 255).astype(np.uint8)
