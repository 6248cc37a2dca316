import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cd_pipeline.evaluation import image_sweep
from cd_pipeline.evaluation.image_sweep import ImageSweep, percent_levels
from cd_pipeline.evaluation.metrics import Confusion
from cd_pipeline.evaluation.sweep import ThresholdSweep

EDGES = (np.arange(101) / 100).astype(np.float32)
seeds = st.integers(0, 2**32 - 1)


def near_thresholds() -> NDArray[np.float32]:
    """Every float32 within 8 steps of a threshold, inside [0, 1]."""
    bits = EDGES.view(np.int32)[:, None] + np.arange(-8, 9, dtype=np.int32)
    values = bits[(bits >= 0)].view(np.float32)
    return values[values <= 1]


def drawn(seed: int, shape: tuple[int, int] = (12, 15)) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probabilities that often lie on or beside a threshold, and a truth that is now and then empty."""
    rng = np.random.default_rng(seed)
    probability = np.where(
        rng.random(shape) < 0.5, rng.random(shape), rng.choice(near_thresholds(), shape)
    ).astype(np.float32)
    return probability, rng.random(shape) < rng.choice([0, 0.1, 0.5])


def published_scores(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Precision, recall and F1 with eps 1e-7 in the denominators, 101x3."""
    rows = []
    for threshold in EDGES:
        predicted = probability > threshold
        tp, fp, fn = (predicted & truth).sum(), (predicted & ~truth).sum(), (~predicted & truth).sum()
        precision, recall = tp / (tp + fp + 1e-7), tp / (tp + fn + 1e-7)
        rows.append((precision, recall, 2 * precision * recall / (precision + recall + 1e-7)))
    return np.array(rows)


def test_levels_are_exact_beside_every_threshold() -> None:
    values = near_thresholds()
    np.testing.assert_array_equal(percent_levels(values), (values[:, None] > EDGES).sum(axis=1))


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1, width=32))
def test_levels_are_exact_for_any_float32(value: float) -> None:
    probability = np.array([value], dtype=np.float32)
    assert percent_levels(probability)[0] == np.count_nonzero(probability > EDGES)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_counts_equal_a_loop_over_thresholds(seed: int) -> None:
    probability, truth = drawn(seed)
    valid = np.random.default_rng(seed).random(truth.shape) < 0.8
    sweep = ImageSweep()
    sweep.update(probability, truth, valid)
    curve = sweep.confusions()
    for index, threshold in enumerate(sweep.thresholds.tolist()):
        expected = Confusion.of(probability > threshold, truth, valid)
        counts = [int(count[0, index]) for count in (curve.tp, curve.fp, curve.fn, curve.tn)]
        assert Confusion(*counts) == expected


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(1, 4))
def test_counts_of_all_images_add_up_to_those_of_the_pooled_sweep(seed: int, count: int) -> None:
    images, pooled = ImageSweep(), ThresholdSweep(np.arange(101) / 100)
    for index in range(count):
        probability, truth = drawn(seed + index)
        images.update(probability, truth.astype(np.uint8) * 255)
        pooled.update(probability, truth)
    for name in ("tp", "fp", "fn", "tn"):
        summed = getattr(images.confusions(), name).sum(axis=0)
        np.testing.assert_array_equal(summed, getattr(pooled.confusions(), name))


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_scores_are_those_of_the_published_formula_where_every_image_has_positives(seed: int) -> None:
    sweep, published = ImageSweep(), []
    for index in range(4):
        probability, truth = drawn(seed + index)
        truth[0, :3] = True
        sweep.update(probability, truth)
        published.append(published_scores(probability, truth))
    means = np.mean(published, axis=0)
    ods = sweep.ods()
    assert ods.f1 == pytest.approx(means[10:, 2].max(), abs=3e-7)
    row = round(ods.threshold * 100)
    assert (ods.precision, ods.recall, ods.f1) == pytest.approx(tuple(means[row]), abs=3e-7)
    best = [scores[:, 2].max() for scores in published]
    assert sweep.ois() == pytest.approx(np.mean(best), abs=3e-7)
    assert sweep.ois() >= ods.f1


