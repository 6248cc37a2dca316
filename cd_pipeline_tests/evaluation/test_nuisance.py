import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import kstest

from cd_pipeline.evaluation.nuisance import (
    StandardNuisance,
    apply_nuisance,
    draw_standard_nuisance,
    nuisance_seed,
    standard_nuisance,
)

NEUTRAL = StandardNuisance(
    gain=1.0,
    offset=0.0,
    contrast=1.0,
    channel_gains=(1.0, 1.0, 1.0),
    gradient=None,
    blur=False,
    noise_sigma=0.0,
    noise_seed=1,
    jpeg_quality=None,
    shift_x=0.0,
    shift_y=0.0,
)


def picture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Smooth colours away from both ends of the range."""
    down, across = np.mgrid[:height, :width]
    channels = [100 + down, 90 + across, 130 + 20 * np.sin((down + across) / 9)]
    return np.stack(channels, axis=2).astype(np.uint8)


def drawn(count: int) -> list[StandardNuisance]:
    rng = np.random.default_rng(7)
    return [draw_standard_nuisance(rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (lambda n: n.gain, 0.8, 1.2),
        (lambda n: n.offset, -15, 15),
        (lambda n: n.contrast, 0.85, 1.15),
        (lambda n: n.channel_gains[0], 0.94, 1.06),
        (lambda n: n.channel_gains[2], 0.94, 1.06),
        (lambda n: n.noise_sigma, 0, 5),
        (lambda n: n.shift_x, -2, 2),
        (lambda n: n.shift_y, -2, 2),
        (lambda n: n.gradient and n.gradient[0], 0.8, 1.2),
        (lambda n: n.gradient and n.gradient[1], 0.8, 1.2),
    ],
)
def test_parameters_are_uniform_over_the_protocols_ranges(values: object, low: float, high: float) -> None:
    assert callable(values)
    sample = [value for value in map(values, drawn(2000)) if value is not None]
    assert low <= min(sample) and max(sample) <= high
    assert kstest(sample, "uniform", (low, high - low)).pvalue > 0.001


def test_optional_steps_come_as_often_as_the_protocol_says() -> None:
    draws = drawn(4000)
    assert np.mean([n.gradient is not None for n in draws]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([n.blur for n in draws]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([n.jpeg_quality is not None for n in draws]) == pytest.approx(0.5, abs=0.03)
    assert {n.jpeg_quality for n in draws} - {None} == set(range(50, 96))


def test_neutral_parameters_change_nothing() -> None:
    np.testing.assert_array_equal(apply_nuisance(picture(), NEUTRAL), picture())


def test_light_follows_the_formula_in_the_protocols_order() -> None:
    nuisance = replace(
        NEUTRAL, gain=1.1, offset=-4.0, contrast=0.9, channel_gains=(0.95, 1.0, 1.05), gradient=(0.8, 1.2)
    )
    image = picture()
    expected = np.empty(image.shape)
    lit = 1.1 * image.astype(float) - 4.0
    for row, column, channel in np.ndindex(image.shape):
        value = lit.mean() + 0.9 * (lit[row, column, channel] - lit.mean())
        value *= (0.95, 1.0, 1.05)[channel] * (0.8 + 0.4 * column / (image.shape[1] - 1))
        expected[row, column, channel] = min(max(value, 0), 255)
    assert np.abs(apply_nuisance(image, nuisance) - expected).max() <= 0.501


def test_values_are_clipped_before_the_blur() -> None:
    image = np.full((5, 9, 3), 200, dtype=np.uint8)
    image[:, 4] = 250
    # the gain takes 250 to 500: clipped first, the blurred neighbours stay at 255 as well
    result = apply_nuisance(image, replace(NEUTRAL, gain=2.0, blur=True))
    assert result.min() == 255


def test_blur_weighs_the_neighbours_one_two_one() -> None:
    image = np.full((5, 5, 3), 100, dtype=np.uint8)
    image[2, 2] = 180
    result = apply_nuisance(image, replace(NEUTRAL, blur=True))
    expected = 100 + 80 * np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_array_equal(result[1:4, 1:4, 0], expected)


def test_noise_has_the_drawn_spread_and_is_free_in_each_channel() -> None:
    image = np.full((128, 128, 3), 128, dtype=np.uint8)
    residue = apply_nuisance(image, replace(NEUTRAL, noise_sigma=4.0)).astype(float) - 128
    assert residue.std() == pytest.approx(4.0, abs=0.1)
    assert abs(residue.mean()) < 0.1
    assert abs(np.corrcoef(residue[..., 0].ravel(), residue[..., 1].ravel())[0, 1]) < 0.03


def test_jpeg_is_that_of_the_picture_in_its_true_colours() -> None:
    result = apply_nuisance(picture(), replace(NEUTRAL, jpeg_quality=50))
    encoded = cv2.imencode(".jpg", picture()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(result, decoded[..., ::-1])


@pytest.mark.parametrize(("right", "down"), [(2, 0), (-1, 2), (0, -2)])
def test_whole_pixel_shifts_move_right_and_down_with_reflected_borders(right: int, down: int) -> None:
    image = picture()
    rows = np.pad(np.arange(image.shape[0]), 2, mode="reflect")[2 - down :][: image.shape[0]]
    columns = np.pad(np.arange(image.shape[1]), 2, mode="reflect")[2 - right :][: image.shape[1]]
    result = apply_nuisance(image, replace(NEUTRAL, shift_x=float(right), shift_y=float(down)))
    np.testing.assert_array_equal(result, image[rows][:, columns])


def test_half_a_pixel_of_shift_lies_between_two_neighbours() -> None:
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[:] = (20 * np.arange(6))[None, :, None]
    result = apply_nuisance(image, replace(NEUTRAL, shift_x=0.5))
    np.testing.assert_array_equal(result[1, 1:, 0], [10, 30, 50, 70, 90])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_the_same_seed_gives_the_same_bytes_and_leaves_the_photo_alone(seed: int) -> None:
    image = picture()
    first, second = standard_nuisance(image, seed), standard_nuisance(image, seed)
    assert first.tobytes() == second.tobytes()
    assert (first.shape, first.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, picture())


def test_seed_comes_from_the_hash_of_pair_and_role() -> None:
    digest = hashlib.sha256(b"room_1\x00after").hexdigest()
    assert nuisance_seed("room_1", "after") == int(digest[:16], 16) // 2
    assert len({nuisance_seed(p, r) for p in ("a", "b") for r in ("before", "after")}) == 4


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_other_images_are_refused_with_dtype_and_shape(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 of shape \(H, W, 3\), got (uint8|float64) of shape"):
        standard_nuisance(image, 0)
