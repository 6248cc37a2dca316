import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cd_pipeline.data.images import (
    PhotoError,
    decode_photo,
    encode_jpeg,
    encode_png,
    read_mask,
    read_photo,
    write_png,
)
from cd_pipeline_tests.drawn import Pixels, draw_photo

PIXELS = draw_photo(np.random.default_rng(5), (50, 40))[0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def as_pillow_sees(content: bytes) -> Pixels:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
def test_every_format_decodes_as_pillow_does(kind: str) -> None:
    content = encoded(Image.fromarray(PIXELS), kind)
    decoded = decode_photo(content)
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded.astype(int), as_pillow_sees(content), atol=2)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    content = encoded(Image.fromarray(PIXELS).convert(mode), "PNG")
    np.testing.assert_array_equal(decode_photo(content), as_pillow_sees(content))


def test_transparent_pixels_keep_their_colour() -> None:
    alpha = np.zeros(PIXELS.shape[:2], np.uint8)
    content = encoded(Image.fromarray(np.dstack([PIXELS, alpha])), "PNG")
    np.testing.assert_array_equal(decode_photo(content), PIXELS)


def test_16_bit_grey_becomes_8_bit_rgb() -> None:
    grey = PIXELS[..., 0]
    content = encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG")
    np.testing.assert_array_equal(decode_photo(content), np.repeat(grey[..., None], 3, axis=2))


def test_16_bit_rgb_becomes_8_bit_rgb() -> None:
    height, width = PIXELS.shape[:2]
    lines = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in PIXELS)
    content = png(png_header(width, height, depth=16), lines)
    np.testing.assert_array_equal(decode_photo(content), PIXELS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(PIXELS), kind, exif=exif)
    decoded = decode_photo(content)
    assert decoded.shape == ((40, 50, 3) if orientation <= 4 else (50, 40, 3))
    np.testing.assert_allclose(decoded.astype(int), as_pillow_sees(content), atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_photo_cut_short_is_refused(kind: str, share: float) -> None:
    content = encoded(Image.fromarray(PIXELS), kind)
    with pytest.raises(PhotoError, match="cut short"):
        decode_photo(content[: int(share * len(content))])


def test_a_jpeg_without_its_last_byte_is_refused() -> None:
    with pytest.raises(PhotoError, match="cut short"):
        decode_photo(encoded(Image.fromarray(PIXELS), "JPEG")[:-1])


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(PhotoError, match="0 bytes"):
        decode_photo(b"")


def test_text_is_refused() -> None:
    with pytest.raises(PhotoError, match="cannot be decoded"):
        decode_photo("그림이 아님".encode() * 20)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (15, 40), (40, 15)])
def test_a_photo_of_less_than_16_px_a_side_is_refused(width: int, height: int) -> None:
    content = encoded(Image.new("RGB", (width, height)), "PNG")
    with pytest.raises(PhotoError, match=f"{width}x{height} px; at least 16"):
        decode_photo(content)


def test_a_photo_of_16_px_a_side_is_accepted() -> None:
    assert decode_photo(encoded(Image.new("RGB", (16, 16)), "PNG")).shape == (16, 16, 3)


def png(header: bytes, lines: bytes) -> bytes:
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_header(width: int, height: int, depth: int = 8) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)


def test_a_header_that_claims_ten_gigapixels_is_refused() -> None:
    with pytest.raises(PhotoError, match="refused by the decoder"):
        decode_photo(png(png_header(100_000, 100_000), b"0" * 100))


def test_damaged_files_give_a_picture_or_a_reason() -> None:
    rng = random.Random(0)
    originals = [encoded(Image.fromarray(PIXELS), kind) for kind in ("JPEG", "PNG", "BMP", "WEBP")]
    seen = set()
    for index in range(160):
        content = bytearray(originals[index % 4])
        for _ in range(rng.randint(1, 6)):
            # not the bytes that hold the size: a picture of gigabytes is slow to refuse
            place = rng.choice([rng.randrange(16), rng.randrange(200, len(content))])
            content[place] = rng.randrange(256)
        try:
            decoded = decode_photo(bytes(content))
        except PhotoError as error:
            seen.add("reason")
            assert str(error)
        else:
            seen.add("picture")
            assert decoded.ndim == 3
            assert min(decoded.shape[:2]) >= 16
    assert seen == {"reason", "picture"}


def test_the_error_of_a_bad_photo_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"")
    with pytest.raises(PhotoError, match=r"bad\.jpg: empty file"):
        read_photo(path)


def test_the_error_of_a_missing_photo_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg.*materialize raw_photos"):
        read_photo(tmp_path / "gone.jpg")


def test_a_written_png_reads_back_exactly_here_and_in_pillow(tmp_path: Path) -> None:
    path = tmp_path / "방 사진.png"
    write_png(path, PIXELS)
    np.testing.assert_array_equal(read_photo(path), PIXELS)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), PIXELS)
    assert path.read_bytes() == encode_png(PIXELS)


def test_a_mask_reads_back_exactly(tmp_path: Path) -> None:
    mask = np.where(PIXELS[..., 0] > 128, 255, 0).astype(np.uint8)
    write_png(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)
    assert Image.open(tmp_path / "mask.png").mode == "L"


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_an_unreadable_mask_names_the_file_and_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mask\.png: not a readable image; delete it"):
        read_mask(path)


def test_a_missing_mask_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mask\.png.*materialize change_masks"):
        read_mask(tmp_path / "mask.png")


def test_jpeg_keeps_the_order_of_the_channels() -> None:
    flat = np.empty((32, 32, 3), np.uint8)
    flat[:] = (200, 100, 20)
    np.testing.assert_allclose(as_pillow_sees(encode_jpeg(flat, 95)).astype(int), flat, atol=3)
