import itertools
import pickle
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cd_pipeline.data.datasets import EpochSampler, SampleDataset
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.preprocessing import resize_photo
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.evaluation.predict import BatchLoader
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.synthesis.device_nuisance import disturbed
from cd_pipeline.synthesis.fresh_pairs import FreshPairs, UndisturbedPairs, UnrenderedPairs
from cd_pipeline.synthesis.pairs import draw_plan, photo_pools, plan_pairs
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.realistic_plan import RealisticPlan
from cd_pipeline.synthesis.rendered_pairs import render_pairs, render_plan
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis
from cd_pipeline_tests.drawn import draw_photo_tree

SIZE = 32
SETTINGS = PublishedSynthesis(train_pairs="fresh")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    folder = tmp_path_factory.mktemp("fresh")
    draw_photo_tree(folder / "photos", {"trainval": {"A": 9}, "test": {"A": 1}})
    return Roots(folder / "photos", folder / "data")


@pytest.fixture(scope="module")
def pairs(roots: Roots) -> list[Pair]:
    planned = plan_pairs(assign_splits(scan_photos(roots.source).photos, SplitSettings()), SETTINGS)
    return [pair for pair in planned if pair.split == "train"]


@pytest.fixture(scope="module")
def items(pairs: list[Pair], roots: Roots) -> dict[tuple[int, int], torch.Tensor]:
    dataset = FreshPairs(pairs, roots, SIZE, SETTINGS)
    return {(epoch, index): dataset[epoch, index] for epoch in range(4) for index in range(len(pairs))}


@pytest.mark.parametrize("cache_bytes", [0, 50_000, 1 << 30])
def test_an_item_depends_on_epoch_and_index_alone(
    pairs: list[Pair], roots: Roots, items: dict[tuple[int, int], torch.Tensor], cache_bytes: int
) -> None:
    dataset = FreshPairs(pairs, roots, SIZE, SETTINGS, cache_bytes=cache_bytes)
    keys = list(items) * 2
    random.Random(cache_bytes).shuffle(keys)
    np.random.default_rng(0).random()
    for key in keys:
        assert torch.equal(dataset[key], items[key])


def test_a_copy_in_another_process_gives_the_same_items(
    pairs: list[Pair], roots: Roots, items: dict[tuple[int, int], torch.Tensor]
) -> None:
    dataset = pickle.loads(pickle.dumps(FreshPairs(pairs, roots, SIZE, SETTINGS)))
    loader = DataLoader(dataset, batch_size=3, sampler=EpochSampler(len(pairs), epoch=2), num_workers=2)
    stacked = torch.cat(list(loader))
    assert torch.equal(stacked, torch.stack([items[2, index] for index in range(len(pairs))]))


def test_epochs_differ(items: dict[tuple[int, int], torch.Tensor], pairs: list[Pair]) -> None:
    for index in range(len(pairs)):  # two epochs may both draw no change, four never do here
        assert len({tuple(items[epoch, index].flatten().tolist()) for epoch in range(4)}) > 1
    epochs = [torch.stack([items[epoch, index] for index in range(len(pairs))]) for epoch in range(4)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(epochs, 2))


def test_items_are_truthful_at_photo_size_and_hold_the_photo(
    pairs: list[Pair], roots: Roots, items: dict[tuple[int, int], torch.Tensor]
) -> None:
    for (_, index), item in items.items():
        path = roots.resolve(pairs[index].photo)
        photo = np.asarray(Image.open(path))
        np.testing.assert_array_equal(item[:3].permute(1, 2, 0), resize_photo(photo, SIZE))
        assert item.shape == (8, SIZE, SIZE)
        assert item.dtype == torch.uint8
        assert set(item[6].unique().tolist()) <= {0, 255}
        assert (item[7] == 255).all()


def test_a_no_change_item_has_equal_halves_and_an_empty_mask(pairs: list[Pair], roots: Roots) -> None:
    never = FreshPairs(pairs, roots, SIZE, SETTINGS.model_copy(update={"change_probability": 0.0}))
    for index in range(len(never)):
        item = never[0, index]
        assert torch.equal(item[:3], item[3:6])
        assert not item[6].any()


def test_fresh_and_frozen_items_have_one_form(pairs: list[Pair], roots: Roots, tmp_path: Path) -> None:
    photos = assign_splits(scan_photos(roots.source).photos, SplitSettings())
    frozen = plan_pairs(photos, PublishedSynthesis())
    own = Roots(roots.source, tmp_path)
    render_pairs(frozen, own, threads=2)
    first = SampleDataset(frozen, own, SIZE)[0, 0]
    second = FreshPairs(pairs, roots, SIZE, SETTINGS)[0, 0]
    assert (first.shape, first.dtype) == (second.shape, second.dtype)
    assert len(FreshPairs(pairs, roots, SIZE, SETTINGS)) == len(pairs) == 7


