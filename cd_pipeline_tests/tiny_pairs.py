"""Small pairs for tests: in memory, and on disk with their manifest rows."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cd_pipeline.data.datasets import ItemDataset
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.labels import Box
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.data.task import Task


def draw_pair(seed: int, size: int = 64, changed: bool = True) -> Sample:
    """Draw a smooth noisy photo; the after image of a changed pair holds a block of another colour."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 160, size)[:, None, None] + rng.uniform(-20, 20, 3)
    before = np.clip(ramp + rng.normal(0, 8, (size, size, 3)), 0, 255).astype(np.uint8)
    after, mask = before.copy(), np.zeros((size, size), np.uint8)
    if changed:
        height, width = rng.integers(size // 6, size // 2, 2)
        y, x = rng.integers(0, size - height), rng.integers(0, size - width)
        after[y : y + height, x : x + width] = rng.integers(0, 256, 3)
        mask[y : y + height, x : x + width] = 255
    return Sample.of_pair(before, after, mask)


class TinyPairs(ItemDataset):
    """Drawn pairs, every fourth without a change; `asked` holds the keys in the order they were asked for."""

    def __init__(self, count: int, size: int = 64, seed: int = 0) -> None:
        self.task = Task()
        self.arrays = [draw_pair(1000 * seed + i, size, changed=i % 4 != 3) for i in range(count)]
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        self.asked.append(key)
        (before, after), mask, _ = self.arrays[key[1]]
        valid = np.full_like(mask, 255)
        stacked = np.concatenate([before, after, mask[..., None], valid[..., None]], axis=2)
        return torch.from_numpy(stacked).permute(2, 0, 1)


class BrightnessChange(nn.Module):
    """A network whose answer is known: a pixel's logit is 40 * (mean |before - after| - 0.1)."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return 40 * ((before - after).abs().mean(1, keepdim=True) - 0.1)


def write_pair(root: Path, name: str, arrays: Sample, split: str = "test") -> Pair:
    """Write a frozen pair below `root` and return its manifest row."""
    for kind, image in zip(("before", "after", "mask"), arrays.arrays[:3], strict=True):
        write_png(root / kind / f"{name}.png", image)
    return Pair(
        pair_id=name,
        split=split,
        class_name="STUDY_ROOM",
        before=f"source:before/{name}.png",
        after=f"workspace:after/{name}.png",
        mask=f"workspace:mask/{name}.png",
        photo=f"source:before/{name}.png",
        photo_sha256=hashlib.sha256((root / "before" / f"{name}.png").read_bytes()).hexdigest(),
        width=arrays.before.shape[1],
        height=arrays.before.shape[0],
        boxes=(Box(0, 0.5, 0.5, 0.6, 0.6),),
        seed=7,
        changed=bool(arrays.mask.any()),
        plan=None,
    )


def write_pairs_to(root: Path, pairs: Sequence[Sample]) -> tuple[list[Pair], Roots]:
    """Write frozen pairs named p0, p1, … and return their rows and roots."""
    return [write_pair(root, f"p{i}", arrays) for i, arrays in enumerate(pairs)], Roots(root, root)


def enlarged(small: Image, height_factor: int, width_factor: int) -> Image:
    """Repeat each pixel, so that area and nearest interpolation back to the old size are exact."""
    return small.repeat(height_factor, axis=0).repeat(width_factor, axis=1)
