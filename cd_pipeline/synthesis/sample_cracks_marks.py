"""What is on a surface beside cracks, and may look like one: joints, markings, stains, shadows and litter.

Each function draws its subject by lot on a canvas; lengths are px of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from cd_pipeline.synthesis.room_textures import Colour
from cd_pipeline.synthesis.sample_cracks_canvas import Canvas
from cd_pipeline.synthesis.sample_cracks_path import Points

Mark = Callable[[Canvas, np.random.Generator], None]

_LEAVES: tuple[Colour, ...] = ((150, 104, 44), (176, 132, 52), (116, 74, 40), (96, 110, 50))
_WIRES: tuple[Colour, ...] = ((38, 38, 40), (70, 66, 62), (226, 222, 212), (90, 40, 34))


def _point(canvas: Canvas, rng: np.random.Generator, margin: float = 0.0) -> Points:
    return rng.uniform(margin, 1 - margin, 2) * (canvas.width, canvas.height)


def _across(canvas: Canvas, rng: np.random.Generator, turn: float) -> Points:
    """Return the ends, (2, 2), of a straight line at `turn` radians through the whole picture."""
    middle, reach = _point(canvas, rng, 0.12), canvas.width + canvas.height
    along = np.array([math.cos(turn), math.sin(turn)])
    return np.stack([middle - along * reach, middle + along * reach])


def _band(ends: Points, width: float, other: float | None = None) -> Points:
    """Return the corners, (4, 2), of a straight band with a width at either end."""
    along = (ends[1] - ends[0]) / math.dist(ends[0], ends[1])
    normal = np.array([-along[1], along[0]]) / 2
    far = width if other is None else other
    corners = (
        ends[0] - normal * width,
        ends[0] + normal * width,
        ends[1] + normal * far,
        ends[1] - normal * far,
    )
    return np.stack(corners)


def _blob(rng: np.random.Generator, centre: Points, radius: float, rough: float) -> Points:
    """Return the corners, (24, 2), of a round shape with an uneven edge."""
    uneven = rng.random(24) - 0.5
    reach = radius * (1 + rough * (uneven + np.roll(uneven, 1) + 0.5 * np.roll(uneven, 2)) / 1.4)
    stretch, turn = rng.uniform(0.55, 1), rng.uniform(0, math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    turns = [(math.cos(k * math.pi / 12), math.sin(k * math.pi / 12)) for k in range(24)]
    round_ = np.array(turns) * reach[:, None] * (1, stretch)
    return centre + np.stack(
        [cos * round_[:, 0] - sin * round_[:, 1], sin * round_[:, 0] + cos * round_[:, 1]], 1
    )


def _leaf(centre: Points, along: Points, slim: float) -> Points:
    """Return the corners, (8, 2), of a leaf about a point; `along` runs from there to its tip."""
    normal = np.array([-along[1], along[0]]) * slim
    edge = ((-1, 0), (-0.5, 0.8), (0.1, 1), (0.6, 0.6), (1, 0), (0.6, -0.6), (0.1, -1), (-0.5, -0.8))
    return np.array([centre + a * along + b * normal for a, b in edge])


def joints(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cut one to three straight joints, dark, with a light edge, one perhaps across the others."""
    turn, mask = rng.choice((0, math.pi / 2)) + rng.normal(0, 0.1), canvas.blank()
    width = rng.uniform(1, 5)
    for k in range(int(rng.integers(1, 4))):
        canvas.fill(mask, _band(_across(canvas, rng, turn + (math.pi / 2 if k == 2 else 0)), width))
    dark = canvas.soft(mask, 0)
    worn = 1 + 0.35 * canvas.noise(rng, 30)
    canvas.shade(np.float32(rng.uniform(0.3, 0.66)) * dark * worn)
    canvas.shade(np.float32(-0.14) * np.roll(dark, (3, 3), (0, 1)) * (dark == 0))


