import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cd_pipeline.evaluation.class_confusion import ClassConfusion, pooled_classes
from cd_pipeline.evaluation.metrics import Confusion

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 22)


@settings(max_examples=40, deadline=None)
@given(seeds, sizes)
def test_counts_and_scores_agree_with_sklearn(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, classes, (2, 9, 11)).astype(np.uint8)
    confusion = ClassConfusion.of(prediction, truth, classes)
    flat, labels = (truth.ravel(), prediction.ravel()), np.arange(classes)
    np.testing.assert_array_equal(confusion.counts, sk.confusion_matrix(*flat, labels=labels))
    options = {"labels": labels, "average": None, "zero_division": np.nan}
    present = np.isin(labels, flat)
    np.testing.assert_array_equal(np.isnan(confusion.iou()), ~present)
    # sklearn's jaccard_score knows no NaN
    expected = sk.jaccard_score(*flat, labels=labels, average=None, zero_division=0)
    np.testing.assert_allclose(confusion.iou()[present], expected[present])
    predicted, true = np.isin(labels, prediction), np.isin(labels, truth)
    np.testing.assert_allclose(
        confusion.precision()[predicted], sk.precision_score(*flat, **options)[predicted]
    )
    np.testing.assert_allclose(confusion.recall()[true], sk.recall_score(*flat, **options)[true])
    assert confusion.mean_iou() == pytest.approx(expected[present].mean())
    assert confusion.pixel_accuracy() == pytest.approx(sk.accuracy_score(*flat))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 6))
def test_each_class_against_the_rest_is_a_binary_confusion(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, classes, (2, 4, 5))
    confusion = ClassConfusion.of(prediction, truth, classes)
    for index in range(classes):
        binary = Confusion.of(prediction == index, truth == index)
        if binary.tn == binary.pixels:
            assert np.isnan(confusion.recall()[index])
            continue
        scores = (confusion.precision()[index], confusion.recall()[index], confusion.iou()[index])
        assert scores == (binary.precision, binary.recall, binary.iou)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_void_left_out_afterwards_is_void_ignored_while_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 5, (2, 6, 7)).astype(np.uint8)
    truth[0, 0] = 0
    after = ClassConfusion.of(prediction, truth, 5).without(4)
    during = ClassConfusion.of(prediction, truth, 5, ignore=4)
    np.testing.assert_array_equal(after.counts, during.counts)
    np.testing.assert_array_equal(after.iou(), during.iou())
    assert after.void == during.void == 4
    kept = truth != 4
    expected = sk.jaccard_score(truth[kept], prediction[kept], labels=range(4), average=None, zero_division=0)
    np.testing.assert_allclose(np.nan_to_num(after.iou()[:4]), expected)
    assert after.pixel_accuracy() == pytest.approx((truth == prediction)[kept].mean())


def test_void_as_a_class_enters_the_mean_and_left_out_does_not() -> None:
    truth, prediction = np.array([[0, 0, 1, 2]]), np.array([[0, 2, 1, 2]])
    with_void = ClassConfusion.of(prediction, truth, 3)
    np.testing.assert_array_equal(with_void.iou(), [1 / 2, 1, 1 / 2])
    assert with_void.mean_iou() == pytest.approx(2 / 3)
    assert with_void.pixel_accuracy() == 3 / 4
    without = with_void.without(2)
    np.testing.assert_array_equal(without.iou(), [1 / 2, 1, np.nan])  # 0 taken for void is a miss of 0
    assert without.mean_iou() == 3 / 4
    assert without.pixel_accuracy() == 2 / 3
    assert [row["class"] for row in without.table(["wall", "door", "void"])] == ["wall", "door"]


def test_index_255_is_ignored_without_being_a_class() -> None:
    truth = np.array([[0, 1, 255, 255]], dtype=np.uint8)
    prediction = np.array([[0, 0, 1, 0]], dtype=np.uint8)
    confusion = ClassConfusion.of(prediction, truth, 2, ignore=255)
    np.testing.assert_array_equal(confusion.counts, [[1, 0], [1, 0]])
    assert confusion.void is None


