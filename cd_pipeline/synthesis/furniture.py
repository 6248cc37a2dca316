"""Furniture of the sample rooms, one function a kind.

A builder takes the empty piece and the surfaces of the room and fills the piece in, in its own axes (see
`room_piece`): standing on y = 0, centred on x, front at the least z. Sizes are in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cd_pipeline.synthesis import room_pictures as pictures
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_textures import Colour, Surfaces, Texture, shade

_WOODS: tuple[Colour, ...] = ((150, 104, 62), (188, 146, 98), (104, 68, 44), (206, 176, 134), (84, 58, 44))
_CLOTHS: tuple[Colour, ...] = ((70, 92, 128), (146, 62, 54), (86, 110, 84), (92, 88, 90), (190, 150, 80))
_DARK: Colour = (38, 38, 42)


def _pick(surfaces: Surfaces, colours: tuple[Colour, ...]) -> Colour:
    colour = colours[int(surfaces.rng.integers(len(colours)))]
    return shade(colour, float(surfaces.rng.uniform(0.85, 1.15)))


def _between(surfaces: Surfaces, low: float, high: float) -> float:
    return float(surfaces.rng.uniform(low, high))


def _legs(piece: Piece, x: float, z: tuple[float, float], height: float, thick: float, skin: Texture) -> None:
    """Adds four square legs inside the rectangle of half width `x` and depth limits `z`."""
    for left in (-x, x - thick):
        for near in (z[0], z[1] - thick):
            piece.box((left, left + thick), (0, height), (near, near + thick), skin)


def desk(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a writing desk with a drawer unit on one side."""
    half, depth, height = _between(surfaces, 0.6, 0.8), _between(surfaces, 0.6, 0.75), 0.74
    colour = _pick(surfaces, _WOODS)
    board = surfaces.wood(colour)
    piece.box((-half, half), (height - 0.035, height), (0, depth), board)
    _legs(piece, half - 0.03, (0.04, depth - 0.03), height - 0.035, 0.05, surfaces.wood(shade(colour, 0.8)))
    side = 1 if surfaces.rng.random() < 0.5 else -1
    x = sorted((side * (half - 0.06), side * (half - 0.46)))
    front = pictures.drawers(surfaces.rng, colour, 3)
    piece.box((x[0], x[1]), (0.08, height - 0.035), (0.05, depth - 0.05), board, front=front)
    piece.mount = height


