import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.images import through_jpeg
from cd_pipeline.synthesis.device_jpeg import EVEN, ODD, batch_through_jpeg
from cd_pipeline_tests.drawn import Pixels

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def draw_photos(seed: int, count: int, height: int, width: int) -> Pixels:
    """Draw photos, the first all noise and the later ones ever smoother, with values at both ends."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, height, width, 3))
    ramp = np.linspace(-60, 315, width)[:, None] * rng.uniform(0.5, 1.0, 3)
    share = np.linspace(1, 0, count)[:, None, None, None]
    return np.clip(share * noise + (1 - share) * ramp, 0, 255).astype(np.uint8)


def stored(photos: Pixels, qualities: list[int]) -> Pixels:
    """Send HWC photos through the batched JPEG."""
    batch = torch.from_numpy(photos).permute(0, 3, 1, 2)
    return batch_through_jpeg(batch, np.array(qualities)).permute(0, 2, 3, 1).numpy()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(16, 70),
    st.integers(16, 70),
    st.lists(st.integers(1, 100), min_size=1, max_size=4),
)
def test_photos_of_any_size_and_quality_are_as_opencv_stores_them(
    seed: int, height: int, width: int, qualities: list[int]
) -> None:
    photos = draw_photos(seed, len(qualities), height, width)
    expected = [through_jpeg(*pair) for pair in zip(photos, qualities, strict=True)]
    np.testing.assert_array_equal(stored(photos, qualities), expected)


@pytest.mark.parametrize("values", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)])
def test_photos_of_one_strong_colour_are_as_opencv_stores_them(values: tuple[int, int, int]) -> None:
    photo = np.full((32, 48, 3), values, np.uint8)
    for quality in (1, 50, 95):
        expected = through_jpeg(photo, quality)
        np.testing.assert_array_equal(stored(photo[None], [quality])[0], expected)


def test_the_transform_is_a_cosine_transform() -> None:
    places = (2 * np.arange(4) + 1) * np.pi / 16
    for matrix, orders in ((EVEN, (0, 2, 4, 6)), (ODD, (1, 3, 5, 7))):
        cosines = np.array([np.cos(order * places) * (np.sqrt(2) if order else 1) for order in orders])
        # a sum of up to four constants, each rounded
        np.testing.assert_allclose(np.array(matrix) / 2**13, cosines, atol=4 * 0.5 / 2**13)
