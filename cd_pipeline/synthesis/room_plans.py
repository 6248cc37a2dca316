"""What each class of room looks like: its size, surfaces, light and furniture."""

from __future__ import annotations

from dataclasses import dataclass

from cd_pipeline.synthesis.room_textures import Colour, Surfaces, Texture, shade

Span = tuple[float, float]


@dataclass(frozen=True)
class RoomPlan:
    """The recipe of a class of room; spans are drawn from uniformly.

    Attributes:
        width: Between the side walls, in metres.
        depth: From the camera to the far wall, in metres.
        height: From floor to ceiling, in metres.
        eye: Height of the camera in metres.
        ambient: Linear light from everywhere.
        ceiling: Linear strength of each ceiling lamp.
        exposure: Mean linear luminance of the photo.
        pieces: (kind, spot, chance) in the order in which they are tried; see `room_layout.SPOTS`.
    """

    width: Span
    depth: Span
    height: Span
    eye: Span
    ambient: Span
    ceiling: Span
    exposure: Span
    pieces: tuple[tuple[str, str, float], ...]


PLANS: dict[str, RoomPlan] = {
    "DANCE_STUDIO": RoomPlan(
        (5.5, 7.5), (5.0, 7.0), (2.9, 3.5), (1.4, 1.65), (0.2, 0.34), (1.0, 1.5), (0.26, 0.36),
        (
            ("mirror", "back", 1.0), ("barre", "floor", 0.9), ("window", "side", 0.7),
            ("speaker", "edge", 0.7), ("barre", "floor", 0.4), ("piano", "edge", 0.3),
            ("door", "side", 0.5), ("clock", "wall", 0.5), ("plant", "edge", 0.35),
            ("poster", "wall", 0.4), ("stool", "floor", 0.4), ("window", "side", 0.4),
        ),
    ),
    "MAKER_SPACE": RoomPlan(
        (4.6, 6.2), (4.0, 5.6), (2.8, 3.5), (1.45, 1.7), (0.15, 0.28), (1.0, 1.5), (0.2, 0.3),
        (
            ("workbench", "edge", 1.0), ("3d printer", "on", 0.85), ("pegboard", "wall", 0.85),
            ("toolbox", "on", 0.6), ("tool cabinet", "edge", 0.6), ("stool", "floor", 0.6),
            ("workbench", "edge", 0.5), ("monitor", "on", 0.45), ("3d printer", "on", 0.4),
            ("toolbox", "floor", 0.35), ("whiteboard", "wall", 0.35), ("poster", "wall", 0.3),
            ("window", "wall", 0.3), ("door", "wall", 0.3), ("desk lamp", "on", 0.3),
            ("clock", "wall", 0.2),
        ),
    ),
    "MUSIC_PRACTICE_ROOM": RoomPlan(
        (3.8, 5.2), (3.6, 5.0), (2.5, 3.0), (1.35, 1.6), (0.13, 0.26), (0.8, 1.4), (0.17, 0.27),
        (
            ("piano", "edge", 0.75), ("drum kit", "floor", 0.5), ("guitar", "edge", 0.75),
            ("music stand", "floor", 0.75), ("speaker", "edge", 0.7), ("stool", "floor", 0.4),
            ("guitar", "edge", 0.4), ("speaker", "edge", 0.35), ("poster", "wall", 0.6),
            ("plant", "edge", 0.2), ("clock", "wall", 0.25), ("door", "wall", 0.25),
            ("floor lamp", "edge", 0.3), ("window", "wall", 0.2), ("chair", "floor", 0.3),
        ),
    ),
    "SMALL_THEATER": RoomPlan(
        (6.5, 8.5), (8.0, 10.0), (4.2, 5.0), (1.9, 2.3), (0.1, 0.2), (0.15, 0.4), (0.085, 0.14),
        (
            ("curtain", "flank left", 1.0), ("curtain", "flank right", 0.9),
            ("theatre seats", "row", 1.0), ("theatre seats", "row", 1.0), ("theatre seats", "row", 0.8),
            ("spotlight", "stage", 0.6), ("piano", "stage", 0.4), ("speaker", "stage", 0.5),
            ("theatre seats", "row", 0.6), ("drum kit", "stage", 0.3), ("music stand", "stage", 0.35),
            ("door", "side", 0.3), ("stool", "stage", 0.3), ("sofa", "stage", 0.25),
            ("spotlight", "stage", 0.3),
        ),
    ),
    "STUDY_ROOM": RoomPlan(
        (3.6, 5.0), (3.4, 4.8), (2.5, 2.9), (1.35, 1.6), (0.15, 0.3), (0.6, 1.2), (0.22, 0.34),
        (
            ("desk", "edge", 1.0), ("monitor", "on", 0.75), ("chair", "at", 0.8),
            ("bookshelf", "edge", 0.85), ("window", "wall", 0.6), ("desk lamp", "on", 0.55),
            ("plant", "edge", 0.4), ("poster", "wall", 0.45), ("floor lamp", "edge", 0.3),
            ("whiteboard", "wall", 0.3), ("bookshelf", "edge", 0.3), ("sofa", "edge", 0.25),
            ("clock", "wall", 0.35), ("door", "wall", 0.3),
        ),
    ),
}  # fmt: skip
"""The recipe of each class; its keys are the five classes."""


