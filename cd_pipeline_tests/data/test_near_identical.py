"""Perceptual hashes are grouped as a comparison of all pairs groups them."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from cd_pipeline.data import near_identical
from cd_pipeline.data.near_identical import (
    FEW,
    near_by_parts,
    near_identical_groups,
    near_pairs,
    perceptual_hash,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=40), st.integers(0, 20))
def test_groups_are_the_connected_components_of_near_pairs(values: list[int | None], distance: int) -> None:
    hashes = ["" if value is None else f"{value:016x}" for value in values]
    near = np.zeros((len(values), len(values)), bool)
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            near[i, j] = a is not None and b is not None and (a ^ b).bit_count() <= distance
    expected: dict[int, list[int]] = {}
    if values:
        for index, label in enumerate(connected_components(csr_array(near))[1]):
            expected.setdefault(int(label), []).append(index)
    assert near_identical_groups(hashes, distance) == sorted(expected.values())


def test_a_hash_is_16_hex_digits_and_does_not_mind_size_or_brightness() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 180, (6, 8, 3)).astype(np.uint8)
    large = np.kron(coarse, np.ones((40, 40, 1), np.uint8))
    small = np.kron(coarse, np.ones((20, 20, 1), np.uint8))
    found = perceptual_hash(large)
    assert len(found) == 16
    assert len(near_identical_groups([found, perceptual_hash(small), perceptual_hash(large + 30)], 2)) == 1
    assert perceptual_hash(np.zeros((50, 60, 3), np.uint8)) == "0" * 16


def near_ones(seed: int, count: int, flips: int) -> npt.NDArray[np.uint64]:
    """Different hashes, some of them others with up to `flips` bits flipped, ascending."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**64, count, np.uint64)
    for _ in range(flips):
        some = rng.random(count) < 0.4
        bits[some] = np.roll(bits, 1)[some] ^ (np.uint64(1) << rng.integers(0, 64, some.sum(), np.uint64))
    return np.unique(bits)


def compared(bits: npt.NDArray[np.uint64], distance: int) -> set[tuple[int, int]]:
    """All pairs of near hashes, each compared with each by Python's own integers."""
    values = bits.tolist()
    return {
        (i, j)
        for i, one in enumerate(values)
        for j in range(i + 1, len(values))
        if (one ^ values[j]).bit_count() <= distance
    }


def as_set(found: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]) -> set[tuple[int, int]]:
    return {pair for first, second in found for pair in zip(first.tolist(), second.tolist(), strict=True)}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(0, 60), st.integers(0, 12), st.integers(5, 8))
def test_looking_up_parts_finds_the_pairs_that_comparing_finds(
    seed: int, count: int, distance: int, parts: int
) -> None:
    bits = near_ones(seed, count, 6)
    assert as_set(near_by_parts(bits, distance, parts)) == compared(bits, distance)


def test_of_many_hashes_the_same_pairs_are_found_whether_compared_or_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bits = near_ones(0, 6000, 3)
    assert len(bits) > FEW
    used: list[int] = []

    def looked_up(*given: object) -> object:
        used.append(1)
        return near_by_parts(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(near_identical, "near_by_parts", looked_up)
    found = as_set(near_pairs(bits, 3))
    assert used
    monkeypatch.setattr(near_identical, "FEW", len(bits))
    assert found == as_set(near_pairs(bits, 3))
    assert len(used) == 1
    assert len(found) > 1000


def test_many_photos_that_all_look_alike_are_one_group() -> None:
    rng = np.random.default_rng(0)
    bits = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (4500, 3), np.uint64), axis=1)
    assert near_identical_groups([f"{value:016x}" for value in bits.tolist()], 6) == [list(range(4500))]


def test_candidates_are_compared_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = near_ones(3, 200, 4)
    whole = as_set(near_by_parts(bits, 8, 8))
    monkeypatch.setattr(near_identical, "AT_ONCE", 7)
    assert as_set(near_by_parts(bits, 8, 8)) == whole == compared(bits, 8)
