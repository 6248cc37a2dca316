"""Colours of classes, and palette PNGs: class indices that viewers show in colour."""

from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Picture

from cd_pipeline.data.files import write_bytes
from cd_pipeline.data.images import Image

Palette: TypeAlias = npt.NDArray[np.uint8]
"""A row of red, green and blue for each index, 256 at most."""

VOID_COLOUR = (224, 224, 192)


def voc_palette() -> Palette:
    """Return the 256 colours of Pascal VOC.

    Bits 0, 3 and 6 of the index are the three highest bits of red, bits 1, 4 and 7 those of green and bits 2
    and 5 those of blue, so that no two colours are the same.
    """
    index = np.arange(256)
    channels = [
        sum(((index >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))
        for channel in range(3)
    ]
    return np.stack(channels, axis=1).astype(np.uint8)


VOC_PALETTE = voc_palette()
VOC_PALETTE.setflags(write=False)


def class_palette(classes: int, *, void_as_class: bool = False) -> Palette:
    """Return VOC's colour of each class; the void colour last where void is a class of its own."""
    colours = VOC_PALETTE[:classes]
    return np.concatenate((colours, np.array([VOID_COLOUR], np.uint8))) if void_as_class else colours.copy()


def colourise(indices: Image, palette: Palette) -> Image:
    """Paint class indices, HW uint8, in their colours: HWC uint8 RGB.

    Raises:
        ValueError: an index has no colour.
    """
    _refuse_beyond(indices, palette)
    return cv2.applyColorMap(indices, _padded(palette)[:, None]).astype(np.uint8, copy=False)


def colour_indices(image: Image, palette: Palette) -> Image:
    """Find the index of every pixel's colour; the reverse of `colourise`.

    Args:
        image: HWC uint8 RGB.
        palette: of two equal colours the first counts.

    Returns:
        HW uint8.

    Raises:
        ValueError: naming the first pixel whose colour is not in the palette.
    """
    codes, first = np.unique(_codes(palette), return_index=True)
    wanted = _codes(image)
    places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    if (strange := codes[places] != wanted).any():
        y, x = np.argwhere(strange)[0]
        colour = tuple(int(value) for value in image[y, x])
        raise ValueError(f"colour {colour} at x {x}, y {y} is not in the palette")
    return first.astype(np.uint8)[places]


def encode_palette_png(indices: Image, palette: Palette) -> bytes:
    """Encode class indices, HW uint8, as an 8-bit palette PNG.

    Raises:
        ValueError: an index has no colour.
    """
    _refuse_beyond(indices, palette)
    height, width = indices.shape
    picture = Picture.frombytes("P", (width, height), indices.tobytes())
    picture.putpalette(_padded(palette).tobytes())
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def write_palette_png(path: Path, indices: Image, palette: Palette) -> None:
    """Write class indices, HW uint8, as a palette PNG, whole or not at all.

    Raises:
        ValueError: an index has no colour.
    """
    write_bytes(path, encode_palette_png(indices, palette))


def _codes(colours: Image) -> npt.NDArray[np.uint32]:
    red, green, blue = np.moveaxis(colours.astype(np.uint32), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def _padded(palette: Palette) -> Palette:
    return np.concatenate((palette, np.zeros((256 - len(palette), 3), np.uint8)))


def _refuse_beyond(indices: Image, palette: Palette) -> None:
    if indices.size and (highest := int(indices.max())) >= len(palette):
        raise ValueError(f"index {highest} has no colour; the palette has {len(palette)}")
