"""Pairs as arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from cd_pipeline.data.images import Image, read_label, read_mask, read_photo
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.preprocessing import resize_mask, resize_photo
from cd_pipeline.data.tiles import Window, grid, padded

Item = TypeVar("Item")

CACHE_BYTES = 1 << 30
"""Memory for decoded pairs or photos; about 2,000 pairs at 256x256. What is beyond it is decoded each time."""


class PairArrays(NamedTuple):
    """before, after: HWC uint8 RGB; mask: HW uint8, 0 or 255; valid: HW uint8, 255 = counts (None: all does)."""

    before: Image
    after: Image
    mask: Image
    valid: Image | None = None


@dataclass(frozen=True, slots=True)
class Roots:
    """Where references of a manifest lead."""

    source: Path
    workspace: Path

    def resolve(self, reference: str) -> Path:
        """Return the path of `source:<path>` or `workspace:<path>`.

        Raises:
            ValueError: another scheme.
        """
        scheme, _, path = reference.partition(":")
        roots: Mapping[str, Path] = {"source": self.source, "workspace": self.workspace}
        if scheme not in roots:
            raise ValueError(f"reference {reference!r}: expected source:<path> or workspace:<path>")
        return roots[scheme] / path


def load_pair(pair: Pair, roots: Roots) -> PairArrays:
    """Read a pair at its own size: the pictures, or its crop of them.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable or no longer the one in the manifest, or the sizes differ.
    """
    return cropped(load_pictures(pair, roots), pair)


def load_pictures(pair: Pair, roots: Roots) -> PairArrays:
    """Read the pictures of a pair, whole, whatever its crop; errors are those of `load_pair`."""
    if pair.after is None or pair.mask is None:
        raise ValueError(f"pair {pair.pair_id}: drawn anew each epoch, nothing of it is on disk")
    before = read_photo(roots.resolve(pair.before), pair.before_sha256, pair.bits)
    after = read_photo(roots.resolve(pair.after), pair.after_sha256, pair.bits)
    mask = read_label(roots.resolve(pair.mask), pair.mask_sha256)
    valid = None if pair.valid is None else read_mask(roots.resolve(pair.valid))
    if not before.shape[:2] == after.shape[:2] == mask.shape == (mask if valid is None else valid).shape:
        raise ValueError(
            f"pair {pair.pair_id}: sizes differ: before {before.shape[:2]}, after {after.shape[:2]}, "
            f"mask {mask.shape}{'' if valid is None else f', valid {valid.shape}'}; "
            "materialize all assets again, from the first one on"
        )
    return PairArrays(before, after, mask, valid)


def cropped(pictures: PairArrays, pair: Pair) -> PairArrays:
    """Return the part of the pictures that a pair is."""
    return pictures if pair.crop is None else cut(pictures, Window(**pair.crop))


def load_mask(pair: Pair, roots: Roots) -> Image:
    """Read the mask of a pair alone: HW uint8, 0 or 255; errors are those of `load_pair`."""
    mask = read_label(roots.resolve(str(pair.mask)), pair.mask_sha256)
    if pair.crop is None:
        return mask
    window = Window(**pair.crop)
    return mask[window.rows, window.columns]


def cut(arrays: PairArrays, window: Window) -> PairArrays:
    """Cut a window out of a pair."""
    rows, columns = window.rows, window.columns
    valid = None if arrays.valid is None else arrays.valid[rows, columns]
    return PairArrays(
        arrays.before[rows, columns], arrays.after[rows, columns], arrays.mask[rows, columns], valid
    )


def at_input_size(arrays: PairArrays, size: int) -> PairArrays:
    """Resize a pair to size x size."""
    if arrays.mask.shape == (size, size):
        return arrays
    return PairArrays(
        resize_photo(arrays.before, size),
        resize_photo(arrays.after, size),
        resize_mask(arrays.mask, size),
        None if arrays.valid is None else resize_mask(arrays.valid, size),
    )


def padded_pair(arrays: PairArrays, side: int) -> PairArrays:
    """Enlarge a pair at the right and the bottom to at least side x side; the mirrored pixels do not count."""
    if min(arrays.mask.shape) >= side:
        return arrays
    valid = np.full_like(arrays.mask, 255) if arrays.valid is None else arrays.valid
    return PairArrays(
        padded(arrays.before, side),
        padded(arrays.after, side),
        padded(arrays.mask, side, 0),
        padded(valid, side, 0),
    )


def network_view(arrays: PairArrays, window: Window | None, size: int) -> PairArrays:
    """Return a pair as the network sees it, size x size: a tile of it, or (None) all of it resized."""
    return at_input_size(arrays, size) if window is None else padded_pair(cut(arrays, window), size)


def network_windows(pair: Pair, size: int) -> list[Window | None]:
    """Return what the network sees of a pair: tiles that cover it, or (None) all of it."""
    if not pair.tiled:
        return [None]
    width, height = (pair.crop["width"], pair.crop["height"]) if pair.crop else (pair.width, pair.height)
    return list(grid(width, height, size))


def input_pairs(
    pairs: Iterable[Pair], roots: Roots, size: int, limit: int | None = None
) -> Iterator[PairArrays]:
    """Read frozen pairs one at a time, as the network sees them.

    Args:
        pairs: rows of the manifest.
        roots: where their pictures are.
        size: of the network's input, px.
        limit: how many views there are at most, evenly spaced; None: all.
    """
    views = [(pair, window) for pair in pairs for window in network_windows(pair, size)]
    chosen = views if limit is None else spread(views, limit)
    for pair, group in groupby(chosen, key=itemgetter(0)):
        arrays = load_pair(pair, roots)
        for _, window in group:
            yield network_view(arrays, window, size)


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spaced: neighbours can be draws of one photo."""
    return list(items[:: max(1, -(-len(items) // count))])
