"""What a user hands in: a picture as an array, or the path of its file."""

from os import PathLike, fspath
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cd_pipeline.data.images import Image, read_photo

Photo: TypeAlias = Image | str | PathLike[str]
"""HWC uint8 RGB, or the path of a .jpg, .png, .bmp, .webp or .tif file."""


def as_image(photo: Photo, name: str) -> Image:
    """Return HWC uint8 RGB.

    A file is read as a person sees it: in displayed orientation, grey, palette, CMYK and 16-bit pictures as
    8-bit RGB; of transparent pixels the stored colour counts.

    Args:
        photo: an array, which is not copied, or a path.
        name: what the picture is called in messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable picture, or an array of another shape or dtype.
    """
    if not isinstance(photo, np.ndarray):
        path = Path(fspath(photo))
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return read_photo(path)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
        raise ValueError(
            f"{name}: found an array of shape {photo.shape} and dtype {photo.dtype}, "
            "expected HxWx3 uint8 RGB, values 0 to 255"
        )
    return photo
