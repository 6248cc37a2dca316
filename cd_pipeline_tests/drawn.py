"""Tiny photo trees, drawn by a seeded script."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cd_pipeline.data.labels import Box

Pixels = npt.NDArray[np.uint8]


def draw_photo(rng: np.random.Generator, size: tuple[int, int] = (96, 72)) -> tuple[Pixels, list[Box]]:
    """Draw a noisy room with 1 to 3 objects: HWC uint8 RGB of `size` = (width, height), and their boxes."""
    width, height = size
    ramp = np.linspace(90, 190, width)[None, :, None] + rng.integers(-40, 40, 3)
    noise = rng.integers(-25, 26, (height, width, 3))
    canvas = Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    boxes = []
    for _ in range(int(rng.integers(1, 4))):
        w, h = (int(rng.integers(side * 3 // 10, side * 6 // 10)) for side in size)
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape((x, y, x + w - 1, y + h - 1), fill=colour, outline=(20, 20, 20))
        class_id = int(rng.integers(0, 5))
        boxes.append(Box(class_id, (x + w / 2) / width, (y + h / 2) / height, w / width, h / height))
    grain = rng.integers(-8, 9, (height, width, 3))
    return np.clip(np.asarray(canvas, np.int64) + grain, 0, 255).astype(np.uint8), boxes


def label_text(boxes: list[Box]) -> str:
    """Return the boxes as the lines of a YOLO file."""
    return "".join(f"{b.class_id} {b.cx:.6f} {b.cy:.6f} {b.w:.6f} {b.h:.6f}\n" for b in boxes)


def save_photo(tree: Path, class_name: str, name: str, pixels: Pixels, labels: str | None) -> Path:
    """Write a photo, and its label file unless `labels` is None; return the photo's path."""
    photo = tree / "images" / class_name / name
    photo.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(photo)
    if labels is not None:
        label = tree / "labels" / class_name / f"{photo.stem}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(labels, encoding="utf-8")
    return photo


def draw_photo_tree(
    root: Path, counts: Mapping[str, Mapping[str, int]], seed: int = 0, size: tuple[int, int] = (96, 72)
) -> Path:
    """Draw labelled photos under `root` and return it.

    Args:
        root: folder to fill.
        counts: photos of each class in each tree, as {"trainval": {"KITCHEN": 10}, "test": {"KITCHEN": 4}};
            the tree "" is a single one. Each picture depends only on seed, tree, class and its number, so
            a larger count adds photos and keeps the others.
        seed: of all drawing.
        size: (width, height) in px.
    """
    for tree, classes in counts.items():
        for class_name, count in classes.items():
            for number in range(count):
                key = [seed, number, *f"{tree}/{class_name}".encode()]
                pixels, boxes = draw_photo(np.random.default_rng(key), size)
                save_photo(root / tree, class_name, f"photo_{number:03d}.jpg", pixels, label_text(boxes))
    return root
