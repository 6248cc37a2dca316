"""Reading and writing image files: one decoder for the whole product."""

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile

from cd_pipeline.data.files import bytes_digest, write_bytes
from cd_pipeline.data.header import BROKEN, is_torn, read_header, stated_size
from cd_pipeline.data.quick_png import quick_png

Image: TypeAlias = npt.NDArray[np.uint8]

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
PICTURE_SUFFIXES = PHOTO_SUFFIXES | {".tif", ".tiff"}
"""Of pairs and labels."""
LABEL_MIDDLE = 128
"""From here on a label value of 0..255 is change (published: above 0.5 of the range)."""
MIN_SIDE = 16
"""Shortest side, in px, of a photo that can hold a change."""
MAX_PIXELS = 1 << 29
"""Most pixels of a picture, such as 23,000 x 23,000: 1.6 GB in RGB. A file of 100 kB can claim more than any
memory holds; the largest picture of the field's data sets, WHU-CD uncut, has 32,507 x 15,354 px and passes."""
EXTRA_SAMPLES, STRAIGHT_ALPHA = 338, 2
"""A TIFF's tag, and its value that says that colours are stored as they are, whatever shows of them."""


MADE_AGAIN = "; if it is yours, replace it, otherwise delete it and materialize its asset again"
"""What mends a picture that a manifest names: of the raw folder, or rendered."""


class PhotoError(ValueError):
    """A file that is not a usable photo; the message is the reason, without the path."""


