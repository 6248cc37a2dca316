"""Photos that show nearly the same, such as the shots of a burst, by a perceptual hash."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image

SIDE = 32
"""px of the picture that is hashed."""
LOW = 8
"""Frequencies a side that the hash keeps."""
AT_ONCE = 1 << 24
"""Distances computed together."""


def perceptual_hash(image: Image) -> str:
    """Hash what a photo looks like: 64 bits as 16 hex digits.

    The signs of the lowest 8x8 frequencies of the grey photo at 32x32 px about their median (pHash; Zauner
    2010, Implementation and benchmarking of perceptual image hash functions).

    Args:
        image: HWC uint8 RGB.
    """
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(grey.astype(np.float32)))[:LOW, :LOW].ravel()
    return np.packbits(low > np.median(low[1:])).tobytes().hex()


def near_identical_groups(hashes: Sequence[str], distance: int) -> list[list[int]]:
    """Group hashes that are linked by steps of at most `distance` differing bits.

    Args:
        hashes: as of `perceptual_hash`; one that is "" is a group of its own.
        distance: bits; 0 with equal hashes alone.

    Returns:
        The indices of each group, ascending; groups by their first index. Time grows with the square of their
        number: 100,000 take some 20 seconds on one core.
    """
    known = [index for index, value in enumerate(hashes) if value]
    bits = np.array([int(hashes[index], 16) for index in known], np.uint64)
    parent = list(range(len(hashes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for first, second in _near_pairs(bits, distance):
        low, high = sorted((root(known[first]), root(known[second])))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for index in range(len(hashes)):
        groups.setdefault(root(index), []).append(index)
    return [groups[first] for first in sorted(groups)]


def _near_pairs(bits: npt.NDArray[np.uint64], distance: int) -> npt.NDArray[np.int64]:
    step = max(1, AT_ONCE // max(1, len(bits)))
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(bits), step):
        rows = bits[start : start + step]
        near = np.bitwise_count(rows[:, None] ^ bits[None, start:]) <= distance
        first, second = np.nonzero(near)
        later = second > first
        found.append(np.stack([first[later], second[later]], axis=1) + start)
    return np.concatenate(found)
