"""Small copies of pictures and masks as data URIs: JPEG for photos, PNG without loss for masks."""

from base64 import b64encode
from io import BytesIO

import cv2
import numpy as np
from PIL import Image as Picture

from cd_pipeline.data.images import Image
from cd_pipeline.data.palette import VOID_COLOUR, Palette
from cd_pipeline.evaluation.figures import Cell, inline_jpeg

UNCOUNTED = 255
"""Index of void in a picture of classes."""


def thumbnail_size(height: int, width: int, side: int) -> Cell:
    """Return height and width of a copy whose longer side is `side` px at most; nothing is enlarged."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def photo_uri(photo: Image, size: Cell, limit: int) -> str:
    """Return HWC uint8 RGB as a JPEG of at most `limit` bytes."""
    small = photo
    if photo.shape[:2] != size:
        small = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
    return _uri("jpeg", inline_jpeg(small, limit))


def mask_uri(mask: Image) -> str:
    """Return HW, nonzero = marked, as a PNG of one bit a pixel: opaque where marked; "" where nothing is."""
    if not mask.any():
        return ""
    picture = Picture.fromarray((mask > 0).astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    return _png_uri(picture, bits=1)


def classes_uri(indices: Image, size: Cell, palette: Palette) -> str:
    """Return class indices, HW uint8 with 255 for void, as a palette PNG, resized by nearest; class 0 is clear."""
    colours = np.zeros((256, 3), np.uint8)
    colours[UNCOUNTED] = VOID_COLOUR
    colours[: len(palette)] = palette
    picture = Picture.fromarray(resized_classes(indices, size)).convert("P")
    picture.putpalette(colours.tobytes())
    return _png_uri(picture, bits=8)


def resized_classes(indices: Image, size: Cell) -> Image:
    """Resize class indices, HW uint8, by nearest: none is mixed."""
    return cv2.resize(indices, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def _png_uri(picture: Picture.Image, bits: int) -> str:
    stream = BytesIO()
    picture.save(stream, format="PNG", bits=bits, transparency=0)
    return _uri("png", stream.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
