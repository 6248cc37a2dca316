"""Samples of one picture, binary and of several classes."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cd_pipeline.data import samples
from cd_pipeline.data.datasets import SampleDataset, task_of, to_item
from cd_pipeline.data.example import Example
from cd_pipeline.data.files import file_digest
from cd_pipeline.data.image_manifest import LabelledImage, image_rows
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.masked_images import MaskedImage
from cd_pipeline.data.palette import VOC_PALETTE, write_palette_png
from cd_pipeline.data.preprocessing import equalised
from cd_pipeline.data.samples import (
    Roots,
    Sample,
    at_input_size,
    input_samples,
    load_masks,
    load_sample,
    load_whole,
    padded_sample,
)
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import MaskForm, Task
from cd_pipeline_tests.drawn import draw_photo
from cd_pipeline_tests.tiny_images import write_labelled


def mask_of(example: Example, roots: Roots) -> Image:
    ((_, mask),) = load_masks([example], roots)
    return mask


BINARY = MaskForm()
CLASSES = MaskForm(classes=5, void=255)
WITH_VOID = CLASSES._replace(void_as_class=True)
CROP = {"left": 7, "top": 11, "width": 40, "height": 20}


@pytest.fixture
def image() -> Image:
    return draw_photo(np.random.default_rng(1), (60, 40))[0]


@pytest.fixture
def indices() -> Image:
    """A mask of class indices with a border of void."""
    coarse = np.random.default_rng(2).integers(0, 5, (10, 15), np.uint8)
    mask = np.kron(coarse, np.ones((4, 4), np.uint8))
    mask[:, 28:32] = 255
    return mask


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return Roots(tmp_path, tmp_path / "data")


def row_of(roots: Roots, image: Image, mask: Image, form: MaskForm) -> LabelledImage:
    return write_labelled(roots.source, "방 1", image, mask, form)


@pytest.mark.parametrize("factor", [1, 255])
def test_an_image_and_its_binary_mask_are_a_sample(roots: Roots, image: Image, factor: int) -> None:
    marked = np.zeros((40, 60), np.uint8)
    marked[5:20, 8:30] = 1
    sample = load_sample(row_of(roots, image, marked * np.uint8(factor), BINARY), roots)
    assert len(sample.pictures) == 1 and len(sample.arrays) == 2
    np.testing.assert_array_equal(sample.pictures[0], image)
    np.testing.assert_array_equal(sample.mask, marked * 255)
    assert sample.valid is None


def test_void_that_is_left_out_has_index_0_and_does_not_count(
    roots: Roots, image: Image, indices: Image
) -> None:
    sample = load_sample(row_of(roots, image, indices, CLASSES), roots)
    assert sample.valid is not None
    np.testing.assert_array_equal(sample.valid, np.where(indices == 255, 0, 255))
    np.testing.assert_array_equal(sample.mask, np.where(indices == 255, 0, indices))
    assert len(sample.arrays) == 3


def test_void_as_a_class_is_the_last_one_and_counts(roots: Roots, image: Image, indices: Image) -> None:
    sample = load_sample(row_of(roots, image, indices, WITH_VOID), roots)
    assert sample.valid is None
    np.testing.assert_array_equal(sample.mask, np.where(indices == 255, 5, indices))


def test_a_mask_without_void_counts_everywhere(roots: Roots, image: Image, indices: Image) -> None:
    without = np.where(indices == 255, np.uint8(4), indices)
    for form in (CLASSES, CLASSES._replace(void=None)):
        sample = load_sample(row_of(roots, image, without, form), roots)
        assert sample.valid is None
        np.testing.assert_array_equal(sample.mask, without)


def test_another_void_index_is_that_of_the_form(roots: Roots, image: Image, indices: Image) -> None:
    stored = np.where(indices == 255, np.uint8(9), indices)
    sample = load_sample(row_of(roots, image, stored, CLASSES._replace(void=9)), roots)
    assert sample.valid is not None
    np.testing.assert_array_equal(sample.valid == 0, stored == 9)


def test_the_indices_of_a_palette_png_are_read_whatever_its_colours(
    roots: Roots, image: Image, indices: Image
) -> None:
    row = row_of(roots, image, indices, CLASSES)
    expected = load_sample(row, roots)
    for palette in (VOC_PALETTE, VOC_PALETTE[::-1]):
        path = roots.resolve(row.mask)
        write_palette_png(path, indices, palette)
        found = mask_of(replace(row, mask_sha256=file_digest(path)), roots)
        np.testing.assert_array_equal(found, expected.mask)


def test_an_index_that_is_neither_a_class_nor_void_is_refused(
    roots: Roots, image: Image, indices: Image
) -> None:
    with pytest.raises(ValueError, match="index 4 at"):
        load_sample(row_of(roots, image, indices, CLASSES._replace(classes=4)), roots)


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_both_files_must_be_those_of_the_manifest(
    roots: Roots, image: Image, indices: Image, kind: str
) -> None:
    row = row_of(roots, image, indices, CLASSES)
    path = roots.resolve(getattr(row, kind))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"방 1\.png: the file has changed"):
        load_sample(row, roots)


def test_different_sizes_are_an_error_with_the_sizes(roots: Roots, image: Image, indices: Image) -> None:
    row = row_of(roots, image, indices[:-1], WITH_VOID)
    with pytest.raises(ValueError, match=r"^방 1: .* not of one size: 60x40, 60x39; materialize all"):
        load_sample(row, roots)


@pytest.mark.parametrize("form", [CLASSES, WITH_VOID])
def test_a_crop_is_that_part_of_image_mask_and_what_counts(
    roots: Roots, image: Image, indices: Image, form: MaskForm
) -> None:
    row = row_of(roots, image, indices, form)
    part = replace(row, crop=CROP, tiled=True)
    for found, whole in zip(load_sample(part, roots).arrays, load_sample(row, roots).arrays, strict=True):
        np.testing.assert_array_equal(found, whole[11:31, 7:47])
    np.testing.assert_array_equal(mask_of(part, roots), load_sample(part, roots).mask)
    assert load_whole(part, roots).mask.shape == (40, 60)


def test_clahe_is_of_the_whole_image_before_it_is_cut(roots: Roots, image: Image, indices: Image) -> None:
    row = replace(row_of(roots, image, indices, CLASSES), clahe=2.0)
    whole = load_sample(row, roots)
    np.testing.assert_array_equal(whole.pictures[0], equalised(image, 2.0))
    assert (whole.pictures[0] != image).any()
    tile = load_sample(replace(row, crop=CROP, tiled=True), roots)
    np.testing.assert_array_equal(tile.pictures[0], equalised(image, 2.0)[11:31, 7:47])
    np.testing.assert_array_equal(whole.mask, load_sample(replace(row, clahe=None), roots).mask)


def test_class_indices_survive_resizing_and_padding(roots: Roots, image: Image, indices: Image) -> None:
    sample = load_sample(row_of(roots, image, indices, CLASSES), roots)
    sized = at_input_size(sample, 32)
    assert sized.valid is not None and sample.valid is not None
    columns, rows = ([i * side // 32 for i in range(32)] for side in (60, 40))
    np.testing.assert_array_equal(sized.mask, sample.mask[np.ix_(rows, columns)])
    np.testing.assert_array_equal(sized.valid, sample.valid[np.ix_(rows, columns)])
    assert set(np.unique(sized.mask)) <= set(range(5))
    np.testing.assert_array_equal(
        sized.pictures[0], cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    )
    enlarged = padded_sample(sample, 64)
    assert enlarged.valid is not None
    np.testing.assert_array_equal(enlarged.mask[:40, :60], sample.mask)
    assert not enlarged.valid[40:].any() and not enlarged.valid[:, 60:].any()


def test_an_item_of_an_image_has_five_channels(roots: Roots, image: Image, indices: Image) -> None:
    row = row_of(roots, image, indices, CLASSES)
    sample = load_sample(row, roots)
    item = to_item(sample)
    assert (item.shape, item.dtype) == ((5, 40, 60), torch.uint8)
    np.testing.assert_array_equal(item[:3].permute(1, 2, 0), image)
    np.testing.assert_array_equal(item[3], sample.mask)
    assert sample.valid is not None
    np.testing.assert_array_equal(item[4], sample.valid)
    dataset = SampleDataset([row], roots, 32)
    assert torch.equal(dataset[0, 0], to_item(at_input_size(sample, 32)))


@pytest.mark.parametrize(("form", "classes"), [(BINARY, 1), (CLASSES, 5), (WITH_VOID, 6)])
def test_the_task_is_that_of_the_rows(roots: Roots, image: Image, form: MaskForm, classes: int) -> None:
    row = row_of(roots, image, np.zeros((40, 60), np.uint8), form)
    assert task_of([row]) == SampleDataset([row], roots, 32).task == Task(pictures=1, classes=classes)


def test_views_of_a_tiled_image_are_its_tiles(roots: Roots, image: Image, indices: Image) -> None:
    row = replace(row_of(roots, image, indices, WITH_VOID), tiled=True)
    whole = load_sample(row, roots)
    views = list(input_samples([row], roots, 32))
    for view, (top, left) in zip(views, [(0, 0), (0, 28), (8, 0), (8, 28)], strict=True):
        for found, part in zip(view.arrays, whole.arrays, strict=True):
            np.testing.assert_array_equal(found, part[top : top + 32, left : left + 32])


def test_a_pair_has_a_before_and_an_after() -> None:
    before, after = (np.full((8, 8, 3), value, np.uint8) for value in (1, 2))
    mask, valid = (np.full((8, 8), value, np.uint8) for value in (0, 255))
    pair = Sample.of_pair(before, after, mask, valid)
    assert pair.before is before and pair.after is after
    assert [id(array) for array in pair.arrays] == [id(array) for array in (before, after, mask, valid)]
    assert Sample.of_pair(before, after, mask).valid is None


def test_a_missing_mask_is_named(roots: Roots, image: Image, indices: Image) -> None:
    row = row_of(roots, image, indices, CLASSES)
    roots.resolve(row.mask).unlink()
    with pytest.raises(FileNotFoundError, match=r"방 1\.png: the mask is not there"):
        load_sample(row, roots)
    write_png(roots.resolve(row.mask), image)
    with pytest.raises(ValueError, match="the file has changed"):
        load_sample(row, roots)


def test_tiles_of_one_picture_are_cut_from_one_reading_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(tmp_path / "images" / "a.png", np.zeros((64, 96, 3), np.uint8))
    stripes = np.arange(64 * 96).reshape(64, 96) % 2 * 255
    write_png(tmp_path / "masks" / "a.png", stripes.astype(np.uint8))
    image = MaskedImage(
        name="a",
        dataset="",
        image="images/a.png",
        mask="masks/a.png",
        image_sha256=file_digest(tmp_path / "images" / "a.png"),
        mask_sha256=file_digest(tmp_path / "masks" / "a.png"),
        width=96,
        height=64,
        split="train",
    )
    rows = image_rows(tmp_path, [image], InputSettings(size=32, fit="tile"), MaskForm())
    read: list[Path] = []
    for name in ("read_photo", "read_label"):
        original = getattr(samples, name)
        monkeypatch.setattr(
            samples, name, lambda path, *args, original=original: read.append(path) or original(path, *args)
        )
    roots = Roots(tmp_path, tmp_path)
    views = list(input_samples(rows, roots, 32))
    assert [path.parent.name for path in read] == ["images", "masks"]
    masks = [mask for _, mask in load_masks(rows, roots)]
    assert len(read) == 3
    assert len(rows) == len(views) == 6
    for view, mask in zip(views, masks, strict=True):
        np.testing.assert_array_equal(view.mask, mask)
