from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.evaluation.masks import mask_faults, mask_shares
from cd_pipeline_tests.tiny_pairs import write_pair


def blank(height: int, width: int, changed: int) -> Sample:
    """Return a grey pair whose first `changed` pixels are changed."""
    photo = np.full((height, width, 3), 90, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask.reshape(-1)[:changed] = 255
    return Sample.of_pair(photo, photo, mask)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three pairs: 100 of 400 and 0 of 800 pixels in val, 300 of 600 in test."""
    return [
        write_pair(tmp_path, "a", blank(20, 20, 100), "val"),
        write_pair(tmp_path, "b", blank(20, 40, 0), "val"),
        write_pair(tmp_path, "c", blank(20, 30, 300), "test"),
    ]


def test_shares_are_pooled_over_the_pixels_of_each_split_and_of_all(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    shares = mask_shares(pairs, Roots(tmp_path, tmp_path))
    assert shares == pytest.approx({"all": 400 / 1800, "test": 300 / 600, "val": 100 / 1200})


def test_good_masks_have_no_fault(tmp_path: Path, pairs: list[Pair]) -> None:
    assert mask_faults(pairs, Roots(tmp_path, tmp_path)) == []


def test_a_mask_with_other_values_is_a_fault_that_names_pair_and_values(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[0, :3] = 1, 128, 255
    write_png(tmp_path / "mask" / "b.png", mask)
    (fault,) = mask_faults(pairs, Roots(tmp_path, tmp_path))
    assert fault == "b: mask values [0, 1, 128, 255], expected 0 and 255"


def test_a_mask_of_another_size_is_a_fault_that_names_both_sizes(tmp_path: Path, pairs: list[Pair]) -> None:
    write_png(tmp_path / "mask" / "c.png", np.zeros((30, 20), np.uint8))
    (fault,) = mask_faults(pairs, Roots(tmp_path, tmp_path))
    assert fault == "c: mask (30, 20), after image (20, 30)"


def test_a_missing_mask_is_an_error_that_names_it(tmp_path: Path, pairs: list[Pair]) -> None:
    lost = replace(pairs[0], mask="workspace:mask/lost.png")
    with pytest.raises(FileNotFoundError, match=r"lost\.png"):
        mask_shares([lost], Roots(tmp_path, tmp_path))