def lane_marking(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint a worn white or yellow line, whole or broken."""
    ends, mask = _across(canvas, rng, rng.uniform(0, math.pi)), canvas.blank()
    width = rng.uniform(14, 46)
    if rng.random() < 0.5:
        canvas.fill(mask, _band(ends, width))
    else:
        dash, along = rng.uniform(90, 200), (ends[1] - ends[0]) / math.dist(ends[0], ends[1])
        for start in np.arange(0, math.dist(ends[0], ends[1]), dash * 1.6).tolist():
            part = np.stack([ends[0] + along * start, ends[0] + along * (start + dash)])
            canvas.fill(mask, _band(part, width))
    worn = canvas.noise(rng, 22) + 0.7 * canvas.noise(rng, 5) + 0.5 * canvas.grain(rng)
    colour = (218, 214, 204) if rng.random() < 0.75 else (206, 170, 66)
    canvas.paint(canvas.soft(mask, 1) * np.where(worn < rng.uniform(0.2, 0.9), 0.85, 0.15), colour)


def patch(canvas: Canvas, rng: np.random.Generator) -> None:
    """Mend an area with tar or paint: an even tone within straight edges."""
    mask, turn = canvas.blank(), rng.uniform(-0.2, 0.2)
    along = np.array([math.cos(turn), math.sin(turn)]) * rng.uniform(50, 130)
    centre = _point(canvas, rng)
    canvas.fill(mask, _band(np.stack([centre - along, centre + along]), rng.uniform(60, 160)))
    tone = rng.uniform(0.18, 0.45) * (1 if rng.random() < 0.75 else -0.5)
    canvas.shade(np.float32(tone) * canvas.soft(mask, 1) * (1 + 0.2 * canvas.noise(rng, 12)))


def sealed(canvas: Canvas, rng: np.random.Generator) -> None:
    """Lay a broad smooth ribbon of tar."""
    ends = _across(canvas, rng, rng.uniform(0, math.pi))
    steps, knots = np.linspace(0, 1, 60), np.linspace(0, 1, 9)
    sway = np.interp(steps, knots, rng.normal(0, 9, 9))
    along = (ends[1] - ends[0]) / math.dist(ends[0], ends[1])
    points = ends[0] + steps[:, None] * (ends[1] - ends[0]) + sway[:, None] * np.array([-along[1], along[0]])
    mask = canvas.blank()
    canvas.line(mask, points, rng.uniform(9, 17))
    canvas.paint(canvas.soft(mask, 1) * np.float32(rng.uniform(0.6, 0.9)), (46, 46, 50))


def tyre_marks(canvas: Canvas, rng: np.random.Generator) -> None:
    """Leave one or two broad dark bands, streaked along."""
    ends = _across(canvas, rng, rng.uniform(0, math.pi))
    gap, width = rng.uniform(60, 140), rng.uniform(14, 30)
    along = (ends[1] - ends[0]) / math.dist(ends[0], ends[1])
    mask = canvas.blank()
    for side in range(int(rng.integers(1, 3))):
        shift = np.array([-along[1], along[0]]) * gap * side
        for offset in np.arange(-width / 2, width / 2, 4).tolist():
            groove = np.array([-along[1], along[0]]) * offset + shift
            canvas.fill(mask, _band(ends + groove, 3), int(rng.integers(120, 256)))
    patchy = np.clip(0.6 + 0.6 * canvas.noise(rng, 60) + 0.4 * canvas.grain(rng), 0, 1)
    canvas.shade(np.float32(rng.uniform(0.2, 0.45)) * canvas.soft(mask, 1) * patchy)


def stains(canvas: Canvas, rng: np.random.Generator) -> None:
    """Spill something: uneven dark spots, some with a rim."""
    for _ in range(int(rng.integers(1, 5))):
        mask, centre, radius = canvas.blank(), _point(canvas, rng), rng.uniform(8, 55)
        canvas.fill(mask, _blob(rng, centre, radius, 0.6))
        for angle, away, size in rng.random((int(rng.integers(0, 8)), 3)).tolist():
            turn = 2 * math.pi * angle
            spot = centre + radius * (0.8 + away) * np.array([math.cos(turn), math.sin(turn)])
            canvas.disc(mask, spot, 1 + 5 * size)
        inside = canvas.soft(mask, int(rng.integers(1, 7)))
        rim = 4 * inside * (1 - inside) if rng.random() < 0.4 else inside
        canvas.shade(np.float32(rng.uniform(0.12, 0.5)) * rim * (1 + 0.4 * canvas.noise(rng, 24)))


def drips(canvas: Canvas, rng: np.random.Generator) -> None:
    """Let dirt run down in straight streaks that fade."""
    top = rng.uniform(-0.2, 0.5) * canvas.height
    for _ in range(int(rng.integers(2, 9))):
        mask, x = canvas.blank(), rng.uniform(0, canvas.width)
        length, width = rng.uniform(40, 190), rng.uniform(2, 12)
        for k in range(6):
            piece = np.array(
                [[x, top + length * k / 6], [x + rng.normal(0, 0.6), top + length * (k + 1) / 6]]
            )
            canvas.fill(mask, _band(piece, width, width * 0.95), 255 - 38 * k)
        canvas.shade(np.float32(rng.uniform(0.12, 0.36)) * canvas.soft(mask, 2))


def pole_shadow(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cast the straight shadow of a pole or a railing."""
    ends, mask = _across(canvas, rng, rng.uniform(0, math.pi)), canvas.blank()
    along = (ends[1] - ends[0]) / math.dist(ends[0], ends[1])
    step = rng.uniform(40, 90)
    width = rng.uniform(5, 26)
    for k in range(1 if rng.random() < 0.6 else 4):
        canvas.fill(mask, _band(ends + np.array([-along[1], along[0]]) * step * k, width, width * 1.4))
    canvas.shade(np.float32(rng.uniform(0.28, 0.55)) * canvas.soft(mask, int(rng.integers(1, 4))))


def foliage_shadow(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cast the ragged shadow of leaves and twigs from one corner."""
    mask, corner = canvas.blank(), rng.integers(0, 2, 2) * (canvas.width, canvas.height)
    spread = rng.uniform(0.2, 0.4) * np.array([canvas.width, canvas.height])
    size = rng.uniform(9, 24)
    for _ in range(int(rng.integers(30, 110))):
        turn = rng.uniform(0, 2 * math.pi)
        along = np.array([math.cos(turn), math.sin(turn)]) * size * rng.uniform(0.6, 1)
        canvas.fill(mask, _leaf(corner + rng.normal(0, 1, 2) * spread, along, 0.35))
    for _ in range(int(rng.integers(2, 6))):
        tip = corner + rng.normal(0, 1.3, 2) * spread
        canvas.line(mask, np.stack([corner.astype(np.float64), tip]), rng.uniform(1, 3))
    canvas.shade(np.float32(rng.uniform(0.25, 0.5)) * canvas.soft(mask, int(rng.integers(1, 4))))


def _lay(canvas: Canvas, mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], colour: Colour) -> None:
    """Put a thing of a colour on the surface, with its shadow below it at the right."""
    shape = canvas.soft(mask, 0)
    canvas.shade(np.float32(0.4) * np.roll(shape, (4, 4), (0, 1)))
    canvas.paint(shape, colour)
    canvas.covered |= mask


def pebbles(canvas: Canvas, rng: np.random.Generator) -> None:
    """Strew small stones of a few tones, each lighter on top."""
    for _ in range(4):
        mask, lit, grey = canvas.blank(), canvas.blank(), rng.uniform(70, 190)
        for _ in range(int(rng.integers(1, 11))):
            centre, radius = _point(canvas, rng), rng.uniform(1.2, 5)
            canvas.fill(mask, _blob(rng, centre, radius, 0.5))
            canvas.disc(lit, centre - radius * 0.25, radius * 0.45)
        _lay(canvas, mask, (grey, grey * 0.97, grey * 0.92))
        canvas.shade(np.float32(-0.22) * canvas.soft(lit, 0))


def leaves(canvas: Canvas, rng: np.random.Generator) -> None:
    """Drop a few leaves, each with its midrib."""
    for _ in range(int(rng.integers(1, 7))):
        mask, rib = canvas.blank(), canvas.blank()
        centre, turn, length = _point(canvas, rng), rng.uniform(0, 2 * math.pi), rng.uniform(8, 20)
        along = np.array([math.cos(turn), math.sin(turn)]) * length
        canvas.fill(mask, _leaf(centre, along, rng.uniform(0.3, 0.5)))
        colour = _LEAVES[int(rng.integers(len(_LEAVES)))]
        _lay(canvas, mask, colour)
        canvas.line(rib, np.stack([centre - along * 1.4, centre + along]), 0.8)
        canvas.paint(canvas.soft(rib, 0), tuple(np.array(colour) * 0.65))


def twigs(canvas: Canvas, rng: np.random.Generator) -> None:
    """Drop a few straight twigs with a fork."""
    for _ in range(int(rng.integers(1, 4))):
        mask, start, turn = canvas.blank(), _point(canvas, rng), rng.uniform(0, 2 * math.pi)
        length = rng.uniform(30, 120)
        for share, bend in ((1.0, 0.0), (0.45, rng.uniform(0.4, 0.9))):
            root = start + (1 - share) * 0.8 * length * np.array([math.cos(turn), math.sin(turn)])
            tip = root + share * length * np.array([math.cos(turn + bend), math.sin(turn + bend)])
            canvas.line(mask, np.stack([root, tip]), rng.uniform(1.2, 2.6))
        tone = rng.uniform(0.6, 1.3)
        _lay(canvas, mask, (104 * tone, 82 * tone, 60 * tone))


def wires(canvas: Canvas, rng: np.random.Generator) -> None:
    """Hang one or two cables in a smooth curve, of one width, with a shadow beside them."""
    for _ in range(int(rng.integers(1, 3))):
        ends = _across(canvas, rng, rng.choice((0, math.pi / 2)) + rng.normal(0, 0.25))
        sag, width = rng.uniform(-0.25, 0.25) * (canvas.width + canvas.height), rng.uniform(1.5, 4)
        steps = np.linspace(0, 1, 80)[:, None]
        along = (ends[1] - ends[0]) / math.dist(ends[0], ends[1])
        points = ends[0] + steps * (ends[1] - ends[0])
        points += 4 * steps * (1 - steps) * sag * np.array([-along[1], along[0]])
        mask, away = canvas.blank(), rng.uniform(2, 9)
        canvas.line(mask, points + away, width)
        canvas.shade(np.float32(rng.uniform(0.15, 0.4)) * canvas.soft(mask, 1))
        mask = canvas.blank()
        canvas.line(mask, points, width)
        canvas.paint(canvas.soft(mask, 0), _WIRES[int(rng.integers(len(_WIRES)))])
        canvas.covered |= mask


BELOW: Mapping[str, tuple[tuple[Mark, float], ...]] = {
    "asphalt": ((patch, 0.35), (lane_marking, 0.45), (sealed, 0.25), (tyre_marks, 0.4), (stains, 0.5), (joints, 0.2)),
    "concrete": ((patch, 0.2), (joints, 0.6), (stains, 0.6), (tyre_marks, 0.2), (drips, 0.25)),
    "plaster": ((patch, 0.3), (stains, 0.4), (drips, 0.55), (joints, 0.25)),
}  # fmt: skip
"""What cracks run through, in the order in which it comes, and how often it is there."""

ABOVE: Mapping[str, tuple[tuple[Mark, float], ...]] = {
    "asphalt": ((pebbles, 0.35), (twigs, 0.3), (leaves, 0.3), (pole_shadow, 0.35), (foliage_shadow, 0.3)),
    "concrete": ((pebbles, 0.3), (twigs, 0.3), (leaves, 0.25), (wires, 0.2), (pole_shadow, 0.4), (foliage_shadow, 0.3)),
    "plaster": ((wires, 0.5), (pole_shadow, 0.4), (foliage_shadow, 0.4)),
}  # fmt: skip
"""What lies on the cracks or is cast over them."""


def put(
    canvas: Canvas,
    rng: np.random.Generator,
    marks: Mapping[str, tuple[tuple[Mark, float], ...]],
    surface: str,
) -> None:
    """Put those marks on a surface that the lot chooses."""
    for mark, share in marks[surface]:
        if rng.random() < share:
            mark(canvas, rng)
