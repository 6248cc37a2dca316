import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.preprocessing import equalised, resize_mask, resize_photo, to_network


def test_a_photo_shrunk_by_a_whole_factor_is_the_mean_of_its_blocks() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    means = photo.reshape(32, 3, 32, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_photo(photo, 32).astype(int), means, atol=0.51)


def test_a_photo_of_the_input_size_is_unchanged() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(resize_photo(photo, 64), photo)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_a_resized_mask_keeps_its_values(size: int) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32], mask[40:], mask[:, 60:] = 1, 128, 21
    resized = resize_mask(mask, size)
    rows = [i * 64 // size for i in range(size)]
    np.testing.assert_array_equal(resized, mask[np.ix_(rows, rows)])
    assert set(np.unique(resized)) == {0, 1, 21, 128}
    assert resized.dtype == np.uint8


def test_equalising_is_clahe_of_the_lightness_and_leaves_the_input_alone() -> None:
    photo = np.random.default_rng(1).integers(60, 160, (64, 80, 3), np.uint8)
    copied = photo.copy()
    found = equalised(photo, 2.0)
    np.testing.assert_array_equal(photo, copied)
    assert (found.dtype, found.shape) == (np.uint8, photo.shape)
    before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in (photo, found))
    expected = cv2.createCLAHE(2.0, (8, 8)).apply(before[..., 0])
    # back and forth between colour spaces in 8 bits, where a colour that RGB has not is cut off
    assert np.median(np.abs(after[..., 0].astype(int) - expected)) <= 1
    assert np.median(np.abs(after[..., 1:].astype(int) - before[..., 1:])) <= 1
    assert after[..., 0].std() > 1.2 * before[..., 0].std()


def test_a_higher_clip_limit_changes_more() -> None:
    photo = np.clip(np.random.default_rng(1).normal(110, 5, (256, 256, 3)), 0, 255).astype(np.uint8)
    weak, strong = (np.abs(equalised(photo, limit).astype(int) - photo).mean() for limit in (1.0, 4.0))
    assert weak < strong


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.sampled_from([32, 64]), st.integers(0, 2**32 - 1))
def test_a_resized_mask_takes_each_pixel_from_its_nearest(
    height: int, width: int, size: int, seed: int
) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < 0.3).astype(np.uint8) * np.uint8(255)
    rows, columns = ([i * side // size for i in range(size)] for side in (height, width))
    np.testing.assert_array_equal(resize_mask(mask, size), mask[np.ix_(rows, columns)])


def test_the_network_sees_shares_of_255() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    seen = to_network(values)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, torch.arange(256).reshape(1, 1, 16, 16) / 255)
    assert values.flatten().tolist() == list(range(256))