def test_a_photo_that_is_gone_is_an_error(pairs: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the picture is not there"):
        FreshPairs(pairs, Roots(tmp_path, tmp_path), SIZE, SETTINGS)[0, 0]


def test_a_photo_that_changed_its_size_is_an_error_with_the_remedy(pairs: list[Pair], tmp_path: Path) -> None:
    path = Roots(tmp_path, tmp_path).resolve(pairs[0].photo)
    path.parent.mkdir(parents=True)
    Image.new("RGB", (60, 50)).save(path)
    with pytest.raises(ValueError, match=r"the file has changed; materialize all assets again"):
        FreshPairs(pairs, Roots(tmp_path, tmp_path), SIZE, SETTINGS)[0, 0]


REALISTIC = RealisticSynthesis.model_validate(
    {"preset": "realistic", "epoch_pairs": 12, "frozen_pairs": 4, "nuisance": {"probability": 0.4}}
)


@pytest.fixture(scope="module")
def realistic_pairs(roots: Roots) -> list[Pair]:
    """Two pairs of each of seven photos."""
    photos = assign_splits(scan_photos(roots.source).photos, SplitSettings())
    return [pair for pair in plan_pairs(photos, REALISTIC, 64) if pair.split == "train"]


@pytest.fixture(scope="module")
def realistic_items(realistic_pairs: list[Pair], roots: Roots) -> dict[tuple[int, int], torch.Tensor]:
    dataset = FreshPairs(realistic_pairs, roots, 64, REALISTIC)
    return {(epoch, index): dataset[epoch, index] for epoch in range(3) for index in range(len(dataset))}


def test_there_is_an_item_a_row_and_each_photo_has_as_many_rows(
    realistic_pairs: list[Pair], realistic_items: dict[tuple[int, int], torch.Tensor]
) -> None:
    assert len(realistic_pairs) == 14
    assert len({pair.photo for pair in realistic_pairs}) == 7
    for item in realistic_items.values():
        assert (item.shape, item.dtype) == ((8, 64, 64), torch.uint8)
        assert set(item[6:].unique().tolist()) <= {0, 255}


@pytest.mark.parametrize("cache_bytes", [0, 60_000, 1 << 30])
def test_a_realistic_item_depends_on_epoch_and_index_alone(
    realistic_pairs: list[Pair],
    roots: Roots,
    realistic_items: dict[tuple[int, int], torch.Tensor],
    cache_bytes: int,
) -> None:
    dataset = FreshPairs(realistic_pairs, roots, 64, REALISTIC, cache_bytes=cache_bytes)
    keys = list(realistic_items)
    random.Random(cache_bytes).shuffle(keys)
    for key in keys:
        assert torch.equal(dataset[key], realistic_items[key])


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_loader_processes_gives_the_same_realistic_items(
    realistic_pairs: list[Pair],
    roots: Roots,
    realistic_items: dict[tuple[int, int], torch.Tensor],
    workers: int,
) -> None:
    dataset = pickle.loads(pickle.dumps(FreshPairs(realistic_pairs, roots, 64, REALISTIC)))
    sampler = EpochSampler(len(realistic_pairs))
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers, persistent_workers=True)
    for epoch in (2, 0):  # the processes live on; only the sampler is told
        sampler.epoch = epoch
        stacked = torch.cat(list(loader))
        expected = [realistic_items[epoch, index] for index in range(len(realistic_pairs))]
        assert torch.equal(stacked, torch.stack(expected))


def test_realistic_items_differ_between_epochs_and_rows_of_one_photo(
    realistic_items: dict[tuple[int, int], torch.Tensor],
) -> None:
    contents = {item.numpy().tobytes() for item in realistic_items.values()}
    assert len(contents) == len(realistic_items)


def test_realistic_items_are_the_rendered_plans_of_their_epoch(
    realistic_pairs: list[Pair], roots: Roots, realistic_items: dict[tuple[int, int], torch.Tensor]
) -> None:
    pools, photos = photo_pools(realistic_pairs), PhotoStore(roots)
    seen = set()
    for (epoch, index), item in realistic_items.items():
        pair = realistic_pairs[index]
        (before, after), mask, valid = render_plan(pair, draw_plan(pair, REALISTIC, pools, epoch), photos)
        np.testing.assert_array_equal(item[:3].permute(1, 2, 0), before)
        np.testing.assert_array_equal(item[3:6].permute(1, 2, 0), after)
        np.testing.assert_array_equal(item[6], mask)
        np.testing.assert_array_equal(item[7], np.full((64, 64), 255) if valid is None else valid)
        seen.add(valid is None)
    assert seen == {True, False}


def test_fresh_pairs_are_worth_a_process_of_their_own_and_frozen_ones_are_not() -> None:
    assert FreshPairs.draws
    assert not getattr(SampleDataset, "draws", False)


