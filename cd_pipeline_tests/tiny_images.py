"""Small images with a mask each for tests: in memory, and on disk with their manifest rows."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cd_pipeline.data.datasets import ItemDataset, to_item
from cd_pipeline.data.files import bytes_digest
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import Image, encode_png
from cd_pipeline.data.samples import Sample
from cd_pipeline.data.task import MaskForm, Task

COLOURS = np.array([[90, 90, 90], [200, 60, 50], [50, 180, 70], [60, 70, 210]], np.uint8)
"""Of each class."""


def draw_scene(seed: int, size: int = 32, classes: int = 3, *, void: bool = False) -> Sample:
    """Draw a noisy image with a block of each class on background; with one class the mask is 0/255.

    With `void` a strip at the left does not count and has index 0.
    """
    rng = np.random.default_rng(seed)
    indices = np.zeros((size, size), np.uint8)
    for index in range(1, max(2, classes)):
        height, width = rng.integers(size // 4, size // 2, 2)
        y, x = rng.integers(0, size - height), rng.integers(0, size - width)
        indices[y : y + height, x : x + width] = index
    noise = rng.normal(0, 8, (size, size, 3))
    image = np.clip(COLOURS[indices] + noise, 0, 255).astype(np.uint8)
    valid = np.full_like(indices, 255)
    valid[:, : size // 4 if void else 0] = 0
    mask = np.where(valid > 0, indices * np.uint8(255 if classes == 1 else 1), np.uint8(0))
    return Sample((image,), mask, valid if void else None)


class TinyScenes(ItemDataset):
    """Drawn images of one class or several."""

    def __init__(
        self, count: int, size: int = 32, classes: int = 3, seed: int = 0, *, void: bool = False
    ) -> None:
        self.task = Task(pictures=1, classes=classes)
        self.samples = [draw_scene(1000 * seed + i, size, classes, void=void) for i in range(count)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return to_item(self.samples[key[1]])


def items_of(scenes: TinyScenes) -> Tensor:
    """All items, NxCxHxW uint8."""
    return torch.stack([scenes[0, index] for index in range(len(scenes))])


def write_labelled(
    root: Path, name: str, image: Image, mask: Image, form: MaskForm, split: str = "train", dataset: str = ""
) -> LabelledImage:
    """Write an image and its mask as stored below `root` and return the row of the whole image."""
    digests = {}
    for kind, picture in (("images", image), ("masks", mask)):
        path = root / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content := encode_png(picture))
        digests[kind] = bytes_digest(content)
    return LabelledImage(
        image_id=name,
        split=split,
        dataset=dataset,
        image=f"source:images/{name}.png",
        mask=f"source:masks/{name}.png",
        image_sha256=digests["images"],
        mask_sha256=digests["masks"],
        classes=form.classes,
        void=form.void,
        void_as_class=form.void_as_class,
        crop=None,
        tiled=False,
        clahe=None,
        width=image.shape[1],
        height=image.shape[0],
        seed=7,
    )
