"""PNG files written four times as fast as OpenCV writes them, and not larger.

A PNG is a zlib stream of filtered rows. OpenCV's comes from zlib; this one from ISA-L, Intel's compressor for
storage, with one filter for all rows.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2
"""Kinds of pixels, of the header."""
UP = 2
"""The filter: what is stored is the difference from the pixel above. Of photos of rooms it gives files 5 %
smaller than the one to the left."""
LEVEL = 1
"""Of ISA-L's 0 to 3: 0 gives files a fifth larger in the same time, 2 and 3 hardly smaller ones."""
BAND_BYTES = 1 << 20
"""Rows are filtered and compressed so many bytes at a time: no second copy of a large picture is made."""


def quick_png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode HWC RGB or HW uint8 as PNG.

    Every reader gets the same pixels. The same machine gives the same bytes for them; ISA-L does not promise that
    of processors with other instructions.

    Raises:
        ValueError: another shape or dtype.
    """
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or image.shape[2:] not in ((), (3,))
        or not image.size
    ):
        raise ValueError(f"{image.dtype} of shape {image.shape}; expected uint8, HW or HWx3, not empty")
    height, width = image.shape[:2]
    kind = GREY if image.ndim == 2 else RGB
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    stream = isal_zlib.compressobj(LEVEL)
    packed = b"".join([*(stream.compress(band) for band in _filtered(image)), stream.flush()])
    return b"".join([SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b"")])


def _filtered(image: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[Any]]:
    # bands of rows, each row with its filter in front
    rows = image.reshape(len(image), -1)
    step = max(1, BAND_BYTES // rows.shape[1])
    for first in range(0, len(rows), step):
        band = rows[first : first + step]
        out = np.empty((len(band), rows.shape[1] + 1), np.uint8)
        out[:, 0] = UP
        out[0, 1:] = band[0] - rows[first - 1] if first else band[0]
        np.subtract(band[1:], band[:-1], out=out[1:, 1:])  # modulo 256, as PNG has it
        yield out


def _chunk(name: bytes, content: bytes) -> bytes:
    return b"".join(
        [
            len(content).to_bytes(4, "big"),
            name,
            content,
            zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big"),
        ]
    )
