"""Objects of the sample VOC scenes, one function a class.

A builder takes the empty piece and the surfaces of the scene and fills the piece in, in its own axes (see
`room_piece`): standing on y = 0, centred on x, front at the least z. Sizes are in metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cd_pipeline.data.classes import VOC_CLASSES
from cd_pipeline.synthesis import furniture
from cd_pipeline.synthesis import room_pictures as pictures
from cd_pipeline.synthesis.room_canvas import Face
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_textures import Colour, Surfaces, Texture, shade

Span = tuple[float, float]

UNLABELLED = 0
"""The class of what is part of the background."""

_DARK: Colour = (36, 36, 40)
_WOODS: tuple[Colour, ...] = ((150, 104, 62), (188, 146, 98), (104, 68, 44), (206, 176, 134), (226, 222, 212))
_GLASS: tuple[Colour, ...] = ((36, 78, 48), (92, 54, 28), (150, 186, 190), (40, 60, 40), (170, 60, 50))
_PAINTS: tuple[Colour, ...] = (
    (178, 38, 36), (44, 76, 142), (226, 226, 222), (60, 62, 68), (158, 162, 166),
    (226, 178, 50), (52, 110, 76), (196, 104, 44), (112, 150, 186),
)  # fmt: skip
_LIVERIES: tuple[Colour, ...] = (
    (196, 40, 40),
    (232, 176, 40),
    (52, 116, 176),
    (224, 224, 220),
    (64, 140, 84),
)


def _pick(surfaces: Surfaces, colours: tuple[Colour, ...]) -> Colour:
    colour = colours[int(surfaces.rng.integers(len(colours)))]
    return shade(colour, float(surfaces.rng.uniform(0.8, 1.15)))


def _between(surfaces: Surfaces, low: float, high: float) -> float:
    return float(surfaces.rng.uniform(low, high))


def _prism(piece: Piece, outline: list[tuple[float, float]], z: Span, skin: Texture) -> None:
    """Add a body of a convex outline (x, y), seen from the front, between two limits on z."""
    near, far = (np.array([(x, y, limit) for x, y in outline]) for limit in z)
    piece.faces += [Face(near, skin, solid=False), Face(far, skin, solid=False)]
    for k in range(len(outline)):
        quad = np.array([near[k - 1], near[k], far[k], far[k - 1]])
        piece.faces.append(Face(quad, skin, solid=False))
    piece.bodies.append(np.concatenate([near, far]))


def _upright(piece: Piece, x: Span, y: Span, z: float, skin: Texture) -> None:
    """Add a sheet that faces the front."""
    piece.sheet([(x[0], y[1], z), (x[1], y[1], z), (x[1], y[0], z), (x[0], y[0], z)], skin)


def _pane(surfaces: Surfaces) -> Texture:
    """Make dark glass that reflects the sky at the top."""
    ramp = np.linspace(1.5, 0.55, 32, dtype=np.float32)[:, None, None]
    tone = np.array((70, 84, 98), np.float32) * np.float32(_between(surfaces, 0.7, 1.2))
    return Texture(np.broadcast_to(ramp * tone, (32, 32, 3)).astype(np.uint8).copy())


def bottle(piece: Piece, surfaces: Surfaces) -> None:
    """Build a bottle of glass with a label and a cap."""
    colour, high = _pick(surfaces, _GLASS), _between(surfaces, 0.3, 0.42)
    wide = _between(surfaces, 0.042, 0.06)
    neck, body = wide * _between(surfaces, 0.3, 0.42), high * _between(surfaces, 0.5, 0.64)
    glass, shoulder = surfaces.plain(colour, 0.06), body + high * _between(surfaces, 0.08, 0.18)
    piece.cylinder((0, 0, wide), (0, body, wide), (wide, wide), glass)
    piece.cylinder((0, body, wide), (0, shoulder, wide), (wide, neck), glass)
    piece.cylinder((0, shoulder, wide), (0, high, wide), (neck, neck * 0.9), glass)
    cap = surfaces.plain(pictures.bright(surfaces.rng))
    piece.cylinder((0, high - 0.03, wide), (0, high + 0.006, wide), (neck * 1.15,) * 2, cap)
    paper = surfaces.plain(_pick(surfaces, ((232, 226, 206), (216, 190, 130), (190, 60, 50))))
    piece.cylinder((0, body * 0.2, wide), (0, body * 0.74, wide), (wide * 1.02,) * 2, paper)
    band = surfaces.plain(pictures.bright(surfaces.rng))
    piece.cylinder((0, body * 0.36, wide), (0, body * 0.52, wide), (wide * 1.03,) * 2, band)
    shine = surfaces.plain(shade(colour, 2.2))
    _upright(piece, (-wide * 0.62, -wide * 0.42), (body * 0.76, body * 0.98), wide * 0.08, shine)
    _upright(piece, (-neck * 0.6, -neck * 0.2), (shoulder, high - 0.035), wide - neck * 1.02, shine)


def _wheels(
    piece: Piece, surfaces: Surfaces, places: tuple[float, ...], z: Span, radius: float, track: float = 0.2
) -> None:
    tyre, hub = surfaces.plain((30, 30, 32)), surfaces.metal((172, 174, 178))
    for x in places:
        for near, far in ((z[0] - 0.03, z[0] + track), (z[1] - track, z[1] + 0.03)):
            piece.cylinder((x, radius, near), (x, radius, far), (radius, radius), tyre, sides=18)
            piece.cylinder((x, radius, near - 0.02), (x, radius, far + 0.02), (radius * 0.58,) * 2, hub)


def car(piece: Piece, surfaces: Surfaces) -> None:
    """Build a saloon, a hatchback, an estate or a van, its bonnet at the left."""
    colour = _pick(surfaces, _PAINTS)
    paint, dark = surfaces.plain(colour, 0.04), surfaces.plain(_DARK)
    half, wide = _between(surfaces, 1.85, 2.2), 1.72
    belt, roof = _between(surfaces, 0.84, 0.95), _between(surfaces, 1.38, 1.56)
    rear = (half * 0.72, half * 0.4) if surfaces.rng.random() < 0.4 else (half * 0.97, half * 0.84)
    front = (-half * 0.5, -half * _between(surfaces, 0.1, 0.22))
    lower = [(-half, 0.32), (half, 0.32), (half, belt - 0.14), (half * 0.97, belt), (front[0], belt),
             (-half * 0.94, belt - 0.12), (-half, belt - 0.26)]  # fmt: skip
    _prism(piece, lower, (0, wide), paint)
    cabin = [(front[0], belt), (rear[0], belt), (rear[1], roof), (front[1], roof)]
    _prism(piece, cabin, (0.1, wide - 0.1), paint)
    _windows(piece, surfaces, cabin, wide)
    piece.box((-half - 0.04, half + 0.04), (0.3, 0.44), (-0.015, wide + 0.015), dark)
    _wheels(piece, surfaces, (-half * 0.62, half * 0.62), (0, wide), 0.32)
    white, red = surfaces.plain((244, 240, 224)), surfaces.plain((190, 26, 26))
    for z in (0.06, wide - 0.36):
        piece.box((-half - 0.02, -half + 0.1), (belt - 0.36, belt - 0.22), (z, z + 0.3), white)
        piece.box((half - 0.1, half + 0.02), (belt - 0.34, belt - 0.18), (z, z + 0.3), red)
    for x in (-half - 0.05, half + 0.042):
        piece.box((x, x + 0.008), (0.36, 0.46), (wide / 2 - 0.26, wide / 2 + 0.26), white)
    for x in (-half * 0.06, half * 0.42):
        piece.box((x, x + 0.16), (belt - 0.12, belt - 0.09), (-0.02, wide + 0.02), dark)


def _windows(piece: Piece, surfaces: Surfaces, cabin: list[tuple[float, float]], wide: float) -> None:
    """Glaze the cabin of a car: two panes at each side, one in front and one behind."""
    (x0, low), (x1, _), (x2, high), (x3, _) = cabin
    pane, rise = _pane(surfaces), high - low
    y = (low + 0.07 * rise, high - 0.14 * rise)

    def at(share: float, height: float) -> float:
        left = x0 + (x3 - x0) * (height - low) / rise + 0.08
        right = x1 + (x2 - x1) * (height - low) / rise - 0.08
        return left + (right - left) * share

    for z in (0.09, wide - 0.09):
        for start, end in ((0.0, 0.48), (0.53, 1.0)):
            corners = ((start, y[1]), (end, y[1]), (end, y[0]), (start, y[0]))
            piece.sheet([(at(share, height), height, z) for share, height in corners], pane)
    for (foot, head), away in (((x0, x3), -0.02), ((x1, x2), 0.02)):
        slope = (head - foot) / rise
        ends = [(foot + slope * (height - low) + away, height) for height in (y[1], y[0])]
        (top, y1), (bottom, y0) = ends
        sheet = [(top, y1, 0.18), (top, y1, wide - 0.18), (bottom, y0, wide - 0.18), (bottom, y0, 0.18)]
        piece.sheet(sheet, pane)


def bus(piece: Piece, surfaces: Surfaces) -> None:
    """Build a bus with a row of windows, its front at the left."""
    half, wide, high = _between(surfaces, 3.6, 4.8), 2.5, _between(surfaces, 2.8, 3.1)
    colour = _pick(surfaces, _LIVERIES)
    body, pane, dark = surfaces.plain(colour, 0.04), _pane(surfaces), surfaces.plain(_DARK)
    other = surfaces.plain(_pick(surfaces, ((238, 236, 230), (40, 60, 110), (200, 60, 50))))
    piece.box((-half, half), (0.36, high), (0, wide), body)
    piece.box((-half + 0.2, half - 0.2), (high, high + 0.12), (0.3, wide - 0.3), other)
    count = round(half * 1.7)
    step = (2 * half - 0.5) / count
    for z in (-0.012, wide + 0.012):
        _upright(piece, (-half, half), (0.8, 1.02), z, other)
        for k in range(count):
            x = -half + 0.3 + k * step
            door = k in (0, count // 2) and z < 0
            _upright(piece, (x, x + step - 0.12), (0.5 if door else 1.35, high - 0.45), z * 1.5, pane)
    for x, low in ((-half - 0.012, 1.1), (half + 0.012, 1.7)):
        sheet = [(x, high - 0.6, 0.15), (x, high - 0.6, wide - 0.15), (x, low, wide - 0.15), (x, low, 0.15)]
        piece.sheet(sheet, pane)
    board = Texture(np.full((16, 16, 3), (240, 180, 60), np.uint8), glow=0.6)
    piece.box((-half - 0.02, -half), (high - 0.42, high - 0.2), (0.5, wide - 0.5), board)
    white, red = surfaces.plain((244, 240, 224)), surfaces.plain((190, 26, 26))
    for z in (0.12, wide - 0.42):
        piece.box((-half - 0.03, -half), (0.6, 0.78), (z, z + 0.3), white)
        piece.box((half, half + 0.03), (0.6, 0.86), (z, z + 0.3), red)
    piece.box((-half - 0.05, half + 0.05), (0.3, 0.46), (-0.01, wide + 0.01), dark)
    _wheels(piece, surfaces, (-half * 0.62, half * 0.55), (0, wide), 0.46, 0.3)


def dining_table(piece: Piece, surfaces: Surfaces) -> None:
    """Build a table on four legs, or a round one on a pedestal, some with a cloth."""
    wood = surfaces.wood(_pick(surfaces, _WOODS))
    high = 0.74
    if surfaces.rng.random() < 0.35:
        radius = _between(surfaces, 0.48, 0.62)
        piece.cylinder((0, high - 0.04, radius), (0, high, radius), (radius, radius), wood, sides=26)
        piece.cylinder((0, 0, radius), (0, high - 0.04, radius), (0.07, 0.05), wood)
        piece.cylinder((0, 0, radius), (0, 0.05, radius), (radius * 0.55, radius * 0.4), wood)
    else:
        half, depth = _between(surfaces, 0.6, 0.85), _between(surfaces, 0.75, 0.95)
        piece.box((-half, half), (high - 0.04, high), (0, depth), wood)
        piece.box((-half + 0.08, half - 0.08), (high - 0.13, high - 0.04), (0.08, depth - 0.08), wood)
        for x in (-half + 0.04, half - 0.11):
            for z in (0.04, depth - 0.11):
                piece.box((x, x + 0.07), (0, high - 0.04), (z, z + 0.07), wood)
        if surfaces.rng.random() < 0.4:
            cloth = surfaces.fabric(pictures.bright(surfaces.rng))
            drop = high - _between(surfaces, 0.12, 0.3)
            piece.box((-half - 0.01, half + 0.01), (drop, high + 0.006), (-0.01, depth + 0.01), cloth)
    piece.mount = high + 0.006


def television(piece: Piece, surfaces: Surfaces) -> None:
    """Build a flat screen on a foot, or an old deep set, on or off."""
    half = _between(surfaces, 0.3, 0.55)
    dark = surfaces.plain(_DARK if surfaces.rng.random() < 0.8 else (176, 178, 182))
    old = surfaces.rng.random() < 0.25
    tall = half * (1.5 if old else 1.16)
    low = 0.02 if old else 0.1
    rim = 0.07 if old else 0.022
    if old:
        half = min(half, 0.36)
        tall = half * 1.5
        piece.box((-half, half), (low, low + tall), (0, 0.16), dark)
        piece.box((-half * 0.75, half * 0.75), (low + 0.03, low + tall - 0.05), (0.16, 0.42), dark)
    else:
        piece.box((-half * 0.4, half * 0.4), (0, 0.018), (-0.02, 0.2), dark)
        piece.box((-0.04, 0.04), (0, 0.16), (0.07, 0.1), dark)
        piece.box((-half, half), (low, low + tall), (0.03, 0.07), dark)
    lit = surfaces.rng.random() < 0.75
    face = pictures.screen(surfaces.rng) if lit else _pane(surfaces)
    z = -0.004 if old else 0.026
    _upright(piece, (-half + rim, half - rim), (low + rim, low + tall - rim), z, face)


def chair(piece: Piece, surfaces: Surfaces) -> None:
    """Build one of the chairs of the sample rooms, or a plain one with a slatted back."""
    if surfaces.rng.random() < 0.6:
        furniture.chair(piece, surfaces)
        return
    plastic = surfaces.rng.random() < 0.4
    skin = (
        surfaces.plain(pictures.bright(surfaces.rng), 0.03)
        if plastic
        else surfaces.wood(_pick(surfaces, _WOODS))
    )
    half, seat, top = 0.22, 0.45, _between(surfaces, 0.85, 1.02)
    for x in (-half, half - 0.04):
        piece.box((x, x + 0.04), (0, seat), (0.01, 0.05), skin)
        piece.box((x, x + 0.04), (0, top), (0.4, 0.44), skin)
    piece.box((-half, half), (seat - 0.04, seat), (0, 0.44), skin)
    piece.box((-half, half), (top - 0.1, top), (0.405, 0.435), skin)
    for k in range(4):
        x = -half + 0.05 + k * 0.1
        piece.box((x, x + 0.045), (seat + 0.08, top - 0.1), (0.41, 0.43), skin)
    piece.box((-half, half), (seat + 0.08, seat + 0.13), (0.405, 0.435), skin)


def sideboard(piece: Piece, surfaces: Surfaces) -> None:
    """Build a low cupboard to put things on."""
    half, high, colour = (
        _between(surfaces, 0.55, 0.8),
        _between(surfaces, 0.45, 0.75),
        _pick(surfaces, _WOODS),
    )
    front = pictures.drawers(surfaces.rng, colour, 2)
    piece.box((-half, half), (0.05, high), (0, 0.42), surfaces.wood(colour), front=front)
    piece.box((-half + 0.04, half - 0.04), (0, 0.05), (0.04, 0.4), surfaces.plain(_DARK))
    piece.mount = high


BUILDERS: dict[str, Callable[[Piece, Surfaces], None]] = {
    "bottle": bottle, "bus": bus, "car": car, "chair": chair, "diningtable": dining_table,
    "pottedplant": furniture.plant, "sofa": furniture.sofa, "tvmonitor": television,
}  # fmt: skip
"""The builder of each class that occurs, by its VOC name."""

CLASSES = {name: VOC_CLASSES.index(name) for name in BUILDERS}
"""The VOC index of each class that occurs."""


def build(name: str, surfaces: Surfaces, factor: float = 1.0) -> Piece:
    """Build one object.

    Args:
        name: a VOC class of `BUILDERS`, "sideboard" or a kind of furniture.
        surfaces: of the scene; they also give the randomness.
        factor: what its size is multiplied by.

    Raises:
        KeyError: there is no such object.
    """
    piece = Piece(-1)
    builder = sideboard if name == "sideboard" else BUILDERS.get(name) or furniture.BUILDERS[name]
    builder(piece, surfaces)
    return resized(piece, factor * surfaces.rng.uniform(0.92, 1.1, 3))


def resized(piece: Piece, factors: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Piece:
    """Return a copy stretched along x, y and z, (3,)."""
    faces = [replace(face, points=face.points * factors) for face in piece.faces]
    mount = None if piece.mount is None else piece.mount * float(factors[1])
    lamp = None
    if piece.lamp is not None:
        x, y, z = (np.array(piece.lamp) * factors).tolist()
        lamp = (x, y, z)
    return Piece(piece.kind, faces, [body * factors for body in piece.bodies], mount, lamp)
