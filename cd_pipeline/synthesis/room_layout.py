"""Where the furniture of a sample room stands: against walls, on desks, in rows, on the stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cd_pipeline.synthesis.furniture import FURNITURE, build
from cd_pipeline.synthesis.room_canvas import Camera, Points
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_plans import RoomPlan
from cd_pipeline.synthesis.room_textures import Surfaces

SPOTS = ("back", "side", "edge", "wall", "floor", "on", "at", "row", "stage", "flank left", "flank right")
"""`back`, `side`: at the far or a side wall; `edge`, `wall`: at any wall, standing or hung; `floor`: free;
`on`: on another piece; `at`: facing a desk; `row`: in the stalls; `stage`, `flank ...`: on the stage."""

STAGE_HEIGHT = 0.7
MAX_PIECES = 8

_TRIES = 24
_GAP = 0.006
_BEHIND = 1.0


@dataclass(frozen=True)
class Room:
    """An empty room.

    Attributes:
        left: x of the left wall.
        width: Between the side walls.
        height: From floor to ceiling.
        depth: z of the far wall; the rear wall is `behind` metres behind the camera.
        behind: Distance of the rear wall.
        stage: z of the front of the stage; None where there is none.
    """

    left: float
    width: float
    height: float
    depth: float
    behind: float
    stage: float | None

    @property
    def right(self) -> float:
        """The x of the right wall, in metres."""
        return self.left + self.width


@dataclass(frozen=True)
class _Placed:
    name: str
    local: Piece
    piece: Piece
    position: tuple[float, float, float]
    turn: float


_Pose = tuple[tuple[float, float, float], float]


def make_room(room_class: str, plan: RoomPlan, rng: np.random.Generator) -> Room:
    """Draws the size of a room of a class.

    Args:
        room_class: Name of the class; the theatre has a stage.
        plan: Recipe of the class.
        rng: Source of randomness.

    Returns:
        The empty room.
    """
    width, depth = float(rng.uniform(*plan.width)), float(rng.uniform(*plan.depth))
    stage = depth - float(rng.uniform(2.4, 3.2)) if room_class == "SMALL_THEATER" else None
    left = -width * float(rng.uniform(0.4, 0.6))
    return Room(left, width, float(rng.uniform(*plan.height)), depth, _BEHIND, stage)


def furnish(plan: RoomPlan, room: Room, camera: Camera, surfaces: Surfaces) -> list[Piece]:
    """Chooses furniture and places it without collisions, well inside the photo.

    Args:
        plan: Recipe of the class.
        room: The empty room.
        camera: Where the photo is taken from.
        surfaces: Maker of surfaces; it also gives the randomness.

    Returns:
        At most `MAX_PIECES` pieces in world axes, in the order in which they were placed.
    """
    layout = _Layout(room, camera, surfaces.rng)
    for name, spot, chance in plan.pieces:
        if len(layout.placed) < MAX_PIECES and surfaces.rng.random() < chance:
            layout.place(name, spot, build(name, surfaces))
    return [item.piece for item in layout.placed]


class _Layout:
    """A room being furnished."""

    def __init__(self, room: Room, camera: Camera, rng: np.random.Generator) -> None:
        self.room, self.camera, self.rng = room, camera, rng
        self.placed: list[_Placed] = []

    def place(self, name: str, spot: str, local: Piece) -> bool:
        """Tries poses of a piece until one fits; says whether it did."""
        outline = replace(local, faces=[])
        for _ in range(_TRIES):
            found = self._pose(spot, local)
            if found is None:
                return False
            (position, turn), host = found
            trial = outline.placed(position, turn)
            if self._fits(trial, host) and self._in_view(trial):
                self.placed.append(_Placed(name, local, local.placed(position, turn), position, turn))
                return True
        return False

    def _pose(self, spot: str, local: Piece) -> tuple[_Pose, _Placed | None] | None:
        low, high = local.extent()
        if spot in ("on", "at"):
            return self._beside_host(spot, low, high)
        if spot == "floor":
            turn = float(self.rng.uniform(-0.7, 0.7))
            x = float(self.rng.uniform(self.room.left + 0.4, self.room.right - 0.4))
            return ((x, 0.0, float(self.rng.uniform(1.7, max(self.room.depth - 1.0, 1.8)))), turn), None
        if spot in ("row", "stage", "flank left", "flank right"):
            return self._in_theatre(spot, low, high), None
        walls = {"back": (0,), "side": (-1, 1)}.get(spot, (0, 0, -1, 1))
        return self._at_wall(int(self.rng.choice(walls)), low, high), None

    def _at_wall(self, wall: int, low: Points, high: Points) -> _Pose:
        """Puts the rear of a piece against the left (-1), far (0) or right (1) wall."""
        room, half = self.room, float(max(-low[0], high[0]))
        rear = float(high[2]) + _GAP
        if wall == 0:
            x = float(
                self.rng.uniform(
                    room.left + half + 0.05, max(room.right - half - 0.05, room.left + half + 0.06)
                )
            )
            return (x, 0.0, room.depth - rear), 0.0
        near = min(1.5 + half, room.depth - half - 0.1)
        z = float(self.rng.uniform(near, max(room.depth - half - 0.1, near + 0.01)))
        x = room.left + rear if wall < 0 else room.right - rear
        return (x, 0.0, z), wall * math.pi / 2

    def _in_theatre(self, spot: str, low: Points, high: Points) -> _Pose:
        room, half, stage = self.room, float(high[0]), self.room.stage or self.room.depth - 1
        if spot == "row":
            row = int(self.rng.integers(0, 4))
            x = float(self.rng.uniform(room.left + half + 0.2, room.right - half - 0.2))
            return (x, 0.0, 2.4 + row * 0.95), 0.0
        if spot == "stage":
            x = float(
                self.rng.uniform(room.left + half + 0.9, max(room.right - half - 0.9, room.left + half + 1))
            )
            z = float(self.rng.uniform(stage + 0.3, room.depth - float(high[2]) - 0.3))
            return (x, STAGE_HEIGHT, z), float(self.rng.uniform(-0.5, 0.5))
        x = room.left + half + 0.1 if spot == "flank left" else room.right - half - 0.1
        return (x, STAGE_HEIGHT, stage + 0.15), 0.0

    def _beside_host(self, spot: str, low: Points, high: Points) -> tuple[_Pose, _Placed] | None:
        """Puts a piece on top of another, or a chair at a desk."""
        names = ("desk",) if spot == "at" else ("desk", "workbench", "tool cabinet")
        hosts = [item for item in self.placed if item.name in names]
        if not hosts:
            return None
        host = hosts[int(self.rng.integers(len(hosts)))]
        most = host.local.extent()[1]
        span = float(most[0] - max(-low[0], high[0]))
        x = float(self.rng.uniform(-abs(span), abs(span)))
        if spot == "at":
            x, y, z, turn = 0.4 * x, 0.0, float(self.rng.uniform(-0.15, 0.12)), math.pi
        else:
            room = max(float(most[2] - high[2]) - 0.02, 0.05)
            y, z, turn = host.local.mount or 0.0, float(self.rng.uniform(0.5, 1.0)) * room, 0.0
        cos, sin = math.cos(host.turn), math.sin(host.turn)
        position = (
            host.position[0] + x * cos + z * sin,
            host.position[1] + y,
            host.position[2] - x * sin + z * cos,
        )
        return (position, host.turn + turn + float(self.rng.uniform(-0.12, 0.12))), host

    def _fits(self, piece: Piece, host: _Placed | None) -> bool:
        """Whether the piece is inside the room and clear of all others but its host."""
        low, high = piece.extent()
        room = self.room
        if low[0] < room.left or high[0] > room.right or high[1] > room.height or high[2] > room.depth:
            return False
        if room.stage is not None and low[1] < STAGE_HEIGHT - 0.01 and high[2] > room.stage:
            return False
        for other in self.placed:
            if other is not host:
                least, most = other.piece.extent()
                if bool(np.all(low < most - 0.01) and np.all(high > least + 0.01)):
                    return False
        return True

    def _in_view(self, piece: Piece) -> bool:
        """Whether most of the piece is in the photo, large enough, not too large, not behind another."""
        box = self._screen_box(piece)
        if box is None:
            return False
        left, top, right, bottom = box
        wide, high = self.camera.width, self.camera.height
        inside = max(min(right, wide) - max(left, 0), 0) * max(min(bottom, high) - max(top, 0), 0)
        area = (right - left) * (bottom - top)
        if inside < 0.72 * area or inside > 0.45 * wide * high or min(right - left, bottom - top) < 18:
            return False
        for other in self.placed:
            hidden = _overlap(box, self._screen_box(other.piece))
            if hidden > 0.6:
                small = other.name in (
                    "theatre seats",
                    "mirror",
                    "whiteboard",
                    "pegboard",
                    "desk",
                    "workbench",
                )
                if not (small and area < 0.6 * _area(self._screen_box(other.piece))):
                    return False
        return True

    def _screen_box(self, piece: Piece) -> tuple[float, float, float, float] | None:
        points = np.concatenate(piece.bodies)
        if points[:, 2].min() < 0.9:
            return None
        pixels = self.camera.project(points)
        (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
        return float(left), float(top), float(right), float(bottom)


_Box = tuple[float, float, float, float]


def _area(box: _Box | None) -> float:
    return 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: _Box, b: _Box | None) -> float:
    """Returns the share of the smaller box that both cover."""
    if b is None:
        return 0.0
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / max(min(_area(a), _area(b)), 1.0)


def kind_name(piece: Piece) -> str:
    """Returns the name of a piece's kind."""
    return FURNITURE[piece.kind]
