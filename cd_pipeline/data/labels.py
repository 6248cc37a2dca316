"""YOLO label files: one object a line, `class cx cy w h`, normalised to [0, 1]."""

import math
from typing import NamedTuple

CLASS_LIMIT = 1 << 31
"""Class numbers are below it."""
EDGE_TOLERANCE = 1e-3
"""Rounding slack beyond [0, 1] that labelling tools leave; such values are clipped."""


class Box(NamedTuple):
    """A labelled object; centre and size are shares of the displayed photo's width and height."""

    class_id: int
    cx: float
    cy: float
    w: float
    h: float


def parse_labels(text: str) -> tuple[list[Box], list[str]]:
    """Read the lines of a label file.

    Args:
        text: the file's content; columns after the fifth are ignored, blank lines too.

    Returns:
        The boxes, in file order, and a sentence for each dropped line: its number and what is wrong.
    """
    boxes: list[Box] = []
    dropped: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            boxes.append(parse_line(line))
        except ValueError as error:
            dropped.append(f"line {number}: {error}")
    return boxes, dropped


def parse_line(line: str) -> Box:
    """Read one line.

    Raises:
        ValueError: fewer than 5 columns, not numbers, not finite, outside [0, 1], an empty box, or a class
            number of 2**31 or more.
    """
    columns = line.split()
    if len(columns) < 5:
        raise ValueError(f"{len(columns)} columns, expected `class cx cy w h`")
    try:
        class_id = int(float(columns[0]))
        values = [float(column) for column in columns[1:5]]
    except (ValueError, OverflowError):
        raise ValueError(f"not numbers: {' '.join(columns[:5])[:60]!r}") from None
    if abs(class_id) >= CLASS_LIMIT:
        raise ValueError(f"class={columns[0][:20]} is not a class number")
    for name, value in zip(("cx", "cy", "w", "h"), values, strict=True):
        _check_share(name, value)
    cx, cy, w, h = (min(max(value, 0.0), 1.0) for value in values)
    if w == 0 or h == 0:
        raise ValueError(f"empty box: w={w:g} h={h:g}")
    return Box(class_id, cx, cy, w, h)


def _check_share(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name}={value} is not finite")
    if not -EDGE_TOLERANCE <= value <= 1 + EDGE_TOLERANCE:
        raise ValueError(f"{name}={value:g} outside [0, 1]")
