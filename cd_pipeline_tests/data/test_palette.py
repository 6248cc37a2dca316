from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from cd_pipeline.data.classes import VOID
from cd_pipeline.data.images import Image
from cd_pipeline.data.palette import (
    VOC_PALETTE,
    VOID_COLOUR,
    class_palette,
    colour_indices,
    colourise,
    encode_palette_png,
    voc_palette,
    write_palette_png,
)

FIRST_COLOURS = [
    *[(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)],
    *[(128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128)],
    *[(64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)],
]
"""Of the 21 classes, as the VOC documentation lists them."""


def drawn_indices(highest: int = 255, height: int = 20, width: int = 24) -> Image:
    return np.random.default_rng(0).integers(0, highest + 1, (height, width), np.uint8)


def devkit_colour(index: int) -> tuple[int, int, int]:
    """Follow the devkit's loop: three bits of the index at a time, from each channel's highest bit down."""
    red = green = blue = 0
    for place in range(8):
        red |= (index & 1) << (7 - place)
        green |= (index >> 1 & 1) << (7 - place)
        blue |= (index >> 2 & 1) << (7 - place)
        index >>= 3
    return red, green, blue


def test_the_palette_is_that_of_the_voc_devkit() -> None:
    assert [tuple(colour) for colour in voc_palette().tolist()] == [devkit_colour(i) for i in range(256)]
    assert [tuple(colour) for colour in VOC_PALETTE[:21].tolist()] == FIRST_COLOURS
    assert tuple(VOC_PALETTE[VOID].tolist()) == VOID_COLOUR == (224, 224, 192)


def test_the_shared_palette_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        VOC_PALETTE[0] = 1


def test_void_as_a_class_has_the_void_colour_behind_the_classes() -> None:
    with_void = class_palette(21, void_as_class=True)
    assert with_void.shape == (22, 3)
    assert tuple(with_void[21].tolist()) == VOID_COLOUR
    np.testing.assert_array_equal(with_void[:21], class_palette(21))


def test_every_pixel_gets_the_colour_of_its_index() -> None:
    indices = drawn_indices()
    painted = colourise(indices, VOC_PALETTE)
    assert (painted.dtype, painted.shape) == (np.uint8, (20, 24, 3))
    np.testing.assert_array_equal(painted, VOC_PALETTE[indices])
    reference = Picture.frombytes("P", (24, 20), indices.tobytes())
    reference.putpalette(VOC_PALETTE.tobytes())
    np.testing.assert_array_equal(painted, np.asarray(reference.convert("RGB")))


def test_a_part_of_a_larger_array_is_painted_as_its_copy() -> None:
    part = drawn_indices()[3:17:2, 5:20]
    np.testing.assert_array_equal(colourise(part, VOC_PALETTE), VOC_PALETTE[part])


def test_an_index_without_a_colour_is_an_error() -> None:
    indices = np.array([[0, 21]], np.uint8)
    with pytest.raises(ValueError, match="index 21 has no colour; the palette has 21"):
        colourise(indices, class_palette(21))
    with pytest.raises(ValueError, match="index 21 has no colour"):
        encode_palette_png(indices, class_palette(21))


@given(st.integers(1, 256), st.integers(0, 2**32 - 1))
def test_indices_come_back_from_their_colours(count: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, count, (7, 9)).astype(np.uint8)
    np.testing.assert_array_equal(
        colour_indices(colourise(indices, VOC_PALETTE[:count]), VOC_PALETTE), indices
    )


def test_of_two_equal_colours_the_first_counts() -> None:
    palette = np.array([(9, 9, 9), (1, 2, 3), (9, 9, 9)], np.uint8)
    assert colour_indices(colourise(np.array([[2, 1, 0]], np.uint8), palette), palette).tolist() == [
        [0, 1, 0]
    ]


def test_a_strange_colour_is_named_with_its_place() -> None:
    image = colourise(np.zeros((5, 6), np.uint8), VOC_PALETTE)
    image[3, 4] = (255, 255, 255)
    with pytest.raises(ValueError, match=r"colour \(255, 255, 255\) at x 4, y 3 is not in the palette"):
        colour_indices(image, VOC_PALETTE)


@pytest.mark.parametrize("colours", [2, 7, 22, 256])
def test_a_written_png_holds_the_indices_and_shows_the_colours(tmp_path: Path, colours: int) -> None:
    indices = drawn_indices(colours - 1)
    path = tmp_path / "deeper" / "mask.png"
    write_palette_png(path, indices, VOC_PALETTE[:colours])
    with Picture.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), indices)
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert shown is not None
    np.testing.assert_array_equal(shown, VOC_PALETTE[indices])
    assert [file.name for file in path.parent.iterdir()] == ["mask.png"]


def test_the_same_indices_give_the_same_bytes() -> None:
    assert encode_palette_png(drawn_indices(), VOC_PALETTE) == encode_palette_png(
        drawn_indices(), VOC_PALETTE
    )


def test_a_mask_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no colour"):
        write_palette_png(tmp_path / "mask.png", drawn_indices(), VOC_PALETTE[:3])
    assert list(tmp_path.iterdir()) == []


def test_real_masks_keep_pixels_and_colours_when_they_are_written_again(real_data: Path) -> None:
    for path in sorted((real_data / "bridge" / "SegmentationClass").glob("*.png"))[:5]:
        with Picture.open(path) as picture:
            indices, shown = np.asarray(picture), np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(colour_indices(shown, VOC_PALETTE), indices)
        again = Picture.open(BytesIO(encode_palette_png(indices, VOC_PALETTE)))
        np.testing.assert_array_equal(np.asarray(again), indices)
        np.testing.assert_array_equal(np.asarray(again.convert("RGB")), shown)
