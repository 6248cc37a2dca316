"""A piece of furniture under construction: boxes, cylinders and sheets in its own axes.

Own axes: x to the right, y up from where it stands, z away from the viewer; the front faces -z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from cd_pipeline.synthesis.room_canvas import Face, Points
from cd_pipeline.synthesis.room_textures import Texture

_BOX_SIDES = {
    "front": (2, 6, 4, 0), "back": (7, 3, 1, 5), "left": (3, 2, 0, 1),
    "right": (6, 7, 5, 4), "top": (3, 7, 6, 2), "bottom": (0, 4, 5, 1),
}  # fmt: skip
"""Corners of each side, top left first as seen from outside; a corner's number is 4·(x high) + 2·(y high) +
(z high)."""


@dataclass
class Piece:
    """Faces of one object with the bodies that cast its shadows.

    Attributes:
        kind: Index into `FURNITURE`.
        faces: What to draw.
        bodies: Corners (N, 3) of convex bodies, in metres, for shadows and for the extent.
        mount: Height on which something can stand, in metres; None where nothing can.
        lamp: Where it gives off light; None where it does not.
    """

    kind: int
    faces: list[Face] = field(default_factory=list)
    bodies: list[Points] = field(default_factory=list)
    mount: float | None = None
    lamp: tuple[float, float, float] | None = None

    def box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        skin: Texture,
        **sides: Texture,
    ) -> None:
        """Adds a box between two limits on each axis; `front=`, `top=`... give a side its own skin."""
        corners = np.array([(a, b, c) for a in x for b in y for c in z], np.float64)
        for side, order in _BOX_SIDES.items():
            self.faces.append(Face(corners[list(order)], sides.get(side, skin)))
        self.bodies.append(corners)

    def cylinder(
        self,
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        radius: tuple[float, float],
        skin: Texture,
        cap: Texture | None = None,
        sides: int = 14,
    ) -> None:
        """Adds a round body from `start` to `end` with a radius at either end; `cap` covers both ends."""
        low, high = _ring(start, end, radius[0], sides), _ring(start, end, radius[1], sides)
        low, high = low + np.array(start), high + np.array(end)
        for here in range(sides):
            there = (here + 1) % sides
            quad = np.array([high[there], high[here], low[here], low[there]])
            if radius[1] < 1e-4:
                quad = quad[1:]
            self.faces.append(Face(quad, skin))
        for ring, size in ((high, radius[1]), (low, radius[0])):
            if size > 0.004:
                self.faces.append(Face(ring, cap or skin, solid=False))
        self.bodies.append(np.concatenate([low, high]))

    def sheet(self, corners: list[tuple[float, float, float]], skin: Texture) -> None:
        """Adds a flat sheet seen from both sides; corners top left, top right, bottom right, bottom left."""
        points = np.array(corners, np.float64)
        self.faces.append(Face(points, skin, solid=False))
        self.bodies.append(points)

    def extent(self) -> tuple[Points, Points]:
        """Returns the least and the greatest coordinates, each (3,), in metres."""
        points = np.concatenate(self.bodies)
        return points.min(axis=0), points.max(axis=0)

    def placed(self, position: tuple[float, float, float], turn: float) -> Piece:
        """Returns a copy turned about the vertical by `turn` radians and moved to a position in metres.

        At turn 0 the front faces the camera; at a quarter turn it faces the left wall.
        """
        cos, sin = math.cos(turn), math.sin(turn)

        def move(points: Points) -> Points:
            x = position[0] + points[:, 0] * cos + points[:, 2] * sin
            z = position[2] - points[:, 0] * sin + points[:, 2] * cos
            return np.stack([x, points[:, 1] + position[1], z], axis=1)

        faces = [replace(face, points=move(face.points)) for face in self.faces]
        lamp = None
        if self.lamp is not None:
            spot = move(np.array([self.lamp]))[0]
            lamp = (float(spot[0]), float(spot[1]), float(spot[2]))
        mount = None if self.mount is None else self.mount + position[1]
        return Piece(self.kind, faces, [move(body) for body in self.bodies], mount, lamp)


def _ring(
    start: tuple[float, float, float], end: tuple[float, float, float], radius: float, sides: int
) -> Points:
    """Returns (sides, 3) points of a circle about the origin, across the line from start to end."""
    axis = np.array(end) - np.array(start)
    axis = axis / math.sqrt(float((axis * axis).sum()))
    helper = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 1.0, 0])
    first = np.cross(axis, helper)
    first = first / math.sqrt(float((first * first).sum()))
    second = np.cross(axis, first)
    turns = [2 * math.pi * k / sides for k in range(sides)]
    return np.array([radius * (math.cos(t) * first + math.sin(t) * second) for t in turns])