def test_empty_truth_scores_one_where_nothing_is_predicted_and_zero_in_the_published_formula() -> None:
    probability, truth = np.full((4, 4), 0.305, dtype=np.float32), np.zeros((4, 4), dtype=bool)
    sweep = ImageSweep()
    sweep.update(probability, truth)
    np.testing.assert_array_equal(sweep.table()["f1"], np.arange(101) > 30)
    assert sweep.ois() == 1
    assert published_scores(probability, truth)[:, 2].max() == 0


def test_ods_does_not_try_thresholds_under_a_tenth_and_ois_does() -> None:
    sweep = ImageSweep()
    sweep.update(np.array([[0.05, 0.0, 0.0, 0.0]]), np.array([[1, 0, 0, 0]]))
    assert sweep.ods().f1 == 0
    assert sweep.ois() == 1


def test_ods_takes_one_threshold_for_all_images_and_ois_one_each() -> None:
    sweep = ImageSweep()
    sweep.update(np.array([[0.305, 0.205]]), np.array([[1, 0]]))  # perfect at 0.21 … 0.30
    sweep.update(np.array([[0.805, 0.705]]), np.array([[1, 0]]))  # perfect at 0.71 … 0.80
    assert len(sweep) == 2
    assert sweep.ois() == 1
    ods = sweep.ods()
    assert (ods.f1, ods.precision, ods.recall) == pytest.approx(((1 + 2 / 3) / 2, 0.75, 1))
    assert ods.threshold == pytest.approx(0.25)  # the middle of 0.21 … 0.30


def test_an_image_of_several_chunks_counts_like_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    probability, truth = drawn(4, (40, 50))
    whole, pieces = ImageSweep(), ImageSweep()
    whole.update(probability, truth)
    monkeypatch.setattr(image_sweep, "_CHUNK", 333)
    pieces.update(probability, truth)
    np.testing.assert_array_equal(whole.confusions().tp, pieces.confusions().tp)
    np.testing.assert_array_equal(whole.confusions().fp, pieces.confusions().fp)


def test_an_image_above_the_chunk_counts_every_pixel() -> None:
    probability = np.full((400, 700), 0.005, dtype=np.float32)
    truth = np.arange(280_000).reshape(400, 700) % 3 == 0
    sweep = ImageSweep()
    sweep.update(probability, truth)
    curve = sweep.confusions()
    assert (curve.tp[0, 0], curve.fp[0, 0], curve.fn[0, 0], curve.tn[0, 0]) == (93_334, 186_666, 0, 0)
    assert (curve.tp[0, 1], curve.fp[0, 1], curve.fn[0, 1], curve.tn[0, 1]) == (0, 0, 93_334, 186_666)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_probabilities_outside_the_range_are_refused_where_they_count(value: float) -> None:
    probability, truth = np.array([[0.5, value]]), np.array([[1, 0]])
    sweep = ImageSweep()
    sweep.update(probability, truth, valid=np.array([[1, 0]]))
    with pytest.raises(ValueError, match=re.escape("must be in [0, 1]")):
        sweep.update(probability, truth)
    assert len(sweep) == 1


def test_an_image_without_counted_pixels_is_an_empty_one() -> None:
    sweep = ImageSweep()
    sweep.update(np.zeros((2, 2)), np.ones((2, 2)), np.zeros((2, 2)))
    assert sweep.ods().f1 == sweep.ois() == 1


def test_unequal_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=re.escape("(2, 3), but truth has shape (3, 2)")):
        ImageSweep().update(np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize("figure", ["ods", "ois", "table", "confusions"])
def test_figures_of_no_image_are_refused(figure: str) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        getattr(ImageSweep(), figure)()


def test_the_kept_counts_are_those_of_comparing_every_pixel_with_every_threshold() -> None:
    rng, sweep = np.random.default_rng(5), ImageSweep()
    images = [(rng.random((9, 7), np.float32), rng.random((9, 7)) < share) for share in (0.3, 0.0)]
    for probability, truth in images:
        sweep.update(probability, truth)
    rows = sweep.frame().to_dict("records")
    for (probability, truth), row in zip(images, rows, strict=True):
        assert (row["positives"], row["negatives"]) == (truth.sum(), (~truth).sum())
        for index in range(101):
            marked = probability > np.float32(index / 100)
            assert row["tp"][index] == (marked & truth).sum()
            assert row["fp"][index] == (marked & ~truth).sum()
