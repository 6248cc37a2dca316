import io
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cd_pipeline.data import quick_png as module
from cd_pipeline.data.images import decode_photo, encode_png
from cd_pipeline.data.quick_png import quick_png
from cd_pipeline_tests.drawn import draw_photo

Pixels = npt.NDArray[np.uint8]


def by_pillow(content: bytes) -> Pixels:
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "PNG"
    return np.asarray(picture)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([(), (3,)]),
    st.sampled_from(["noise", "flat", "two values", "ramp"]),
    st.integers(0, 99),
)
def test_opencv_and_pillow_read_back_exactly_what_was_written(
    height: int, width: int, colours: tuple[int, ...], look: str, seed: int
) -> None:
    rng, shape = np.random.default_rng(seed), (height, width, *colours)
    image = {
        "noise": lambda: rng.integers(0, 256, shape),
        "flat": lambda: np.full(shape, seed),
        "two values": lambda: rng.integers(0, 2, shape) * 255,
        "ramp": lambda: np.arange(np.prod(shape)).reshape(shape) * seed,
    }[look]().astype(np.uint8)
    content = quick_png(image)
    np.testing.assert_array_equal(by_pillow(content), image)
    assert Image.open(io.BytesIO(content)).mode == ("RGB" if colours else "L")
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found[..., ::-1] if colours else found, image)


def test_a_picture_that_is_written_in_several_bands_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = draw_photo(np.random.default_rng(1), (120, 80))[0]
    expected = quick_png(photo)
    for size in (1, 360, 361, 1000, 9999):  # a row has 360 bytes
        monkeypatch.setattr(module, "BAND_BYTES", size)
        np.testing.assert_array_equal(decode_photo(quick_png(photo)), photo)
    monkeypatch.setattr(module, "BAND_BYTES", 1 << 20)
    assert quick_png(photo) == expected


def test_a_part_of_a_picture_is_written_like_a_copy_of_it() -> None:
    photo = draw_photo(np.random.default_rng(2), (120, 80))[0]
    for part in (photo[10:50, 20:90], photo[:, ::-1], photo[..., 1]):
        assert quick_png(part) == quick_png(part.copy())


def test_the_rows_are_stored_as_differences_from_the_row_above() -> None:
    image = np.array([[10, 20], [13, 19], [250, 255]], np.uint8)
    content = quick_png(image)
    at = content.index(b"IDAT")
    size = int.from_bytes(content[at - 4 : at], "big")
    stored = zlib.decompress(content[at + 4 : at + 4 + size])  # a row: its filter (2: up), then its bytes
    assert list(stored) == [2, 10, 20, 2, 3, 255, 2, 237, 236]


def test_a_picture_is_hardly_larger_than_opencv_writes_it() -> None:
    photo = draw_photo(np.random.default_rng(3), (640, 480))[0]
    mask = np.zeros((480, 640), np.uint8)
    mask[100:200, 50:300] = 255
    for image in (photo, mask):
        assert len(quick_png(image)) < 1.3 * len(encode_png(image)) + 200


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_was_found(image: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"expected uint8, HW or HWx3, not empty"):
        quick_png(image)
