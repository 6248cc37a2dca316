from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.tiles import Window, grid, padded, starts


@st.composite
def lines(draw: st.DrawFn) -> tuple[int, int, int]:
    """Draw the length of a picture, the side of its tiles and their overlap."""
    side = draw(st.integers(1, 40))
    return draw(st.integers(1, 150)), side, draw(st.integers(0, side - 1))


@given(lines())
def test_tiles_cover_the_line_stay_inside_and_overlap_by_what_is_asked(line: tuple[int, int, int]) -> None:
    length, side, overlap = line
    found = starts(length, side, overlap)
    extent = min(side, length)
    assert {pixel for start in found for pixel in range(start, start + extent)} == set(range(length))
    assert (found[0], found[-1] + extent) == (0, length)
    for start, following in pairwise(found):
        assert start < following <= start + side - overlap


@given(lines())
def test_there_are_as_few_tiles_as_can_be(line: tuple[int, int, int]) -> None:
    length, side, overlap = line
    fewest = 1
    while fewest * side - (fewest - 1) * overlap < length:
        fewest += 1
    assert len(starts(length, side, overlap)) == fewest


def test_tiles_that_fit_exactly_do_not_overlap() -> None:
    assert starts(1024, 256) == [0, 256, 512, 768]


@pytest.mark.parametrize("length", [1, 255, 256])
def test_a_picture_that_is_not_longer_than_a_tile_has_one(length: int) -> None:
    assert starts(length, 256, 64) == [0]


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_overlap_that_is_negative_or_a_whole_tile_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match=rf"overlap {overlap} must be in \[0, 8\)"):
        starts(100, 8, overlap)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 30), st.data())
def test_the_tiles_of_a_grid_cover_every_pixel_and_lie_inside(
    width: int, height: int, side: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    seen = np.zeros((height, width), int)
    for window in grid(width, height, side, overlap):
        assert min(window.left, window.top) >= 0
        part = seen[window.rows, window.columns]
        assert part.shape == (window.height, window.width) == (min(side, height), min(side, width))
        part += 1
    assert seen.min() >= 1


def test_a_grid_goes_row_by_row() -> None:
    assert list(grid(5, 4, 3)) == [
        Window(0, 0, 3, 3),
        Window(2, 0, 3, 3),
        Window(0, 1, 3, 3),
        Window(2, 1, 3, 3),
    ]


def test_the_tiles_of_a_small_picture_are_as_small_as_it_is() -> None:
    assert list(grid(5, 40, 16)) == [Window(0, top, 5, 16) for top in (0, 16, 24)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_padding_mirrors_the_picture_to_the_right_and_the_bottom(
    width: int, height: int, side: int, grey: bool, seed: int
) -> None:
    shape = (height, width) if grey else (height, width, 3)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    widths = [(0, max(0, side - height)), (0, max(0, side - width)), (0, 0)][: image.ndim]
    np.testing.assert_array_equal(padded(image, side), np.pad(image, widths, mode="symmetric"))
    assert padded(image, side).dtype == np.uint8
    np.testing.assert_array_equal(padded(image, side, 0), np.pad(image, widths))


def test_a_picture_that_is_large_enough_is_not_copied() -> None:
    image = np.zeros((20, 30), np.uint8)
    assert padded(image, 20) is image
