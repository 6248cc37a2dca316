import functools
import io
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cd_pipeline.data import images
from cd_pipeline.data.files import bytes_digest
from cd_pipeline.data.images import (
    MAX_PIXELS,
    PhotoError,
    decode_label,
    decode_photo,
    encode_jpeg,
    read_label,
    read_mask,
    read_photo,
    used_bits,
    write_png,
)
from cd_pipeline.data.quick_png import quick_png
from cd_pipeline.data.voc import decode_indices
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
    with pytest.raises(
        PhotoError, match="100000x100000 px, as its header says; at most 536870912 px are read"
    ):
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
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg.*materialize its asset again"):
        read_photo(tmp_path / "gone.jpg")


def test_a_written_png_reads_back_exactly_here_and_in_pillow(tmp_path: Path) -> None:
    path = tmp_path / "방 사진.png"
    write_png(path, PIXELS)
    np.testing.assert_array_equal(read_photo(path), PIXELS)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), PIXELS)
    assert path.read_bytes() == quick_png(PIXELS)


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


CHANGED = PIXELS[..., 0] > 128


def grey_label(low: int, high: int, kind: str, dtype: type = np.uint8) -> bytes:
    """A label of CHANGED stored as two grey values."""
    return encoded(Image.fromarray(np.where(CHANGED, high, low).astype(dtype)), kind)


