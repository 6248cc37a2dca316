import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from cd_pipeline.evaluation.differencing import BLUR_KERNELS, DifferencingOracle, difference_sum
from cd_pipeline.evaluation.nuisance import nuisance_seed, standard_nuisance

Image = NDArray[np.uint8]


def brute_force_best(pairs: list[tuple[Image, Image, NDArray[np.bool_]]]) -> float:
    truth = np.concatenate([truth.ravel() for _, _, truth in pairs])
    best = 0.0
    for kernel in (0, 3, 5, 9, 15):
        parts = []
        for before, after, _ in pairs:
            if kernel:
                before = cv2.GaussianBlur(before, (kernel, kernel), 0)
                after = cv2.GaussianBlur(after, (kernel, kernel), 0)
            parts.append(np.abs(before.astype(int) - after).mean(axis=2).ravel())
        d = np.concatenate(parts)
        best = max(best, *(f1_score(truth, d > cut, zero_division=1.0) for cut in {0.0, *d.tolist()}))
    return best


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_oracle_equals_a_search_over_all_kernels_and_cuts(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        before = rng.integers(0, 60, (7, 6, 3), dtype=np.uint8)
        truth = rng.random((7, 6)) < 0.3
        after = (before + truth[..., None] * rng.integers(0, 60, (7, 6, 3))).astype(np.uint8)
        pairs.append((before, after, truth))
    oracle = DifferencingOracle()
    for pair in pairs:
        oracle.update(*pair)
    assert oracle.best().f1 == pytest.approx(brute_force_best(pairs))


def test_result_names_a_cut_and_a_kernel_that_reach_its_score() -> None:
    rng = np.random.default_rng(5)
    before = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    after = np.clip(before + rng.normal(0, 25, before.shape), 0, 255).astype(np.uint8)
    after[10:30, 5:20] = 0
    truth = np.zeros((40, 40), dtype=bool)
    truth[10:30, 5:20] = True
    oracle = DifferencingOracle()
    oracle.update(before, after, truth)
    best = oracle.best()
    assert best.kernel > 0
    d = difference_sum(before, after, best.kernel) / 3
    assert best.f1 == pytest.approx(f1_score(truth.ravel(), (d > best.threshold).ravel()))


def test_difference_is_the_sum_over_channels() -> None:
    before = np.array([[[0, 0, 255], [10, 20, 30]]], dtype=np.uint8)
    after = np.array([[[255, 255, 0], [11, 18, 33]]], dtype=np.uint8)
    np.testing.assert_array_equal(difference_sum(before, after, 0), [[765, 6]])


def test_kernels_are_those_of_the_protocol() -> None:
    assert BLUR_KERNELS == (0, 3, 5, 9, 15)


def test_a_black_box_on_a_clean_copy_is_found_without_blur() -> None:
    before = np.full((20, 20, 3), 90, dtype=np.uint8)
    after = before.copy()
    after[5:9, 5:9] = 0
    oracle = DifferencingOracle()
    oracle.update(before, after, after[..., 0] == 0)
    assert (oracle.best().f1, oracle.best().kernel) == (1.0, 0)


def test_threshold_is_exact_to_a_third_of_a_grey_level() -> None:
    before = np.zeros((8, 8, 3), dtype=np.uint8)
    after = np.full((8, 8, 3), (3, 3, 4), dtype=np.uint8)
    after[:, 4:] = (3, 4, 4)
    truth = np.zeros((8, 8))
    truth[:, 4:] = 1
    oracle = DifferencingOracle()
    oracle.update(before, after, truth)
    assert (oracle.best().f1, oracle.best().threshold) == (1.0, 10 / 3)


def test_the_highest_cut_predicts_nothing() -> None:
    black, white = np.zeros((6, 6, 3), dtype=np.uint8), np.full((6, 6, 3), 255, dtype=np.uint8)
    oracle = DifferencingOracle()
    oracle.update(black, white, np.zeros((6, 6)))
    assert (oracle.best().f1, oracle.best().threshold) == (1.0, 255.0)


def test_pixels_that_are_not_valid_do_not_count() -> None:
    before = np.zeros((8, 8, 3), dtype=np.uint8)
    after, truth, valid = before.copy(), np.zeros((8, 8)), np.ones((8, 8))
    after[0], truth[0] = 200, 255
    after[7], valid[5:] = 200, 0  # a disturbance outside the counted area
    oracle = DifferencingOracle()
    oracle.update(before, after, truth, valid)
    assert oracle.best().f1 == 1.0


def test_identical_photos_with_empty_truth_score_one() -> None:
    photo = np.full((6, 6, 3), 7, dtype=np.uint8)
    oracle = DifferencingOracle()
    oracle.update(photo, photo, np.zeros((6, 6)))
    assert oracle.best().f1 == 1.0


@pytest.mark.parametrize(
    ("before", "after", "truth", "message"),
    [
        ((4, 5, 3), (5, 4, 3), (4, 5), "(4, 5, 3), but after has shape (5, 4, 3)"),
        ((4, 5, 3), (4, 5, 3), (5, 4), "(4, 5), but truth has shape (5, 4)"),
        ((4, 5), (4, 5), (4, 5), "(H, W, 3), got (4, 5)"),
    ],
)
def test_unequal_shapes_are_refused_with_both_shapes(
    before: tuple[int, ...], after: tuple[int, ...], truth: tuple[int, ...], message: str
) -> None:
    images = np.zeros(before, np.uint8), np.zeros(after, np.uint8)
    with pytest.raises(ValueError, match=re.escape(message)):
        DifferencingOracle().update(*images, np.zeros(truth))


def test_images_that_are_not_eight_bit_are_refused() -> None:
    with pytest.raises(ValueError, match="must be uint8, got float64"):
        difference_sum(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), 0)  # type: ignore[arg-type]


def office_pairs(real_data: Path) -> Iterator[tuple[str, Image, Image, Image]]:
    """The real office pairs at 256x256: photos by area, labels by nearest."""
    office = real_data / "real_pairs" / "office"
    for path in sorted((office / "A").iterdir()):
        photos = [cv2.imread(str(office / side / path.name)) for side in "AB"]
        label = cv2.imread(str(office / "label" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        before, after = (
            cv2.cvtColor(cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            for photo in photos
        )
        yield path.stem, before, after, cv2.resize(label, (256, 256), interpolation=cv2.INTER_NEAREST)


def test_oracle_on_the_real_office_pairs_reaches_what_was_measured(real_data: Path) -> None:
    oracle = DifferencingOracle()
    for _, before, after, label in office_pairs(real_data):
        oracle.update(before, after, label)
    assert oracle.best().f1 == pytest.approx(0.88, abs=0.03)


@pytest.mark.slow
def test_standard_nuisance_takes_from_the_oracle_what_was_measured(real_data: Path) -> None:
    pairs = list(office_pairs(real_data))
    draws = []
    for draw in range(20):
        oracle = DifferencingOracle()
        for name, before, after, label in pairs:
            oracle.update(before, standard_nuisance(after, nuisance_seed(name, f"after {draw}")), label)
        draws.append(oracle.best().f1)
    # one draw over 21 pairs scatters by 0.05; the measured 0.64 was one such draw
    assert abs(np.mean(draws) - 0.64) < 2 * np.std(draws)
    assert np.mean(draws) < 0.88 - 0.1
