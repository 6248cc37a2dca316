"""Damaged pictures of every format: each is a picture, or a PhotoError of one line, quickly."""

import io
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Picture

from cd_pipeline.data import images
from cd_pipeline.data.images import PhotoError, decode_label, decode_photo, read_mask, used_bits
from cd_pipeline.data.voc import decode_indices
from cd_pipeline_tests.drawn import draw_photo
from cd_pipeline_tests.fuzz.mutations import damaged, outcomes

FORMATS = ("PNG", "TIFF", "BMP", "JPEG", "WEBP", "GIF", "JPEG2000", "AVIF")
SMALL = 1 << 20
"""The most pixels while fuzzing: whatever a damaged header claims below the limit takes its time."""
pytestmark = pytest.mark.filterwarnings("ignore")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def small_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(images, "MAX_PIXELS", SMALL)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    yield
    cv2.utils.logging.setLogLevel(level)


def encoded(picture: Picture.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@cache
def seeds() -> tuple[bytes, ...]:
    """A small picture in every format and mode that Pillow writes."""
    colour = Picture.fromarray(draw_photo(np.random.default_rng(5), (24, 20))[0])
    grey = colour.convert("L")
    label = grey.point([0] * 120 + [255] * 136)
    clear = colour.copy()
    clear.putalpha(label)
    deep = Picture.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = Picture.Exif()
    turned[0x0112] = 6
    found = []
    for picture in (colour, grey, label, clear, colour.convert("1"), colour.quantize(8), deep):
        for kind in FORMATS:
            with suppress(OSError, KeyError):  # not every format has every mode
                found.append(encoded(picture, kind))
    found += [
        encoded(colour.convert("CMYK"), "JPEG"),
        encoded(colour, "JPEG", progressive=True, exif=turned),
        encoded(colour, "PNG", save_all=True, append_images=[colour.rotate(90)], exif=turned),
        encoded(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)], exif=turned),
        encoded(colour, "TIFF", compression="tiff_lzw"),
        encoded(colour, "TIFF", compression="jpeg"),
        encoded(colour, "TIFF", big_tiff=True),
        encoded(colour.convert("1"), "TIFF", compression="group4"),
    ]
    return tuple(found)


@pytest.mark.parametrize("count", [800, pytest.param(25_000, marks=SLOW)])
def test_a_damaged_photo_is_a_picture_or_a_reason(count: int) -> None:
    def read(content: bytes) -> None:
        photo = decode_photo(content)
        assert photo.dtype == np.uint8
        assert photo.shape[2] == 3
        assert min(photo.shape[:2]) >= images.MIN_SIDE
        assert decode_photo(content, bits=12).shape == photo.shape
        assert 8 <= used_bits(content) <= 16

    found = outcomes(read, damaged(seeds(), count, seed=count), PhotoError)
    assert min(found["read"], found["refused"]) > count // 20


@pytest.mark.parametrize("count", [800, pytest.param(25_000, marks=SLOW)])
def test_a_damaged_label_is_a_label_or_a_reason(count: int) -> None:
    def read(content: bytes) -> None:
        label = decode_label(content)
        assert (label.dtype, label.ndim) == (np.uint8, 2)
        assert set(np.unique(label)) <= {0, 255}

    found = outcomes(read, damaged(seeds(), count, seed=count + 1), PhotoError)
    assert min(found["read"], found["refused"]) > count // 50


@pytest.mark.parametrize("count", [800, pytest.param(25_000, marks=SLOW)])
@pytest.mark.parametrize("classes", [None, 3])
def test_a_damaged_mask_of_classes_is_indices_or_a_reason(count: int, classes: int | None) -> None:
    palette = None if classes is None else np.zeros((classes, 3), np.uint8)

    def read(content: bytes) -> None:
        mask = decode_indices(content, palette=palette)
        assert (mask.dtype, mask.ndim) == (np.uint8, 2)

    of_png = [content for content in seeds() if content.startswith(b"\x89PNG")]
    found = outcomes(read, damaged(of_png, count, seed=count + 2), PhotoError)
    assert min(found["read"], found["refused"]) > count // 200


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=SLOW)])
def test_a_damaged_mask_of_the_workspace_is_named_with_the_remedy(tmp_path: Path, count: int) -> None:
    path = tmp_path / "mask.png"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            mask = read_mask(path)
        except ValueError as error:
            assert "mask.png: " in str(error) and "materialize its asset again" in str(error)
            raise
        assert (mask.dtype, mask.ndim) == (np.uint8, 2)

    found = outcomes(read, damaged(seeds(), count, seed=count + 3), ValueError)
    assert min(found["read"], found["refused"]) > 0