def test_pairs_disturbed_on_the_device_are_those_of_the_loader(
    realistic_pairs: list[Pair], roots: Roots, realistic_items: dict[tuple[int, int], torch.Tensor]
) -> None:
    dataset = UndisturbedPairs(realistic_pairs, roots, 64, REALISTIC)
    for epoch in range(3):
        indices = range(len(dataset))
        pairs = torch.utils.data.default_collate([dataset[epoch, index] for index in indices])
        found = disturbed(pairs, "cpu")
        expected = torch.stack([realistic_items[epoch, index] for index in indices])
        assert torch.equal(found[:, 6:], expected[:, 6:])  # what changed and what counts
        apart = (found[:, :6].int() - expected[:, :6].int()).abs()
        assert (apart > 0).float().mean() < 5e-3  # by rounding, and where JPEG follows, in blocks
        assert apart.float().mean() < 0.01


DeviceSet = type[UndisturbedPairs] | type[UnrenderedPairs]


def batches_of(
    pairs: list[Pair],
    roots: Roots,
    batch_size: int,
    workers: int,
    epoch: int,
    made_of: DeviceSet = UndisturbedPairs,
) -> tuple[torch.Tensor, ...]:
    """Load an epoch of pairs that the device finishes: its pictures, truth and what counts, one after the other."""
    dataset = made_of(pairs, roots, 64, REALISTIC)
    loader = BatchLoader(dataset, Runtime(workers=workers), batch_size)
    batches = [(*batch.pictures, batch.truth, batch.valid) for batch in loader.epoch(epoch)]
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


@pytest.mark.parametrize("made_of", [UndisturbedPairs, UnrenderedPairs])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_pairs_finished_on_the_device_do_not_depend_on_the_division_into_batches(
    realistic_pairs: list[Pair], roots: Roots, batch_size: int, made_of: DeviceSet
) -> None:
    whole = batches_of(realistic_pairs, roots, 14, 0, 1, made_of)
    divided = batches_of(realistic_pairs, roots, batch_size, 0, 1, made_of)
    assert all(torch.equal(a, b) for a, b in zip(whole, divided, strict=True))
    other = batches_of(realistic_pairs, roots, 14, 0, 2, made_of)
    assert not torch.equal(whole[0], other[0])


def test_pairs_rendered_on_the_device_are_those_of_the_loader(
    realistic_pairs: list[Pair], roots: Roots, realistic_items: dict[tuple[int, int], torch.Tensor]
) -> None:
    pools, count = photo_pools(realistic_pairs), len(realistic_pairs)
    for epoch in range(3):
        before, after, truth, valid = batches_of(realistic_pairs, roots, count, 0, epoch, UnrenderedPairs)
        expected = torch.stack([realistic_items[epoch, index] for index in range(count)])
        assert torch.equal(truth, (expected[:, 6:7] > 0).float())
        assert torch.equal(valid, (expected[:, 7:] > 0).float())
        apart = (torch.cat([before, after], dim=1) * 255 - expected[:, :6]).abs()
        for index, pair in enumerate(realistic_pairs):
            plan = draw_plan(pair, REALISTIC, pools, epoch)
            assert isinstance(plan, RealisticPlan)
            fills_later = any(change.kind in ("remove", "move") for change in plan.changes[1:])
            assert apart[index].mean() < (3.0 if fills_later else 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("made_of", [UndisturbedPairs, UnrenderedPairs])
def test_loader_processes_give_the_same_pairs_on_the_device(
    realistic_pairs: list[Pair], roots: Roots, made_of: DeviceSet
) -> None:
    here = batches_of(realistic_pairs, roots, 4, 0, 1, made_of)
    there = batches_of(realistic_pairs, roots, 4, 2, 1, made_of)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_pairs_of_another_size_than_the_input_cannot_be_disturbed_on_the_device(
    realistic_pairs: list[Pair], roots: Roots
) -> None:
    other = [*realistic_pairs[:3], replace(realistic_pairs[3], side=48)]
    with pytest.raises(
        ValueError, match=r"rendered at 48 px, and input\.size is 64; materialize pair_manifest"
    ):
        UndisturbedPairs(other, roots, 64, REALISTIC)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_photo_changed_before_the_device_renders_it_is_refused_by_name(
    realistic_pairs: list[Pair], roots: Roots, tmp_path: Path, workers: int
) -> None:
    own = Roots(tmp_path / "photos", tmp_path / "data")
    shutil.copytree(roots.source, own.source)
    path = own.resolve(realistic_pairs[0].photo)
    Image.new("RGB", (96, 72)).save(path)
    with pytest.raises(ValueError, match=rf"{path.name}: the file has changed; materialize all assets again"):
        batches_of(realistic_pairs, own, 4, workers, 1, UnrenderedPairs)


def test_pairs_larger_than_the_noise_cannot_be_disturbed_on_the_device(
    realistic_pairs: list[Pair], roots: Roots
) -> None:
    large = [replace(pair, side=1040) for pair in realistic_pairs]
    with pytest.raises(ValueError, match=r"at most 1024 px, and input\.size is 1040; set nuisance_on to cpu"):
        UndisturbedPairs(large, roots, 1040, REALISTIC)
