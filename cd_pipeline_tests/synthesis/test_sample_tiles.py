"""The sample tiles: layout, labels, what differs between the dates, and the same bytes every time."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from cd_pipeline.data.two_date import scan_two_date
from cd_pipeline.evaluation.differencing import DifferencingOracle
from cd_pipeline.synthesis.sample_tiles import SAMPLE_COUNTS, SampleTiles, draw_sample_tiles, draw_tile
from cd_pipeline_tests.synthesis.sample_files import tree

COUNTS = {"train": 3, "val": 1, "test": 2}
SHADOW = 17 + 1
"""px that a building's shadow reaches at most, and one for the averaging."""

Drawn = tuple[Path, SampleTiles, list[tuple[int, int]]]
Tile = tuple[np.ndarray, np.ndarray, np.ndarray]


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A small set drawn in this process, over what a stopped run of a larger one left."""
    root = tmp_path_factory.mktemp("tiles")
    left = root / "train" / "A"
    left.mkdir(parents=True)
    for name in ("train_001.png", "train_009.png", ".tmp-1-0123456789abcdef.png"):
        (left / name).write_bytes(b"half")
    steps: list[tuple[int, int]] = []
    result = draw_sample_tiles(
        root, counts=COUNTS, side=128, progress=lambda done, total: steps.append((done, total))
    )
    return root, result, steps


@pytest.fixture(scope="module")
def tiles() -> list[Tile]:
    return [draw_tile(seed, 256) for seed in range(12)]


def test_the_set_has_the_layout_that_the_reader_of_two_date_folders_expects(drawn: Drawn) -> None:
    root, result, steps = drawn
    assert steps == [(k, 6) for k in range(1, 7)]
    inventory = scan_two_date(root)
    assert len(inventory.usable) == len(inventory.pairs) == result.pairs == 6
    assert {split: sum(p.split == split for p in inventory.usable) for split in COUNTS} == COUNTS
    assert {(pair.width, pair.height) for pair in inventory.usable} == {(128, 128)}


def test_nothing_is_left_beside_the_tiles(drawn: Drawn) -> None:
    wanted = {
        f"{split}/{part}/{split}_{number:03d}.png"
        for split, count in COUNTS.items()
        for part in ("A", "B", "label")
        for number in range(1, count + 1)
    }
    assert set(tree(drawn[0])) == wanted


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(drawn: Drawn, tmp_path: Path) -> None:
    again = draw_sample_tiles(tmp_path, counts=COUNTS, side=128, workers=2)
    assert tree(tmp_path) == tree(drawn[0])
    assert again == drawn[1]


def test_a_tile_does_not_change_when_the_set_grows_or_its_parts_are_in_another_order(
    drawn: Drawn, tmp_path: Path
) -> None:
    draw_sample_tiles(tmp_path, counts={"test": 3, "train": 4, "val": 1}, side=128)
    assert tree(drawn[0]).items() < tree(tmp_path).items()


def test_the_default_set_is_34_tiles() -> None:
    assert SAMPLE_COUNTS == {"train": 20, "val": 6, "test": 8}


def test_the_number_of_buildings_is_that_of_the_areas_in_the_labels(drawn: Drawn) -> None:
    root, result, _ = drawn
    areas = [ndimage.label(read(path), np.ones((3, 3)))[1] for path in root.glob("*/label/*.png")]
    assert sum(areas) == result.buildings > 0


def test_both_dates_and_the_label_are_of_one_size_and_the_label_is_0_or_255(tiles: list[Tile]) -> None:
    for before, after, label in tiles:
        assert before.shape == after.shape == (256, 256, 3)
        assert label.shape == (256, 256)
        assert before.dtype == after.dtype == label.dtype == np.uint8
        assert set(np.unique(label)) <= {0, 255}


def test_a_plausible_share_of_the_pixels_has_changed_and_some_tiles_have_not(tiles: list[Tile]) -> None:
    shares = [float((label > 0).mean()) for _, _, label in tiles]
    assert 0.04 < np.mean(shares) < 0.12
    assert max(shares) < 0.25
    assert 1 <= shares.count(0.0) <= 4


def test_buildings_are_14_to_45_px_a_side_in_tiles_of_any_size() -> None:
    for side, count in ((160, 16), (512, 2)):
        sides = []
        for seed in range(count):
            label = draw_tile(seed, side, nuisance=False)[2]
            for contour in cv2.findContours(label, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
                # A contour runs through the middles of the outermost pixels.
                box = [length + 1 for length in cv2.minAreaRect(contour)[1]]
                whole = contour.min() > 0 and contour.max() < side - 1
                if whole and cv2.contourArea(contour) > 0.85 * (box[0] - 1) * (box[1] - 1):  # no L
                    sides += box
        assert len(sides) >= 8
        assert min(sides) > 12.5 and max(sides) < 46.5


def test_without_nuisance_only_changed_buildings_and_their_shadows_differ() -> None:
    found = 0
    for seed in range(6):
        before, after, label = draw_tile(seed, 256, nuisance=False)
        differs = (before != after).any(axis=2)
        far = ndimage.distance_transform_edt(label == 0) > SHADOW if label.any() else np.ones_like(differs)
        assert not differs[far].any()
        if label.any():
            found += 1
            assert differs[label > 0].mean() > 0.99
            # What differs beside the roofs is their shadow: a part of what it could reach.
            assert 0.02 < differs[~far & (label == 0)].mean() < 0.6
    assert found >= 4


def test_without_nuisance_a_tile_without_change_is_the_same_picture_twice(tiles: list[Tile]) -> None:
    unchanged = [seed for seed, (_, _, label) in enumerate(tiles) if not label.any()]
    for seed in unchanged:
        before, after, _ = draw_tile(seed, 256, nuisance=False)
        assert np.array_equal(before, after)
        assert not np.array_equal(before, tiles[seed][1])


def test_nuisance_alters_the_second_date_only(tiles: list[Tile]) -> None:
    before, after, label = draw_tile(0, 256, nuisance=False)
    assert np.array_equal(before, tiles[0][0])
    assert np.array_equal(label, tiles[0][2])
    assert (after != tiles[0][1]).mean() > 0.9


def test_subtraction_does_not_find_the_change(tiles: list[Tile]) -> None:
    oracle = DifferencingOracle()
    for before, after, label in tiles:
        oracle.update(before, after, label)
    assert oracle.best().f1 <= 0.5


def test_subtraction_finds_the_change_where_there_is_no_nuisance() -> None:
    oracle = DifferencingOracle()
    for seed in range(4):
        oracle.update(*draw_tile(seed, 256, nuisance=False))
    assert oracle.best().f1 > 0.75


def test_tiles_are_textured_like_photographs(tiles: list[Tile]) -> None:
    for before, after, _ in tiles:
        for picture in (before, after):
            grey = picture.astype(np.float32).mean(axis=2)
            assert (np.abs(np.diff(grey, axis=1)) > 0.5).mean() > 0.8
            assert 12 < grey.std() < 70
            assert 50 < grey.mean() < 200


def test_another_seed_gives_another_tile_and_the_same_one_the_same(tiles: list[Tile]) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(draw_tile(3, 256), tiles[3], strict=True))
    assert not np.array_equal(draw_tile(4, 256)[0], tiles[3][0])


def test_the_smallest_tiles_can_be_drawn_and_show_change() -> None:
    labels = [draw_tile(seed, 64)[2] for seed in range(8)]
    assert {label.shape for label in labels} == {(64, 64)}
    assert sum(bool(label.any()) for label in labels) >= 4


def test_a_tile_too_small_for_a_building_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a tile of 63 px; at least 64 px a side"):
        draw_tile(0, 63)
    with pytest.raises(ValueError, match="a tile of 63 px; at least 64 px a side"):
        draw_sample_tiles(tmp_path, side=63)


def test_wrong_counts_and_workers_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        draw_sample_tiles(tmp_path, workers=0)
    with pytest.raises(ValueError, match="no such split: dev; there are train, val, test"):
        draw_sample_tiles(tmp_path, counts={"dev": 1})
    with pytest.raises(ValueError, match="none may be negative"):
        draw_sample_tiles(tmp_path, counts={"val": -1})
    assert not list(tmp_path.iterdir())