def test_absent_classes_are_left_out_and_those_only_predicted_are_not() -> None:
    confusion = ClassConfusion.of(np.array([[0, 2, 0, 0]]), np.array([[0, 0, 0, 0]]), 4)
    np.testing.assert_array_equal(confusion.iou(), [3 / 4, np.nan, 0, np.nan])
    np.testing.assert_array_equal(confusion.precision(), [1, np.nan, 0, np.nan])
    np.testing.assert_array_equal(confusion.recall(), [3 / 4, np.nan, 1, np.nan])
    assert confusion.mean_iou() == 3 / 8


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_the_baseline_is_the_score_of_one_class_everywhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 5, (2, 6, 7))
    frequent = int(np.bincount(truth.ravel()).argmax())
    confusion = ClassConfusion.of(prediction, truth, 5)
    expected = ClassConfusion.of(np.full_like(truth, frequent), truth, 5)
    np.testing.assert_array_equal(confusion.everywhere().counts, expected.counts)
    np.testing.assert_array_equal(
        confusion.everywhere(3).counts, ClassConfusion.of(np.full_like(truth, 3), truth, 5).counts
    )
    summary = confusion.summary()
    share = (truth == frequent).mean()
    assert summary["baseline_pixel_accuracy"] == pytest.approx(share)
    assert summary["baseline_miou"] == pytest.approx(share / len(np.unique(truth)))
    assert summary["miou"] == confusion.mean_iou()


def test_the_baseline_never_predicts_a_void_that_is_left_out() -> None:
    truth = np.array([[2, 2, 2, 0, 0, 1]])
    confusion = ClassConfusion.of(truth, truth, 3)
    assert confusion.summary()["baseline_pixel_accuracy"] == 1 / 2
    assert confusion.without(2).summary()["baseline_pixel_accuracy"] == pytest.approx(2 / 3)


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(1, 4))
def test_pooled_counts_are_those_of_the_images_side_by_side(seed: int, count: int) -> None:
    truths, predictions = np.random.default_rng(seed).integers(0, 3, (2, count, 4, 5))
    images = [ClassConfusion.of(p, t, 3) for p, t in zip(predictions, truths, strict=True)]
    whole = ClassConfusion.of(np.hstack(predictions), np.hstack(truths), 3)
    np.testing.assert_array_equal(pooled_classes(iter(images)).counts, whole.counts)


def test_the_table_holds_plain_values_that_json_keeps() -> None:
    confusion = ClassConfusion.of(np.array([[0, 0, 1]]), np.array([[0, 1, 1]]), 3)
    table = confusion.table(["background", "crack", "spare"])
    assert json.loads(json.dumps(table, allow_nan=False)) == [
        {"class": "background", "pixels": 1, "iou": 0.5, "precision": 0.5, "recall": 1.0},
        {"class": "crack", "pixels": 2, "iou": 0.5, "precision": 1.0, "recall": 0.5},
        {"class": "spare", "pixels": 0, "iou": None, "precision": None, "recall": None},
    ]


def test_names_must_match_the_classes() -> None:
    with pytest.raises(ValueError, match="zip"):
        ClassConfusion.of(np.zeros((1, 1), int), np.zeros((1, 1), int), 2).table(["one"])


@pytest.mark.parametrize(("name", "value"), [("prediction", 3), ("truth", 255), ("truth", -1)])
def test_indices_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    maps = {"prediction": np.zeros((2, 2), int), "truth": np.zeros((2, 2), int)}
    maps[name][1, 1] = value
    with pytest.raises(ValueError, match=re.escape(f"{name} must hold classes in [0, 3), got ")):
        ClassConfusion.of(**maps, classes=3)


def test_unequal_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=re.escape("(2, 3), but truth has shape (3, 2)")):
        ClassConfusion.of(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


def test_confusions_of_other_classes_or_another_void_are_not_added() -> None:
    zeros = np.zeros((2, 2), int)
    two, three = ClassConfusion.of(zeros, zeros, 2), ClassConfusion.of(zeros, zeros, 3)
    with pytest.raises(ValueError, match=re.escape("shape (2, 2)")):
        _ = two + three
    with pytest.raises(ValueError, match="void is None in one confusion and 1 in the other"):
        _ = two + two.without(1)


@pytest.mark.parametrize("void", [-1, 3])
def test_void_must_be_a_class(void: int) -> None:
    zeros = np.zeros((2, 2), int)
    with pytest.raises(ValueError, match="one of 3 classes"):
        ClassConfusion.of(zeros, zeros, 3).without(void)


def test_figures_of_nothing_are_refused() -> None:
    nothing = ClassConfusion.of(np.zeros((2, 2), int), np.full((2, 2), 255), 3, ignore=255)
    for figure in (nothing.mean_iou, nothing.pixel_accuracy, nothing.summary):
        with pytest.raises(ValueError, match="no counted pixel"):
            figure()
    with pytest.raises(ValueError, match="at least one image"):
        pooled_classes([])
