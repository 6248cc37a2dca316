"""One sample room: composed from a seed, then drawn with the boxes of its furniture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.synthesis.room_canvas import (
    CELL,
    OVERSAMPLE,
    Camera,
    Canvas,
    Face,
    Light,
    Look,
    Points,
    box_blur,
)
from cd_pipeline.synthesis.room_layout import STAGE_HEIGHT, Room, furnish, kind_name, make_room
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_plans import PLANS, Finish, RoomPlan, finish
from cd_pipeline.synthesis.room_textures import Colour, Float, Surfaces, Texture, UInt8

SIZES = ((640, 480), (640, 480), (640, 480), (640, 427), (600, 450), (480, 640))
"""Widths and heights of the photos, in pixels; one is drawn at random."""

MIN_SIDE = 12
"""Least side of a listed box, in pixels."""

MIN_VISIBLE = 0.5
"""Least share of an object that must be visible for its box to be listed."""


@dataclass(frozen=True)
class Box:
    """A labelled object.

    Attributes:
        kind: Index into `FURNITURE`.
        left: First column, in pixels.
        top: First row.
        right: One past the last column.
        bottom: One past the last row.
    """

    kind: int
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Scene:
    """A furnished room, all randomness drawn.

    Attributes:
        room: Size of the room.
        camera: Where the photo is taken from.
        finish: Surfaces of the room.
        pieces: Furniture in world axes.
        fixtures: Baseboard, ceiling lamps, stage and the like, which have no boxes.
        lights: Lights.
        ambient: Linear RGB light from everywhere.
        look: How the photo is developed.
        grain: Seed of the sensor noise.
    """

    room: Room
    camera: Camera
    finish: Finish
    pieces: tuple[Piece, ...]
    fixtures: Piece
    lights: tuple[Light, ...]
    ambient: Colour
    look: Look
    grain: int


def compose(room_class: str, rng: np.random.Generator, furnished: bool = True) -> Scene:
    """Draws a room of a class at random.

    Args:
        room_class: A key of `PLANS`.
        rng: Source of randomness.
        furnished: False leaves the room empty.

    Returns:
        The scene.

    Raises:
        KeyError: There is no such class.
    """
    plan, surfaces = PLANS[room_class], Surfaces(rng)
    room = make_room(room_class, plan, rng)
    camera = _camera(plan, rng)
    surface = finish(room_class, surfaces)
    fixtures, lamps = _fixtures(room, surface, surfaces)
    pieces = furnish(plan, room, camera, surfaces) if furnished else []
    lights = [*_ceiling_lights(plan, room, lamps, rng), *_piece_lights(room, pieces, rng)]
    grey = float(rng.uniform(*plan.ambient))
    warm = float(rng.uniform(-0.09, 0.09))
    look = Look(
        exposure=float(rng.uniform(*plan.exposure)),
        balance=(1 + warm, 1.0, 1 - warm),
        vignette=float(rng.uniform(0.1, 0.4)),
        softness=float(rng.uniform(0.1, 0.65)),
        noise=float(rng.uniform(2.0, 4.5)),
    )
    ambient = (grey, grey, grey * 1.06)
    grain = int(rng.integers(2**62))
    return Scene(room, camera, surface, tuple(pieces), fixtures, tuple(lights), ambient, look, grain)


def _camera(plan: RoomPlan, rng: np.random.Generator) -> Camera:
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    centre = (width * float(rng.uniform(0.38, 0.62)), height * float(rng.uniform(0.38, 0.5)))
    focal = max(width, height) * float(rng.uniform(0.68, 0.8))
    return Camera(width, height, focal, centre, float(rng.uniform(*plan.eye)), float(rng.normal(0, 0.008)))


def _fixtures(
    room: Room, surface: Finish, surfaces: Surfaces
) -> tuple[Piece, list[tuple[float, float, float]]]:
    """Builds what belongs to the room itself; returns it and the places of the ceiling lamps."""
    piece, rng = Piece(-1), surfaces.rng
    rear = -room.behind
    for low, high, thick in ((0.0, 0.1, 0.018), (room.height - 0.08, room.height, 0.05)):
        piece.box((room.left, room.right), (low, high), (room.depth - thick, room.depth), surface.trim)
        piece.box((room.left, room.left + thick), (low, high), (rear, room.depth), surface.trim)
        piece.box((room.right - thick, room.right), (low, high), (rear, room.depth), surface.trim)
    if surface.panel is not None:
        _panels(piece, room, surface.panel, (0.0, 1.1) if room.stage else (0.9, min(2.3, room.height - 0.2)))
    if surface.rug is not None:
        x, z = float(rng.uniform(-0.6, 0.2)), float(rng.uniform(1.6, 2.2))
        piece.box((x - 0.5, x + 1.3), (0.0, 0.015), (z, min(z + 1.4, room.depth - 0.5)), surface.rug)
    if room.stage is not None:
        boards, dark = surfaces.planks((112, 76, 48)), surfaces.wood((58, 40, 30))
        piece.box((room.left, room.right), (0, STAGE_HEIGHT), (room.stage, room.depth), dark, top=boards)
        _stage_dress(piece, room, room.stage, surfaces)
    lamp, places = Texture(np.full((16, 16, 3), 250, np.uint8), glow=1.6), []
    for row in range(2 if room.depth > 4.2 else 1):
        x = room.left + room.width * (0.3 + 0.4 * float(rng.random()))
        z, half = room.depth * (0.45 + 0.35 * row), float(rng.uniform(0.2, 0.6))
        piece.box((x - half, x + half), (room.height - 0.06, room.height), (z - 0.15, z + 0.15), lamp)
        places.append((x, room.height - 0.35, z))
    return piece, places


def _stage_dress(piece: Piece, room: Room, stage: float, surfaces: Surfaces) -> None:
    """Hangs a backdrop and a bar of stage lamps."""
    top, rear, metal = STAGE_HEIGHT + 2.6, room.depth - 0.03, surfaces.plain((34, 34, 38))
    backdrop = [(room.left + 0.3, top, rear), (room.right - 0.3, top, rear)]
    backdrop += [(room.right - 0.3, STAGE_HEIGHT, rear), (room.left + 0.3, STAGE_HEIGHT, rear)]
    hue = ((46, 44, 54), (70, 30, 36), (40, 56, 80), (60, 60, 58))[int(surfaces.rng.integers(4))]
    piece.sheet(backdrop, surfaces.drape(hue))
    bar = room.height - 0.5
    piece.cylinder((room.left, bar, stage), (room.right, bar, stage), (0.04, 0.04), metal, sides=6)
    bulb = Texture(np.full((16, 16, 3), (255, 232, 196), np.uint8), glow=2.0)
    for k in range(5):
        x = room.left + room.width * (0.18 + 0.16 * k)
        piece.cylinder(
            (x, bar - 0.04, stage), (x, bar - 0.36, stage + 0.12), (0.09, 0.14), metal, bulb, sides=10
        )


def _panels(piece: Piece, room: Room, skin: Texture, y: tuple[float, float]) -> None:
    """Lays a band of panels over the far and side walls."""
    piece.box((room.left, room.right), y, (room.depth - 0.005, room.depth), skin)
    for x in ((room.left, room.left + 0.005), (room.right - 0.005, room.right)):
        piece.box(x, y, (-room.behind, room.depth), skin)


def _ceiling_lights(
    plan: RoomPlan, room: Room, lamps: list[tuple[float, float, float]], rng: np.random.Generator
) -> list[Light]:
    strength, warm = float(rng.uniform(*plan.ceiling)), float(rng.uniform(0.72, 1.0))
    colour = (strength, strength * (0.5 + warm / 2), strength * warm)
    lights = [Light(place, colour, 2.2) for place in lamps]
    if room.stage is not None:
        x = room.left + room.width * float(rng.uniform(0.35, 0.65))
        hue = (1.6, float(rng.uniform(1.1, 1.4)), float(rng.uniform(0.6, 1.3)))
        lights.append(Light((x, room.height - 0.6, room.stage + 0.6), hue, 2.4))
    return lights


def _piece_lights(room: Room, pieces: list[Piece], rng: np.random.Generator) -> list[Light]:
    """Lets the first windows and lamps shed light."""
    lights: list[Light] = []
    for piece in pieces:
        if piece.lamp is not None and len(lights) < 2:
            day = kind_name(piece) == "window"
            strength = float(rng.uniform(0.8, 1.6))
            colour = (0.85 * strength, 0.95 * strength, 1.1 * strength) if day else (0.9, 0.68, 0.4)
            lights.append(Light(piece.lamp, colour, 1.8 if day else 0.8))
    return lights


def draw(scene: Scene, skip: int | None = None) -> tuple[UInt8, list[Box]]:
    """Draws a scene.

    Args:
        scene: What to draw.
        skip: Number of a piece to leave out, as if it had been carried away; its light stays.

    Returns:
        The photo, (H, W, 3) RGB uint8, and the boxes of the objects at least half visible, tight around
        what is visible of them.
    """
    canvas = Canvas(scene.camera)
    covers: dict[int, int] = {}
    shown = [(k, piece) for k, piece in enumerate(scene.pieces) if k != skip]
    for number, piece in shown:
        covers[number] = canvas.paint(piece.faces, number + 1)
    shell = _shell(scene, [piece for _, piece in shown])
    canvas.paint(scene.fixtures.faces)
    beside = [face for side, face in shell.items() if side != "far"]
    mirrors = [(k, piece) for k, piece in shown if kind_name(piece) == "mirror"]
    outside = np.ones(canvas.owner.shape, np.uint8)
    for number, piece in mirrors:
        window = _window(scene.camera, piece, canvas.owner.shape)
        outside &= 1 - window
        others = [face for k, other in shown if k != number for face in other.faces]
        images = [
            _reflected(face, scene.room.depth)
            for face in (*others, *scene.fixtures.faces, *beside, _rear_wall(scene))
        ]
        canvas.paint(images, number + 1, window)
        covers[number] = int(np.count_nonzero(window))
    canvas.paint(list(shell.values()), window=outside)
    rng = np.random.default_rng(scene.grain)
    room = scene.room
    size = (room.width, room.height, room.depth)
    photo = canvas.develop(size, room.left, list(scene.lights), scene.ambient, scene.look, rng)
    return photo, _boxes(canvas.owner, shown, covers)


def _boxes(owner: UInt8, shown: list[tuple[int, Piece]], covers: dict[int, int]) -> list[Box]:
    """Reads the boxes off the map of visible owners, (H, W) in enlarged pixels."""
    boxes = []
    for number, piece in shown:
        visible = owner == number + 1
        rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        if not len(rows) or np.count_nonzero(visible) < MIN_VISIBLE * covers[number]:
            continue
        left, top = int(columns[0]) // OVERSAMPLE, int(rows[0]) // OVERSAMPLE
        right, bottom = int(columns[-1]) // OVERSAMPLE + 1, int(rows[-1]) // OVERSAMPLE + 1
        if min(right - left, bottom - top) >= MIN_SIDE:
            boxes.append(Box(piece.kind, left, top, right, bottom))
    return boxes


def _window(camera: Camera, piece: Piece, shape: tuple[int, ...]) -> UInt8:
    """Marks the enlarged pixels of a mirror at the far wall, (H, W) uint8 of 0 and 1."""
    low, high = piece.extent()
    corners = [
        (x, y, high[2])
        for x, y in ((low[0], high[1]), (high[0], high[1]), (high[0], low[1]), (low[0], low[1]))
    ]
    pixels = camera.project(np.array(corners)) * OVERSAMPLE
    window = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(window, np.rint(pixels * 16).astype(np.int32), 1, cv2.LINE_8, 4)
    return window


def _reflected(face: Face, depth: float) -> Face:
    """Returns the image of a face in a mirror at z = `depth`."""
    points = face.points.copy()
    points[:, 2] = 2 * depth - points[:, 2]
    return replace(face, points=points, solid=False, mirrored=True)


def _rear_wall(scene: Scene) -> Face:
    room = scene.room
    return Face(_quad(room, "rear"), scene.finish.wall, solid=False)


def _quad(room: Room, side: str) -> Points:
    """Returns the corners (4, 3) of a side of the room in the order that a face asks for."""
    left, right, top, near, far = room.left, room.right, room.height, -room.behind, room.depth
    quads = {
        "floor": [(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)],
        "ceiling": [(left, top, near), (right, top, near), (right, top, far), (left, top, far)],
        "left": [(left, top, near), (left, top, far), (left, 0, far), (left, 0, near)],
        "right": [(right, top, near), (right, top, far), (right, 0, far), (right, 0, near)],
        "far": [(left, top, far), (right, top, far), (right, 0, far), (left, 0, far)],
        "rear": [(left, top, near), (right, top, near), (right, 0, near), (left, 0, near)],
    }
    return np.array(quads[side], np.float64)


def _shell(scene: Scene, pieces: list[Piece]) -> dict[str, Face]:
    """Returns floor, walls and ceiling by name, with the soft shadows of the furniture on them."""
    bodies = [body for piece in pieces for body in piece.bodies]
    look = scene.finish
    skins = {
        "floor": look.floor,
        "ceiling": look.ceiling,
        "left": look.wall,
        "right": look.wall,
        "far": look.far,
    }
    faces = {}
    for side, skin in skins.items():
        points = _quad(scene.room, side)
        shadow = None if side == "ceiling" else _shadow(points, bodies)
        faces[side] = Face(points, skin, solid=False, occlusion=shadow)
    return faces


def _shadow(points: Points, bodies: list[Points]) -> Float:
    """Computes how much light reaches a side of the room past bodies close to it.

    A body darkens its outline on the side, less the farther away it is, and a paler outline shifted
    downwards or forwards; both are blurred.

    Args:
        points: (4, 3) corners of the side.
        bodies: Corners (N, 3) of each body.

    Returns:
        (H, W) float32 in [0, 1], cells of `CELL` metres from corner 0 along the side's axes.
    """
    along, down = points[1] - points[0], points[3] - points[0]
    lengths = [math.sqrt(float((axis * axis).sum())) for axis in (along, down)]
    along, down = along / lengths[0], down / lengths[1]
    across = np.cross(along, down)
    dark = np.zeros((math.ceil(lengths[1] / CELL), math.ceil(lengths[0] / CELL)), np.uint8)
    close = dark.copy()
    for body in bodies:
        offset = body - points[0]
        gap = float(np.abs((offset * across).sum(axis=1)).min())
        if gap < 1.2:
            flat = np.stack([(offset * along).sum(axis=1), (offset * down).sum(axis=1)], axis=1)
            _darken(dark, flat, np.array([0.04, 0.1]) * (1 + gap), round(170 / (1 + 2.5 * gap)))
            if gap < 0.12:
                _darken(close, flat, np.zeros(2), 200)
    wide, tight = box_blur(dark.astype(np.int64) * 64, 7), box_blur(close.astype(np.int64) * 64, 1)
    light = (1 - wide.astype(np.float32) / (255 * 64)) * (1 - tight.astype(np.float32) * (0.5 / (255 * 64)))
    return light.astype(np.float32)


def _darken(grid: UInt8, flat: Points, shift: npt.NDArray[np.float64], value: int) -> None:
    """Raises a grid to `value` inside the hull of flat points (N, 2), in metres, and their shifted copy."""
    points = np.concatenate([flat, flat + shift]) / CELL * 16
    hull = cv2.convexHull(np.rint(points).astype(np.int32)).reshape(-1, 2)
    left, top = np.maximum(hull.min(axis=0) // 16 - 1, 0)
    right, bottom = np.minimum(hull.max(axis=0) // 16 + 2, (grid.shape[1], grid.shape[0]))
    if left >= right or top >= bottom:
        return
    patch = np.zeros((int(bottom - top), int(right - left)), np.uint8)
    cv2.fillConvexPoly(patch, (hull - (left * 16, top * 16)).astype(np.int32), value, cv2.LINE_8, 4)
    view = grid[top:bottom, left:right]
    np.maximum(view, patch, out=view)
