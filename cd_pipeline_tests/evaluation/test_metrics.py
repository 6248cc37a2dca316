import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from scipy.stats import binomtest, norm
from sklearn import metrics as sk

from cd_pipeline.evaluation.metrics import (
    Confusion,
    everything_changed_f1,
    has_alarm,
    mean_image_f1,
    mean_image_iou,
    pooled,
    wilson_interval,
)

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_scores_agree_with_sklearn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((7, 9)) < rng.random()
    prediction = rng.random((7, 9)) < rng.random()
    truth[0, 0] = prediction[0, 0] = True  # the empty cases are conventions, tested below
    confusion = Confusion.of(prediction, truth)
    flat = truth.ravel(), prediction.ravel()
    tn, fp, fn, tp = sk.confusion_matrix(*flat, labels=[False, True]).ravel()
    assert confusion == Confusion(tp, fp, fn, tn)
    assert confusion.precision == pytest.approx(sk.precision_score(*flat))
    assert confusion.recall == pytest.approx(sk.recall_score(*flat))
    assert confusion.f1 == pytest.approx(sk.f1_score(*flat))
    assert confusion.iou == pytest.approx(sk.jaccard_score(*flat))


def test_counts_of_a_hand_made_image() -> None:
    prediction = np.array([[1, 1, 0], [0, 0, 0]])
    truth = np.array([[255, 0, 255], [255, 0, 0]], dtype=np.uint8)
    assert Confusion.of(prediction, truth) == Confusion(tp=1, fp=1, fn=2, tn=2)


def test_any_nonzero_value_is_change() -> None:
    prediction = np.array([[-0.5, 7.0, 0.0]])
    truth = np.array([[True, False, False]])
    assert Confusion.of(prediction, truth) == Confusion(tp=1, fp=1, fn=0, tn=1)


def test_pixels_that_are_not_valid_do_not_count() -> None:
    prediction, truth = np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 0]])
    assert Confusion.of(prediction, truth, np.array([[255, 0, 0, 255]])) == Confusion(tp=1, tn=1)


def test_empty_truth_and_empty_prediction_score_one() -> None:
    confusion = Confusion(tn=10)
    assert (confusion.precision, confusion.recall, confusion.f1, confusion.iou) == (1, 1, 1, 1)


def test_false_alarm_on_an_unchanged_image_scores_zero() -> None:
    confusion = Confusion(fp=1, tn=9)
    assert (confusion.precision, confusion.recall, confusion.f1, confusion.iou) == (0, 1, 0, 0)


def test_nothing_predicted_on_a_changed_image_scores_zero() -> None:
    confusion = Confusion(fn=1, tn=9)
    assert (confusion.precision, confusion.recall, confusion.f1, confusion.iou) == (0, 0, 0, 0)


@pytest.mark.parametrize("second", ["truth", "valid"])
def test_unequal_shapes_are_refused_with_both_shapes(second: str) -> None:
    shapes = {"truth": (2, 3), "valid": (2, 3)} | {second: (3, 2)}
    masks = {name: np.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=re.escape(f"shape (2, 3), but {second} has shape (3, 2)")):
        Confusion.of(np.zeros((2, 3)), **masks)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 5))
def test_pooled_counts_are_those_of_the_images_side_by_side(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, truths = rng.random((2, count, 4, 5)) < 0.5
    images = [Confusion.of(p, t) for p, t in zip(predictions, truths, strict=True)]
    assert pooled(images) == Confusion.of(np.hstack(predictions), np.hstack(truths))
    assert pooled(images).pixels == count * 20


def test_pooled_of_no_image_is_empty() -> None:
    assert pooled([]) == Confusion(0, 0, 0, 0)


def test_mean_per_image_weighs_every_image_the_same() -> None:
    images = [Confusion(tp=1, fp=1, fn=0, tn=2), Confusion(tn=400)]
    assert mean_image_f1(images) == pytest.approx((2 / 3 + 1) / 2)
    assert mean_image_iou(images) == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("mean", [mean_image_f1, mean_image_iou])
def test_mean_of_no_image_is_refused(mean: object) -> None:
    assert callable(mean)
    with pytest.raises(ValueError, match="at least one image"):
        mean([])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_interval_agrees_with_scipy(n: int, share: float, confidence: float) -> None:
    successes = round(share * n)
    low, high = wilson_interval(successes, n, z=float(norm.ppf((1 + confidence) / 2)))
    reference = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_wilson_interval_of_no_trial_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("successes", [-1, 4])
def test_wilson_interval_refuses_impossible_counts(successes: int) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 3\]"):
        wilson_interval(successes, 3)


def test_alarm_begins_at_half_a_percent_of_the_image() -> None:
    mask = np.zeros((20, 70), dtype=np.uint8)  # 0.5 % of 1400 pixels = 7
    mask[3, :6] = 255
    assert not has_alarm(mask)
    mask[3, 6] = 255
    assert has_alarm(mask)


def test_alarm_joins_pixels_that_touch_at_corners() -> None:
    mask = np.zeros((20, 70), dtype=bool)
    mask[np.arange(7), np.arange(7)] = True
    assert has_alarm(mask)


def test_scattered_pixels_are_no_alarm() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[::2, ::2] = True
    assert not has_alarm(mask)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_alarm_agrees_with_scipy_components(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 20)) < rng.uniform(0, 0.4)
    share = rng.uniform(0.005, 0.1)
    components, _ = label(mask, structure=np.ones((3, 3)))
    assert has_alarm(mask, share) == bool(np.any(np.bincount(components.ravel())[1:] >= share * 400))


def test_alarm_refuses_a_mask_that_is_not_two_dimensional() -> None:
    with pytest.raises(ValueError, match=re.escape("(1, 4, 4)")):
        has_alarm(np.zeros((1, 4, 4)))


def test_everything_changed_is_scored_like_a_full_prediction() -> None:
    truth = np.arange(100).reshape(10, 10) < 23
    assert everything_changed_f1(23, 100) == Confusion.of(np.ones((10, 10)), truth).f1
    assert everything_changed_f1(23, 100) == pytest.approx(2 * 0.23 / 1.23)
    assert everything_changed_f1(0, 100) == 0.0


def test_everything_changed_refuses_more_positives_than_pixels() -> None:
    with pytest.raises(ValueError, match=r"\[0, 4\], got 5"):
        everything_changed_f1(5, 4)
