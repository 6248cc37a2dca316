import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.preprocessing import resize_mask, resize_photo, to_network


def test_a_photo_shrunk_by_a_whole_factor_is_the_mean_of_its_blocks() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    means = photo.reshape(32, 3, 32, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_photo(photo, 32).astype(int), means, atol=0.51)


def test_a_photo_of_the_input_size_is_unchanged() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(resize_photo(photo, 64), photo)


def test_any_mask_value_above_0_is_change() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:32], mask[40:] = 1, 128
    resized = resize_mask(mask, 64)
    np.testing.assert_array_equal(resized, np.where(mask > 0, 255, 0))
    assert resized.dtype == np.uint8


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
