"""The sample VOC tree: drawn rooms, terraces and streets with a class mask each, the same bytes every time.

For use where no pictures are given. `JPEGImages/<name>.jpg`, `SegmentationClass/<name>.png` (palette PNG,
void around every object) and `ImageSets/Segmentation/{train,val,test}.txt`. Each picture has its own
generator, seeded by seed, split and number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cd_pipeline.data.classes import VOID
from cd_pipeline.data.files import keep_only, seed_of, write_bytes, write_text
from cd_pipeline.data.images import encode_jpeg
from cd_pipeline.data.palette import VOC_PALETTE, write_palette_png
from cd_pipeline.data.split import SPLITS
from cd_pipeline.data.voc import LISTS, PARTS
from cd_pipeline.synthesis.room_textures import UInt8
from cd_pipeline.synthesis.sample_pool import draw_all, require_counts, require_workers
from cd_pipeline.synthesis.sample_voc_objects import CLASSES
from cd_pipeline.synthesis.sample_voc_scene import compose_voc, draw_voc

__all__ = ["CLASSES", "SAMPLE_COUNTS", "SampleVoc", "draw_labelled", "draw_sample_voc"]

SAMPLE_COUNTS: Mapping[str, int] = {"train": 56, "val": 12, "test": 12}
"""Pictures of each split; with 8 or more, every class is in it."""

_QUALITY = 92
_ATTEMPTS = 60


@dataclass(frozen=True, slots=True)
class SampleVoc:
    """What was drawn: the number of pictures, and of those in which each class is, by VOC index."""

    images: int
    classes: dict[int, int]


def draw_labelled(seed: int, lead: str) -> tuple[UInt8, UInt8]:
    """Draw one picture.

    Args:
        seed: 0 or more; other seeds give other pictures.
        lead: name of the class of its main object, one of `CLASSES`.

    Returns:
        The picture, (H, W, 3) RGB uint8 of about 256x192 px, and its mask, (H, W) uint8: VOC indices, 255
        in a border of 2 px around every object.

    Raises:
        KeyError: that class does not occur.
        RuntimeError: no scene in which the main object can be seen was found.
    """
    for attempt in range(_ATTEMPTS):
        scene = compose_voc(np.random.default_rng([seed, attempt]), lead)
        if scene is not None:
            return draw_voc(scene)
    raise RuntimeError(f"{_ATTEMPTS} scenes in a row did not show a {lead}, seed {seed}; take another seed")


def draw_sample_voc(
    folder: Path,
    *,
    counts: Mapping[str, int] = SAMPLE_COUNTS,
    seed: int = 42,
    workers: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> SampleVoc:
    """Draw the sample tree into `folder`.

    Each file appears whole under its name. A run over an unfinished folder completes it: files of the same
    name are replaced, and other files beside them deleted.

    Args:
        folder: to draw into; made if missing.
        counts: pictures of each split, the classes in turn.
        seed: other seeds give other pictures. A picture depends on seed, split and number alone.
        workers: processes to draw with; the files do not depend on it.
        progress: called in this process with pictures done and pictures in all, after each picture.

    Returns:
        What was drawn.

    Raises:
        OSError: a file cannot be written.
        ValueError: `workers` is below 1, a count negative, or there is no such split.
    """
    require_workers(workers)
    require_counts(counts)
    pictures = [(split, number) for split in SPLITS for number in range(counts.get(split, 0))]
    for part, suffix in zip(PARTS, (".jpg", ".png"), strict=True):
        keep_only(folder / part, {_stem(*picture) + suffix for picture in pictures})
    found = dict.fromkeys(CLASSES.values(), 0)
    for present in draw_all(partial(_draw_files, folder, seed), pictures, workers, progress):
        for index in present:
            found[index] += 1
    for split in SPLITS:
        names = [_stem(split, number) + "\n" for number in range(counts.get(split, 0))]
        write_text(folder / LISTS / f"{split}.txt", "".join(names))
    return SampleVoc(len(pictures), found)


def _stem(split: str, number: int) -> str:
    return f"{split}_{number + 1:03d}"


def _draw_files(folder: Path, seed: int, picture: tuple[str, int]) -> list[int]:
    """Draw the two files of a picture; return the classes in it, without background."""
    split, number = picture
    lead = list(CLASSES)[number % len(CLASSES)]
    image, mask = draw_labelled(seed_of("voc", seed, split, number), lead)
    write_bytes(folder / PARTS[0] / f"{_stem(*picture)}.jpg", encode_jpeg(image, _QUALITY))
    write_palette_png(folder / PARTS[1] / f"{_stem(*picture)}.png", mask, VOC_PALETTE)
    return [index for index in np.unique(mask).tolist() if index not in (0, VOID)]
