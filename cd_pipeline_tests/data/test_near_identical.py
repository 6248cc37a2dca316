"""Perceptual hashes are grouped as a comparison of all pairs groups them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from cd_pipeline.data.near_identical import near_identical_groups, perceptual_hash


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
