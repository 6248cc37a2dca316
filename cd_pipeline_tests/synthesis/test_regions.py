import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.regions import edge_counts, filled, object_outline, soft_edge
from cd_pipeline_tests.drawn import Pixels

Region = npt.NDArray[np.bool_]
sides, seeds = st.integers(2, 90), st.integers(0, 2**31 - 1)
SHAPES = ("rectangle", "ellipse", "polygon")


def inside_ellipse(height: int, width: int, margin: float) -> Region:
    """The pixels whose centres lie in the inscribed ellipse, its half axes `margin` px longer."""
    y, x = np.mgrid[:height, :width]
    across = (x - (width - 1) / 2) / max((width - 1) / 2 + margin, 1e-9)
    down = (y - (height - 1) / 2) / max((height - 1) / 2 + margin, 1e-9)
    return np.asarray(across**2 + down**2 <= 1)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, seed=seeds)
def test_a_region_has_the_size_of_its_rectangle_and_is_never_empty(
    shape: str, height: int, width: int, seed: int
) -> None:
    region = filled(shape, height, width, seed)
    assert (region.shape, region.dtype) == ((height, width), np.bool_)
    assert region.any()
    assert np.array_equal(region, filled(shape, height, width, seed))


def test_a_rectangle_is_all_of_it() -> None:
    assert filled("rectangle", 7, 12, 0).all()


@settings(max_examples=80, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90))
def test_an_ellipse_follows_its_equation_to_a_pixel(height: int, width: int) -> None:
    region = filled("ellipse", height, width, 0)
    assert not (region & ~inside_ellipse(height, width, 1.0)).any()
    assert not (~region & inside_ellipse(height, width, -1.0)).any()


@settings(max_examples=80, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), seeds)
def test_a_polygon_lies_in_the_ellipse_and_fills_a_good_part_of_it(
    height: int, width: int, seed: int
) -> None:
    region = filled("polygon", height, width, seed)
    ellipse = inside_ellipse(height, width, 1.0)
    assert not (region & ~ellipse).any()
    # five corners at 0.6 of the way still span 0.36 * 5 / (2 pi) * sin(72 deg) = 27 % of the ellipse
    assert region.sum() > 0.2 * ellipse.sum()


def test_seeds_give_other_polygons_and_leave_the_other_shapes_alone() -> None:
    polygons = {filled("polygon", 40, 50, seed).tobytes() for seed in range(20)}
    assert len(polygons) == 20
    for shape in ("rectangle", "ellipse"):
        assert np.array_equal(filled(shape, 40, 50, 1), filled(shape, 40, 50, 2))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHAPES), sides, sides, seeds, st.integers(0, 12))
