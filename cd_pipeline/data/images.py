"""Reading and writing image files: one decoder for the whole product."""

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import bytes_digest, write_bytes

Image: TypeAlias = npt.NDArray[np.uint8]

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MIN_SIDE = 16
"""Shortest side, in px, of a photo that can hold a change."""


class PhotoError(ValueError):
    """A file that is not a usable photo; the message is the reason, without the path."""


def decode_photo(content: bytes) -> Image:
    """Decode a photo as a person sees it.

    Grey, palette, RGBA and 16-bit files become 8-bit RGB, and the EXIF orientation is applied.

    Args:
        content: the bytes of a .jpg, .png, .bmp or .webp file.

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
    return image.astype(np.uint8, copy=False)


def read_photo(path: Path, sha256: str | None = None) -> Image:
    """Read a photo: HWC uint8 RGB in displayed orientation.

    Args:
        path: of the file.
        sha256: of the content it must have; None: any.

    Raises:
        FileNotFoundError, PhotoError: with the path in the message.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: the picture is not there; if it is a photo, put it back or materialize raw_photos again, otherwise change_masks"
        )
    content = path.read_bytes()
    if sha256 is not None and bytes_digest(content) != sha256:
        raise PhotoError(f"{path}: the photo has changed; materialize raw_photos and all after it again")
    try:
        return decode_photo(content)
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
