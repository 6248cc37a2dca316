import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.labels import Box
from cd_pipeline.synthesis.geometry import Rect, box_to_rect, jittered

sides = st.integers(16, 3000)
shares = st.floats(0, 1)
widths = st.floats(0, 1, exclude_min=True)
small = st.integers(-6, 12)
rects = st.builds(Rect, small, small, st.integers(0, 10), st.integers(0, 10))


def published_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Convert a box by the published sentences, edge by edge."""
    bw, bh = int(box.w * width), int(box.h * height)
    x, y = int((box.cx - box.w / 2) * width), int((box.cy - box.h / 2) * height)
    x, y = (0 if x < 0 else x), (0 if y < 0 else y)
    right = width - 1 if x + bw > width - 1 else x + bw
    bottom = height - 1 if y + bh > height - 1 else y + bh
    w, h = right - x, bottom - y
    return x, y, (2 if w < 2 else w), (2 if h < 2 else h)


@given(st.builds(Box, st.just(0), shares, shares, widths, widths), sides, sides)
def test_boxes_are_converted_as_published(box: Box, width: int, height: int) -> None:
    assert box_to_rect(box, width, height) == published_box(box, width, height)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(0, 0.5, 0.5, 0.5, 0.5), (25, 20, 50, 40)),
        (Box(0, 0.5, 0.5, 1.0, 1.0), (0, 0, 99, 79)),  # never the last column or row
        (Box(0, 0.509, 0.509, 0.2, 0.2), (40, 32, 20, 16)),  # 40.9 and 32.72 are cut, not rounded
        (Box(0, 0.0, 0.0, 0.4, 0.4), (0, 0, 40, 32)),  # starts at the edge with its full size
        (Box(0, 1.0, 1.0, 0.4, 0.4), (80, 64, 19, 15)),
        (Box(0, 0.5, 0.5, 0.001, 0.001), (49, 39, 2, 2)),
        (Box(0, 1.0, 1.0, 0.001, 0.001), (99, 79, 2, 2)),  # 2 px even at the corner; clipped later
    ],
)
def test_boxes_convert_as_computed_by_hand(box: Box, expected: tuple[int, int, int, int]) -> None:
    assert box_to_rect(box, 100, 80) == expected


def pixels(rect: Rect) -> set[tuple[int, int]]:
    return {(rect.x + i, rect.y + j) for i in range(rect.width) for j in range(rect.height)}


@given(rects, st.integers(1, 8), st.integers(1, 8))
def test_clipping_keeps_just_the_pixels_inside(rect: Rect, width: int, height: int) -> None:
    clipped = rect.clipped(width, height)
    inside = {(x, y) for x, y in pixels(rect) if 0 <= x < width and 0 <= y < height}
    assert pixels(clipped) == inside
    assert clipped.width >= 0
    assert clipped.height >= 0


@given(rects, st.integers(1, 12), st.integers(1, 12))
def test_growing_adds_one_pixel_right_and_below(rect: Rect, width: int, height: int) -> None:
    clipped = rect.clipped(width, height)
    grown = pixels(clipped.grown(width, height))
    more = {(x + i, y + j) for x, y in pixels(clipped) for i in (0, 1) for j in (0, 1)}
    if pixels(clipped):
        assert grown == {(x, y) for x, y in more if x < width and y < height}


@given(rects, st.integers(1, 12), st.integers(1, 12))
def test_slices_select_the_pixels(rect: Rect, width: int, height: int) -> None:
    clipped = rect.clipped(width, height)
    canvas = np.zeros((height, width), bool)
    canvas[clipped.slices] = True
    assert {(int(x), int(y)) for y, x in np.argwhere(canvas)} == pixels(clipped)


@given(
    st.builds(Box, st.just(0), shares, shares, widths, widths),
    sides,
    sides,
    st.floats(0, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_a_jittered_box_stays_in_the_image_and_in_reach(
    box: Box, width: int, height: int, jitter: float, seed: int
) -> None:
    rect = box_to_rect(box, width, height)
    moved = jittered(rect, np.random.default_rng(seed), jitter, width, height)
    assert moved == moved.clipped(width, height)
    reach_x, reach_y = int(jitter * rect.width), int(jitter * rect.height)
    assert moved.width <= rect.width + reach_x
    assert moved.height <= rect.height + reach_y
    assert rect.x - reach_x <= moved.x <= rect.x + reach_x or moved.x == 0
    assert rect.y - reach_y <= moved.y <= rect.y + reach_y or moved.y == 0


def test_without_jitter_a_box_stays_where_it_is() -> None:
    rect = Rect(10, 20, 30, 40)
    assert jittered(rect, np.random.default_rng(0), 0.0, 100, 100) == rect


def test_jitter_reaches_each_end_and_no_further() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([jittered(Rect(100, 100, 50, 33), rng, 0.12, 400, 400) for _ in range(2000)])
    # int(0.12 * 50) = 6 and int(0.12 * 33) = 3
    assert drawn.min(axis=0).tolist() == [94, 97, 44, 30]
    assert drawn.max(axis=0).tolist() == [106, 103, 56, 36]


def test_a_box_of_two_pixels_does_not_get_smaller_before_it_is_clipped() -> None:
    rng = np.random.default_rng(0)
    assert {jittered(Rect(5, 5, 2, 2), rng, 0.99, 50, 50)[2:] for _ in range(100)} <= {
        (w, h) for w in (2, 3) for h in (2, 3)
    }
