"""The sample pictures of cracks: asphalt, concrete and plaster with a mask each, the same bytes every time.

For use where no pictures are given. `images/<name>.jpg` and `masks/<name>.png`: 255 on the cracks, else 0.
Joints, wires, shadows and the like are no cracks. Each picture has its own generator, seeded by seed and
number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cd_pipeline.data.files import keep_only, seed_of, write_bytes
from cd_pipeline.data.images import encode_jpeg, encode_png
from cd_pipeline.data.masked_images import PARTS
from cd_pipeline.synthesis.room_textures import UInt8
from cd_pipeline.synthesis.sample_canvas import averaged
from cd_pipeline.synthesis.sample_cracks_canvas import SURFACES, Canvas
from cd_pipeline.synthesis.sample_cracks_marks import ABOVE, BELOW, put
from cd_pipeline.synthesis.sample_cracks_path import draw_cracks
from cd_pipeline.synthesis.sample_pool import draw_all, require_workers

__all__ = [
    "SAMPLE_COUNT",
    "SIZE",
    "SURFACES",
    "SampleCracks",
    "draw_cracked",
    "draw_sample_cracks",
]

SAMPLE_COUNT = 60
"""Pictures in the sample."""
SIZE = (480, 320)
"""Width and height of a picture in px."""

_QUALITY = 95


@dataclass(frozen=True, slots=True)
class SampleCracks:
    """What was drawn: the number of pictures, and of those with a crack."""

    images: int
    cracked: int


def draw_cracked(seed: int, surface: str = SURFACES[0]) -> tuple[UInt8, UInt8]:
    """Draw one picture.

    Args:
        seed: 0 or more; other seeds give other pictures.
        surface: one of `SURFACES`.

    Returns:
        The picture, (320, 480, 3) RGB uint8, and its mask, (320, 480) uint8: 255 where at least half of a
        pixel is crack with nothing on it, else 0. About one mask in ten is empty.

    Raises:
        KeyError: there is no such surface.
    """
    canvas = Canvas(np.random.default_rng([seed, 0]), surface, *SIZE)
    marks = np.random.default_rng([seed, 1])
    put(canvas, marks, BELOW, surface)
    mask = canvas.crack(draw_cracks(np.random.default_rng([seed, 2]), *SIZE))
    put(canvas, marks, ABOVE, surface)
    seen = averaged(mask & ~canvas.covered)
    return canvas.photograph(np.random.default_rng([seed, 3])), np.where(
        seen >= 128, np.uint8(255), np.uint8(0)
    )


def draw_sample_cracks(
    folder: Path,
    *,
    count: int = SAMPLE_COUNT,
    seed: int = 42,
    workers: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> SampleCracks:
    """Draw the sample to `folder/images/<name>.jpg` and `folder/masks/<name>.png`.

    Each file appears whole under its name. A run over an unfinished folder completes it: files of the same
    name are replaced, and other files beside them deleted.

    Args:
        folder: to draw into; made if missing.
        count: pictures, of the three surfaces in turn.
        seed: other seeds give other pictures. A picture depends on seed and number alone.
        workers: processes to draw with; the files do not depend on it.
        progress: called in this process with pictures done and pictures in all, after each picture.

    Returns:
        What was drawn.

    Raises:
        OSError: a file cannot be written.
        ValueError: `workers` or `count` is below 1.
    """
    require_workers(workers)
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1")
    for part, suffix in zip(PARTS, (".jpg", ".png"), strict=True):
        keep_only(folder / part, {_stem(number) + suffix for number in range(count)})
    cracked = draw_all(partial(_draw_files, folder, seed), range(count), workers, progress)
    return SampleCracks(count, sum(cracked))


def _stem(number: int) -> str:
    return f"crack_{number + 1:03d}"


def _draw_files(folder: Path, seed: int, number: int) -> bool:
    """Draw the two files of a picture; return whether there is a crack in it."""
    image, mask = draw_cracked(seed_of("crack", seed, number), SURFACES[number % len(SURFACES)])
    write_bytes(folder / PARTS[0] / f"{_stem(number)}.jpg", encode_jpeg(image, _QUALITY))
    write_bytes(folder / PARTS[1] / f"{_stem(number)}.png", encode_png(mask))
    return bool(mask.any())
