import itertools
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cd_pipeline.data.datasets import EpochSampler, PairDataset
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import Roots
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.preprocessing import resize_photo
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.synthesis.fresh_pairs import FreshPairs
from cd_pipeline.synthesis.pairs import plan_pairs, render_pairs
from cd_pipeline.synthesis.settings import SynthesisSettings
from cd_pipeline_tests.drawn import draw_photo_tree

SIZE = 32
SETTINGS = SynthesisSettings(train_pairs="fresh")


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
        assert item.shape == (7, SIZE, SIZE)
        assert item.dtype == torch.uint8
        assert set(item[6].unique().tolist()) <= {0, 255}


def test_a_no_change_item_has_equal_halves_and_an_empty_mask(pairs: list[Pair], roots: Roots) -> None:
    never = FreshPairs(pairs, roots, SIZE, SETTINGS.model_copy(update={"change_probability": 0.0}))
    for index in range(len(never)):
        item = never[0, index]
        assert torch.equal(item[:3], item[3:6])
        assert not item[6].any()


def test_fresh_and_frozen_items_have_one_form(pairs: list[Pair], roots: Roots, tmp_path: Path) -> None:
    photos = assign_splits(scan_photos(roots.source).photos, SplitSettings())
    frozen = plan_pairs(photos, SynthesisSettings())
    own = Roots(roots.source, tmp_path)
    render_pairs(frozen, own, threads=2)
    first = PairDataset(frozen, own, SIZE)[0, 0]
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
    with pytest.raises(ValueError, match=r"the photo has changed; materialize raw_photos"):
        FreshPairs(pairs, Roots(tmp_path, tmp_path), SIZE, SETTINGS)[0, 0]
