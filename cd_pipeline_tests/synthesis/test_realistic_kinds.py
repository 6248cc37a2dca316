import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.realistic_kinds import FILLS, inpainted, recoloured
from cd_pipeline.synthesis.regions import filled
from cd_pipeline_tests.drawn import Pixels

seeds = st.integers(0, 2**32 - 1)
OTHER_KINDS = ("replace", "insert", "retexture")


def noise(seed: int, height: int = 20, width: int = 30) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", FILLS)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, height=st.integers(2, 40), width=st.integers(2, 40))
def test_a_fill_keeps_size_and_input_and_depends_on_its_seed_alone(
    kind: str, seed: int, height: int, width: int
) -> None:
    patch, other = noise(seed, height, width), noise(seed + 1, height, width)
    kept = patch.copy(), other.copy()
    first, again = (FILLS[kind](patch, other, np.random.default_rng(seed)) for _ in range(2))
    assert (first.shape, first.dtype) == (patch.shape, np.uint8)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(patch, kept[0])
    np.testing.assert_array_equal(other, kept[1])


def test_black_is_black_and_rect_is_dark_noise() -> None:
    rng = np.random.default_rng(0)
    assert not FILLS["black"](noise(1), None, rng).any()
    dark = FILLS["rect"](noise(1, 60, 60), None, rng)
    assert (dark.min(), dark.max()) == (0, 29)
    assert dark.mean() == pytest.approx(14.5, abs=0.5)


def test_blur_and_pixel_are_the_published_ones() -> None:
    patch = noise(2, 40, 60)
    blurred = FILLS["blur"](patch, None, np.random.default_rng(0))
    np.testing.assert_array_equal(blurred, cv2.GaussianBlur(patch, (9, 9), 0))  # 2 * (40 // 10) + 1
    coarse = cv2.resize(patch, (9, 6), interpolation=cv2.INTER_LINEAR)  # 0.15 of each side
    pixelated = FILLS["pixel"](patch, None, np.random.default_rng(0))
    np.testing.assert_array_equal(pixelated, cv2.resize(coarse, (60, 40), interpolation=cv2.INTER_NEAREST))


@pytest.mark.parametrize("kind", ["replace", "insert"])
def test_replaced_and_inserted_regions_show_the_other_photo(kind: str) -> None:
    other = noise(4)
    np.testing.assert_array_equal(FILLS[kind](noise(3), other, np.random.default_rng(0)), other)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_retexture_is_a_mixture_of_both(seed: int) -> None:
    patch, other = np.full((4, 5, 3), 40, np.uint8), np.full((4, 5, 3), 240, np.uint8)
    mixed = FILLS["retexture"](patch, other, np.random.default_rng(seed))
    assert (mixed == mixed[0, 0, 0]).all()
    assert 40 + 0.4 * 200 - 0.5 <= mixed[0, 0, 0] <= 40 + 0.75 * 200 + 0.5
    textured = FILLS["retexture"](noise(seed), noise(seed + 1), np.random.default_rng(seed)).astype(float)
    for source in (noise(seed), noise(seed + 1)):  # both show through
        assert np.corrcoef(textured.ravel(), source.ravel())[0, 1] > 0.2


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_without_another_photo_nothing_changes(kind: str) -> None:
    patch = noise(5)
    np.testing.assert_array_equal(FILLS[kind](patch, None, np.random.default_rng(0)), patch)


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([(200, 40, 40), (30, 160, 60), (40, 60, 210), (190, 180, 40)]))
def test_a_recoloured_hue_turns_by_40_to_320_degrees(seed: int, colour: tuple[int, int, int]) -> None:
    patch = np.full((3, 3, 3), colour, np.uint8)
    pixel = recoloured(patch, np.random.default_rng(seed))[1, 1]
    old, new = (colorsys.rgb_to_hsv(*(float(v) / 255 for v in rgb)) for rgb in (colour, pixel))
    turned = (new[0] - old[0]) * 360 % 360
    assert 40 - 4 <= turned <= 320 + 4  # hue has steps of 2 degrees, colours of 1 / 255
    assert new[1] > old[1] + 0.1 or new[1] > 0.98
    assert new[2] == pytest.approx(old[2], abs=0.01)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(40, 255))
def test_grey_things_get_a_colour(seed: int, value: int) -> None:
    pixel = recoloured(np.full((2, 2, 3), value, np.uint8), np.random.default_rng(seed))[0, 0].astype(float)
    assert pixel.max() == pytest.approx(value, abs=1)
    saturation = (pixel.max() - pixel.min()) / pixel.max() * 255
    assert 40 - 7 <= saturation <= 120 + 7  # of 255; a dark value is coarse


def test_paint_keeps_the_shading() -> None:
    ramp = np.repeat(np.linspace(30, 200, 40, dtype=np.uint8)[None, :, None], 3, axis=2)
    painted = [FILLS["recolour"](ramp, None, np.random.default_rng(seed)) for seed in range(12)]
    assert len({image.tobytes() for image in painted}) == 12
    for image in painted:
        brightest = image.max(axis=2)[0].astype(int)
        assert (np.diff(brightest) >= 0).all()
        assert brightest[-1] > brightest[0]


@pytest.mark.parametrize("method", [cv2.INPAINT_TELEA, cv2.INPAINT_NS])
@pytest.mark.parametrize("side", [12, 100])
def test_a_hole_is_filled_from_around_it_alone(method: int, side: int) -> None:
    # the object's own pixels must not shine through, even where the hole is reduced before it is filled
    region = filled("ellipse", side, side, 0)
    image = np.full((160, 160, 3), (90, 120, 60), np.uint8)
    rect = Rect(30, 20, side, side)
    image[rect.slices][region] = (250, 0, 250)
    kept = image.copy()
    filled_in = inpainted(image, rect, region, method)
    assert (filled_in.shape, filled_in.dtype) == ((side, side, 3), np.uint8)
    expected = np.broadcast_to((90, 120, 60), (int(region.sum()), 3))
    np.testing.assert_allclose(filled_in[region], expected, rtol=0, atol=8)  # OpenCV's own error
    np.testing.assert_array_equal(image, kept)


def test_a_small_hole_is_inpainted_as_opencv_does() -> None:
    image = cv2.GaussianBlur(noise(7, 64, 64), (0, 0), 2).astype(np.uint8)
    rect, region = Rect(20, 24, 14, 10), filled("polygon", 10, 14, 3)
    hole = np.zeros((64, 64), np.uint8)
    hole[rect.slices] = region
    whole = cv2.inpaint(image, hole, 3, cv2.INPAINT_TELEA)
    found = inpainted(image, rect, region, cv2.INPAINT_TELEA)
    np.testing.assert_allclose(found, whole[rect.slices], rtol=0, atol=1)


@pytest.mark.parametrize(
    "rect", [Rect(0, 0, 64, 64), Rect(0, 0, 2, 64), Rect(62, 62, 2, 2), Rect(0, 20, 64, 2)]
)
def test_a_hole_may_touch_the_border(rect: Rect) -> None:
    region = np.ones((rect.height, rect.width), np.bool_)
    for method in (cv2.INPAINT_TELEA, cv2.INPAINT_NS):
        assert inpainted(noise(8, 64, 64), rect, region, method).shape == (rect.height, rect.width, 3)
