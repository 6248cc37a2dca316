"""Where the cracks of a sample picture run: fractal lines with branches, drawn by lot but not yet painted.

Lengths are px of the picture, x to the right, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

WIDTHS = (1.0, 5.0)
"""Of a crack, in px; it varies between them along its length."""

_STEP = 2.5  # px between the points of a line, about
_BRANCHINGS = 2


@dataclass(frozen=True, slots=True)
class Crack:
    """One line of a crack: points (N, 2), and at each its width in px and the share of light lost, (N,)."""

    points: Points
    widths: Points
    depths: Points


def draw_cracks(rng: np.random.Generator, width: int, height: int) -> list[Crack]:
    """Draw 0 to 3 cracks, each with its branches, across a picture of so many px; one in ten has none."""
    lines: list[Crack] = []
    for _ in range(int(rng.choice(4, p=(0.1, 0.42, 0.3, 0.18)))):
        start, end = _ends(rng, width, height)
        lines += _grow(rng, start, end, rng.uniform(1.9, 4.2), rng.uniform(0.38, 0.72), 0)
    return lines


def _ends(rng: np.random.Generator, width: int, height: int) -> tuple[Points, Points]:
    """Choose ends at least a third of the picture's width apart; half of the cracks leave it at one end."""
    size = np.array([width, height])
    while True:
        start, end = rng.uniform(0.06, 0.94, (2, 2)) * size
        if rng.random() < 0.5:
            side = int(rng.integers(2))
            start[side] = -4 if rng.random() < 0.5 else size[side] + 4
        if 0.34 * width < math.dist(start, end) < 0.95 * width:
            return start, end


def _grow(
    rng: np.random.Generator, start: Points, end: Points, width: float, depth: float, level: int
) -> list[Crack]:
    """Draw a line and, from points of it, its branches: each shorter, thinner and fainter."""
    points = _wander(rng, start, end)
    count = len(points)
    # A branch begins as wide as it is and runs out; a main line is thin at both ends.
    along = np.linspace(0, 1, count)
    taper = np.minimum(1, 0.3 + 3.2 * (1 - along))
    if level == 0:
        taper = np.minimum(taper, 0.3 + 3.2 * along)
    widths = np.clip(width * taper * (0.35 + 1.1 * _waves(rng, count, 24)), *WIDTHS)
    depths = depth * (0.55 + 0.45 * taper) * (0.4 + 0.8 * _waves(rng, count, 36))
    lines = [Crack(points, widths, np.clip(depths, 0.14, 0.85))]
    if level < _BRANCHINGS:
        length = count * _STEP
        for _ in range(int(rng.poisson(length / (175 + 120 * level)))):
            at = int(rng.integers(count // 8, count - count // 8))
            heading = points[min(at + 8, count - 1)] - points[max(at - 8, 0)]
            turn = math.atan2(heading[1], heading[0]) + rng.choice((-1, 1)) * rng.uniform(0.45, 1.3)
            reach = length * rng.uniform(0.12, 0.4)
            tip = points[at] + reach * np.array([math.cos(turn), math.sin(turn)])
            thin, faint = rng.uniform(0.5, 0.8), rng.uniform(0.65, 1.0)
            lines += _grow(rng, points[at], tip, widths[at] * thin, depth * faint, level + 1)
    return lines


def _wander(rng: np.random.Generator, start: Points, end: Points) -> Points:
    """Displace midpoints again and again: a fractal line of (N, 2) points."""
    points = np.stack([start, end])
    sway = rng.uniform(0.07, 0.17) * math.dist(start, end)
    fade = rng.uniform(0.52, 0.62)
    for _ in range(max(3, math.ceil(math.log2(math.dist(start, end) / _STEP)))):
        middles = (points[1:] + points[:-1]) / 2 + rng.normal(0, sway, (len(points) - 1, 2))
        finer = np.empty((len(points) + len(middles), 2))
        finer[::2], finer[1::2] = points, middles
        points, sway = finer, sway * fade
    return points


def _waves(rng: np.random.Generator, count: int, step: int) -> Points:
    """Return `count` numbers in [0, 1] that change slowly, with a new goal every `step`, and a little fast."""
    knots = count // step + 2
    slow = np.interp(np.arange(count) / step, np.arange(knots), rng.random(knots))
    return 0.8 * slow + 0.2 * rng.random(count)
