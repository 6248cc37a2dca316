"""Reading and writing image files: one decoder for the whole product."""

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import bytes_digest, write_bytes

Image: TypeAlias = npt.NDArray[np.uint8]

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
PICTURE_SUFFIXES = PHOTO_SUFFIXES | {".tif", ".tiff"}
"""Of pairs and labels."""
LABEL_MIDDLE = 128
"""From here on a label value of 0..255 is change (published: above 0.5 of the range)."""
MIN_SIDE = 16
"""Shortest side, in px, of a photo that can hold a change."""


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
        PhotoError: the file is empty, cut short, not an image or smaller than 16 px on a side.
    """
    if not content:
        raise PhotoError("empty file (0 bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # such as a header that asks for more than 2**30 px
        raise PhotoError(f"refused by the decoder: {error.err}") from None
    if image is None:
        raise PhotoError(f"cannot be decoded as an image ({len(content)} bytes): cut short or another format")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise PhotoError(f"{width}x{height} px; at least {MIN_SIDE} px a side are needed")
    return image.astype(np.uint8, copy=False) if bits == 16 else _of_fewer_bits(content, image, bits)


def _of_fewer_bits(content: bytes, image: Any, bits: int) -> Image:  # noqa: ANN401 - OpenCV's own type
    # in BGR: OpenCV 5.0 gives wrong bytes for 16-bit TIFF in RGB
    deep = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if deep is None or deep.dtype != np.uint16:
        return np.asarray(image, np.uint8)
    scaled = np.minimum(np.asarray(deep, np.uint16) >> (bits - 8), 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB), np.uint8)


def used_bits(content: bytes) -> int:
    """Return how many bits the values of a picture that can be decoded need: 8, or up to 16 of a 16-bit one."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return 8 if image is None or image.dtype != np.uint16 else max(8, int(image.max()).bit_length())


def read_photo(path: Path, sha256: str | None = None, bits: int = 16) -> Image:
    """Read a photo: HWC uint8 RGB in displayed orientation.

    Args:
        path: of the file.
        sha256: of the content it must have; None: any.
        bits: as `decode_photo` takes them.

    Raises:
        FileNotFoundError, PhotoError: with the path in the message.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the picture is not there; if it is yours, put it back, otherwise materialize its asset again"
        )
    content = path.read_bytes()
    _refuse_changed(path, content, sha256)
    try:
        return decode_photo(content, bits)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from None


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
    mask = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE) if path.stat().st_size else None
    if mask is None:
        raise ValueError(f"{path}: not a readable image; {remedy}")
    return mask.astype(np.uint8, copy=False)


def decode_label(content: bytes) -> Image:
    """Decode a label of what changed, stored as 0/1, 0/255 or 0/65535.

    Args:
        content: the bytes of a picture without loss; grey, or colour with equal channels.

    Returns:
        HW uint8, 0 or 255; a value above the middle of its range is change.

    Raises:
        PhotoError: not an image, in colour, or of other values.
    """
    try:
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error as error:  # as in decode_photo
        raise PhotoError(f"refused by the decoder: {error.err}") from None
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


def read_label(path: Path, sha256: str | None = None) -> Image:
    """Read a label: HW uint8, 0 or 255.

    Args:
        path: of the picture.
        sha256: of the content it must have; None: any.

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
        raise PhotoError(f"{path}: {error}") from None


def _refuse_changed(path: Path, content: bytes, sha256: str | None) -> None:
    if sha256 is not None and bytes_digest(content) != sha256:
        raise PhotoError(f"{path}: the file has changed; materialize all assets again, from the first one on")


def encode_png(image: Image) -> bytes:
    """Encode HWC RGB or HW uint8 as PNG; the same array gives the same bytes."""
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


def write_png(path: Path, image: Image) -> None:
    """Write HWC RGB or HW uint8 as PNG, whole or not at all."""
    write_bytes(path, encode_png(image))