def chair(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a chair: four wooden legs, or a swivel base."""
    cloth, wide = surfaces.fabric(_pick(surfaces, _CLOTHS)), 0.23
    if surfaces.rng.random() < 0.5:
        frame = surfaces.wood(_pick(surfaces, _WOODS))
        _legs(piece, wide, (0, 0.44), 0.44, 0.04, frame)
        for x in (-wide, wide - 0.04):
            piece.box((x, x + 0.04), (0.44, 0.92), (0.4, 0.44), frame)
    else:
        frame = surfaces.plain(_DARK)
        for x, z in ((-0.27, 0.08), (0.27, 0.08), (-0.2, 0.46), (0.2, 0.46)):
            piece.cylinder((0, 0.1, 0.24), (x, 0.04, z), (0.025, 0.03), frame, sides=6)
        piece.cylinder((0, 0.06, 0.24), (0, 0.44, 0.24), (0.03, 0.03), frame, sides=8)
        piece.box((-0.04, 0.04), (0.44, 0.7), (0.44, 0.47), frame)
    piece.box((-wide, wide), (0.43, 0.5), (0, 0.44), cloth)
    piece.box((-wide + 0.03, wide - 0.03), (0.6, 0.96), (0.4, 0.45), cloth)


def bookshelf(piece: Piece, surfaces: Surfaces) -> None:
    """Builds an open shelf filled with books."""
    half, height, depth = _between(surfaces, 0.38, 0.6), _between(surfaces, 1.4, 2.1), 0.3
    board = surfaces.wood(_pick(surfaces, _WOODS))
    for x in (-half, half - 0.025):
        piece.box((x, x + 0.025), (0, height), (0, depth), board)
    piece.box((-half, half), (0, height), (depth - 0.02, depth), board)
    count = round(height / 0.36)
    step = (height - 0.03) / count
    for row in range(count + 1):
        y = row * step
        piece.box((-half, half), (y, y + 0.028), (0, depth), board)
        if row < count:
            top = y + step - 0.01
            corners = [(-half + 0.025, top, 0.06), (half - 0.025, top, 0.06)]
            corners += [(half - 0.025, y + 0.028, 0.06), (-half + 0.025, y + 0.028, 0.06)]
            piece.sheet(corners, pictures.books(surfaces.rng))
    piece.mount = height


def lamp(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a floor lamp with a lit shade."""
    height = _between(surfaces, 1.4, 1.7)
    metal = surfaces.plain((60, 56, 52))
    piece.cylinder((0, 0, 0.2), (0, 0.03, 0.2), (0.16, 0.15), metal)
    piece.cylinder((0, 0.03, 0.2), (0, height - 0.1, 0.2), (0.015, 0.015), metal, sides=8)
    glowing = _lit(surfaces, (250, 226, 176))
    piece.cylinder((0, height - 0.26, 0.2), (0, height, 0.2), (0.21, 0.14), glowing, sides=20)
    piece.lamp = (0, height - 0.1, -0.1)


def desk_lamp(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a table lamp with a lit shade."""
    base = surfaces.plain(_pick(surfaces, _CLOTHS))
    piece.cylinder((0, 0, 0.12), (0, 0.22, 0.12), (0.08, 0.03), base, sides=16)
    piece.cylinder((0, 0.2, 0.12), (0, 0.42, 0.12), (0.15, 0.09), _lit(surfaces, (250, 228, 184)), sides=20)
    piece.lamp = (0, 0.32, -0.1)


def _lit(surfaces: Surfaces, colour: Colour, glow: float = 1.1) -> Texture:
    skin = surfaces.fabric(colour)
    skin.glow = glow
    return skin


def monitor(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a computer screen on a stand with its keyboard."""
    dark = surfaces.plain(_DARK if surfaces.rng.random() < 0.7 else (190, 192, 196))
    half = _between(surfaces, 0.26, 0.36)
    high = half * 1.15
    piece.box((-0.12, 0.12), (0, 0.015), (0.14, 0.32), dark)
    piece.box((-0.03, 0.03), (0, 0.16), (0.25, 0.28), dark)
    piece.box((-half, half), (0.1, 0.1 + high), (0.22, 0.25), dark)
    x, y, z = half - 0.015, (0.12, 0.085 + high), 0.217
    piece.sheet([(-x, y[1], z), (x, y[1], z), (x, y[0], z), (-x, y[0], z)], pictures.screen(surfaces.rng))
    piece.box((-0.2, 0.2), (0, 0.02), (-0.08, 0.06), dark, top=surfaces.foam((150, 150, 154)))


def plant(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a pot plant of crossed fans of leaves."""
    high, wide = _between(surfaces, 0.6, 1.3), _between(surfaces, 0.28, 0.45)
    pots: tuple[Colour, ...] = ((176, 100, 66), (214, 208, 198), (70, 74, 80), (120, 140, 150))
    pot, radius = surfaces.plain(_pick(surfaces, pots), 0.1), wide * 0.45
    piece.cylinder(
        (0, 0, wide), (0, 0.3, wide), (radius * 0.75, radius), pot, surfaces.plain((60, 46, 36), 0.3)
    )
    green = _pick(surfaces, ((58, 116, 50), (80, 136, 66), (44, 92, 60)))
    for turn in range(4):
        x, z = wide * math.cos(turn * 0.785 + 0.2), wide * math.sin(turn * 0.785 + 0.2)
        top, low = 0.25 + high, 0.25
        corners = [(-x, top, wide - z), (x, top, wide + z), (x, low, wide + z), (-x, low, wide - z)]
        piece.sheet(corners, pictures.leaves(surfaces.rng, green))


def piano(piece: Piece, surfaces: Surfaces) -> None:
    """Builds an upright piano with its keyboard open and a score on it."""
    colour = _pick(surfaces, ((30, 28, 30), (88, 52, 34), (120, 76, 46), (34, 30, 30)))
    case, half = surfaces.wood(colour, 0.12), 0.74
    piece.box((-half, half), (0, 1.22), (0.3, 0.62), case)
    piece.box((-half, half), (0.6, 0.72), (0, 0.3), case)
    for x in (-half, half - 0.06):
        piece.box((x, x + 0.06), (0, 0.78), (0.02, 0.3), case)
    keys = [(-half + 0.06, 0.723, 0.18), (half - 0.06, 0.723, 0.18)]
    keys += [(half - 0.06, 0.723, 0.03), (-half + 0.06, 0.723, 0.03)]
    piece.sheet(keys, pictures.keys(surfaces.rng))
    piece.box((-half - 0.01, half + 0.01), (1.22, 1.25), (0.28, 0.63), case)
    piece.sheet([(-0.24, 1.1, 0.28), (0.24, 1.1, 0.28), (0.24, 0.82, 0.23), (-0.24, 0.82, 0.23)],
                pictures.score(surfaces.rng))  # fmt: skip
    for x in (-0.12, 0.0, 0.12):
        piece.box((x - 0.02, x + 0.02), (0.05, 0.07), (0.2, 0.3), surfaces.metal((190, 160, 90)))
    piece.mount = 1.25


def drum_kit(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a drum kit: bass drum, two toms, floor tom, snare and three cymbals."""
    colour = _pick(surfaces, ((150, 34, 36), (34, 60, 120), (200, 190, 170), (30, 30, 34), (170, 110, 40)))
    shell, chrome = surfaces.plain(colour, 0.08), surfaces.metal((190, 192, 196))
    skin = surfaces.plain((228, 224, 214), 0.04)
    piece.cylinder((0, 0.3, 0.1), (0, 0.3, 0.55), (0.3, 0.3), shell, sides=22)
    piece.sheet([(-0.31, 0.61, 0.095), (0.31, 0.61, 0.095), (0.31, -0.01, 0.095), (-0.31, -0.01, 0.095)],
                pictures.drum_head(surfaces.rng, colour))  # fmt: skip
    for x, y, z, radius, deep in (
        (-0.19, 0.68, 0.3, 0.15, 0.2), (0.2, 0.68, 0.3, 0.16, 0.22),
        (0.62, 0.16, 0.5, 0.21, 0.4), (-0.55, 0.5, 0.45, 0.18, 0.14),
    ):  # fmt: skip
        piece.cylinder((x, y, z), (x, y + deep, z), (radius, radius), shell, skin, sides=18)
        piece.cylinder(
            (x, y + deep, z), (x, y + deep + 0.02, z), (radius + 0.01,) * 2, chrome, skin, sides=18
        )
        if y < 0.6:
            for dx, dz in ((-radius, 0.0), (radius, 0.0), (0.0, radius)):
                piece.cylinder(
                    (x + dx, 0, z + dz), (x + dx * 0.9, y + 0.1, z + dz * 0.9), (0.012,) * 2, chrome, sides=5
                )
    brass = surfaces.metal((206, 166, 78))
    for x, y, z, radius in ((-0.72, 1.08, 0.5, 0.24), (0.62, 1.2, 0.4, 0.27), (-0.8, 0.78, 0.3, 0.18)):
        piece.cylinder((x, 0, z), (x, y, z), (0.014, 0.012), chrome, sides=6)
        piece.cylinder((x, y, z), (x + 0.02, y + 0.03, z + 0.015), (radius, 0.03), brass, sides=20)


def guitar(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a guitar leaning back in a stand."""
    colours: tuple[Colour, ...] = (
        (196, 130, 62),
        (160, 40, 40),
        (222, 182, 120),
        (50, 90, 140),
        (110, 60, 36),
    )
    skin, metal = pictures.guitar(surfaces.rng, _pick(surfaces, colours)), surfaces.plain(_DARK)
    for z in (0.12, 0.125, 0.13, 0.135, 0.14):
        corners = [(-0.2, 1.13, z + 0.2), (0.2, 1.13, z + 0.2), (0.2, 0.06, z), (-0.2, 0.06, z)]
        piece.sheet(corners, skin)
    piece.cylinder((-0.16, 0, 0.06), (0, 0.55, 0.3), (0.012, 0.012), metal, sides=6)
    piece.cylinder((0.16, 0, 0.06), (0, 0.55, 0.3), (0.012, 0.012), metal, sides=6)
    piece.cylinder((0, 0, 0.42), (0, 0.55, 0.3), (0.012, 0.012), metal, sides=6)
    piece.box((-0.15, 0.15), (0.1, 0.13), (0.04, 0.14), metal)


def speaker(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a loudspeaker or amplifier box."""
    half, high = _between(surfaces, 0.17, 0.26), _between(surfaces, 0.6, 1.05)
    colour = _pick(surfaces, ((44, 44, 48), (60, 52, 46), (96, 66, 44)))
    front = pictures.speaker_front(surfaces.rng, shade(colour, 0.9))
    piece.box((-half, half), (0.02, high), (0, half * 1.7), surfaces.wood(colour, 0.1), front=front)
    piece.mount = high


def curtain(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a tall curtain of deep folds."""
    colours: tuple[Colour, ...] = ((150, 22, 30), (118, 20, 38), (24, 50, 96), (84, 34, 58))
    colour = colours[int(surfaces.accent * len(colours))]
    cloth, half, high = surfaces.fabric(colour), _between(surfaces, 0.6, 0.9), _between(surfaces, 3.0, 3.5)
    folds, count = int(surfaces.rng.integers(6, 9)), 72
    wave = [0.1 + 0.09 * math.sin(2 * math.pi * folds * k / count) for k in range(count + 1)]
    for k in range(count):
        x, there = -half + 2 * half * k / count, -half + 2 * half * (k + 1) / count
        corners = [
            (x, high, wave[k]),
            (there, high, wave[k + 1]),
            (there, 0.02, wave[k + 1]),
            (x, 0.02, wave[k]),
        ]
        piece.sheet(corners, cloth)
    piece.box((-half, half), (high, high + 0.12), (0, 0.22), surfaces.fabric(shade(colour, 0.8)))


def seats(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a row of tip-up theatre seats seen from behind, rounded at the top."""
    colours: tuple[Colour, ...] = ((142, 30, 36), (120, 26, 46), (36, 52, 104), (60, 58, 62))
    colour = colours[int(surfaces.accent * len(colours))]
    cloth, frame, count = (
        surfaces.fabric(colour),
        surfaces.plain((52, 40, 36)),
        int(surfaces.rng.integers(3, 6)),
    )
    for seat in range(count):
        x = (seat - count / 2) * 0.58
        piece.box((x + 0.05, x + 0.53), (0.35, 0.9), (0, 0.09), cloth)
        piece.cylinder((x + 0.29, 0.78, 0), (x + 0.29, 0.78, 0.09), (0.24, 0.24), cloth, sides=18)
        piece.box((x + 0.08, x + 0.5), (0.4, 0.5), (0.09, 0.5), cloth)
        piece.box((x + 0.12, x + 0.46), (0.12, 0.35), (0.02, 0.06), frame)
    for arm in range(count + 1):
        x = (arm - count / 2) * 0.58
        piece.box((x - 0.03, x + 0.03), (0, 0.62), (0.02, 0.4), frame)


def mirror(piece: Piece, surfaces: Surfaces) -> None:
    """Builds the frame of a wall of mirrors; what it reflects is painted by the room."""
    half, low, high = _between(surfaces, 1.0, 1.5), 0.25, 2.1
    metal = surfaces.metal()
    for x in (-half, half - 0.03):
        piece.box((x, x + 0.03), (low, high), (0, 0.03), metal)
    piece.box((-0.01, 0.01), (low, high), (0.01, 0.03), metal)
    for y in (low, high - 0.03):
        piece.box((-half, half), (y, y + 0.03), (0, 0.03), metal)


def barre(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a free-standing double ballet barre."""
    half, wood, metal = _between(surfaces, 0.8, 1.2), surfaces.wood((206, 160, 104)), surfaces.metal()
    for y in (0.78, 1.05):
        piece.cylinder((-half, y, 0.25), (half, y, 0.25), (0.028, 0.028), wood, sides=10)
    for x in (-half + 0.12, half - 0.12):
        piece.cylinder((x, 0, 0.25), (x, 1.08, 0.25), (0.025, 0.025), metal, sides=8)
        piece.box((x - 0.03, x + 0.03), (0, 0.04), (0, 0.5), metal)


def workbench(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a heavy bench with a shelf of boxes below and a vice."""
    half, depth, high = _between(surfaces, 0.75, 1.0), 0.7, 0.88
    wood = surfaces.wood(_pick(surfaces, _WOODS), 0.3)
    steel = surfaces.metal(_pick(surfaces, ((70, 90, 120), (120, 122, 126), (60, 62, 66), (150, 60, 40))))
    piece.box((-half, half), (high - 0.07, high), (0, depth), wood)
    _legs(piece, half - 0.04, (0.05, depth - 0.04), high - 0.07, 0.08, steel)
    piece.box((-half + 0.06, half - 0.06), (0.2, 0.23), (0.08, depth - 0.06), wood)
    x = -half + 0.15
    while x < half - 0.4:
        wide, tall = _between(surfaces, 0.18, 0.34), _between(surfaces, 0.14, 0.34)
        piece.box(
            (x, x + wide),
            (0.23, 0.23 + tall),
            (0.14, 0.5),
            surfaces.plain(pictures.bright(surfaces.rng), 0.1),
        )
        x += wide + _between(surfaces, 0.03, 0.2)
    piece.box((half - 0.3, half - 0.12), (high, high + 0.12), (-0.06, 0.16), surfaces.metal((60, 84, 110)))
    piece.mount = high


def printer(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a 3D printer: open frame, bed, gantry, spool and a part half printed."""
    frame = surfaces.plain(_pick(surfaces, ((36, 36, 40), (210, 100, 30), (60, 64, 70))))
    steel, half, high = surfaces.metal(), 0.24, 0.5
    for x in (-half, half - 0.035):
        for z in (0.0, 0.4):
            piece.box((x, x + 0.035), (0, high), (z, z + 0.035), frame)
    for y in (0.0, high - 0.035):
        for z in (0.0, 0.4):
            piece.box((-half, half), (y, y + 0.035), (z, z + 0.035), frame)
        for x in (-half, half - 0.035):
            piece.box((x, x + 0.035), (y, y + 0.035), (0, 0.43), frame)
    piece.box((-0.18, 0.18), (0.08, 0.1), (0.05, 0.38), steel)
    y = _between(surfaces, 0.24, 0.36)
    piece.box((-half, half), (y, y + 0.025), (0.2, 0.23), steel)
    piece.box((-0.05, 0.05), (y - 0.05, y + 0.06), (0.16, 0.24), surfaces.plain((200, 60, 40)))
    part = surfaces.plain(pictures.bright(surfaces.rng), 0.12)
    piece.cylinder((0, 0.1, 0.2), (0, y - 0.06, 0.2), (0.08, 0.05), part, sides=9)
    spool = surfaces.plain(pictures.bright(surfaces.rng), 0.15)
    piece.cylinder((0.02, high + 0.1, 0.3), (0.1, high + 0.1, 0.3), (0.1, 0.1), spool, sides=16)


def toolbox(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a steel toolbox with a handle."""
    colour = _pick(surfaces, ((176, 34, 32), (40, 70, 140), (200, 150, 30), (60, 100, 70)))
    steel, dark = surfaces.plain(colour, 0.1), surfaces.plain(_DARK)
    front = pictures.drawers(surfaces.rng, colour, 2)
    piece.box((-0.27, 0.27), (0, 0.22), (0, 0.24), steel, front=front)
    piece.box((-0.25, 0.25), (0.22, 0.28), (0.03, 0.21), surfaces.plain(shade(colour, 0.85), 0.1))
    for x in (-0.14, 0.12):
        piece.box((x, x + 0.02), (0.28, 0.35), (0.11, 0.13), dark)
    piece.box((-0.15, 0.15), (0.34, 0.37), (0.1, 0.14), dark)


def tool_cabinet(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a cabinet of drawers."""
    half, high = _between(surfaces, 0.32, 0.48), _between(surfaces, 0.8, 1.3)
    colour = _pick(surfaces, ((150, 40, 36), (90, 96, 104), (60, 84, 120), (186, 180, 168)))
    front = pictures.drawers(surfaces.rng, colour, int(surfaces.rng.integers(4, 8)))
    piece.box((-half, half), (0.06, high), (0, 0.5), surfaces.plain(colour, 0.08), front=front)
    piece.box((-half + 0.04, half - 0.04), (0, 0.06), (0.05, 0.46), surfaces.plain(_DARK))
    piece.mount = high


def _hung(
    piece: Piece, half: float, y: tuple[float, float], thick: float, rim: Texture, face: Texture
) -> None:
    """Adds a flat box with a picture on its front."""
    piece.box((-half, half), y, (0, thick), rim)
    corners = [(-half, y[1], -0.004), (half, y[1], -0.004), (half, y[0], -0.004), (-half, y[0], -0.004)]
    piece.sheet(corners, face)


def poster(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a framed print on the wall."""
    half, low = _between(surfaces, 0.24, 0.42), _between(surfaces, 1.15, 1.4)
    _hung(piece, half, (low, low + half * 2.6), 0.02, surfaces.plain(_DARK), pictures.poster(surfaces.rng))


def window(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a window with a sill, glazing bars and daylight behind it."""
    half, low, high = _between(surfaces, 0.5, 0.85), 0.9, _between(surfaces, 1.95, 2.25)
    frame = surfaces.plain((232, 230, 224), 0.03)
    corners = [(-half, high, 0.05), (half, high, 0.05), (half, low, 0.05), (-half, low, 0.05)]
    piece.sheet(corners, pictures.view(surfaces.rng))
    for x in (-half - 0.06, -0.025, half):
        piece.box((x, x + 0.055), (low, high), (0, 0.05), frame)
    for y in (low - 0.05, high):
        piece.box((-half - 0.06, half + 0.055), (y, y + 0.055), (-0.02, 0.05), frame)
    bar = low + 0.62 * (high - low)
    piece.box((-half, half), (bar, bar + 0.04), (0, 0.05), frame)
    piece.box((-half - 0.1, half + 0.1), (low - 0.09, low - 0.05), (-0.12, 0.05), frame)
    piece.lamp = (0, (low + high) / 2, -0.6)


def door(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a closed door."""
    colour = _pick(surfaces, (*_WOODS, (206, 202, 192), (90, 110, 120)))
    _hung(piece, 0.48, (0, 2.08), 0.04, surfaces.wood(colour), pictures.door(surfaces.rng, colour))


def clock(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a round wall clock."""
    low, size, skin = (
        _between(surfaces, 1.75, 2.0),
        _between(surfaces, 0.15, 0.22),
        pictures.clock(surfaces.rng),
    )
    piece.cylinder(
        (0, low + size, 0), (0, low + size, 0.05), (size * 0.99,) * 2, surfaces.plain(_DARK), sides=24
    )
    top = low + 2 * size
    piece.sheet([(-size, top, -0.004), (size, top, -0.004), (size, low, -0.004), (-size, low, -0.004)], skin)


def music_stand(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a music stand with an open score."""
    metal = surfaces.plain(_DARK)
    for x, z in ((-0.26, 0.05), (0.26, 0.05), (0.0, 0.5)):
        piece.cylinder((x, 0.01, z), (0, 0.3, 0.22), (0.014, 0.014), metal, sides=6)
    piece.cylinder((0, 0.2, 0.22), (0, 1.05, 0.22), (0.018, 0.018), metal, sides=8)
    for z, half, skin in ((0.0, 0.27, metal), (-0.01, 0.22, pictures.score(surfaces.rng))):
        corners = [
            (-half, 1.36, 0.3 + z),
            (half, 1.36, 0.3 + z),
            (half, 1.0, 0.18 + z),
            (-half, 1.0, 0.18 + z),
        ]
        piece.sheet(corners, skin)


def whiteboard(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a whiteboard with a pen tray."""
    half = _between(surfaces, 0.6, 1.0)
    _hung(piece, half, (0.95, 0.95 + half * 1.25), 0.03, surfaces.metal(), pictures.whiteboard(surfaces.rng))
    piece.box((-half * 0.6, half * 0.6), (0.92, 0.95), (-0.07, 0.02), surfaces.metal())


def pegboard(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a board of hand tools above where a bench stands."""
    half, colour = (
        _between(surfaces, 0.6, 0.95),
        _pick(surfaces, ((196, 160, 112), (90, 110, 130), (214, 208, 196))),
    )
    board = pictures.pegboard(surfaces.rng, colour)
    _hung(piece, half, (1.15, 1.15 + half * 1.15), 0.025, surfaces.wood(colour), board)


def sofa(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a two-seat sofa with cushions."""
    colour, half = _pick(surfaces, _CLOTHS), _between(surfaces, 0.75, 0.95)
    cloth = surfaces.fabric(colour)
    piece.box((-half, half), (0.08, 0.3), (0.05, 0.85), cloth)
    piece.box((-half, half), (0.08, 0.82), (0.65, 0.88), cloth)
    for x in (-half, half - 0.16):
        piece.box((x, x + 0.16), (0.08, 0.6), (0, 0.85), cloth)
    for x in (-half + 0.17, 0.01):
        piece.box((x, x + half - 0.18), (0.3, 0.45), (0.02, 0.66), surfaces.fabric(shade(colour, 1.12)))
    pillow = surfaces.fabric(pictures.bright(surfaces.rng))
    piece.box((half - 0.55, half - 0.2), (0.45, 0.78), (0.52, 0.64), pillow)


def stool(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a round stool on four legs."""
    high = _between(surfaces, 0.48, 0.72)
    seat, frame = surfaces.wood(_pick(surfaces, _WOODS)), surfaces.plain(_pick(surfaces, (*_CLOTHS, _DARK)))
    for x, z in ((-0.17, 0.03), (0.17, 0.03), (-0.17, 0.37), (0.17, 0.37)):
        piece.cylinder(
            (x, 0, z), (x * 0.7, high - 0.03, 0.2 + (z - 0.2) * 0.7), (0.018, 0.018), frame, sides=6
        )
    piece.cylinder((0, high - 0.04, 0.2), (0, high, 0.2), (0.18, 0.18), seat, sides=20)


def spotlight(piece: Piece, surfaces: Surfaces) -> None:
    """Builds a stage lamp on a tripod, lit, facing the room."""
    metal, high = surfaces.plain(_DARK), _between(surfaces, 1.5, 2.0)
    for x, z in ((-0.35, 0.05), (0.35, 0.05), (0.0, 0.65)):
        piece.cylinder((x, 0, z), (0, 0.6, 0.3), (0.016, 0.016), metal, sides=6)
    piece.cylinder((0, 0.4, 0.3), (0, high, 0.3), (0.02, 0.02), metal, sides=8)
    bulb = Texture(np.full((16, 16, 3), 246, np.uint8), glow=2.5)
    piece.cylinder((0, high + 0.05, 0.08), (0, high + 0.2, 0.42), (0.19, 0.11), metal, sides=18)
    piece.cylinder((0, high + 0.045, 0.07), (0, high + 0.055, 0.085), (0.16, 0.16), bulb, sides=18)
    piece.lamp = (0, high, -0.4)


BUILDERS: dict[str, Callable[[Piece, Surfaces], None]] = {
    "desk": desk, "chair": chair, "bookshelf": bookshelf, "floor lamp": lamp, "desk lamp": desk_lamp,
    "monitor": monitor, "plant": plant, "piano": piano, "drum kit": drum_kit, "guitar": guitar,
    "speaker": speaker, "curtain": curtain, "theatre seats": seats, "mirror": mirror, "barre": barre,
    "workbench": workbench, "3d printer": printer, "toolbox": toolbox, "tool cabinet": tool_cabinet,
    "poster": poster, "window": window, "door": door, "clock": clock, "music stand": music_stand,
    "whiteboard": whiteboard, "pegboard": pegboard, "sofa": sofa, "stool": stool, "spotlight": spotlight,
}  # fmt: skip

FURNITURE: tuple[str, ...] = tuple(BUILDERS)
"""Names of the kinds of furniture; a label's class number is the place in this tuple."""


def build(name: str, surfaces: Surfaces) -> Piece:
    """Builds one piece of furniture.

    Args:
        name: One of `FURNITURE`.
        surfaces: Surfaces of the room; they also give the randomness.

    Returns:
        The piece in its own axes.

    Raises:
        KeyError: There is no such kind.
    """
    piece = Piece(FURNITURE.index(name) if name in BUILDERS else -1)
    BUILDERS[name](piece, surfaces)
    return piece
