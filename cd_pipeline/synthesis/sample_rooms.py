"""The sample data set: drawn photos of furnished rooms with YOLO labels, the same bytes every time.

For use where no photos are given. Pixels depend on the seed and the package versions alone: each photo has
its own generator, seeded by the SHA-256 of seed, split, class and number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cd_pipeline.data.files import keep_only, write_bytes
from cd_pipeline.data.images import encode_jpeg
from cd_pipeline.data.machine import usable_cores
from cd_pipeline.synthesis.furniture import FURNITURE
from cd_pipeline.synthesis.room_scene import Box, Scene, compose, draw
from cd_pipeline.synthesis.room_textures import UInt8
from cd_pipeline.synthesis.sample_pool import draw_all, require_workers

__all__ = [
    "COUNTS", "FURNITURE", "RoomSpec", "SampleRooms", "compose_room", "draw_room", "draw_sample_rooms",
    "room_specs", "yolo_lines",
]  # fmt: skip

COUNTS: dict[str, dict[str, int]] = {
    "trainval": {
        "DANCE_STUDIO": 10, "MAKER_SPACE": 31, "MUSIC_PRACTICE_ROOM": 38, "SMALL_THEATER": 26,
        "STUDY_ROOM": 42,
    },
    "test": {
        "DANCE_STUDIO": 2, "MAKER_SPACE": 7, "MUSIC_PRACTICE_ROOM": 9, "SMALL_THEATER": 6, "STUDY_ROOM": 9,
    },
}  # fmt: skip
"""Photos of each class in each split."""

_EMPTY = {("trainval", "STUDY_ROOM", 7), ("trainval", "MAKER_SPACE", 11), ("test", "MUSIC_PRACTICE_ROOM", 3)}
_QUALITY = 90
_ATTEMPTS = 20


@dataclass(frozen=True)
class RoomSpec:
    """Which photo to draw.

    Attributes:
        split: "trainval" or "test".
        room_class: One of the five classes.
        index: Number within the class, from 0.
        seed: Seed of the data set.
    """

    split: str
    room_class: str
    index: int
    seed: int

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.room_class.lower()}_{self.index:03d}"

    @property
    def furnished(self) -> bool:
        """Whether there is furniture; a few rooms are empty, so that photos without boxes occur."""
        return (self.split, self.room_class, self.index) not in _EMPTY


@dataclass(frozen=True)
class SampleRooms:
    """What was drawn.

    Attributes:
        photos: Number of photos.
        boxes: Number of labelled objects.
        classes: Photos of each class in each split, as in `COUNTS`.
        kinds: Labelled objects of each kind of furniture.
    """

    photos: int
    boxes: int
    classes: dict[str, dict[str, int]]
    kinds: dict[str, int]


def room_specs(seed: int = 42) -> list[RoomSpec]:
    """Lists the photos of the data set of a seed: trainval, then test, by class and number."""
    return [
        RoomSpec(split, room_class, index, seed)
        for split, classes in COUNTS.items()
        for room_class, count in classes.items()
        for index in range(count)
    ]


def _scenes(spec: RoomSpec) -> Iterator[Scene]:
    for attempt in range(_ATTEMPTS):
        name = f"{spec.seed}/{spec.split}/{spec.room_class}/{spec.index}/{attempt}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
        yield compose(spec.room_class, np.random.default_rng(seed), spec.furnished)


def _room(spec: RoomSpec) -> tuple[Scene, UInt8, list[Box]]:
    for scene in _scenes(spec):
        if not spec.furnished or len(scene.pieces) >= 2:
            photo, boxes = draw(scene)
            if not spec.furnished or len(boxes) >= 2:
                return scene, photo, boxes
    raise RuntimeError(f"{spec.room_class} {spec.index}: {_ATTEMPTS} rooms in a row had fewer than two boxes")


def compose_room(spec: RoomSpec) -> Scene:
    """Returns the scene that `draw_room` draws for a photo.

    Args:
        spec: Which photo.

    Returns:
        The scene.

    Raises:
        KeyError: There is no such class.
    """
    return _room(spec)[0]


def draw_room(spec: RoomSpec) -> tuple[UInt8, list[Box]]:
    """Draws one photo.

    Args:
        spec: Which photo.

    Returns:
        The photo, (H, W, 3) RGB uint8, and 2 to 8 boxes, or none for an empty room.

    Raises:
        KeyError: There is no such class.
    """
    _, photo, boxes = _room(spec)
    return photo, boxes


def yolo_lines(boxes: list[Box], width: int, height: int) -> str:
    """Writes boxes as a YOLO label file.

    Args:
        boxes: Boxes in pixels.
        width: Width of the photo in pixels.
        height: Height of the photo in pixels.

    Returns:
        One line a box, `class cx cy w h`: the last four in [0, 1] with six decimals; empty without boxes.
    """
    lines = []
    for box in boxes:
        cx, cy = (box.left + box.right) / 2 / width, (box.top + box.bottom) / 2 / height
        w, h = (box.right - box.left) / width, (box.bottom - box.top) / height
        lines.append(f"{box.kind} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n")
    return "".join(lines)


def _draw_files(root: Path, spec: RoomSpec) -> list[int]:
    """Draws one photo with its label file; returns the kinds in the label."""
    photo, boxes = draw_room(spec)
    height, width, _ = photo.shape
    base = root / spec.split
    label = yolo_lines(boxes, width, height).encode("ascii")
    write_bytes(base / "labels" / spec.room_class / f"{spec.stem}.txt", label)
    write_bytes(base / "images" / spec.room_class / f"{spec.stem}.jpg", encode_jpeg(photo, _QUALITY))
    return [box.kind for box in boxes]


def draw_sample_rooms(
    root: Path,
    *,
    seed: int = 42,
    workers: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> SampleRooms:
    """Draws the sample data set: 147 photos to `root/trainval` and 33 to `root/test`.

    Photos go to `images/<class>/<stem>.jpg` (about 640x480), labels to `labels/<class>/<stem>.txt` (YOLO,
    see `yolo_lines`; class numbers index `FURNITURE`). Each file appears whole under its name. A run over an
    unfinished folder completes it: files of the same name are replaced, and other files beside them deleted.

    Args:
        root: Folder to draw into; made if missing.
        seed: Other seeds give other photos.
        workers: Processes to draw with; None for one a core, at most 8. The files do not depend on it.
        progress: Called in this process with photos done and photos in all, after each photo.

    Returns:
        What was drawn.

    Raises:
        OSError: A file cannot be written.
        ValueError: `workers` is below 1.
    """
    count, specs = min(usable_cores(), 8) if workers is None else workers, room_specs(seed)
    require_workers(count)
    for split, classes in COUNTS.items():
        for room_class in classes:
            stems = [spec.stem for spec in specs if (spec.split, spec.room_class) == (split, room_class)]
            for part, suffix in (("labels", ".txt"), ("images", ".jpg")):
                keep_only(root / split / part / room_class, {stem + suffix for stem in stems})
    kinds = dict.fromkeys(FURNITURE, 0)
    for found in draw_all(partial(_draw_files, root), specs, count, progress):
        for kind in found:
            kinds[FURNITURE[kind]] += 1
    classes_drawn = {split: dict(classes) for split, classes in COUNTS.items()}
    return SampleRooms(len(specs), sum(kinds.values()), classes_drawn, kinds)
