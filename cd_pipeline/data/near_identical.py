"""Photos that show nearly the same, such as the shots of a burst, by a perceptual hash."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import comb
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image

SIDE = 32
"""px of the picture that is hashed."""
LOW = 8
"""Frequencies a side that the hash keeps."""
BITS = LOW * LOW
AT_ONCE = 1 << 22
"""Distances computed together."""
FEW = 4096
"""So many hashes are compared each with each."""
MANY_PARTS = range(3, 9)
"""Into how many parts a hash may be cut; a part of 22 bits has a table of 16 MB."""
SAMPLE = 256
"""Hashes that the work of a search is told from."""
PER_LOOKUP, PER_CANDIDATE = 8.0, 12.0
"""What they cost, in distances of a comparison of each with each."""

Hashes: TypeAlias = npt.NDArray[np.uint64]
Numbers: TypeAlias = npt.NDArray[np.int64]


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
        The indices of each group, ascending; groups by their first index.
    """
    known = [index for index, value in enumerate(hashes) if value]
    bits, which = np.unique(np.array([int(hashes[i], 16) for i in known], np.uint64), return_inverse=True)
    linked = np.arange(len(bits))  # for each hash the least that it is linked to
    for first, second in near_pairs(bits, distance):
        linked = _linked(linked, first, second)
    of_known = dict(zip(known, linked[which].tolist(), strict=True))
    groups: dict[int, list[int]] = {}
    for index in range(len(hashes)):
        groups.setdefault(of_known.get(index, -1 - index), []).append(index)
    return list(groups.values())


def near_pairs(bits: Hashes, distance: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Find the pairs of hashes that differ in at most `distance` bits.

    Hashes that are near have a part in which they differ in few bits, or none: many are looked up by their
    parts. Where that would be more work, each is compared with each.

    Args:
        bits: different ones.
        distance: bits.

    Yields:
        The numbers of the hashes of some pairs, the lower ones first; a pair can come more than once.
    """
    if len(bits) > FEW:
        parts = min(MANY_PARTS, key=lambda count: _expected_work(len(bits), distance, count))
        if _expected_work(len(bits), distance, parts) < len(bits) / 2:
            sample = bits[:: len(bits) // SAMPLE]
            found = sum(int((high - low).sum()) for _, low, high in _lookups(bits, sample, distance, parts))
            if PER_CANDIDATE * found / len(sample) < len(bits) / 2:
                yield from near_by_parts(bits, distance, parts)
                return
    step = max(1, AT_ONCE // max(1, len(bits)))
    for start in range(0, len(bits), step):
        rows = bits[start : start + step]
        first, second = np.nonzero(np.bitwise_count(rows[:, None] ^ bits[None, start:]) <= distance)
        later = second > first
        yield first[later] + start, second[later] + start


def near_by_parts(bits: Hashes, distance: int, parts: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Find what `near_pairs` finds, by looking up the parts of each hash with up to distance // parts bits flipped."""
    for order, low, high in _lookups(bits, bits, distance, parts):
        first, counts = np.arange(len(bits)), high - low
        for rows in _blocks(counts):
            there, count = first[rows], counts[rows]
            before = np.cumsum(count) - count
            candidates = order[np.arange(count.sum()) + np.repeat(low[rows] - before, count)]
            asking = np.repeat(there, count)
            near = np.bitwise_count(bits[asking] ^ bits[candidates]) <= distance
            near &= asking < candidates
            if near.any():
                yield asking[near], candidates[near]


def _lookups(
    bits: Hashes, asked: Hashes, distance: int, parts: int
) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    # the hashes in the order of a part, and where in it those lie that have the part of each one asked for, flipped
    for shift, width in _parts(parts):
        mask = np.uint64((1 << width) - 1)
        values = ((bits >> np.uint64(shift)) & mask).astype(np.int64)
        order = np.argsort(values, kind="stable")
        starts = np.zeros((1 << width) + 1, np.int32)
        np.cumsum(np.bincount(values, minlength=1 << width), out=starts[1:])
        wanted = ((asked >> np.uint64(shift)) & mask).astype(np.int64)
        for count in range(distance // parts + 1):
            for flipped in combinations(range(width), count):
                place = wanted ^ sum(1 << bit for bit in flipped)
                yield order, starts[place].astype(np.int64), starts[place + 1].astype(np.int64)


def _parts(parts: int) -> list[tuple[int, int]]:
    # the place and width of each, as equal as can be
    edges = [BITS * part // parts for part in range(parts + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _blocks(counts: Numbers) -> Iterator[Numbers]:
    # those with candidates, so many together that their candidates are about AT_ONCE
    some = np.flatnonzero(counts)
    block = np.cumsum(counts[some]) // AT_ONCE
    yield from np.split(some, np.flatnonzero(np.diff(block)) + 1) if len(some) else ()


def _expected_work(hashes: int, distance: int, parts: int) -> float:
    # for each hash, in distances of a comparison of each with each, were they evenly spread
    width = BITS // parts
    lookups = parts * sum(comb(width + 1, count) for count in range(distance // parts + 1))
    return lookups * (PER_LOOKUP + PER_CANDIDATE * hashes / (1 << width))


def _linked(linked: Numbers, first: Numbers, second: Numbers) -> Numbers:
    # with the links of some pairs; each hash leads to the least of its group
    while len(apart := np.flatnonzero(linked[first] != linked[second])):
        first, second = first[apart], second[apart]
        ends = np.stack([linked[first], linked[second]])
        leads = np.arange(len(linked))
        np.minimum.at(leads, ends.max(axis=0), ends.min(axis=0))
        while not np.array_equal(leads, further := leads[leads]):
            leads = further
        linked = leads[linked]
    return linked
