from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from cd_pipeline.data.augmented_samples import AugmentedSamples
from cd_pipeline.data.datasets import ItemDataset, SampleDataset
from cd_pipeline.data.image_manifest import LabelledImage, write_labelled_images
from cd_pipeline.data.manifest import ManifestError, Pair, write_pairs
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.data.task import MaskForm, Task
from cd_pipeline.synthesis.fresh_pairs import FreshPairs, UndisturbedPairs, UnrenderedPairs
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis, SynthesisSettings
from cd_pipeline.training.sample_sets import inverse_class_weights, training_sets
from cd_pipeline_tests.tiny_images import draw_scene, write_labelled
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pair

SETTINGS = PublishedSynthesis(change_probability=1.0)


def unfrozen(pair: Pair) -> Pair:
    """Return the row of a pair that is drawn anew each epoch."""
    return replace(pair, after=None, mask=None, changed=None, plan=None)


@pytest.fixture
def rows(tmp_path: Path) -> list[Pair]:
    splits = ["train", "val", "train", "test", "val", "train"]
    return [write_pair(tmp_path, f"p{i}", draw_pair(i), split) for i, split in enumerate(splits)]


def sets(folder: Path, rows: list[Pair]) -> tuple[ItemDataset, ItemDataset]:
    write_pairs(folder / "pairs.parquet", rows)
    return training_sets(folder / "pairs.parquet", Roots(folder, folder), 64, SETTINGS)


def test_frozen_pairs_are_divided_by_split_and_read_as_written(tmp_path: Path, rows: list[Pair]) -> None:
    train, val = sets(tmp_path, rows)
    assert [pair.name for pair in train.examples] == ["p0", "p2", "p5"]
    assert [pair.name for pair in val.examples] == ["p1", "p4"]
    sample = train[(0, 1)]
    assert (sample.dtype, sample.shape) == (torch.uint8, (8, 64, 64))
    (before, after), mask, _ = draw_pair(2)
    np.testing.assert_array_equal(sample[:3].permute(1, 2, 0), before)
    np.testing.assert_array_equal(sample[3:6].permute(1, 2, 0), after)
    np.testing.assert_array_equal(sample[6], mask)
    assert (sample[7] == 255).all()


def test_frozen_pairs_are_the_same_in_every_epoch(tmp_path: Path, rows: list[Pair]) -> None:
    train, _ = sets(tmp_path, rows)
    assert isinstance(train, SampleDataset)
    assert torch.equal(train[(0, 0)], train[(7, 0)])


def test_pairs_without_pictures_are_drawn_anew_each_epoch(tmp_path: Path, rows: list[Pair]) -> None:
    rows = [unfrozen(pair) if pair.split == "train" else pair for pair in rows]
    train, val = sets(tmp_path, rows)
    again, _ = sets(tmp_path, rows)
    assert isinstance(train, FreshPairs)
    assert isinstance(val, SampleDataset)
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


@pytest.mark.parametrize(
    ("synthesis", "nuisance_on", "rendering_on", "expected"),
    [
        (RealisticSynthesis(preset="realistic"), "cpu", "cpu", FreshPairs),
        (RealisticSynthesis(preset="realistic"), "device", "cpu", UndisturbedPairs),
        (RealisticSynthesis(preset="realistic"), "device", "device", UnrenderedPairs),
        (SETTINGS, "device", "cpu", FreshPairs),  # published pairs have no nuisance
        (SETTINGS, "device", "device", FreshPairs),
    ],
)
def test_realistic_pairs_are_rendered_and_get_their_nuisance_where_it_is_asked_for(
    tmp_path: Path,
    rows: list[Pair],
    synthesis: SynthesisSettings,
    nuisance_on: Literal["cpu", "device"],
    rendering_on: Literal["cpu", "device"],
    expected: type[ItemDataset],
) -> None:
    rows = [replace(unfrozen(pair), side=64) if pair.split == "train" else pair for pair in rows]
    write_pairs(tmp_path / "pairs.parquet", rows)
    roots = Roots(tmp_path, tmp_path)
    train, val = training_sets(
        tmp_path / "pairs.parquet",
        roots,
        64,
        synthesis,
        nuisance_on=nuisance_on,
        rendering_on=rendering_on,
    )
    assert type(train) is expected
    assert isinstance(val, SampleDataset)


@pytest.mark.parametrize("empty", ["train", "val"])
def test_an_empty_part_is_an_error_with_both_counts(tmp_path: Path, rows: list[Pair], empty: str) -> None:
    with pytest.raises(ManifestError, match=r"pairs\.parquet: \d train and \d val samples"):
        sets(tmp_path, [pair for pair in rows if pair.split != empty])


