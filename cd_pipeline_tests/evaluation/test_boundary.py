import re
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist, directed_hausdorff

from cd_pipeline.evaluation.boundary import BoundaryDistance, MeanBoundaryDistance, boundary

seeds = st.integers(0, 2**32 - 1)


def drawn(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Blocks and dots, never empty."""
    mask = rng.random(shape) < rng.choice([0.01, 0.3, 0.95])
    row, column = rng.integers(0, shape[0]), rng.integers(0, shape[1])
    mask[row : row + rng.integers(1, 9), column : column + rng.integers(1, 9)] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 25), st.integers(1, 25))
def test_distances_agree_with_scipy(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = drawn(rng, (height, width)), drawn(rng, (height, width))
    edges = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (first, second)]
    expected = max(directed_hausdorff(*edges)[0], directed_hausdorff(*edges[::-1])[0])
    apart = cdist(*edges)
    expected_95 = max(np.percentile(apart.min(axis=0), 95), np.percentile(apart.min(axis=1), 95))
    distance = BoundaryDistance.between(first, second)
    assert (distance.hausdorff, distance.hausdorff_95) == pytest.approx((expected, expected_95), rel=1e-6)


def test_long_distances_are_exact() -> None:
    first, second = np.zeros((2, 1500, 2000), dtype=np.uint8)
    first[0, 0] = second[1499, 1998] = 255
    assert BoundaryDistance.between(first, second).hausdorff == pytest.approx(
        sqrt(1499**2 + 1998**2), rel=1e-7
    )


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_distance_is_symmetric_and_zero_only_between_equal_boundaries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = drawn(rng, (14, 9)), drawn(rng, (14, 9))
    distance = BoundaryDistance.between(first, second)
    assert distance == BoundaryDistance.between(second, first)
    assert distance.hausdorff_95 <= distance.hausdorff
    assert (distance.hausdorff == 0) == np.array_equal(boundary(first), boundary(second))
    assert BoundaryDistance.between(first, first) == BoundaryDistance(0, 0)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_boundary_is_that_of_scipy_erosion(seed: int) -> None:
    mask = drawn(np.random.default_rng(seed), (11, 13))
    np.testing.assert_array_equal(boundary(mask), mask & ~binary_erosion(mask))


def test_a_shifted_block_is_as_far_away_as_the_shift() -> None:
    first, second = np.zeros((2, 30, 30))
    first[5:15, 5:15] = 1
    second[8:18, 9:19] = 7  # any nonzero value is inside
    assert BoundaryDistance.between(first, second).hausdorff == 5


def test_a_hole_counts_because_it_has_a_boundary() -> None:
    full = np.ones((21, 21), dtype=bool)
    holed = full.copy()
    holed[10, 10] = False
    # from beside the hole to the image's edge, where both masks end
    assert BoundaryDistance.between(holed, full).hausdorff == 9


def test_one_far_pixel_moves_the_maximum_and_not_the_95th_percentile() -> None:
    first = np.zeros((60, 60), dtype=bool)
    first[5:25, 5:25] = True
    second = first.copy()
    second[59, 24] = True
    distance = BoundaryDistance.between(first, second)
    assert (distance.hausdorff, distance.hausdorff_95) == (35, 0)


def test_two_empty_masks_are_zero_apart_and_one_empty_mask_infinitely_far() -> None:
    empty, dot = np.zeros((4, 5)), np.eye(4, 5)
    assert BoundaryDistance.between(empty, empty) == BoundaryDistance(0, 0)
    assert BoundaryDistance.between(empty, dot) == BoundaryDistance(inf, inf)
    assert BoundaryDistance.between(dot, empty) == BoundaryDistance(inf, inf)


def test_the_mean_tells_how_many_images_it_leaves_out() -> None:
    distances = [BoundaryDistance(4, 2), BoundaryDistance(inf, inf), BoundaryDistance(0, 0)]
    assert MeanBoundaryDistance.of(iter(distances)) == MeanBoundaryDistance(2, 1, 2, 1)


def test_the_mean_of_nothing_measured_is_none() -> None:
    assert MeanBoundaryDistance.of([]) == MeanBoundaryDistance(None, None, 0, 0)
    assert MeanBoundaryDistance.of([BoundaryDistance(inf, inf)]) == MeanBoundaryDistance(None, None, 0, 1)


def test_unequal_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=re.escape("(2, 3), but truth has shape (3, 2)")):
        BoundaryDistance.between(np.zeros((2, 3)), np.zeros((3, 2)))


def test_masks_that_are_not_flat_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("(H, W), got (1, 2, 3)")):
        BoundaryDistance.between(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)))