def assert_read_as_changed(content: bytes) -> None:
    label = decode_label(content)
    assert (label.dtype, label.shape) == (np.uint8, CHANGED.shape)
    np.testing.assert_array_equal(label, np.where(CHANGED, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("high", [1, 128, 255])
def test_a_label_of_two_grey_values_is_read_from_every_format(kind: str, high: int) -> None:
    assert_read_as_changed(grey_label(0, high, kind))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("high", [1, 255, 1 << 15, 65535])
def test_a_16_bit_label_is_read(kind: str, high: int) -> None:
    assert_read_as_changed(grey_label(0, high, kind, np.uint16))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_grey_label_may_be_stored_in_any_mode(mode: str) -> None:
    grey = Image.fromarray(np.where(CHANGED, 255, 0).astype(np.uint8))
    assert_read_as_changed(encoded(grey.convert(mode), "PNG"))


def test_what_a_label_is_does_not_depend_on_its_transparency() -> None:
    grey = np.where(CHANGED, 255, 0).astype(np.uint8)
    clear = np.zeros_like(grey)
    assert_read_as_changed(encoded(Image.fromarray(np.dstack([grey, grey, grey, clear])), "PNG"))


@pytest.mark.parametrize(("dtype", "middle"), [(np.uint8, 127), (np.uint16, 32767)])
def test_soft_edges_are_split_at_the_middle_of_the_range(dtype: type, middle: int) -> None:
    stored = np.array([[0, 1, middle, middle + 1, 2 * middle + 1]], dtype)
    label = decode_label(encoded(Image.fromarray(np.repeat(stored, 16, axis=0)), "PNG"))
    assert label[0].tolist() == [0, 0, 0, 255, 255]


def test_a_label_without_change_is_empty() -> None:
    assert not decode_label(encoded(Image.new("L", (20, 20)), "PNG")).any()


@pytest.mark.parametrize(
    ("highest", "dtype"),
    [
        *((value, np.uint8) for value in (2, 5, 127)),
        *((value, np.uint16) for value in (5, 256, 1000, 32767)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_map_of_class_numbers_is_no_label(highest: int, dtype: type, kind: str) -> None:
    with pytest.raises(PhotoError, match=f"label values up to {highest}; expected 0 and 1, or 0 and 255"):
        decode_label(grey_label(0, highest, kind, dtype))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_label_in_colour_is_refused(mode: str) -> None:
    with pytest.raises(PhotoError, match="label in colour; expected grey values 0 and 1, or 0 and 255"):
        decode_label(encoded(Image.fromarray(PIXELS).convert(mode), "PNG"))


@pytest.mark.parametrize("values", [CHANGED.astype(np.float32), np.full((20, 20), np.nan, np.float32)])
def test_a_label_of_fractions_is_refused(values: np.ndarray) -> None:
    with pytest.raises(PhotoError, match="label of float32 values; expected whole numbers"):
        decode_label(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("content", [b"", b"\0", "그림이 아님".encode() * 20, png(b"", b"")])
def test_what_is_no_picture_is_no_label(content: bytes) -> None:
    with pytest.raises(PhotoError, match=rf"cannot be decoded as an image \({len(content)} bytes\)"):
        decode_label(content)


def test_a_label_whose_header_claims_ten_gigapixels_is_refused() -> None:
    with pytest.raises(
        PhotoError, match="100000x100000 px, as its header says; at most 536870912 px are read"
    ):
        decode_label(png(png_header(100_000, 100_000), b"0" * 100))


def test_the_errors_of_labels_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "라벨.png"
    with pytest.raises(FileNotFoundError, match=r"라벨\.png: the mask is not there; put it back"):
        read_label(path)
    path.write_bytes(b"junk")
    with pytest.raises(PhotoError, match=r"라벨\.png: cannot be decoded as an image \(4 bytes\)"):
        read_label(path)


@pytest.mark.parametrize("read", [read_photo, read_label])
def test_a_file_whose_content_has_changed_is_refused(
    tmp_path: Path, read: Callable[[Path, str | None], Pixels]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(grey_label(0, 255, "PNG"))
    sha256 = bytes_digest(path.read_bytes())
    np.testing.assert_array_equal(read(path, sha256), read(path, None))
    path.write_bytes(grey_label(255, 0, "PNG"))
    with pytest.raises(PhotoError, match=r"a\.png: the file has changed; materialize all assets again"):
        read(path, sha256)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_tiff_decodes_as_pillow_does(compression: str) -> None:
    content = encoded(Image.fromarray(PIXELS), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_photo(content), PIXELS)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA"])
def test_every_tiff_mode_becomes_rgb(mode: str) -> None:
    content = encoded(Image.fromarray(PIXELS).convert(mode), "TIFF")
    np.testing.assert_array_equal(decode_photo(content), as_pillow_sees(content))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_all_16_bit_grey_values_are_scaled_to_8_bits(kind: str) -> None:
    grey = np.random.default_rng(2).integers(0, 65536, (40, 50)).astype(np.uint16)
    grey[0, :2] = 0, 65535
    decoded = decode_photo(encoded(Image.fromarray(grey), kind)).astype(float)
    assert decoded[0, 0].tolist() == [0, 0, 0]
    assert decoded[0, 1].tolist() == [255, 255, 255]
    assert np.abs(decoded - grey[..., None] / 257).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_pictures_of_fewer_significant_bits_use_the_whole_range(suffix: str) -> None:
    deep = np.random.default_rng(4).integers(0, 1 << 12, (40, 50, 3)).astype(np.uint16)
    deep[0, 0], deep[0, 1] = 4095, 5000  # the second is beyond the range
    content = cv2.imencode(suffix, np.ascontiguousarray(deep[..., ::-1]))[1].tobytes()
    np.testing.assert_array_equal(decode_photo(content, bits=12), np.minimum(deep // 16, 255))
    shallow = encoded(Image.fromarray(PIXELS), "PNG")
    np.testing.assert_array_equal(decode_photo(shallow, bits=12), PIXELS)


def test_a_16_bit_rgb_tiff_becomes_8_bit_rgb() -> None:
    bgr = cv2.cvtColor(PIXELS.astype(np.uint16) * 257, cv2.COLOR_RGB2BGR)
    np.testing.assert_array_equal(decode_photo(cv2.imencode(".tiff", bgr)[1].tobytes()), PIXELS)


def test_a_tiff_of_fractions_is_refused() -> None:
    with pytest.raises(PhotoError, match="cannot be decoded"):
        decode_photo(encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32) / 255), "TIFF"))


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be decoded: what is refused, is refused before."""

    def fail(*arguments: object) -> None:
        raise AssertionError("the decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", fail)
    monkeypatch.setattr(TiffImageFile, "load", fail)
    monkeypatch.setattr(PngImageFile, "load", fail)


READERS = [decode_photo, decode_label, used_bits]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF"])
def test_pictures_of_too_many_pixels_are_refused_by_their_header(
    no_decoder: None, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str, read: Callable[[bytes], object]
) -> None:
    picture = Image.new("L" if kind == "JPEG" else mode, (50, 40))
    content = encoded(picture, kind)
    monkeypatch.setattr(images, "MAX_PIXELS", 50 * 40 - 1)
    with pytest.raises(PhotoError, match="50x40 px, as its header says; at most 1999 px are read: cut it"):
        read(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_picture_of_as_many_pixels_as_are_read_is_read(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 50 * 40)
    assert decode_photo(encoded(Image.new("RGB", (50, 40)), kind)).shape == (40, 50, 3)


def test_the_largest_picture_of_the_fields_data_sets_is_within_the_limit() -> None:
    assert 32_507 * 15_354 <= MAX_PIXELS < 30_000 * 30_000


@functools.cache
def bomb() -> bytes:
    """A PNG of 30,000x30,000 black pixels of 1 bit."""
    packer = zlib.compressobj(9)
    line = bytes(30_000 // 8 + 1)
    lines = b"".join(packer.compress(line * 3_000) for _ in range(10)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", lines), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


@pytest.mark.parametrize("read", [*READERS, decode_indices])
def test_a_bomb_of_100_kb_is_refused_without_decoding_it(
    no_decoder: None, read: Callable[[bytes], object]
) -> None:
    assert len(bomb()) < 120_000
    with pytest.raises(PhotoError, match="30000x30000 px"):
        read(bomb())


def test_a_header_that_pillow_refuses_does_not_hide_the_size_of_a_png(no_decoder: None) -> None:
    content = bytearray(png(png_header(30_000, 30_000), b"0" * 100))
    content[29] ^= 1  # the checksum of the header
    with pytest.raises(PhotoError, match="30000x30000 px"):
        decode_photo(bytes(content))


def test_the_decoders_own_limit_is_the_same_for_headers_that_it_alone_reads() -> None:
    code = (
        "from cd_pipeline.data.images import PhotoError, decode_photo\n"
        "try:\n    decode_photo(b'P6 30000 30000 255\\n' + bytes(100))\n"
        "except PhotoError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused by the decoder: ")
    assert "MAX_IMAGE_PIXELS" in done.stdout


@pytest.mark.parametrize("read", READERS[:2])
@pytest.mark.parametrize("name", [b"tEXt", b"IDAT", b"PLTE"])
def test_a_png_whose_chunk_claims_gigabytes_is_refused_without_asking_for_them(
    no_decoder: None, name: bytes, read: Callable[[bytes], object]
) -> None:
    whole = encoded(Image.fromarray(PIXELS), "PNG")
    claim = struct.pack(">I", 0x7FFFFFFF) + name + bytes(20)
    with pytest.raises(PhotoError, match=r"cannot be decoded as an image \(\d+ bytes\)"):
        read(whole[:33] + claim + whole[33:])


def test_what_follows_the_end_of_a_png_does_not_matter() -> None:
    whole = encoded(Image.fromarray(PIXELS), "PNG")
    np.testing.assert_array_equal(decode_photo(whole + b"\xff" * 50), PIXELS)


@pytest.mark.parametrize("content", [png(png_header(100_000, 100_000), b"0"), b"P6 99999 99999 255\n"])
def test_a_mask_of_too_many_pixels_names_the_file_and_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mask\.png: .*; delete it and materialize its asset again"):
        read_mask(path)


@pytest.mark.parametrize("transform", [None, 0, 2])
def test_a_cmyk_jpeg_decodes_as_pillow_does(transform: int | None) -> None:
    """Of the three forms: without Adobe's mark, CMYK and YCCK."""
    content = bytearray(encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG", quality=95))
    mark = content.index(b"Adobe")
    if transform is None:
        del content[mark - 4 : mark + 12]
    else:
        content[mark + 11] = transform
    np.testing.assert_allclose(decode_photo(content).astype(int), as_pillow_sees(content), atol=2)


RAMP = np.tile(np.linspace(0, 255, PIXELS.shape[1]).astype(np.uint8), (PIXELS.shape[0], 1))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True, "exact": True})],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_half_transparent_pixels_keep_their_colour(
    kind: str, options: dict[str, object], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.dstack([PIXELS, RAMP]))
    turned = {} if kind == "BMP" else {"exif": exif}
    content = encoded(picture, kind, **options, **turned)
    expected = PIXELS if kind == "BMP" or orientation == 1 else np.rot90(PIXELS, -1)
    np.testing.assert_array_equal(decode_photo(content), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_label_of_half_transparent_pixels_is_read_whole(kind: str) -> None:
    grey = np.where(CHANGED, 255, 0).astype(np.uint8)
    assert_read_as_changed(encoded(Image.fromarray(np.dstack([grey, grey, grey, RAMP])), kind))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("bits", [8, 16])
def test_16_bit_pictures_keep_the_colour_of_transparent_pixels(suffix: str, bits: int) -> None:
    deep = np.dstack([PIXELS[..., ::-1], RAMP]).astype(np.uint16) * (257 if bits == 16 else 1)
    content = cv2.imencode(suffix, deep)[1].tobytes()
    np.testing.assert_array_equal(decode_photo(content, bits), PIXELS)


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))])
def test_a_palette_png_with_transparency_keeps_its_colours(transparency: int | bytes) -> None:
    content = encoded(Image.fromarray(PIXELS).quantize(16), "PNG", transparency=transparency)
    plain = encoded(Image.fromarray(PIXELS).quantize(16), "PNG")
    np.testing.assert_array_equal(decode_photo(content), as_pillow_sees(plain))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_of_several_pictures_in_a_file_the_first_is_taken(kind: str, options: dict[str, object]) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, 7 * shift, axis=1)) for shift in range(3)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_photo(content), PIXELS)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_that_does_not_exist_turns_nothing(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(PIXELS), kind, exif=exif)
    np.testing.assert_allclose(decode_photo(content).astype(int), as_pillow_sees(content), atol=2)