def test_a_soft_edge_lies_within_the_region(
    shape: str, height: int, width: int, seed: int, softness: int
) -> None:
    region = filled(shape, height, width, seed)
    weights = soft_edge(region, softness)
    assert (weights.dtype, weights.shape) == (np.float32, region.shape)
    assert weights.min() >= 0
    assert weights.max() <= 1 + 1e-6
    assert not weights[~region].any()
    # chessboard distance to the nearest pixel outside, the border of the picture counting as outside
    depth = ndimage.distance_transform_cdt(np.pad(region, 1), "chessboard")[1:-1, 1:-1]
    np.testing.assert_allclose(weights[depth > softness], 1, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_width_is_the_hard_region(shape: str) -> None:
    region = filled(shape, 23, 31, 4)
    np.testing.assert_array_equal(soft_edge(region, 0), region.astype(np.float32))


def test_a_region_too_small_for_its_edge_stays_hard() -> None:
    region = filled("rectangle", 6, 40, 0)
    np.testing.assert_array_equal(soft_edge(region, 3), np.ones((6, 40), np.float32))


def test_a_straight_edge_rises_in_equal_steps_from_just_above_a_half() -> None:
    region = np.zeros((40, 60), np.bool_)
    region[:, 10:50] = True
    row = soft_edge(region, 3)[20]
    expected = [min(1.0, (x - 6) / 7, (53 - x) / 7) if 10 <= x < 50 else 0.0 for x in range(60)]
    np.testing.assert_allclose(row, expected, atol=1e-6)


def disc_photo() -> tuple[Pixels, Region]:
    """Draw a bright disc of radius 22 at (60, 50) on a dark noisy ground."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:100, :120]
    disc = (x - 60) ** 2 + (y - 50) ** 2 <= 22**2
    ground = np.where(disc[..., None], (220, 190, 60), (30, 40, 50)) + rng.normal(0, 6, (100, 120, 3))
    return np.clip(ground, 0, 255).astype(np.uint8), disc


def overlap(first: Region, second: Region) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("box", [Rect(38, 28, 45, 45), Rect(30, 22, 58, 56), Rect(36, 25, 52, 50)])
def test_a_bright_disc_on_a_dark_ground_is_found(box: Rect) -> None:
    photo, disc = disc_photo()
    outline = object_outline(photo, box)
    assert outline.shape == (box.height, box.width)
    assert set(np.unique(outline)) == {0, 255}
    assert overlap(outline > 0, disc[box.slices]) > 0.8


def test_a_large_object_is_found_on_a_small_picture_of_it() -> None:
    photo, disc = disc_photo()
    large = cv2.resize(photo, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    outline = object_outline(large, Rect(120, 88, 232, 224))
    assert max(outline.shape) <= 96
    whole = cv2.resize(outline, (58, 56), interpolation=cv2.INTER_LINEAR) > 127
    assert overlap(np.asarray(whole), disc[22:78, 30:88]) > 0.8


@pytest.mark.parametrize(
    ("photo", "box"),
    [
        (np.full((80, 80, 3), 120, np.uint8), Rect(20, 25, 30, 40)),
        (disc_photo()[0], Rect(0, 0, 120, 100)),
    ],
    ids=["blank photo", "box that fills the picture"],
)
def test_without_an_object_to_find_the_ellipse_stands_in(photo: Pixels, box: Rect) -> None:
    outline = object_outline(photo, box) > 0
    height, width = outline.shape
    assert not (outline & ~inside_ellipse(height, width, 1.0)).any()
    assert not (~outline & inside_ellipse(height, width, -1.0)).any()


def test_the_outline_does_not_depend_on_opencvs_generator() -> None:
    photo = np.random.default_rng(5).integers(0, 256, (60, 60, 3), np.uint8)
    photo = cv2.GaussianBlur(photo, (0, 0), 3).astype(np.uint8)
    outlines = []
    for seed in (1, 2, 3):
        cv2.setRNGSeed(seed)
        cv2.randu(np.zeros((3, seed), np.uint8), 0, 255)
        outlines.append(object_outline(photo, Rect(10, 12, 40, 36)))
    assert np.array_equal(outlines[0], outlines[1])
    assert np.array_equal(outlines[0], outlines[2])


@settings(max_examples=25, deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), seeds)
def test_every_box_of_a_photo_has_an_outline(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (height, width, 3), np.uint8)
    w, h = int(rng.integers(2, width + 1)), int(rng.integers(2, height + 1))
    box = Rect(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    outline = object_outline(photo, box)
    assert outline.shape == (h, w)
    assert outline.any()


def test_a_box_of_a_few_pixels_across_a_whole_photo_has_an_outline() -> None:
    outline = object_outline(np.zeros((910, 512, 3), np.uint8), Rect(0, 0, 2, 910))
    assert outline.any()
    assert max(outline.shape) <= 96


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, edge=st.integers(0, 6), seed=seeds)
def test_counts_of_an_edge_are_its_weights_as_whole_numbers(
    shape: str, height: int, width: int, edge: int, seed: int
) -> None:
    region = filled(shape, height, width, seed)
    counts, full = edge_counts(region, edge)
    assert (counts.dtype, counts.shape) == (np.int16, region.shape)
    assert counts.max() == full
    np.testing.assert_allclose(counts / full, soft_edge(region, edge), atol=1e-5)


def test_an_edge_too_wide_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="a soft edge of 91 px; at most 90 px can be counted"):
        edge_counts(np.ones((3, 3), np.bool_), 91)
