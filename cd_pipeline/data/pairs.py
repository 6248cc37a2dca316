"""Pairs as arrays."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cd_pipeline.data.images import Image, read_mask, read_photo
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.preprocessing import resize_mask, resize_photo

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
    """Read a pair at its own size.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable, or the sizes differ.
    """
    if pair.after is None or pair.mask is None:
        raise ValueError(f"pair {pair.pair_id}: drawn anew each epoch, nothing of it is on disk")
    # a photo that stands for itself must be the one the plan was drawn for
    expected = pair.photo_sha256 if pair.before == pair.photo else None
    before, after = read_photo(roots.resolve(pair.before), expected), read_photo(roots.resolve(pair.after))
    mask = read_mask(roots.resolve(pair.mask))
    valid = None if pair.valid is None else read_mask(roots.resolve(pair.valid))
    if not before.shape[:2] == after.shape[:2] == mask.shape == (mask if valid is None else valid).shape:
        raise ValueError(
            f"pair {pair.pair_id}: sizes differ: before {before.shape[:2]}, after {after.shape[:2]}, "
            f"mask {mask.shape}{'' if valid is None else f', valid {valid.shape}'}; materialize raw_photos and all after it again"
        )
    return PairArrays(before, after, mask, valid)


def at_input_size(arrays: PairArrays, size: int) -> PairArrays:
    """Bring a pair to size x size, as the network sees it."""
    if arrays.mask.shape == (size, size):
        return arrays
    return PairArrays(
        resize_photo(arrays.before, size),
        resize_photo(arrays.after, size),
        resize_mask(arrays.mask, size),
        None if arrays.valid is None else resize_mask(arrays.valid, size),
    )


def input_pairs(pairs: Iterable[Pair], roots: Roots, size: int) -> Iterator[PairArrays]:
    """Read frozen pairs one at a time, as the network sees them."""
    return (at_input_size(load_pair(pair, roots), size) for pair in pairs)
