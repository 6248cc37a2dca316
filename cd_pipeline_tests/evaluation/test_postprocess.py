import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.evaluation.postprocess import smooth_mask


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
