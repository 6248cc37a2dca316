"""Boxes of marked areas, against areas found by walking from pixel to pixel."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cd_pipeline.prediction.boxes import marked_boxes

Mask = npt.NDArray[np.bool_]


def walked_areas(mask: Mask) -> Iterator[list[tuple[int, int]]]:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    while left:
        area, edge = [], [min(left)]
        left.discard(edge[0])
        while edge:
            y, x = edge.pop()
            area.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        yield area


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(0, 99))
def test_every_area_has_the_box_around_its_pixels(mask: Mask, seed: int) -> None:
    probability = np.random.default_rng(seed).random(mask.shape, np.float32)
    found = marked_boxes(mask.astype(np.uint8) * 255, probability)
    areas = sorted(walked_areas(mask), key=lambda area: (-len(area), min(area)))
    assert len(found) == len(areas)
    for box, area in zip(found, areas, strict=True):
        rows, columns = [y for y, _ in area], [x for _, x in area]
        assert (box.left, box.top) == (min(columns), min(rows))
        assert (box.width, box.height) == (max(columns) - box.left + 1, max(rows) - box.top + 1)
        values = [float(probability[pixel]) for pixel in area]
        assert box.area == len(area)
        assert box.max_probability == max(values)
        assert box.mean_probability == pytest.approx(sum(values) / len(values))


def test_areas_that_touch_at_a_corner_are_one() -> None:
    mask = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 0]], np.uint8)
    (box,) = marked_boxes(mask, np.ones((3, 3), np.float32))
    assert (box.left, box.top, box.width, box.height, box.area) == (0, 0, 2, 2, 2)


def test_an_empty_mask_has_no_boxes() -> None:
    assert marked_boxes(np.zeros((4, 5), np.uint8), np.ones((4, 5), np.float32)) == []
