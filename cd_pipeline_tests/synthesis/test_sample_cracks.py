"""The sample pictures of cracks: layout, masks, what is no crack, and the same bytes every time."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cd_pipeline.data.masked_images import scan_masked_images
from cd_pipeline.synthesis.sample_cracks import (
    SAMPLE_COUNT,
    SIZE,
    SURFACES,
    SampleCracks,
    draw_cracked,
    draw_sample_cracks,
)
from cd_pipeline.synthesis.sample_cracks_path import WIDTHS, draw_cracks
from cd_pipeline_tests.synthesis.sample_files import tree

COUNT = 4

Drawn = tuple[Path, SampleCracks, list[tuple[int, int]]]
Picture = tuple[np.ndarray, np.ndarray]


def best_f1(pictures: list[Picture]) -> float:
    """The pooled F1 of the best threshold, below which a grey value is called crack."""
    crack, other = np.zeros(256), np.zeros(256)
    for image, mask in pictures:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        crack += np.bincount(grey[mask > 0], minlength=256)
        other += np.bincount(grey[mask == 0], minlength=256)
    hits, wrong = crack.cumsum(), other.cumsum()
    return float((2 * hits / (hits + wrong + crack.sum())).max())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A small sample drawn in this process, over what a stopped run of a larger one left."""
    root = tmp_path_factory.mktemp("cracks")
    left = root / "images"
    left.mkdir()
    for name in ("crack_001.jpg", "crack_060.jpg", ".tmp-1-0123456789abcdef.jpg"):
        (left / name).write_bytes(b"half")
    steps: list[tuple[int, int]] = []
    result = draw_sample_cracks(root, count=COUNT, progress=lambda done, total: steps.append((done, total)))
    return root, result, steps


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [draw_cracked(seed, SURFACES[seed % 3]) for seed in range(6)]


def test_the_reader_of_masked_images_finds_every_picture_usable(drawn: Drawn) -> None:
    root, result, steps = drawn
    assert steps == [(k, COUNT) for k in range(1, COUNT + 1)]
    inventory = scan_masked_images(root)
    assert len(inventory.usable) == len(inventory.images) == result.images == COUNT
    assert {(row.width, row.height) for row in inventory.usable} == {SIZE}
    assert sum(row.positive_share > 0 for row in inventory.usable) == result.cracked > 0


def test_nothing_is_left_beside_the_pictures(drawn: Drawn) -> None:
    names = [f"crack_{number:03d}" for number in range(1, COUNT + 1)]
    assert set(tree(drawn[0])) == {f"images/{n}.jpg" for n in names} | {f"masks/{n}.png" for n in names}


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one_and_a_smaller_sample_the_same_pictures(
    drawn: Drawn, tmp_path: Path
) -> None:
    draw_sample_cracks(tmp_path, count=2, workers=2)
    assert len(tree(tmp_path)) == 4
    assert tree(tmp_path).items() < tree(drawn[0]).items()


def test_the_default_sample_is_60_pictures_of_three_surfaces() -> None:
    assert SAMPLE_COUNT == 60
    assert SURFACES == ("asphalt", "concrete", "plaster")


def test_picture_and_mask_are_of_one_size_and_the_mask_is_0_or_255(pictures: list[Picture]) -> None:
    for image, mask in pictures:
        assert image.shape == (320, 480, 3)
        assert mask.shape == (320, 480)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}


def test_a_plausible_share_of_the_pixels_is_crack(pictures: list[Picture]) -> None:
    shares = [float((mask > 0).mean()) for _, mask in pictures]
    assert 0.008 < np.mean(shares) < 0.04
    assert max(shares) < 0.1


def test_about_one_picture_in_ten_has_no_crack() -> None:
    bare = sum(not draw_cracks(np.random.default_rng(seed), *SIZE) for seed in range(200))
    assert 10 < bare < 35


def test_cracks_are_1_to_5_px_wide_uneven_and_neither_straight_nor_equally_dark() -> None:
    lines = [line for seed in range(40) for line in draw_cracks(np.random.default_rng(seed), *SIZE)]
    assert min(line.widths.min() for line in lines) >= WIDTHS[0] == 1
    assert max(line.widths.max() for line in lines) <= WIDTHS[1] == 5
    assert {(len(line.points), len(line.depths)) for line in lines} == {
        (len(line.widths), len(line.widths)) for line in lines
    }
    lengths = [np.sqrt((np.diff(line.points, axis=0) ** 2).sum(axis=1)).sum() for line in lines]
    spans = [np.sqrt(((line.points[-1] - line.points[0]) ** 2).sum()) for line in lines]
    assert np.median(np.array(lengths) / spans) > 1.1
    assert np.median([np.ptp(line.widths) / line.widths.mean() for line in lines]) > 0.4
    assert np.median([np.ptp(line.depths) / line.depths.mean() for line in lines]) > 0.4


def test_cracks_are_darker_than_what_is_beside_them(pictures: list[Picture]) -> None:
    for image, mask in pictures:
        if mask.any():
            grey = image.astype(np.float32).mean(axis=2)
            beside = (cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0) & (mask == 0)
            assert grey[mask > 0].mean() < grey[beside].mean() - 5


def test_a_threshold_does_not_find_the_cracks(pictures: list[Picture]) -> None:
    assert best_f1(pictures) < 0.5


def test_another_seed_gives_another_picture_and_the_same_one_the_same(pictures: list[Picture]) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(draw_cracked(3), pictures[3], strict=True))
    assert not np.array_equal(pictures[0][0], pictures[3][0])


def test_wrong_counts_workers_and_surfaces_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        draw_sample_cracks(tmp_path, workers=0)
    with pytest.raises(ValueError, match="count is 0"):
        draw_sample_cracks(tmp_path, count=0)
    with pytest.raises(KeyError, match="marble"):
        draw_cracked(0, "marble")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_whole_sample_is_1_to_3_percent_crack_and_no_threshold_finds_it(tmp_path: Path) -> None:
    result = draw_sample_cracks(tmp_path, workers=2)
    rows = scan_masked_images(tmp_path).usable
    assert len(rows) == 60
    assert 3 <= 60 - result.cracked <= 12
    assert 0.01 < np.mean([row.positive_share for row in rows]) < 0.03
    read = [
        (cv2.imread(str(tmp_path / r.image), cv2.IMREAD_COLOR_RGB), cv2.imread(str(tmp_path / r.mask), 0))
        for r in rows
    ]
    assert best_f1([(np.asarray(image), np.asarray(mask)) for image, mask in read]) < 0.5
