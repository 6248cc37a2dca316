"""The sample VOC tree: layout, classes in every split, void borders, and the same bytes every time."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cd_pipeline.data.classes import VOC_CLASSES, VOID
from cd_pipeline.data.masked_images import MaskedImage
from cd_pipeline.data.voc import scan_voc
from cd_pipeline.synthesis.sample_voc import (
    CLASSES,
    SAMPLE_COUNTS,
    SampleVoc,
    draw_labelled,
    draw_sample_voc,
)
from cd_pipeline_tests.synthesis.sample_files import tree

COUNTS = {"train": 3, "val": 1, "test": 1}

Drawn = tuple[Path, SampleVoc, list[tuple[int, int]]]
Picture = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A small tree drawn in this process, over what a stopped run of a larger one left."""
    root = tmp_path_factory.mktemp("voc")
    left = root / "SegmentationClass"
    left.mkdir()
    for name in ("train_001.png", "train_056.png", ".tmp-1-0123456789abcdef.png"):
        (left / name).write_bytes(b"half")
    steps: list[tuple[int, int]] = []
    result = draw_sample_voc(root, counts=COUNTS, progress=lambda done, total: steps.append((done, total)))
    return root, result, steps


@pytest.fixture(scope="module")
def pictures() -> dict[str, Picture]:
    """One picture each of some classes, indoors and out."""
    return {lead: draw_labelled(7, lead) for lead in ("bus", "sofa", "tvmonitor", "diningtable")}


def classes_of(rows: list[MaskedImage]) -> set[int]:
    return {index for row in rows for index in row.classes}


def test_the_reader_of_voc_trees_finds_every_picture_usable(drawn: Drawn) -> None:
    root, result, steps = drawn
    assert steps == [(k, 5) for k in range(1, 6)]
    inventory = scan_voc(root, classes=21)
    assert len(inventory.usable) == len(inventory.images) == result.images == 5
    assert Counter(row.split for row in inventory.usable) == COUNTS
    found = Counter(index for row in inventory.usable for index in row.classes if index)
    assert dict(found) == {index: count for index, count in result.classes.items() if count}


def test_nothing_is_left_beside_the_pictures_and_their_lists(drawn: Drawn) -> None:
    names = [f"{split}_{k:03d}" for split, count in COUNTS.items() for k in range(1, count + 1)]
    wanted = {f"JPEGImages/{n}.jpg" for n in names} | {f"SegmentationClass/{n}.png" for n in names}
    assert set(tree(drawn[0])) == wanted | {f"ImageSets/Segmentation/{split}.txt" for split in COUNTS}


def test_masks_are_palette_pngs_in_the_colours_of_voc(drawn: Drawn) -> None:
    with Image.open(drawn[0] / "SegmentationClass" / "train_003.png") as mask:
        assert mask.mode == "P"
        palette = mask.getpalette()
        assert palette is not None
        assert palette[7 * 3 : 7 * 3 + 3] == [128, 128, 128]
        assert palette[255 * 3 :] == [224, 224, 192]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(drawn: Drawn, tmp_path: Path) -> None:
    assert draw_sample_voc(tmp_path, counts=COUNTS, workers=2) == drawn[1]
    assert tree(tmp_path) == tree(drawn[0])


def test_a_picture_does_not_change_when_the_tree_is_smaller(drawn: Drawn, tmp_path: Path) -> None:
    assert draw_sample_voc(tmp_path, counts={"test": 1}).images == 1
    for part in ("JPEGImages/test_001.jpg", "SegmentationClass/test_001.png"):
        assert (tmp_path / part).read_bytes() == (drawn[0] / part).read_bytes()


def test_the_default_tree_has_80_pictures_of_eight_classes_and_room_for_each_in_every_split() -> None:
    assert SAMPLE_COUNTS == {"train": 56, "val": 12, "test": 12}
    assert len(CLASSES) == 8 <= min(SAMPLE_COUNTS.values())
    assert all(VOC_CLASSES[index] == name for name, index in CLASSES.items())


def test_the_main_object_is_there_and_most_is_background(pictures: dict[str, Picture]) -> None:
    for lead, (image, mask) in pictures.items():
        assert image.shape == (*mask.shape, 3)
        assert sorted(mask.shape) in ([192, 256], [176, 256])
        assert set(np.unique(mask)) <= {0, VOID, *CLASSES.values()}
        assert (mask == CLASSES[lead]).mean() > 0.003
    assert np.mean([(mask == 0).mean() for _, mask in pictures.values()]) > 0.5


def test_void_lies_between_every_object_and_what_is_beside_it(pictures: dict[str, Picture]) -> None:
    for _, mask in pictures.values():
        for first, second in ((mask[:, 1:], mask[:, :-1]), (mask[1:], mask[:-1])):
            differ = first != second
            assert ((first == VOID) | (second == VOID))[differ].all()
        inner = cv2.erode((mask == VOID).astype(np.uint8), np.ones((5, 5), np.uint8))
        assert inner.mean() < 0.01
        assert 0.002 < (mask == VOID).mean() < 0.15


def test_another_seed_gives_another_picture_and_the_same_one_the_same(pictures: dict[str, Picture]) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(draw_labelled(7, "sofa"), pictures["sofa"], strict=True))
    assert not np.array_equal(draw_labelled(8, "sofa")[0], pictures["sofa"][0])


def test_wrong_counts_workers_and_classes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        draw_sample_voc(tmp_path, workers=0)
    with pytest.raises(ValueError, match="no such split: dev; there are train, val, test"):
        draw_sample_voc(tmp_path, counts={"dev": 1})
    with pytest.raises(ValueError, match="none may be negative"):
        draw_sample_voc(tmp_path, counts={"val": -1})
    with pytest.raises(KeyError, match="cat"):
        draw_labelled(0, "cat")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_in_the_whole_tree_every_class_is_in_every_split_and_background_most_frequent(tmp_path: Path) -> None:
    draw_sample_voc(tmp_path, workers=2)
    rows = scan_voc(tmp_path, classes=21).usable
    assert len(rows) == 80
    for split in SAMPLE_COUNTS:
        assert classes_of([row for row in rows if row.split == split]) == {0, *CLASSES.values()}
    pixels: Counter[int] = Counter()
    for row in rows:
        pixels.update(dict(row.class_pixels))
    assert pixels.most_common(1)[0][0] == 0
    assert sum(row.height > row.width for row in rows) >= 4
