import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from cd_pipeline.evaluation.metrics import Confusion
from cd_pipeline.evaluation.sweep import LevelTable, ThresholdSweep, linear_thresholds, middle_of_best_run

# thresholds and probabilities from one small set of values, so that they often coincide
values = st.one_of(st.sampled_from([0.0, 0.02, 0.1, 0.36, 0.4, 0.5, 1.0]), st.floats(0, 1, width=32))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(values, min_size=1, max_size=12).map(sorted),
    st.lists(st.tuples(values, st.booleans(), st.booleans()), min_size=1, max_size=60),
)
def test_counts_equal_a_loop_over_thresholds(
    thresholds: list[float], pixels: list[tuple[float, bool, bool]]
) -> None:
    probability = np.array([[p for p, _, _ in pixels]], dtype=np.float32)
    truth = np.array([[t for _, t, _ in pixels]])
    valid = np.array([[v for _, _, v in pixels]])
    sweep = ThresholdSweep(thresholds)
    sweep.update(probability, truth, valid)
    curve = sweep.confusions()
    for index, threshold in enumerate(thresholds):
        expected = Confusion.of(probability > threshold, truth, valid)
        assert curve.at(index) == expected
        assert sweep.f1()[index] == expected.f1
        assert sweep.table()["iou"][index] == expected.iou


@given(
    st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=50),
    st.lists(st.floats(-1, 2, width=32), max_size=50),
)
def test_a_level_is_the_number_of_edges_strictly_below(edges: list[float], numbers: list[float]) -> None:
    sorted_edges = np.sort(np.array(edges, np.float32))
    for lowest, highest in ((-1, 2), (0, 1)):  # the second: as probabilities are
        near = [np.nextafter(edge, np.float32(end)) for edge in sorted_edges for end in (-1, 2)]
        tried = np.array([*numbers, *edges, *near, -0.0, 0.0, 1.0], np.float32)
        tried = tried[(tried >= lowest) & (tried <= highest)]
        expected = [sum(edge < number for edge in sorted_edges) for number in tried]
        assert LevelTable(sorted_edges).of(tried).tolist() == expected


def test_probability_equal_to_the_threshold_is_not_change() -> None:
    sweep = ThresholdSweep([0.36])
    sweep.update(np.array([[0.36]], dtype=np.float32), np.array([[1]]))
    assert sweep.confusions().at(0) == Confusion(fn=1)


def test_sweep_agrees_with_sklearn_at_every_distinct_probability() -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((40, 50)) < 0.2
    probability = np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1).astype(np.float32)
    precision, recall, cuts = precision_recall_curve(truth.ravel(), probability.ravel())
    # sklearn counts p >= cut; p > the float32 just below is the same
    sweep = ThresholdSweep(np.nextafter(cuts.astype(np.float32), np.float32(-1)))
    sweep.update(probability, truth)
    table = sweep.table()
    np.testing.assert_allclose(table["precision"], precision[:-1])
    np.testing.assert_allclose(table["recall"], recall[:-1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_images_one_by_one_count_like_one_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random((4, 1, 6, 5), dtype=np.float32)
    truth = rng.random((4, 1, 6, 5)) < 0.3
    batch, single = ThresholdSweep(np.linspace(0, 1, 7)), ThresholdSweep(np.linspace(0, 1, 7))
    batch.update(probability, truth)
    for p, t in zip(probability, truth, strict=True):
        single.update(p, t)
    for name, column in batch.table().items():
        np.testing.assert_array_equal(column, single.table()[name])


def test_best_takes_the_middle_of_a_tied_run() -> None:
    sweep = ThresholdSweep(linear_thresholds(0.0, 1.0, 11))
    sweep.update(np.array([[0.15, 0.85]], dtype=np.float32), np.array([[0, 1]]))
    # 0.2 … 0.8 are all perfect
    assert sweep.best() == (pytest.approx(0.5), 5)


@pytest.mark.parametrize(
    ("scores", "index"),
    [
        ([0.1, 0.9, 0.3], 1),
        ([0.9, 0.1, 0.9, 0.9, 0.9, 0.2], 3),
        ([0.9, 0.9, 0.1, 0.9, 0.9], 0),
        ([0.0, 0.0, 0.0, 0.0], 1),
        ([0.5], 0),
    ],
)
def test_ties_go_to_the_middle_of_the_longest_run(scores: list[float], index: int) -> None:
    assert middle_of_best_run(np.array(scores)) == index


def test_table_holds_one_row_a_threshold_and_all_pixels_in_each() -> None:
    thresholds = linear_thresholds(0.02, 0.40, 40)
    sweep = ThresholdSweep(thresholds)
    sweep.update(np.full((3, 4), 0.2), np.eye(3, 4))
    table = sweep.table()
    assert list(table) == ["threshold", "precision", "recall", "f1", "iou", "tp", "fp", "fn", "tn"]
    np.testing.assert_array_equal(table["threshold"], thresholds)
    np.testing.assert_array_equal(table["tp"] + table["fp"] + table["fn"] + table["tn"], np.full(40, 12))


def test_linear_thresholds_include_both_ends() -> None:
    thresholds = linear_thresholds(0.02, 0.40, 40)
    assert (len(thresholds), thresholds[0], thresholds[-1]) == (40, 0.02, 0.40)
    np.testing.assert_allclose(np.diff(thresholds), 0.38 / 39)


@pytest.mark.parametrize(("low", "high", "steps"), [(0.4, 0.02, 40), (0.1, 0.1, 3), (0.0, 1.0, 1)])
def test_linear_thresholds_refuse_an_empty_range(low: float, high: float, steps: int) -> None:
    with pytest.raises(ValueError, match="low < high and steps >= 2"):
        linear_thresholds(low, high, steps)


@pytest.mark.parametrize("thresholds", [[], [[0.1, 0.2]], [0.2, 0.1], [0.1, float("nan")]])
def test_unusable_thresholds_are_refused(thresholds: list[float]) -> None:
    with pytest.raises(ValueError, match="thresholds must be"):
        ThresholdSweep(thresholds)


def test_nan_is_refused_where_it_counts() -> None:
    probability, truth = np.array([[0.5, np.nan]]), np.array([[1, 0]])
    sweep = ThresholdSweep([0.5])
    sweep.update(probability, truth, valid=np.array([[1, 0]]))
    with pytest.raises(ValueError, match="NaN"):
        sweep.update(probability, truth)


def test_unequal_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=re.escape("(2, 3), but truth has shape (3, 2)")):
        ThresholdSweep([0.5]).update(np.zeros((2, 3)), np.zeros((3, 2)))


def test_a_test_set_of_35_images_is_swept_in_a_moment() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((35, 256, 256), dtype=np.float32)
    truth = (probability > 0.7).astype(np.uint8)
    times = []
    for _ in range(3):
        sweep = ThresholdSweep(linear_thresholds(0.02, 0.40, 40))
        start = time.perf_counter()
        for p, t in zip(probability, truth, strict=True):
            sweep.update(p, t)
        sweep.best()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3  # 0.04 s on an idle core; room for a busy machine
