"""The ground and the horizon of the streets and terraces among the sample VOC scenes."""

from __future__ import annotations

import cv2
import numpy as np

from cd_pipeline.synthesis.room_layout import Room
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_plans import Finish
from cd_pipeline.synthesis.room_textures import Colour, Surfaces, Texture, UInt8, cloud, shade, tint

_SKIES: tuple[Colour, ...] = ((150, 186, 226), (196, 206, 216), (170, 196, 222))
_GREENS: tuple[Colour, ...] = ((72, 104, 56), (96, 120, 60), (60, 92, 62))
_WALLS: tuple[Colour, ...] = ((190, 172, 150), (168, 104, 82), (214, 206, 192), (150, 158, 166))

_HIGH, _WIDE = 256, 512  # px of the horizon


def open_air(setting: str, surfaces: Surfaces) -> Finish:
    """Choose the ground of a "street" or a "terrace", and paint its horizon on the walls."""
    rng = surfaces.rng
    grey = rng.uniform(80, 140)
    if setting == "street":
        ground = surfaces.concrete((grey, grey, grey * 1.02))
    else:
        kind, tone = int(rng.integers(3)), rng.uniform(0.8, 1.15)
        lay = (surfaces.planks, surfaces.carpet, surfaces.concrete)[kind]
        ground = lay(shade(((150, 112, 78), (86, 118, 62), (176, 166, 150))[kind], tone))
    sky = _SKIES[int(rng.integers(len(_SKIES)))]
    wall = Texture(_horizon(rng, sky, setting), glow=0.6)
    above = Texture(np.broadcast_to(np.array(sky, np.uint8), (16, 16, 3)).copy(), glow=0.7)
    return Finish(ground, wall, wall, above, surfaces.plain((grey, grey, grey)), None, None)


def lay_street(room: Room, surfaces: Surfaces) -> Piece:
    """Lay a pavement with its kerb, a broken line and perhaps some grass."""
    piece, rng = Piece(-1), surfaces.rng
    edge = rng.uniform(5.2, 7.6)
    stone, grass = surfaces.concrete((170, 166, 158)), surfaces.carpet((92, 118, 66))
    piece.box((room.left, room.right), (0, 0.05), (edge, room.depth), stone)
    if rng.random() < 0.6:
        piece.box((room.left, room.right), (0.05, 0.06), (edge + 0.6, room.depth), grass)
    white, middle = surfaces.plain((222, 220, 212)), rng.uniform(2.2, edge - 1)
    for k in range(10):
        x = room.left + k * 1.6
        piece.box((x, x + 0.8), (0, 0.004), (middle, middle + 0.06), white)
    return piece


def _horizon(rng: np.random.Generator, sky: Colour, setting: str) -> UInt8:
    """Draw sky over houses or a fence, trees and a hedge, (256, 512, 3) uint8."""
    size, street = (_HIGH, _WIDE), setting == "street"
    ramp = np.linspace(0.92, 1.12, _HIGH, dtype=np.float32)[:, None]
    image = tint(sky, ramp + 0.1 * np.maximum(cloud(rng, size, (16, 8)), 0))
    if street:
        _houses(image, rng)
    fenced = not street and rng.random() < 0.5
    hedge = 0 if fenced else int(rng.integers(0, 30) if street else rng.integers(30, 64))
    foliage = _trees(image, rng)
    foliage[_HIGH - hedge :] = 255
    leaf = 1 + 0.25 * cloud(rng, size, (64, 128)) + 0.2 * cloud(rng, size, (16, 32))
    green = shade(_GREENS[int(rng.integers(len(_GREENS)))], rng.uniform(0.85, 1.15))
    image[foliage > 0] = tint(green, leaf)[foliage > 0]
    if fenced:
        _fence(image, rng)
    return image


def _trees(image: UInt8, rng: np.random.Generator) -> UInt8:
    """Draw trunks; return where their leaves are, (256, 512) uint8."""
    foliage = np.zeros((_HIGH, _WIDE), np.uint8)
    for _ in range(int(rng.integers(3, 14))):
        x, tall, size = int(rng.integers(_WIDE)), int(rng.integers(40, 130)), int(rng.integers(12, 38))
        cv2.rectangle(image, (x - 2, _HIGH - tall), (x + 2, _HIGH - 1), (84, 66, 50), -1)
        for dx, dy, share in rng.random((14, 3)).tolist():
            middle = (x + round((dx - 0.5) * 2 * size), _HIGH - tall + round((dy - 0.5) * 1.6 * size))
            cv2.circle(foliage, middle, round(size * (0.25 + 0.35 * share)), (255,), -1)
    return foliage


def _fence(image: UInt8, rng: np.random.Generator) -> None:
    """Draw upright boards along the bottom."""
    top, wood = _HIGH - int(rng.integers(34, 62)), shade((150, 112, 76), rng.uniform(0.7, 1.4))
    for x in range(0, _WIDE, 9):
        cv2.rectangle(image, (x, top), (x + 8, _HIGH - 1), shade(wood, rng.uniform(0.85, 1.15)), -1)
        cv2.line(image, (x + 8, top), (x + 8, _HIGH - 1), shade(wood, 0.5), 1)


def _houses(image: UInt8, rng: np.random.Generator) -> None:
    """Draw a row of house fronts with gaps."""
    left = -10
    while left < _WIDE:
        wide, tall = int(rng.integers(45, 130)), int(rng.integers(60, 165))
        if rng.random() < 0.75:
            _house(image, rng, left, left + wide, _HIGH - tall)
        left += wide


def _house(image: UInt8, rng: np.random.Generator, left: int, right: int, top: int) -> None:
    wall = shade(_WALLS[int(rng.integers(len(_WALLS)))], rng.uniform(0.8, 1.1))
    cv2.rectangle(image, (left, top), (right, _HIGH), wall, -1)
    cv2.rectangle(image, (left - 2, top - 5), (right + 2, top), shade(wall, 0.62), -1)
    across, down = int(rng.integers(15, 23)), int(rng.integers(21, 30))
    for y in range(top + 9, _HIGH - 15, down):
        for x in range(left + 7, right - 13, across):
            cv2.rectangle(image, (x - 1, y - 1), (x + 10, y + 14), shade(wall, 1.2), -1)
            cv2.rectangle(image, (x, y), (x + 9, y + 13), shade((84, 96, 112), rng.uniform(0.6, 1.2)), -1)
