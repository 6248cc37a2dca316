from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cd_pipeline.data.datasets import EpochSampler, PairDataset, to_sample
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import PairArrays, Roots, at_input_size, load_pair
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.synthesis.pairs import plan_pairs, render_pairs
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline_tests.drawn import draw_photo_tree

SIZE = 32


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    folder = tmp_path_factory.mktemp("datasets")
    draw_photo_tree(folder / "photos", {"trainval": {"A": 8}, "test": {"A": 1}})
    return Roots(folder / "photos", folder / "data")


@pytest.fixture(scope="module")
def pairs(roots: Roots) -> list[Pair]:
    planned = plan_pairs(
        assign_splits(scan_photos(roots.source).photos, SplitSettings()), PublishedSynthesis()
    )
    render_pairs(planned, roots, threads=2)
    return planned


def test_a_sample_is_before_after_mask_and_valid_in_eight_channels() -> None:
    rng = np.random.default_rng(0)
    before, after = (rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2))
    mask = np.where(rng.random((32, 32)) < 0.5, 255, 0).astype(np.uint8)
    valid = np.where(rng.random((32, 32)) < 0.5, 255, 0).astype(np.uint8)
    sample = to_sample(PairArrays(before, after, mask, valid))
    assert sample.shape == (8, 32, 32)
    assert sample.dtype == torch.uint8
    assert sample.is_contiguous()
    for channel in range(3):
        np.testing.assert_array_equal(sample[channel], before[..., channel])
        np.testing.assert_array_equal(sample[3 + channel], after[..., channel])
    np.testing.assert_array_equal(sample[6], mask)
    np.testing.assert_array_equal(sample[7], valid)
    everywhere = to_sample(PairArrays(before, after, mask))
    assert torch.equal(everywhere[:7], sample[:7])
    assert (everywhere[7] == 255).all()


def test_items_are_the_pairs_of_the_manifest_at_input_size(pairs: list[Pair], roots: Roots) -> None:
    dataset = PairDataset(pairs, roots, SIZE)
    assert len(dataset) == len(pairs) == 9
    for index, pair in enumerate(pairs):
        expected = to_sample(at_input_size(load_pair(pair, roots), SIZE))
        assert torch.equal(dataset[0, index], expected)


def test_items_are_the_same_with_a_small_cache_or_none(pairs: list[Pair], roots: Roots) -> None:
    item = 8 * SIZE * SIZE
    datasets = [PairDataset(pairs, roots, SIZE, cache_bytes=size) for size in (0, 3 * item, 1 << 30)]
    for epoch in range(2):
        for index in range(len(pairs)):
            first, *others = (dataset[epoch, index] for dataset in datasets)
            assert all(torch.equal(first, other) for other in others)


def test_the_cache_holds_no_more_than_its_bytes(pairs: list[Pair], roots: Roots) -> None:
    item = 8 * SIZE * SIZE
    dataset = PairDataset(pairs, roots, SIZE, cache_bytes=3 * item + item // 2)
    first = [dataset[0, index] for index in range(len(pairs))]
    second = [dataset[1, index] for index in range(len(pairs))]
    kept = [index for index in range(len(pairs)) if first[index] is second[index]]
    assert len(kept) == 3


def test_cached_pairs_are_decoded_once(pairs: list[Pair], roots: Roots, tmp_path: Path) -> None:
    dataset = PairDataset(pairs[:1], roots, SIZE)
    first = dataset[0, 0]
    dataset._roots = Roots(tmp_path, tmp_path)  # nothing can be read from here
    assert torch.equal(dataset[7, 0], first)


def test_a_loader_batches_an_epoch(pairs: list[Pair], roots: Roots) -> None:
    dataset = PairDataset(pairs, roots, SIZE)
    batches = list(DataLoader(dataset, batch_size=4, sampler=EpochSampler(len(pairs))))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert torch.equal(batches[2][0], dataset[0, 8])


def test_an_epoch_without_a_seed_keeps_the_order() -> None:
    sampler = EpochSampler(5, epoch=3)
    assert len(sampler) == 5
    assert list(sampler) == [(3, index) for index in range(5)]


def test_a_shuffled_epoch_holds_every_index_once_and_names_its_epoch() -> None:
    keys = list(EpochSampler(50, epoch=2, shuffle_seed=7))
    assert {epoch for epoch, _ in keys} == {2}
    assert sorted(index for _, index in keys) == list(range(50))
    assert [index for _, index in keys] != list(range(50))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(epoch: int, seed: int) -> list[int]:
        return [index for _, index in EpochSampler(50, epoch=epoch, shuffle_seed=seed)]

    torch.manual_seed(1)
    first = order(0, 42)
    torch.manual_seed(2)
    np.random.default_rng(3).random()
    assert order(0, 42) == first
    assert len({tuple(order(epoch, seed)) for epoch in range(4) for seed in range(4)}) == 16
