"""Rows of images with masks: tiles, pixels of each class against brute force, and the files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cd_pipeline.assets.inputs import StaleInputError, manifest_path
from cd_pipeline.data.files import file_digest, seed_of
from cd_pipeline.data.image_manifest import (
    LabelledImage,
    image_rows,
    read_labelled_images,
    read_masked_images,
    write_labelled_images,
    write_masked_images,
)
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import ManifestError, Pair, plan_version_of, write_pairs
from cd_pipeline.data.masked_images import MaskedImage
from cd_pipeline.data.samples import Roots, load_sample
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import MaskForm
from cd_pipeline.data.tiles import grid
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

SIZES = {"a": (70, 40), "b": (32, 32), "c": (100, 65), "d": (20, 24)}
"""Width and height."""
SPLITS = {"a": "train", "b": "val", "c": "test", "d": "train"}
TILED = InputSettings(size=32, fit="tile")
VOC = MaskForm(classes=3, void=255)
VOC_VOID = VOC._replace(void_as_class=True)


def draw_mask(seed: int, width: int, height: int, values: tuple[int, ...]) -> Image:
    coarse = np.random.default_rng(seed).choice(np.array(values, np.uint8), (height // 4 + 1, width // 4 + 1))
    return np.kron(coarse, np.ones((4, 4), np.uint8))[:height, :width]


def found(root: Path, values: tuple[int, ...]) -> list[MaskedImage]:
    """Write images and masks of some values; return what a reader would have found, and one of no use."""
    images = []
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        write_png(root / "images" / f"{name}.png", picture)
        write_png(root / "masks" / f"{name}.png", draw_mask(seed, width, height, values))
        images.append(
            MaskedImage(
                name=name,
                dataset="steel" if name < "c" else "",
                image=f"images/{name}.png",
                mask=f"masks/{name}.png",
                image_sha256=file_digest(root / "images" / f"{name}.png"),
                mask_sha256=file_digest(root / "masks" / f"{name}.png"),
                pixels_sha256=f"p{seed}",
                width=width,
                height=height,
                class_pixels=((0, 5), (2, 7)),
                void_pixels=3,
                split=SPLITS[name],
            )
        )
    return [*images, MaskedImage("gone", "", reason="no mask")]


def of_image(rows: list[LabelledImage], name: str) -> list[LabelledImage]:
    return [row for row in rows if row.image == f"source:images/{name}.png"]


def test_resized_images_are_a_row_each_in_order_of_split_and_name(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, found(tmp_path, (0, 255)), InputSettings(size=32), MaskForm())
    assert [row.image for row in rows] == [f"source:images/{name}.png" for name in ("c", "a", "d", "b")]
    assert [row.split for row in rows] == ["test", "train", "train", "val"]
    assert [row.dataset for row in rows] == ["", "steel", "", "steel"]
    assert [row.class_name for row in rows] == ["all", "steel", "all", "steel"]
    for row in rows:
        assert (row.crop, row.tiled, row.clahe, row.mask_form) == (None, False, None, MaskForm())
        assert row.seed == seed_of(row.name) and row.name == row.image_id
        assert (row.own_size, row.bits, row.valid) == (True, 16, None)
        ((reference, sha256),) = row.pictures
        assert (reference, sha256) == (row.image, file_digest(tmp_path / reference.partition(":")[2]))
    assert len({row.name for row in rows}) == 4


def test_train_and_val_images_are_cut_into_the_tiles_of_the_grid_and_test_ones_stay_whole(
    tmp_path: Path,
) -> None:
    rows = image_rows(tmp_path, found(tmp_path, (0, 255)), replace_clahe(2.0), MaskForm())
    for name, (width, height) in SIZES.items():
        own = of_image(rows, name)
        expected = [window._asdict() for window in grid(width, height, 32)]
        assert [row.crop for row in own] == ([None] if SPLITS[name] == "test" else expected)
        assert {(row.width, row.height, row.tiled, row.clahe) for row in own} == {(width, height, True, 2.0)}
    assert [row.image_id[-4:] for row in of_image(rows, "a")] == [f"_{i:03d}" for i in range(6)]
    assert len({row.seed for row in rows}) == len(rows) == 6 + 1 + 1 + 1


def replace_clahe(limit: float) -> InputSettings:
    return TILED.model_copy(update={"clahe": limit})


@pytest.mark.parametrize("settings", [InputSettings(size=32), TILED])
@pytest.mark.parametrize(
    ("form", "values"),
    [(MaskForm(), (0, 255)), (MaskForm(), (0, 1)), (VOC, (0, 2, 255)), (VOC_VOID, (1, 255))],
)
def test_the_pixels_of_each_class_are_those_of_a_count(
    tmp_path: Path, settings: InputSettings, form: MaskForm, values: tuple[int, ...]
) -> None:
    rows = image_rows(tmp_path, found(tmp_path, values), settings, form)
    classes = list(range(form.classes)) if form.classes > 1 else [0, 1]
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        stored = draw_mask(seed, width, height, values)
        for row in of_image(rows, name):
            left, top, wide, tall = row.crop.values() if row.crop else (0, 0, width, height)
            part = stored[top : top + tall, left : left + wide].ravel().tolist()
            if form.classes == 1:
                part = [int(value > 0) for value in part]
            counts = [part.count(index) for index in classes]
            assert row.class_pixels == (*counts, *([part.count(255)] if form.void_as_class else []))


def test_the_name_depends_on_the_content_and_the_split(tmp_path: Path) -> None:
    (first, *_) = found(tmp_path, (0, 255))

    def name(**changes: object) -> str:
        (row,) = image_rows(tmp_path, [replace(first, **changes)], InputSettings(size=32), MaskForm())
        return row.name

    assert name() == name()
    assert len({name(), name(split="val"), name(dataset="")}) == 3


def test_a_mask_that_has_changed_is_refused(tmp_path: Path) -> None:
    images = found(tmp_path, (0, 255))
    write_png(tmp_path / "masks" / "b.png", np.zeros((32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: the file has changed"):
        image_rows(tmp_path, images, TILED, MaskForm())


def test_an_index_that_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="index 7 at"):
        image_rows(tmp_path, found(tmp_path, (0, 7)), TILED, VOC)


@pytest.mark.parametrize("form", [MaskForm(), VOC, VOC_VOID, MaskForm(classes=3)])
def test_rows_read_back_as_written_and_give_the_same_bytes(tmp_path: Path, form: MaskForm) -> None:
    rows = image_rows(tmp_path, found(tmp_path, (0, 1)), replace_clahe(1.5), form)
    write_labelled_images(tmp_path / "one.parquet", rows, "v1")
    write_labelled_images(tmp_path / "two.parquet", rows, "v1")
    assert read_labelled_images(tmp_path / "one.parquet") == rows
    for split in ("train", "val", "test"):
        assert read_labelled_images(tmp_path / "one.parquet", split) == [r for r in rows if r.split == split]
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert plan_version_of(tmp_path / "one.parquet") == "v1"


def test_a_tile_loads_as_that_part_of_its_image(tmp_path: Path) -> None:
    rows = image_rows(tmp_path, found(tmp_path, (0, 2, 255)), TILED, VOC)
    write_labelled_images(tmp_path / "images.parquet", rows)
    roots = Roots(tmp_path, tmp_path)
    for row in of_image(read_labelled_images(tmp_path / "images.parquet"), "a"):
        sample = load_sample(row, roots)
        assert sample.mask.shape == (32, 32)
        counted = np.ones((32, 32), bool) if sample.valid is None else sample.valid > 0
        assert tuple(np.bincount(sample.mask[counted], minlength=3)) == row.class_pixels


def test_what_a_reader_found_reads_back_as_written(tmp_path: Path) -> None:
    images = found(tmp_path, (0, 255))
    write_masked_images(tmp_path / "split.parquet", images)
    assert read_masked_images(tmp_path / "split.parquet") == images


def test_a_manifest_of_pairs_is_no_manifest_of_images(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.parquet", list[Pair]())
    with pytest.raises(ManifestError, match="columns of another version"):
        read_labelled_images(tmp_path / "pairs.parquet")


def test_a_manifest_of_other_settings_is_stale(tmp_path: Path) -> None:
    def recipe(**values: object) -> Recipe:
        return Recipe.model_validate(
            {
                "name": "cracks",
                "source": {"layout": "masked_images"},
                "threshold": {"pairs": "own"},
                "model": {"name": "unet"},
                "input": values,
            }
        )

    workspace, made_for = Workspace(root=str(tmp_path / "data")), recipe(size=64)
    path = workspace.folder(made_for, "image_manifest") / "images.parquet"
    rows = image_rows(tmp_path, found(tmp_path, (0, 255)), made_for.input, made_for.mask_form)
    write_labelled_images(path, rows, made_for.plan_version)
    assert manifest_path(workspace, made_for) == path
    for other in (recipe(size=32), recipe(size=64, fit="tile"), recipe(size=64, clahe=2.0)):
        with pytest.raises(StaleInputError, match="another recipe"):
            manifest_path(workspace, other)
