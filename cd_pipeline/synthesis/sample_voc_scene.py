"""Sample VOC scenes: rooms, terraces and streets with objects, drawn by lot, and their masks.

Everything stands on one stage for the renderer of the sample rooms: outdoors its walls are painted with the
horizon, and everything is built at `OUTDOOR_SCALE`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cd_pipeline.data.classes import VOID
from cd_pipeline.synthesis.room_canvas import OVERSAMPLE, Camera, Canvas, Light, Look
from cd_pipeline.synthesis.room_layout import Room
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_plans import Finish, finish
from cd_pipeline.synthesis.room_scene import Scene, draw
from cd_pipeline.synthesis.room_textures import Surfaces, UInt8
from cd_pipeline.synthesis.sample_voc_objects import CLASSES, UNLABELLED
from cd_pipeline.synthesis.sample_voc_outdoors import lay_street, open_air
from cd_pipeline.synthesis.sample_voc_place import Placed, Stage, place_objects

OUTDOOR_SCALE = 0.4
SIZES = ((256, 192), (256, 192), (256, 192), (256, 176), (192, 256))
"""Widths and heights of the pictures in px; one is drawn by lot."""
MIN_SEEN = 0.3
"""The least share of an object that is seen."""
MIN_LEAD = {"bottle": 0.008, "chair": 0.016, "pottedplant": 0.02, "tvmonitor": 0.016}
"""The least share of the picture for its main object; 0.03 for other classes."""

_HOMES = {
    "bottle": ("room", "terrace"), "bus": ("street",), "car": ("street",), "chair": ("room", "terrace"),
    "diningtable": ("room", "terrace"), "pottedplant": ("room", "terrace", "street"), "sofa": ("room",),
    "tvmonitor": ("room",),
}  # fmt: skip
_COMPANY = {
    "room": ("chair", "pottedplant", "sofa", "tvmonitor", "diningtable", "bottle"),
    "terrace": ("chair", "chair", "diningtable", "pottedplant", "bottle"),
    "street": ("car", "car", "car", "bus", "pottedplant"),
}
_FINISHES = ("STUDY_ROOM", "STUDY_ROOM", "MUSIC_PRACTICE_ROOM", "MAKER_SPACE", "DANCE_STUDIO")


@dataclass(frozen=True, slots=True)
class VocScene:
    """A scene, and the VOC index of each of its pieces, 0 for what is background."""

    scene: Scene
    classes: tuple[int, ...]


def compose_voc(rng: np.random.Generator, lead: str) -> VocScene | None:
    """Draw a scene of 1 to 4 objects by lot.

    Args:
        rng: source of randomness.
        lead: name of the VOC class of its main object.

    Returns:
        The scene; None where the main object is too small, or an object hardly to be seen.

    Raises:
        KeyError: that class does not occur.
    """
    homes, surfaces = _HOMES[lead], Surfaces(rng)
    stage = _stage(homes[int(rng.integers(len(homes)))], lead, rng)
    company = rng.choice(_COMPANY[stage.setting], int(rng.choice(4, p=(0.12, 0.28, 0.35, 0.25))))
    placed = place_objects(stage, surfaces, [lead, *company.tolist()])
    if not _shows(stage.camera, placed, lead):
        return None
    surface, fixtures = _surroundings(stage, surfaces)
    indoors = stage.setting == "room"
    grey = rng.uniform(0.16, 0.32) if indoors else rng.uniform(0.4, 0.62)
    scene = Scene(
        room=stage.room,
        camera=stage.camera,
        finish=surface,
        pieces=tuple(item.piece for item in placed),
        fixtures=fixtures,
        lights=tuple(_lights(stage, rng)),
        ambient=(grey, grey, grey * 1.06),
        look=_look(rng, (0.2, 0.34) if indoors else (0.28, 0.4)),
        grain=int(rng.integers(1 << 62)),
    )
    return VocScene(scene, tuple(item.index for item in placed))


def draw_voc(voc: VocScene) -> tuple[UInt8, UInt8]:
    """Draw a scene.

    Returns:
        The picture, (H, W, 3) RGB uint8, and its mask, (H, W) uint8: VOC indices, void in a border of 2 px
        around every object, half of it inside.
    """
    canvas = Canvas(voc.scene.camera)
    for number, piece in enumerate(voc.scene.pieces):
        canvas.paint(piece.faces, number + 1)
    canvas.paint(voc.scene.fixtures.faces)
    return draw(voc.scene)[0], _mask(canvas.owner, voc.classes)


def _mask(owner: UInt8, classes: tuple[int, ...]) -> UInt8:
    """Turn the owners of the enlarged pixels, 0 for none, into VOC indices with void where objects end."""
    labelled = [UNLABELLED, *(k if index else 0 for k, index in enumerate(classes, start=1))]
    things = np.array(labelled, np.uint8)[owner[::OVERSAMPLE, ::OVERSAMPLE]]
    indices = np.array([UNLABELLED, *classes], np.uint8)[things]
    square = np.ones((3, 3), np.uint8)
    border = cv2.dilate(things, square) != cv2.erode(things, square)
    return np.where(border, np.uint8(VOID), indices)


def _shows(camera: Camera, placed: list[Placed], lead: str) -> bool:
    """Whether the main object is large enough, and enough of every object is to be seen."""
    canvas = Canvas(camera)
    covers = [canvas.paint(item.piece.faces, number) for number, item in enumerate(placed, start=1)]
    seen = np.bincount(canvas.owner.reshape(-1), minlength=len(placed) + 1)[1:].tolist()
    largest = 0
    for item, count, cover in zip(placed, seen, covers, strict=True):
        if item.index != UNLABELLED and count < MIN_SEEN * cover:
            return False
        if item.index == CLASSES[lead]:
            largest = max(largest, count)
    return bool(largest >= MIN_LEAD.get(lead, 0.03) * canvas.owner.size)


def _stage(setting: str, lead: str, rng: np.random.Generator) -> Stage:
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    focal = max(width, height) * rng.uniform(0.68, 0.84)
    centre = (width * rng.uniform(0.42, 0.58), height * rng.uniform(0.32, 0.48))
    scale = 1.0 if setting == "room" else OUTDOOR_SCALE
    eye = rng.uniform(1.1, 1.35) if lead == "bottle" else rng.uniform(1.2, 1.7)
    camera = Camera(width, height, focal, centre, eye * scale, rng.normal(0, 0.008))
    if setting == "room":
        wide = rng.uniform(3.6, 5.2)
        left, high, deep = -wide * rng.uniform(0.4, 0.6), rng.uniform(2.5, 3.1), rng.uniform(3.2, 4.8)
        room = Room(left, wide, high, deep, 1.0, None)
    else:
        wide, deep = (14.0, 9.0) if setting == "street" else (9.0, 5.0)
        room = Room(-wide / 2, wide, 7.0, deep, 1.0, None)
    return Stage(setting, room, camera, scale)


def _surroundings(stage: Stage, surfaces: Surfaces) -> tuple[Finish, Piece]:
    """Choose the surfaces around the objects, and what belongs to the place itself."""
    if stage.setting == "room":
        kind = _FINISHES[int(surfaces.rng.integers(len(_FINISHES)))]
        surface = finish(kind, surfaces)
        return surface, _trim(stage.room, surface)
    surface = open_air(stage.setting, surfaces)
    return surface, lay_street(stage.room, surfaces) if stage.setting == "street" else Piece(-1)


def _trim(room: Room, surface: Finish) -> Piece:
    """Build baseboards and a rug."""
    piece = Piece(-1)
    piece.box((room.left, room.right), (0, 0.09), (room.depth - 0.018, room.depth), surface.trim)
    for x in ((room.left, room.left + 0.018), (room.right - 0.018, room.right)):
        piece.box(x, (0, 0.09), (-room.behind, room.depth), surface.trim)
    if surface.rug is not None:
        piece.box((-1.0, 0.9), (0, 0.012), (1.7, min(3.1, room.depth - 0.4)), surface.rug)
    return piece


def _lights(stage: Stage, rng: np.random.Generator) -> list[Light]:
    room = stage.room
    if stage.setting == "room":
        warm, strength = rng.uniform(0.72, 1.0), rng.uniform(0.7, 1.3)
        colour = (strength, strength * (0.5 + warm / 2), strength * warm)
        return [
            Light((room.left + room.width * rng.uniform(0.2, 0.8), room.height - 0.35, depth), colour, 2.2)
            for depth in (room.depth * 0.3, room.depth * 0.75)
        ]
    sun = rng.uniform(0.7, 1.5)
    return [Light((rng.uniform(-6, 6), 6.0, rng.uniform(-1.5, 1)), (sun, sun * 0.97, sun * 0.88), 9.0)]


def _look(rng: np.random.Generator, exposure: tuple[float, float]) -> Look:
    warm = rng.uniform(-0.09, 0.09)
    return Look(
        exposure=rng.uniform(*exposure),
        balance=(1 + warm, 1.0, 1 - warm),
        vignette=rng.uniform(0.05, 0.3),
        softness=rng.uniform(0.05, 0.4),
        noise=rng.uniform(1.5, 4.0),
    )
