"""Where the objects of a sample VOC scene stand: on the floor, on a table, against the far wall."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cd_pipeline.synthesis.room_canvas import Camera
from cd_pipeline.synthesis.room_layout import Room
from cd_pipeline.synthesis.room_piece import Piece
from cd_pipeline.synthesis.room_textures import Surfaces
from cd_pipeline.synthesis.sample_voc_objects import CLASSES, UNLABELLED, build

_TRIES = 30
_PROPS = ("poster", "window", "bookshelf", "floor lamp", "clock", "door")
_NEAREST = {"car": 4.0, "bus": 7.0, "sofa": 1.9, "diningtable": 1.5}
_FARTHEST = {"car": 12.0, "bus": 13.0}
_IN_PICTURE = 0.7  # least share of an object
_TABLE_IN_PICTURE = 0.35


@dataclass(frozen=True, slots=True)
class Stage:
    """An empty scene: a room, a terrace or a street, and how large things are built there."""

    setting: str
    room: Room
    camera: Camera
    scale: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A piece in world axes, and its VOC index, 0 for what is background."""

    piece: Piece
    index: int


def place_objects(stage: Stage, surfaces: Surfaces, names: list[str]) -> list[Placed]:
    """Place objects and what they stand on, then what is along the walls.

    Args:
        stage: where they go.
        surfaces: of the scene; they also give the randomness.
        names: VOC classes, the main object first.

    Returns:
        What found a place.
    """
    return _Placer(stage, surfaces).run(names)


class _Placer:
    """A scene being filled."""

    def __init__(self, stage: Stage, surfaces: Surfaces) -> None:
        self.stage, self.surfaces, self.rng = stage, surfaces, surfaces.rng
        self.placed: list[Placed] = []

    def run(self, names: list[str]) -> list[Placed]:
        hosts: list[Piece] = []
        for name in sorted(names, key=lambda name: name == "bottle" and names[0] != name):
            if name in ("bottle", "tvmonitor"):
                if name == "tvmonitor" or not hosts:
                    hosts += self._host(name, close=name == names[0] == "bottle")
                if hosts:
                    self._stand_on(name, hosts[-1])
            else:
                found = self._stand(name)
                hosts += found if name == "diningtable" else []
        if self.stage.setting == "room":
            for name in self.rng.permutation(_PROPS)[: int(self.rng.integers(0, 4))].tolist():
                self._stand(name)
        return self.placed

    def _host(self, name: str, *, close: bool) -> list[Piece]:
        """Bring what something is to stand on."""
        table = name == "bottle" and (close or self.rng.random() < 0.7)
        return self._stand("diningtable" if table else "sideboard", close=close)

    def _stand(self, name: str, *, close: bool = False) -> list[Piece]:
        """Stand an object on the floor, or against the far wall, clear of others."""
        stage, rng = self.stage, self.rng
        local = build(name, self.surfaces, stage.scale)
        outline, (_, high) = replace(local, faces=[]), local.extent()
        along_wall = name in (*_PROPS, "sideboard")
        least = 0.2 if close else _TABLE_IN_PICTURE if name == "diningtable" else _IN_PICTURE
        for _ in range(_TRIES):
            depth = (
                stage.room.depth - 0.04 - float(high[2])
                if along_wall
                else rng.uniform(*self._reach(name, close))
            )
            turn = 0.0 if along_wall else _turn(name, rng)
            span = (0.3 if close else 0.5) * depth + 0.2 * stage.scale
            position = (rng.uniform(-span, span), 0.0, depth)
            trial = outline.placed(position, turn)
            if self._in_picture(trial, least) and self._free(trial, 0.03 * stage.scale):
                return self._keep(name, local.placed(position, turn))
        return []

    def _stand_on(self, name: str, host: Piece) -> None:
        """Stand an object on another, in its nearer part."""
        rng, local = self.rng, build(name, self.surfaces, self.stage.scale)
        outline, (low, high) = replace(local, faces=[]), host.extent()
        least, most = local.extent()
        if most[0] - least[0] > 1.1 * (high[0] - low[0]):
            return
        for _ in range(_TRIES):
            x = low[0] + (high[0] - low[0]) * rng.uniform(0.22, 0.78)
            z = low[2] + (high[2] - low[2]) * rng.uniform(0.15, 0.6)
            position, turn = (float(x), host.mount or 0.0, float(z)), rng.uniform(-0.25, 0.25)
            trial = outline.placed(position, turn)
            if self._in_picture(trial, _IN_PICTURE) and self._free(trial, 0.0, host):
                self._keep(name, local.placed(position, turn))
                return

    def _keep(self, name: str, piece: Piece) -> list[Piece]:
        self.placed.append(Placed(piece, CLASSES.get(name, UNLABELLED)))
        return [piece]

    def _reach(self, name: str, close: bool) -> tuple[float, float]:
        """Return between which depths an object stands."""
        scale = self.stage.scale
        if close:
            return 0.6 * scale, 0.8 * scale
        nearest = _NEAREST.get(name, 1.3) * scale
        farthest = min(_FARTHEST.get(name, 3.2) * scale, self.stage.room.depth - 0.4 * scale)
        return nearest, max(farthest, nearest + 0.01)

    def _free(self, piece: Piece, gap: float, host: Piece | None = None) -> bool:
        """Whether a piece is inside the room and clear of all others but its host."""
        room, (low, high) = self.stage.room, piece.extent()
        if low[0] < room.left or high[0] > room.right or high[2] > room.depth or high[1] > room.height:
            return False
        for other in self.placed:
            least, most = other.piece.extent()
            if other.piece is not host and bool(np.all(low < most + gap) and np.all(high > least - gap)):
                return False
        return True

    def _in_picture(self, piece: Piece, share: float) -> bool:
        """Whether a share of a piece is in the picture, neither too small nor too large."""
        points, camera = np.concatenate(piece.bodies), self.stage.camera
        if points[:, 2].min() < 0.22:
            return False
        pixels = camera.project(points)
        (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
        wide, high = min(right, camera.width) - max(left, 0), min(bottom, camera.height) - max(top, 0)
        inside, size = max(wide, 0) * max(high, 0), camera.width * camera.height
        return bool(inside > share * (right - left) * (bottom - top) and 0.01 * size < inside < 0.75 * size)


def _turn(name: str, rng: np.random.Generator) -> float:
    """Return which way an object faces, in radians."""
    if name in ("car", "bus"):
        side = rng.choice((0, math.pi)) if rng.random() < 0.7 else rng.choice((-1, 1)) * math.pi / 2
        return float(side + rng.normal(0, 0.3))
    if name == "chair":
        return float(rng.uniform(-math.pi, math.pi))
    return float(rng.uniform(-0.6, 0.6))
