"""Batches of training pairs, ready for a network: pictures kept in memory, or decoded and resized every time."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cd_pipeline.data.datasets import SampleDataset
from cd_pipeline.data.files import digest
from cd_pipeline.evaluation.predict import BatchLoader
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline_tests.benchmarks.cases.rooms import SIZE, first_pairs, prepare_pictures, rendered_roots
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

BATCH = 8
Pixels = npt.NDArray[np.uint8]


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_pictures(folder, "train")


def ours(folder: Path, sizes: Sizes) -> Side:
    pairs, roots = first_pairs(folder, "published", "train", sizes["pairs"]), rendered_roots(folder, "train")
    runtime = resolve_runtime(device="cpu")
    runtime.prepare()

    def new_loader() -> BatchLoader:
        return BatchLoader(SampleDataset(pairs, roots, SIZE), runtime, BATCH)

    kept = new_loader()

    def run() -> None:
        for _ in (new_loader() if "first" in sizes else kept).epoch(0):
            pass

    def answer() -> list[str]:
        return [hashed(*batch.pictures, batch.truth) for batch in kept.epoch(1)]

    return Side(run, answer)


def reference(folder: Path, sizes: Sizes) -> Side:
    pairs, roots = first_pairs(folder, "published", "train", sizes["pairs"]), rendered_roots(folder, "train")
    files = [[str(roots.resolve(str(name))) for name in (p.before, p.after, p.mask)] for p in pairs]

    def run() -> None:
        for _ in batches(files):
            pass

    return Side(run, lambda: [hashed(*batch) for batch in batches(files)])


def batches(files: list[list[str]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield before, after and truth of 8 pairs at a time."""
    for first in range(0, len(files), BATCH):
        items = [(photo(a), photo(b), label(mask)) for a, b, mask in files[first : first + BATCH]]
        before, after, truth = (torch.stack(part) for part in zip(*items, strict=True))
        yield before, after, truth


def photo(path: str) -> Tensor:
    image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)


def label(path: str) -> Tensor:
    mask = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    mask = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    return torch.from_numpy((mask > 0).astype(np.float32))[None]


def hashed(*tensors: Tensor) -> str:
    """Of the values in [0, 1] as bytes: x * (1 / 255) and x / 255 differ in their last bit."""
    return digest(*((tensor * 255).round().byte().contiguous().numpy().tobytes() for tensor in tensors))


def compare(found: list[str], expected: list[str]) -> str:
    assert found == expected, "batches differ"
    return f"{len(found)} batches, equal pictures and masks"