def decode_photo(content: bytes, bits: int = 16) -> Image:
    """Decode a photo as a person sees it.

    Grey, palette and RGBA files become 8-bit RGB, 16-bit ones too; the EXIF orientation is applied.

    Args:
        content: the bytes of a .jpg, .png, .bmp, .webp or .tif file.
        bits: significant bits of 16-bit pictures: values up to 2**bits - 1 become 0 to 255, higher ones 255.

    Returns:
        HWC uint8 RGB, values in [0, 255].

    Raises:
        PhotoError: the file is empty, cut short, not an image, smaller than 16 px on a side or of more than
            `MAX_PIXELS`.
    """
    if not content:
        raise PhotoError("empty file (0 bytes)")
    image = _decoded(content, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise PhotoError(f"cannot be decoded as an image ({len(content)} bytes): cut short or another format")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise PhotoError(f"{width}x{height} px; at least {MIN_SIDE} px a side are needed")
    return image.astype(np.uint8, copy=False) if bits == 16 else _of_fewer_bits(content, image, bits)


def _of_fewer_bits(content: bytes, image: Any, bits: int) -> Image:  # noqa: ANN401 - OpenCV's own type
    # in BGR: OpenCV 5.0 gives wrong bytes for 16-bit TIFF in RGB
    deep = _decoded(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if deep is None or deep.dtype != np.uint16:
        return np.asarray(image, np.uint8)
    scaled = np.minimum(np.asarray(deep, np.uint16) >> (bits - 8), 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB), np.uint8)


def used_bits(content: bytes) -> int:
    """Return how many bits the values of a picture that can be decoded need: 8, or up to 16 of a 16-bit one.

    Raises:
        PhotoError: of more than `MAX_PIXELS`, or refused by the decoder.
    """
    image = _decoded(content, cv2.IMREAD_UNCHANGED)
    return 8 if image is None or image.dtype != np.uint16 else max(8, int(image.max()).bit_length())


def read_photo(path: Path, sha256: str | None = None, bits: int = 16, remedy: str = "") -> Image:
    """Read a photo: HWC uint8 RGB in displayed orientation.

    Args:
        path: of the file.
        sha256: of the content it must have; None: any.
        bits: as `decode_photo` takes them.
        remedy: what mends a file that cannot be decoded, with its own separator; "" where it is the user's.

    Raises:
        FileNotFoundError, PhotoError: with the path in the message.
    """
    return decode_content(path, photo_content(path, sha256), bits, remedy)


def photo_content(path: Path, sha256: str | None = None) -> bytes:
    """Read the bytes of a photo; arguments and errors are those of `read_photo`."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the picture is not there; if it is yours, put it back, otherwise materialize its asset again"
        )
    content = path.read_bytes()
    _refuse_changed(path, content, sha256)
    return content


def decode_content(path: Path, content: bytes, bits: int = 16, remedy: str = "") -> Image:
    """Decode what `photo_content` read; arguments and errors are those of `read_photo`."""
    try:
        return decode_photo(content, bits)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}{remedy}") from None


def read_mask(path: Path, remedy: str = "delete it and materialize its asset again") -> Image:
    """Read a mask: HW uint8, its values as stored.

    Args:
        path: of the picture.
        remedy: what mends a file that cannot be read.

    Raises:
        FileNotFoundError, ValueError: with the path in the message.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the mask is not there; materialize change_masks again")
    try:
        mask = _decoded(path.read_bytes(), cv2.IMREAD_GRAYSCALE)
    except PhotoError as error:
        raise ValueError(f"{path}: {error}; {remedy}") from None
    if mask is None:
        raise ValueError(f"{path}: not a readable image; {remedy}")
    return np.asarray(mask, np.uint8)


def decode_label(content: bytes) -> Image:
    """Decode a label of what changed, stored as 0/1, 0/255 or 0/65535.

    Args:
        content: the bytes of a picture without loss; grey, or colour with equal channels.

    Returns:
        HW uint8, 0 or 255; a value above the middle of its range is change.

    Raises:
        PhotoError: not an image, in colour, of other values or of more than `MAX_PIXELS`.
    """
    stored = _decoded(content, cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise PhotoError(f"cannot be decoded as an image ({len(content)} bytes)")
    if stored.dtype not in (np.uint8, np.uint16):
        raise PhotoError(f"label of {stored.dtype} values; expected whole numbers of 8 or 16 bits")
    if stored.ndim == 3:
        if (stored[..., :3] != stored[..., :1]).any():
            raise PhotoError("label in colour; expected grey values 0 and 1, or 0 and 255")
        stored = stored[..., 0]
    highest = int(stored.max())
    if 1 < highest < LABEL_MIDDLE or 255 < highest < 1 << 15:
        raise PhotoError(f"label values up to {highest}; expected 0 and 1, or 0 and 255")
    middle = 0 if highest <= 1 else LABEL_MIDDLE - 1 if highest <= 255 else (1 << 15) - 1
    return np.where(stored > middle, np.uint8(255), np.uint8(0))


def read_label(path: Path, sha256: str | None = None, remedy: str = "") -> Image:
    """Read a label: HW uint8, 0 or 255.

    Args:
        path: of the picture.
        sha256: of the content it must have; None: any.
        remedy: as `read_photo` takes it.

    Raises:
        FileNotFoundError, PhotoError: with the path and the remedy in the message.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the mask is not there; put it back, or materialize its asset again")
    content = path.read_bytes()
    _refuse_changed(path, content, sha256)
    try:
        return decode_label(content)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}{remedy}") from None


def too_large(size: tuple[int, int]) -> str:
    """Return what is wrong with a picture of this width and height in px; "" if it can be decoded."""
    width, height = size
    if width * height <= MAX_PIXELS:
        return ""
    return (
        f"{width}x{height} px, as its header says; at most {MAX_PIXELS} px are read: cut it into smaller ones"
    )


def _decoded(content: bytes, flags: int) -> Any:  # noqa: ANN401 - OpenCV's own type, or None
    # The size is read first: decoders ask for the memory of all pixels that a header claims.
    header = read_header(content)
    size = stated_size(content, header)
    if size is not None and (problem := too_large(size)):
        raise PhotoError(problem)
    if not content or is_torn(content):
        return None
    if header is not None and flags != cv2.IMREAD_GRAYSCALE and _has_straight_alpha(header):
        return _colours(header)
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # such as a header that only OpenCV reads, of too many pixels
        raise PhotoError(f"refused by the decoder: {' '.join(str(error.err).split())}") from None


def _has_straight_alpha(header: ImageFile) -> bool:
    if header.format != "TIFF" or header.mode != "RGBA":
        return False
    extra = header.getexif().get(EXTRA_SAMPLES)
    return STRAIGHT_ALPHA in (extra if isinstance(extra, tuple) else (extra,))


def _colours(picture: ImageFile) -> Image | None:
    # RGB as stored, turned as its tag says; OpenCV's TIFF library multiplies it by the alpha channel
    try:
        return np.asarray(picture.convert("RGB"), np.uint8)
    except BROKEN:
        return None


def _refuse_changed(path: Path, content: bytes, sha256: str | None) -> None:
    if sha256 is not None and bytes_digest(content) != sha256:
        raise PhotoError(f"{path}: the file has changed; materialize all assets again, from the first one on")


def encode_png(image: Image) -> bytes:
    """Encode HWC RGB or HW uint8 as PNG; the same array gives the same bytes on every machine."""
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(".png", ordered)[1].tobytes()


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode HWC uint8 RGB as JPEG at `quality` in 1..100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def through_jpeg(image: Image, quality: int) -> Image:
    """Return HWC uint8 RGB of any size as it is after being stored as JPEG at `quality` in 1..100."""
    stored = cv2.imdecode(np.frombuffer(encode_jpeg(image, quality), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert stored is not None  # what was just encoded
    return stored.astype(np.uint8, copy=False)


def write_png(path: Path, image: Image) -> str:
    """Write HWC RGB or HW uint8 as PNG, whole or not at all; the bytes are those of `quick_png`.

    Returns:
        The SHA-256 of the file.
    """
    content = quick_png(image)
    write_bytes(path, content)
    return bytes_digest(content)