@dataclass(frozen=True)
class Finish:
    """Surfaces of an empty room.

    Attributes:
        floor: Laid on the floor.
        wall: On the side walls.
        far: On the far wall.
        ceiling: Under the ceiling.
        trim: On baseboard and cornice.
        panel: On the lower or middle part of the walls; None where the wall is plain.
        rug: On part of the floor; None where it is bare.
    """

    floor: Texture
    wall: Texture
    far: Texture
    ceiling: Texture
    trim: Texture
    panel: Texture | None
    rug: Texture | None


def _one(surfaces: Surfaces, *colours: Colour) -> Colour:
    return shade(colours[int(surfaces.rng.integers(len(colours)))], float(surfaces.rng.uniform(0.9, 1.08)))


def _chance(surfaces: Surfaces, share: float) -> bool:
    return bool(surfaces.rng.random() < share)


def finish(room_class: str, surfaces: Surfaces) -> Finish:
    """Chooses the surfaces of a room of a class.

    Args:
        room_class: A key of `PLANS`.
        surfaces: Maker of surfaces; it also gives the randomness.

    Returns:
        The surfaces.

    Raises:
        KeyError: There is no such class.
    """
    return _FINISHES[room_class](surfaces)


def _dance(surfaces: Surfaces) -> Finish:
    floor = surfaces.planks(_one(surfaces, (206, 164, 112), (190, 140, 90), (216, 184, 138)))
    wall = surfaces.plaster(_one(surfaces, (228, 222, 212), (214, 218, 226), (230, 214, 206)))
    return Finish(
        floor, wall, wall, surfaces.plain((226, 224, 220), 0.03), surfaces.wood((150, 110, 74)), None, None
    )


def _maker(surfaces: Surfaces) -> Finish:
    floor = surfaces.concrete(_one(surfaces, (146, 144, 140), (120, 124, 128), (160, 150, 136)))
    wall = (
        surfaces.brick(_one(surfaces, (160, 84, 62), (140, 100, 80), (208, 200, 190)))
        if _chance(surfaces, 0.5)
        else surfaces.plaster(_one(surfaces, (206, 210, 208), (190, 198, 206), (220, 206, 170)))
    )
    ceiling = surfaces.concrete((170, 168, 164))
    return Finish(floor, wall, wall, ceiling, surfaces.plain((60, 62, 66)), None, None)


def _music(surfaces: Surfaces) -> Finish:
    carpet = _one(surfaces, (86, 82, 92), (70, 80, 104), (112, 78, 70), (80, 92, 82))
    floor = surfaces.carpet(carpet) if _chance(surfaces, 0.65) else surfaces.planks((132, 92, 60))
    wall = surfaces.plaster(
        _one(surfaces, (190, 180, 168), (168, 174, 184), (200, 186, 160), (150, 130, 126))
    )
    panel = surfaces.foam(_one(surfaces, (72, 74, 80), (110, 44, 44), (50, 66, 96), (96, 90, 82)))
    rug = surfaces.carpet(_one(surfaces, (130, 52, 46), (52, 62, 92))) if _chance(surfaces, 0.4) else None
    return Finish(
        floor, wall, wall, surfaces.tiles((204, 202, 196)), surfaces.plain((90, 86, 82)), panel, rug
    )


def _theatre(surfaces: Surfaces) -> Finish:
    floor = surfaces.carpet(_one(surfaces, (92, 34, 40), (58, 48, 60), (44, 52, 74)))
    wall = surfaces.plaster(_one(surfaces, (78, 62, 60), (60, 56, 66), (96, 72, 58)))
    panel = surfaces.wood(_one(surfaces, (96, 60, 38), (70, 46, 34)))
    return Finish(floor, wall, wall, surfaces.plain((52, 50, 54)), surfaces.wood((70, 46, 30)), panel, None)


_ACCENTS: tuple[Colour, ...] = (
    (96, 120, 112),
    (92, 108, 136),
    (178, 120, 92),
    (150, 140, 110),
    (128, 92, 98),
)


def _study(surfaces: Surfaces) -> Finish:
    floor = (
        surfaces.planks(_one(surfaces, (150, 104, 66), (184, 142, 98), (110, 76, 52)))
        if _chance(surfaces, 0.7)
        else surfaces.carpet(_one(surfaces, (150, 138, 122), (112, 120, 134)))
    )
    paint = _one(
        surfaces, (224, 212, 188), (190, 204, 196), (200, 208, 220), (222, 196, 176), (212, 212, 204)
    )
    wall = surfaces.wallpaper(paint, shade(paint, 0.9)) if _chance(surfaces, 0.4) else surfaces.plaster(paint)
    rug = (
        surfaces.carpet(_one(surfaces, (152, 60, 52), (60, 84, 116), (196, 178, 146)))
        if _chance(surfaces, 0.5)
        else None
    )
    far = surfaces.plaster(_one(surfaces, *_ACCENTS)) if _chance(surfaces, 0.4) else wall
    return Finish(
        floor, wall, far, surfaces.plain((232, 230, 224), 0.03), surfaces.plain((226, 222, 214)), None, rug
    )


_FINISHES = {
    "DANCE_STUDIO": _dance, "MAKER_SPACE": _maker, "MUSIC_PRACTICE_ROOM": _music,
    "SMALL_THEATER": _theatre, "STUDY_ROOM": _study,
}  # fmt: skip
