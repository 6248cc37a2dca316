import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cd_pipeline.evaluation.postprocess import cleaned_mask, smooth_mask


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_smoothing_agrees_with_average_pooling(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.6
    pool = torch.nn.functional.avg_pool2d(
        torch.from_numpy(mask)[None, None].double(), kernel_size=3, stride=1, padding=1
    )
    expected = np.where(pool[0, 0].numpy() > 0.5, 255, 0)
    np.testing.assert_array_equal(smooth_mask(mask), expected)


def test_single_pixels_vanish_and_single_holes_close() -> None:
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[1, 1] = 255
    mask[4:9, 4:9] = 255
    mask[6, 6] = 0
    smooth = smooth_mask(mask)
    assert smooth.dtype == np.uint8
    assert (smooth[1, 1], smooth[6, 6]) == (0, 255)


def test_a_full_mask_loses_its_corners_to_the_zero_padding() -> None:
    expected = np.full((4, 5), 255)
    expected[[0, 0, -1, -1], [0, -1, 0, -1]] = 0  # 4 of 9 at a corner, 6 of 9 at an edge
    np.testing.assert_array_equal(smooth_mask(np.ones((4, 5), dtype=bool)), expected)


def test_a_mask_that_is_not_two_dimensional_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("(1, 4, 4)")):
        smooth_mask(np.zeros((1, 4, 4)))


def drawn_mask(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((height, width)) < rng.choice([0.1, 0.5, 0.8, 1]), 255, 0).astype(np.uint8)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_opening_keeps_what_a_square_inside_the_mask_covers(
    height: int, width: int, side: int, seed: int
) -> None:
    mask = drawn_mask(seed, height, width)
    expected, size = np.zeros_like(mask), max(1, side)
    for y in range(height):
        for x in range(width):  # the middle of a square lies in the image, the square may reach beyond it
            top, left = y - size // 2, x - size // 2
            square = slice(max(0, top), top + size), slice(max(0, left), left + size)
            if mask[square].all():
                expected[square] = 255
    np.testing.assert_array_equal(cleaned_mask(mask, opening=side), expected)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_opening_does_not_move_a_square_that_just_fits(side: int) -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[3 : 3 + side, 4 : 4 + side] = 255
    np.testing.assert_array_equal(cleaned_mask(mask, opening=side), mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_components_below_the_smallest_area_are_removed(
    height: int, width: int, min_area: int, seed: int
) -> None:
    mask = drawn_mask(seed, height, width)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    large = [label for label in range(1, count + 1) if (labels == label).sum() >= min_area]
    found = cleaned_mask(mask, min_area=min_area)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.where(np.isin(labels, large), 255, 0))


def test_areas_are_counted_after_the_opening() -> None:
    mask = np.zeros((12, 20), np.uint8)
    mask[2:5, 2:5] = 1  # 9 px, and a tail that the opening takes
    mask[3, 5:15] = 1
    assert cleaned_mask(mask, min_area=19).sum() == 19 * 255
    assert cleaned_mask(mask, min_area=20).sum() == 0
    assert cleaned_mask(mask, opening=3, min_area=9).sum() == 9 * 255
    assert cleaned_mask(mask, opening=3, min_area=10).sum() == 0


def test_pixels_that_touch_at_a_corner_belong_together() -> None:
    np.testing.assert_array_equal(cleaned_mask(np.eye(5), min_area=5), np.eye(5) * 255)


def test_without_settings_a_mask_stays_as_it_is() -> None:
    mask = drawn_mask(3, 9, 11)
    np.testing.assert_array_equal(cleaned_mask(mask), mask)
    assert not cleaned_mask(np.zeros((4, 4)), opening=3, min_area=50).any()


def test_cleaning_a_mask_that_is_not_two_dimensional_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("(1, 4, 4)")):
        cleaned_mask(np.zeros((1, 4, 4)))