def test_augmentation_varies_training_pairs_and_leaves_those_of_val(tmp_path: Path, rows: list[Pair]) -> None:
    write_pairs(tmp_path / "pairs.parquet", rows)
    train, val = training_sets(
        tmp_path / "pairs.parquet", Roots(tmp_path, tmp_path), 64, SETTINGS, AugmentationSettings()
    )
    assert isinstance(train, AugmentedSamples)
    assert isinstance(val, SampleDataset)
    assert not torch.equal(train[(0, 0)], train[(1, 0)])
    assert torch.equal(val[(0, 0)], val[(1, 0)])


CLASSES = MaskForm(classes=3, void=255)


@pytest.fixture
def image_rows(tmp_path: Path) -> list[LabelledImage]:
    """Images of two data sets: two of train and one of val each; `wood` has no val image."""
    names = [
        ("steel", "train"),
        ("wood", "train"),
        ("stone", "train"),
        ("steel", "val"),
        ("stone", "val"),
    ] * 2
    rows = []
    for number, (dataset, split) in enumerate(names):
        (image,), mask, _ = draw_scene(number)
        rows.append(write_labelled(tmp_path, f"i{number}", image, mask, CLASSES, split, dataset))
    return rows


def image_sets(
    folder: Path, rows: list[LabelledImage], data_set: str | None = None, **augmentation: object
) -> tuple[ItemDataset, ItemDataset]:
    write_labelled_images(folder / "images.parquet", rows)
    return training_sets(
        folder / "images.parquet",
        Roots(folder, folder),
        32,
        SETTINGS,
        AugmentationSettings.model_validate(augmentation) if augmentation else None,
        pictures=1,
        data_set=data_set,
    )


def test_images_are_divided_by_split_and_read_as_written(
    tmp_path: Path, image_rows: list[LabelledImage]
) -> None:
    train, val = image_sets(tmp_path, image_rows)
    assert [row.name for row in train.examples] == ["i0", "i1", "i2", "i5", "i6", "i7"]
    assert [row.name for row in val.examples] == ["i3", "i4", "i8", "i9"]
    assert train.task == val.task == Task(pictures=1, classes=3)
    (image,), mask, _ = draw_scene(2)
    np.testing.assert_array_equal(train[(0, 2)][:3].permute(1, 2, 0), image)
    np.testing.assert_array_equal(train[(0, 2)][3], mask)


@pytest.mark.parametrize("augmentation", [{}, {"epoch_pairs": 8}])
def test_one_data_set_alone_is_trained_and_validated_on(
    tmp_path: Path, image_rows: list[LabelledImage], augmentation: dict[str, object]
) -> None:
    train, val = image_sets(tmp_path, image_rows, "stone", **augmentation)
    assert isinstance(train, AugmentedSamples if augmentation else SampleDataset)
    assert [row.name for row in train.examples] == ["i2", "i7"]
    assert [row.name for row in val.examples] == ["i4", "i9"]
    assert len(train) == (8 if augmentation else 2)


@pytest.mark.parametrize(
    ("data_set", "counts"), [("wood", "2 train and 0 val"), ("iron", "0 train and 0 val")]
)
def test_a_data_set_without_both_parts_is_named_with_its_counts(
    tmp_path: Path, image_rows: list[LabelledImage], data_set: str, counts: str
) -> None:
    with pytest.raises(ManifestError, match=rf"images\.parquet: {data_set}: {counts} samples"):
        image_sets(tmp_path, image_rows, data_set)


def test_pairs_of_one_class_alone(tmp_path: Path, rows: list[Pair]) -> None:
    others = [replace(row, class_name="KITCHEN") if i % 2 else row for i, row in enumerate(rows)]
    write_pairs(tmp_path / "pairs.parquet", others)
    arguments = (tmp_path / "pairs.parquet", Roots(tmp_path, tmp_path), 64, SETTINGS)
    train, val = training_sets(*arguments, data_set="KITCHEN")
    assert [row.name for row in train.examples] == ["p5"]
    assert [row.name for row in val.examples] == ["p1"]


def test_class_weights_are_inverse_to_the_pixels_of_train_and_1_on_average(
    image_rows: list[LabelledImage],
) -> None:
    counts = [(700, 200, 100), (900, 0, 50), (100, 50, 0)]
    rows = [replace(row, class_pixels=pixels) for row, pixels in zip(image_rows, counts, strict=False)]
    weights = inverse_class_weights(rows[: len(counts)])
    totals = np.sum(counts, axis=0)
    np.testing.assert_allclose(weights, (1 / totals) / np.mean(1 / totals))
    assert np.mean(weights) == pytest.approx(1)
    # every class weighs the same over all pixels
    assert np.ptp(np.array(weights) * totals) == pytest.approx(0, abs=1e-9)


def test_a_class_without_a_pixel_weighs_nothing(image_rows: list[LabelledImage]) -> None:
    weights = inverse_class_weights([replace(image_rows[0], class_pixels=(30, 0, 10))])
    assert weights == pytest.approx([0.75, 0.0, 2.25])


def test_pairs_have_no_class_weights(rows: list[Pair]) -> None:
    with pytest.raises(ValueError, match=r"training\.class_weights is inverse, which is for images"):
        inverse_class_weights(rows)
