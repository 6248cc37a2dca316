"""The header of a picture file, read by Pillow without decoding a pixel."""

import struct
import zlib
from io import BytesIO

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

FORMATS: tuple[tuple[int, bytes, type[ImageFile]], ...] = (
    (0, b"\x89PNG", PngImageFile),
    (0, b"\xff\xd8", JpegImageFile),
    (0, b"BM", BmpImageFile),
    (0, b"II", TiffImageFile),
    (0, b"MM", TiffImageFile),
    (0, b"GIF8", GifImageFile),
    (8, b"WEBP", WebPImageFile),
    (4, b"jP  ", Jpeg2KImageFile),
    (0, b"\xff\x4f\xff\x51", Jpeg2KImageFile),
    (4, b"ftyp", AvifImageFile),
)
"""What OpenCV decodes, whatever the file is called: place and bytes of the mark, and Pillow's reader.

The readers are called directly: `PIL.Image.open` has a limit of its own, 89 million px, and warns above it.
"""
PNG = b"\x89PNG\r\n\x1a\n"
FIRST_CHUNK = PNG + b"\0\0\0\x0dIHDR"
"""What a PNG starts with, before its width and height."""
CHUNK = 12
"""Bytes of a PNG chunk beside its data: length, name and checksum."""
BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    DecompressionBombError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for files that are cut short or damaged."""


def stated_size(content: bytes, header: ImageFile | None) -> tuple[int, int] | None:
    """Return width and height in px as the header of a picture says; None: it is not known.

    That of a PNG is where every PNG has it: OpenCV decodes some that Pillow refuses.
    """
    if content.startswith(FIRST_CHUNK) and len(content) >= len(FIRST_CHUNK) + 8:
        width, height = struct.unpack_from(">II", content, len(FIRST_CHUNK))
        return width, height
    return None if header is None else header.size


def is_torn(content: bytes) -> bool:
    """Tell whether a chunk of a PNG ends beyond the file; OpenCV asks for the memory of any that it claims."""
    place = len(PNG)
    while content.startswith(PNG) and place + CHUNK <= len(content):
        length, name = struct.unpack_from(">I4s", content, place)
        place += CHUNK + length
        if place > len(content) or name == b"IEND":
            return bool(place > len(content))
    return False


def read_header(content: bytes) -> ImageFile | None:
    """Read the header of a picture.

    Args:
        content: the bytes of a file.

    Returns:
        Pillow's picture, not decoded: `size` (width, height) in px, and `mode`. None: Pillow cannot read it.
    """
    for place, mark, reader in FORMATS:
        if content.startswith(mark, place):
            try:
                return reader(BytesIO(content))
            except BROKEN:
                return None
    return None
