from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cd_pipeline.data.augmented_pairs import AugmentedPairs
from cd_pipeline.data.datasets import PairDataset
from cd_pipeline.data.manifest import ManifestError, Pair, write_pairs
from cd_pipeline.data.pairs import Roots
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.synthesis.fresh_pairs import FreshPairs
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline.training.pair_sets import TrainingPairs, training_sets
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pair

SETTINGS = PublishedSynthesis(change_probability=1.0)


def unfrozen(pair: Pair) -> Pair:
    """Return the row of a pair that is drawn anew each epoch."""
    return replace(pair, after=None, mask=None, changed=None, plan=None)


@pytest.fixture
def rows(tmp_path: Path) -> list[Pair]:
    splits = ["train", "val", "train", "test", "val", "train"]
    return [write_pair(tmp_path, f"p{i}", draw_pair(i), split) for i, split in enumerate(splits)]


def sets(folder: Path, rows: list[Pair]) -> tuple[TrainingPairs, PairDataset]:
    write_pairs(folder / "pairs.parquet", rows)
    return training_sets(folder / "pairs.parquet", Roots(folder, folder), 64, SETTINGS)


def test_frozen_pairs_are_divided_by_split_and_read_as_written(tmp_path: Path, rows: list[Pair]) -> None:
    train, val = sets(tmp_path, rows)
    assert [pair.pair_id for pair in train.pairs] == ["p0", "p2", "p5"]
    assert [pair.pair_id for pair in val.pairs] == ["p1", "p4"]
    sample = train[(0, 1)]
    assert (sample.dtype, sample.shape) == (torch.uint8, (8, 64, 64))
    before, after, mask, _ = draw_pair(2)
    np.testing.assert_array_equal(sample[:3].permute(1, 2, 0), before)
    np.testing.assert_array_equal(sample[3:6].permute(1, 2, 0), after)
    np.testing.assert_array_equal(sample[6], mask)
    assert (sample[7] == 255).all()


def test_frozen_pairs_are_the_same_in_every_epoch(tmp_path: Path, rows: list[Pair]) -> None:
    train, _ = sets(tmp_path, rows)
    assert isinstance(train, PairDataset)
    assert torch.equal(train[(0, 0)], train[(7, 0)])


def test_pairs_without_pictures_are_drawn_anew_each_epoch(tmp_path: Path, rows: list[Pair]) -> None:
    rows = [unfrozen(pair) if pair.split == "train" else pair for pair in rows]
    train, val = sets(tmp_path, rows)
    again, _ = sets(tmp_path, rows)
    assert isinstance(train, FreshPairs)
    assert isinstance(val, PairDataset)
    assert (len(train), len(val)) == (3, 2)
    assert torch.equal(train[(3, 1)], again[(3, 1)])
    assert not torch.equal(train[(3, 1)], train[(4, 1)])
    np.testing.assert_array_equal(train[(3, 1)][:3].permute(1, 2, 0), draw_pair(2).before)


def test_whatever_differs_in_a_fresh_pair_is_in_its_mask(tmp_path: Path, rows: list[Pair]) -> None:
    train, _ = sets(tmp_path, [unfrozen(pair) if pair.split == "train" else pair for pair in rows])
    samples = [train[(epoch, 0)] for epoch in range(12)]
    assert any((sample[:3] != sample[3:6]).any() for sample in samples)
    for sample in samples:
        differs = (sample[:3] != sample[3:6]).any(0)
        assert (sample[6][differs] == 255).all()
        assert set(sample[6].unique().tolist()) <= {0, 255}


@pytest.mark.parametrize("empty", ["train", "val"])
def test_an_empty_part_is_an_error_with_both_counts(tmp_path: Path, rows: list[Pair], empty: str) -> None:
    with pytest.raises(ManifestError, match=r"pairs\.parquet: \d train and \d val pairs"):
        sets(tmp_path, [pair for pair in rows if pair.split != empty])


def test_augmentation_varies_training_pairs_and_leaves_those_of_val(tmp_path: Path, rows: list[Pair]) -> None:
    write_pairs(tmp_path / "pairs.parquet", rows)
    train, val = training_sets(
        tmp_path / "pairs.parquet", Roots(tmp_path, tmp_path), 64, SETTINGS, AugmentationSettings()
    )
    assert isinstance(train, AugmentedPairs)
    assert isinstance(val, PairDataset)
    assert not torch.equal(train[(0, 0)], train[(1, 0)])
    assert torch.equal(val[(0, 0)], val[(1, 0)])
