from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from cd_pipeline.data.datasets import EpochSampler, RankBatches, SampleDataset, to_item
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots, Sample, at_input_size, load_sample
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.synthesis.pairs import plan_pairs
from cd_pipeline.synthesis.rendered_pairs import render_pairs
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
    sample = to_item(Sample.of_pair(before, after, mask, valid))
    assert sample.shape == (8, 32, 32)
    assert sample.dtype == torch.uint8
    assert sample.is_contiguous()
    for channel in range(3):
        np.testing.assert_array_equal(sample[channel], before[..., channel])
        np.testing.assert_array_equal(sample[3 + channel], after[..., channel])
    np.testing.assert_array_equal(sample[6], mask)
    np.testing.assert_array_equal(sample[7], valid)
    everywhere = to_item(Sample.of_pair(before, after, mask))
    assert torch.equal(everywhere[:7], sample[:7])
    assert (everywhere[7] == 255).all()


def test_items_are_the_pairs_of_the_manifest_at_input_size(pairs: list[Pair], roots: Roots) -> None:
    dataset = SampleDataset(pairs, roots, SIZE)
    assert len(dataset) == len(pairs) == 9
    for index, pair in enumerate(pairs):
        expected = to_item(at_input_size(load_sample(pair, roots), SIZE))
        assert torch.equal(dataset[0, index], expected)


def test_items_are_the_same_with_a_small_cache_or_none(pairs: list[Pair], roots: Roots) -> None:
    item = 8 * SIZE * SIZE
    datasets = [SampleDataset(pairs, roots, SIZE, cache_bytes=size) for size in (0, 3 * item, 1 << 30)]
    for epoch in range(2):
        for index in range(len(pairs)):
            first, *others = (dataset[epoch, index] for dataset in datasets)
            assert all(torch.equal(first, other) for other in others)


def test_the_cache_holds_no_more_than_its_bytes(pairs: list[Pair], roots: Roots) -> None:
    item = 8 * SIZE * SIZE
    dataset = SampleDataset(pairs, roots, SIZE, cache_bytes=3 * item + item // 2)
    first = [dataset[0, index] for index in range(len(pairs))]
    second = [dataset[1, index] for index in range(len(pairs))]
    kept = [index for index in range(len(pairs)) if first[index] is second[index]]
    assert len(kept) == 3


def test_cached_pairs_are_decoded_once(pairs: list[Pair], roots: Roots, tmp_path: Path) -> None:
    dataset = SampleDataset(pairs[:1], roots, SIZE)
    first = dataset[0, 0]
    dataset._roots = Roots(tmp_path, tmp_path)  # nothing can be read from here
    assert torch.equal(dataset[7, 0], first)


def test_a_loader_batches_an_epoch(pairs: list[Pair], roots: Roots) -> None:
    dataset = SampleDataset(pairs, roots, SIZE)
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


def test_a_tile_of_a_pair_is_an_item_at_its_own_scale(pairs: list[Pair], roots: Roots) -> None:
    whole = to_item(load_sample(pairs[0], roots))
    crop = {"left": 40, "top": 13, "width": SIZE, "height": SIZE}
    dataset = SampleDataset([replace(pairs[0], crop=crop, tiled=True)], roots, SIZE)
    assert torch.equal(dataset[0, 0], whole[:, 13 : 13 + SIZE, 40 : 40 + SIZE])


def test_a_tile_smaller_than_the_input_is_padded_and_the_padding_does_not_count(
    pairs: list[Pair], roots: Roots
) -> None:
    crop = {"left": 0, "top": 5, "width": 20, "height": 24}
    item = SampleDataset([replace(pairs[0], crop=crop, tiled=True)], roots, SIZE)[0, 0]
    whole = to_item(load_sample(pairs[0], roots))
    assert torch.equal(item[:, :24, :20], whole[:, 5:29, :20])
    assert int((item[7] > 0).sum()) == 20 * 24


def shared_out(count: int, batch_size: int, processes: int) -> list[RankBatches]:
    return [
        RankBatches(EpochSampler(count, epoch=3, shuffle_seed=5), batch_size, rank, processes)
        for rank in range(processes)
    ]


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5))
def test_all_processes_together_see_the_batches_of_a_single_one(
    count: int, batch_size: int, processes: int
) -> None:
    keys = list(EpochSampler(count, epoch=3, shuffle_seed=5))
    expected = [keys[start : start + batch_size] for start in range(0, count, batch_size)]
    ranks = shared_out(count, batch_size, processes)
    steps = [list(rank) for rank in ranks]
    assert {len(batches) for batches in steps} == {len(rank) for rank in ranks} == {len(expected)}
    for number, batch in enumerate(expected):
        weights = [rank.weights[number] for rank in ranks]
        counted = [
            key
            for batches, weight in zip(steps, weights, strict=True)
            for key in (batches[number] if weight else [])
        ]
        assert sorted(counted) == sorted(batch)
        assert sum(weights) / processes == pytest.approx(1)
        for batches, weight in zip(steps, weights, strict=True):
            assert batches[number]
            if weight:
                assert weight == pytest.approx(len(batches[number]) * processes / len(batch))
            else:
                assert len(batches[number]) == 1
                assert batches[number][0] in batch


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 4))
def test_the_weighted_mean_over_processes_is_the_mean_of_the_batch(
    values: list[float], batch_size: int, processes: int
) -> None:
    ranks = shared_out(len(values), batch_size, processes)
    (single,) = shared_out(len(values), batch_size, 1)
    for number, batch in enumerate(single):
        means = [np.mean([values[index] for _, index in list(rank)[number]]) for rank in ranks]
        weighted = [mean * rank.weights[number] for mean, rank in zip(means, ranks, strict=True)]
        assert np.mean(weighted) == pytest.approx(np.mean([values[index] for _, index in batch]), abs=1e-9)


def test_shares_of_a_batch_differ_by_at_most_one_pair() -> None:
    for first, second, third in zip(*shared_out(22, 8, 3), strict=True):
        sizes = [len(first), len(second), len(third)]
        assert max(sizes) - min(sizes) <= 1


def test_a_share_that_is_empty_weighs_nothing() -> None:
    first, second = shared_out(5, 4, 2)  # four pairs, then one
    assert (first.weights, second.weights) == ([1.0, 2.0], [1.0, 0.0])
    assert list(second)[1] == list(first)[1]
