"""Examples as arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath
from typing import NamedTuple, TypeVar

import numpy as np

from cd_pipeline.data.example import Example
from cd_pipeline.data.images import MADE_AGAIN, Image, read_label, read_mask, read_photo
from cd_pipeline.data.preprocessing import equalised, resize_mask, resize_photo
from cd_pipeline.data.tiles import Window, grid, padded
from cd_pipeline.data.voc import class_indices, read_indices

Item = TypeVar("Item")

CACHE_BYTES = 1 << 30
"""Memory for decoded pairs or photos; about 2,000 pairs at 256x256. What is beyond it is decoded each time."""


class Sample(NamedTuple):
    """Pictures and what is marked on them, all of one size.

    pictures: HWC uint8 RGB each: before and after, or one image.
    mask: HW uint8, 0 or 255; of several classes their indices.
    valid: HW uint8, 255 = counts (None: all does).
    """

    pictures: tuple[Image, ...]
    mask: Image
    valid: Image | None = None

    @classmethod
    def of_pair(cls, before: Image, after: Image, mask: Image, valid: Image | None = None) -> "Sample":
        """Make a sample of two pictures."""
        return cls((before, after), mask, valid)

    @property
    def before(self) -> Image:
        """The first picture of a pair."""
        return self.pictures[0]

    @property
    def after(self) -> Image:
        """The second picture of a pair."""
        return self.pictures[1]

    @property
    def arrays(self) -> tuple[Image, ...]:
        """All there is, one after the other."""
        return (*self.pictures, self.mask) if self.valid is None else (*self.pictures, self.mask, self.valid)


@dataclass(frozen=True, slots=True)
class Roots:
    """Where references of a manifest lead."""

    source: Path
    workspace: Path

    def resolve(self, reference: str) -> Path:
        """Return the path of `source:<path>` or `workspace:<path>`.

        Raises:
            ValueError: another scheme, or a path that leads out of its root; links in a root are followed.
        """
        scheme, _, path = reference.partition(":")
        roots: Mapping[str, Path] = {"source": self.source, "workspace": self.workspace}
        if scheme not in roots:
            raise ValueError(f"reference {reference!r}: expected source:<path> or workspace:<path>")
        relative = PurePath(path)
        if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\0" in path:
            raise ValueError(
                f"reference {reference!r}: expected a path below {roots[scheme]}, without `..`; "
                "materialize all assets again, from the first one on"
            )
        return roots[scheme] / relative


def load_sample(example: Example, roots: Roots) -> Sample:
    """Read an example at its own size: the pictures, or its crop of them.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable or no longer the one in the manifest, or the sizes differ.
    """
    return cropped(load_whole(example, roots), example)


def load_whole(example: Example, roots: Roots) -> Sample:
    """Read the pictures of an example, whole, whatever its crop; errors are those of `load_sample`."""
    if example.mask is None:
        raise ValueError(f"{example.name}: drawn anew each epoch, nothing of it is on disk")
    pictures = tuple(
        read_photo(roots.resolve(file.reference), file.sha256, example.bits, MADE_AGAIN)
        for file in example.pictures
    )
    mask, valid = read_truth(example, roots)
    if example.valid is not None:
        valid = read_mask(roots.resolve(example.valid))
    sample = Sample(pictures, mask, valid)
    if len({array.shape[:2] for array in sample.arrays}) > 1:
        sizes = ", ".join(f"{array.shape[1]}x{array.shape[0]}" for array in sample.arrays)
        raise ValueError(
            f"{example.name}: pictures, mask and what counts are not of one size: {sizes}; "
            "materialize all assets again, from the first one on"
        )
    if example.clahe is not None:
        sample = sample._replace(pictures=tuple(equalised(picture, example.clahe) for picture in pictures))
    return sample


def read_truth(example: Example, roots: Roots) -> tuple[Image, Image | None]:
    """Read the whole mask of an example as a network learns it, and what counts (None: all does).

    Returns:
        HW uint8, 0 or 255, or class indices; and HW uint8, 0 or 255. Errors are those of `load_sample`.
    """
    path, form = roots.resolve(str(example.mask)), example.mask_form
    if form.classes == 1:
        return read_label(path, example.mask_sha256, MADE_AGAIN), None
    # its colours were checked when the folder was read, and the hash says that it is the same file
    stored = read_indices(path, example.mask_sha256, palette=None, void=form.void)
    try:
        indices, counts = class_indices(stored, form.classes, form.void, void_as_class=form.void_as_class)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return indices, None if counts.all() else counts.astype(np.uint8) * np.uint8(255)


def cropped(sample: Sample, example: Example) -> Sample:
    """Return the part of the pictures that an example is."""
    return sample if example.crop is None else cut(sample, Window(**example.crop))


def load_masks(examples: Iterable[Example], roots: Roots) -> Iterator[tuple[Example, Image]]:
    """Read the masks of examples alone, as in their `Sample`; errors are those of `load_sample`."""
    for _, group in groupby(
        examples, key=lambda example: example.mask
    ):  # tiles of one picture follow each other
        whole: Image | None = None
        for example in group:
            if whole is None:
                whole, _ = read_truth(example, roots)
            window = None if example.crop is None else Window(**example.crop)
            yield example, whole if window is None else whole[window.rows, window.columns]


def cut(sample: Sample, window: Window) -> Sample:
    """Cut a window out of a sample."""
    rows, columns = window.rows, window.columns
    return Sample(
        tuple(picture[rows, columns] for picture in sample.pictures),
        sample.mask[rows, columns],
        None if sample.valid is None else sample.valid[rows, columns],
    )


def at_input_size(sample: Sample, size: int) -> Sample:
    """Resize a sample to size x size."""
    if sample.mask.shape == (size, size):
        return sample
    return Sample(
        tuple(resize_photo(picture, size) for picture in sample.pictures),
        resize_mask(sample.mask, size),
        None if sample.valid is None else resize_mask(sample.valid, size),
    )


def padded_sample(sample: Sample, side: int) -> Sample:
    """Enlarge a sample at the right and the bottom to at least side x side; mirrored pixels do not count."""
    if min(sample.mask.shape) >= side:
        return sample
    valid = np.full_like(sample.mask, 255) if sample.valid is None else sample.valid
    return Sample(
        tuple(padded(picture, side) for picture in sample.pictures),
        padded(sample.mask, side, 0),
        padded(valid, side, 0),
    )


def network_view(sample: Sample, window: Window | None, size: int) -> Sample:
    """Return a sample as the network sees it, size x size: a tile of it, or (None) all of it resized."""
    return at_input_size(sample, size) if window is None else padded_sample(cut(sample, window), size)


def network_windows(example: Example, size: int) -> list[Window | None]:
    """Return what the network sees of an example: tiles that cover it, or (None) all of it."""
    if not example.tiled:
        return [None]
    crop = example.crop
    width, height = (crop["width"], crop["height"]) if crop else (example.width, example.height)
    return list(grid(width, height, size))


def input_samples(
    examples: Iterable[Example], roots: Roots, size: int, limit: int | None = None
) -> Iterator[Sample]:
    """Read examples one at a time, as the network sees them.

    Args:
        examples: rows of a manifest.
        roots: where their pictures are.
        size: of the network's input, px.
        limit: how many views there are at most, evenly spaced; None: all.
    """
    views = [(example, window) for example in examples for window in network_windows(example, size)]
    chosen = views if limit is None else spread(views, limit)
    for _, group in groupby(
        chosen, key=lambda view: view[0].pictures
    ):  # tiles of one picture follow each other
        whole: Sample | None = None
        for example, window in group:
            whole = whole or load_whole(example, roots)
            yield network_view(cropped(whole, example), window, size)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spaced: neighbours can be draws of one photo."""
    return list(items[:: max(1, -(-len(items) // count))])
