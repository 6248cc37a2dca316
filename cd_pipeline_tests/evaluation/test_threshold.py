from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from cd_pipeline.data.frames import write_frame
from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample
from cd_pipeline.evaluation.threshold import (
    ChosenThreshold,
    ScoredSample,
    choose,
    predict_samples,
    sweep_predictions,
)

Maps = Sequence[npt.NDArray[Any]]


def scored(probabilities: Maps, truths: Maps) -> Iterator[ScoredSample]:
    """Predictions of which every pixel counts."""
    for probability, truth in zip(probabilities, truths, strict=True):
        yield ScoredSample(probability.astype(np.float32), truth, np.ones(truth.shape, bool))


CHOSEN = ChosenThreshold(0.36, 0.51, 0.34, 0.6, 0.45, "abc")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_chosen_threshold_has_the_best_pooled_f1_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths = [rng.random((6, 7)) < 0.3 for _ in range(3)]
    maps = [np.clip(0.2 * t + rng.random(t.shape) * 0.35, 0, 1).astype(np.float32) for t in truths]
    truths[0][0, 0] = True
    chosen = choose(sweep_predictions(scored(maps, truths), low=0.02, high=0.4, steps=40), "abc")
    truth, probability = np.concatenate(truths).ravel(), np.concatenate(maps).ravel()
    thresholds = np.linspace(0.02, 0.4, 40)
    f1 = [f1_score(truth, probability > np.float32(t)) for t in thresholds]
    assert chosen.f1 == pytest.approx(max(f1))
    index = int(np.argmin(np.abs(thresholds - chosen.threshold)))
    assert chosen.threshold == pytest.approx(thresholds[index])
    assert f1[index] == pytest.approx(max(f1))
    predicted = probability > np.float32(chosen.threshold)
    assert chosen.iou == pytest.approx(jaccard_score(truth, predicted))
    assert chosen.precision == pytest.approx(precision_score(truth, predicted, zero_division=0))
    assert chosen.recall == pytest.approx(recall_score(truth, predicted))
    assert chosen.checkpoint_version == "abc"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.3))
def test_with_a_tolerance_it_is_the_highest_threshold_that_comes_close_to_the_best(
    seed: int, tolerance: float
) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((9, 9)) < 0.4
    probability = np.clip(0.3 * truth + rng.random(truth.shape) * 0.6, 0, 1).astype(np.float32)
    sweep = sweep_predictions(scored([probability], [truth]), low=0.05, high=0.95, steps=19)
    chosen = choose(sweep, "", tolerance)
    thresholds = np.linspace(0.05, 0.95, 19)
    f1 = [f1_score(truth.ravel(), (probability > np.float32(t)).ravel()) for t in thresholds]
    close = [t for t, score in zip(thresholds, f1, strict=True) if score >= max(f1) - tolerance]
    assert chosen.threshold == pytest.approx(max(close))
    assert chosen.f1 >= max(f1) - tolerance


def test_pixels_are_pooled_so_a_large_image_weighs_more() -> None:
    # alone, the small image is best at 0.5 and the large one at 0.1
    probabilities = [np.array([[0.4, 0.6]]), np.array([[0.2, 0.2, 0.2, 0.2, 0.05]])]
    truths = [np.array([[False, True]]), np.array([[True, True, True, True, False]])]
    chosen = choose(sweep_predictions(scored(probabilities, truths), low=0.1, high=0.5, steps=2), "")
    assert chosen.threshold == pytest.approx(0.1)
    assert chosen.f1 == pytest.approx(10 / 11)


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    CHOSEN.save(tmp_path / "threshold" / "threshold.json")
    assert ChosenThreshold.load(tmp_path / "threshold" / "threshold.json") == CHOSEN


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"0.3", b"{}", b'{"threshold": 0.3}', b'{"best": 1}', b"\xff\xfe"]
)
def test_a_file_that_is_no_threshold_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "threshold.json"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"threshold\.json: not a threshold file .*materialize threshold again"
    ):
        ChosenThreshold.load(path)


def test_the_whole_sweep_is_kept_as_columns(tmp_path: Path) -> None:
    probability, truth = np.array([[0.1, 0.3, 0.35]]), np.array([[False, True, False]])
    sweep = sweep_predictions(scored([probability], [truth]), low=0.05, high=0.32, steps=3)
    write_frame(tmp_path / "sweep.parquet", pd.DataFrame(sweep.table()))
    columns = pq.read_table(tmp_path / "sweep.parquet").to_pydict()
    assert columns["threshold"] == pytest.approx([0.05, 0.185, 0.32])
    assert (columns["tp"], columns["fp"], columns["fn"]) == ([1, 1, 0], [2, 1, 1], [0, 0, 1])
    assert columns["f1"] == pytest.approx([1 / 2, 2 / 3, 0])


def test_pixels_that_do_not_count_do_not_move_the_threshold() -> None:
    probability = np.array([[0.9, 0.3, 0.3, 0.3]], np.float32)
    truth = np.array([[True, False, True, True]])
    valid = np.array([[True, True, False, False]])
    sweep = sweep_predictions([ScoredSample(probability, truth, valid)], low=0.2, high=0.5, steps=2)
    assert choose(sweep, "").threshold == pytest.approx(0.5)  # with all pixels it would be 0.2
    everything = [ScoredSample(probability, truth, np.ones_like(valid))]
    assert choose(sweep_predictions(everything, low=0.2, high=0.5, steps=2), "").threshold < 0.5


def test_predicting_pairs_hands_over_truth_and_what_counts() -> None:
    photo, mask = np.full((2, 2, 3), 9, np.uint8), np.array([[0, 255], [0, 0]], np.uint8)
    valid = np.array([[255, 255], [0, 255]], np.uint8)
    pairs = [Sample.of_pair(photo, photo, mask), Sample.of_pair(photo, photo + 1, mask, valid)]

    def predict(before: Image, after: Image) -> npt.NDArray[np.float32]:
        return (after - before).mean(axis=2).astype(np.float32)

    first, second = predict_samples(predict, pairs)
    assert (first.probability.max(), second.probability.min()) == (0, 1)
    assert first.truth.tolist() == second.truth.tolist() == [[False, True], [False, False]]
    assert first.valid.all()
    assert second.valid.tolist() == [[True, True], [False, True]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.99), st.sampled_from([0.0, 0.05]))
def test_a_fixed_threshold_is_taken_whatever_is_best(seed: int, fixed: float, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((9, 9)) < 0.4
    truth[0, 0] = True
    probability = np.clip(0.3 * truth + rng.random(truth.shape) * 0.6, 0, 1).astype(np.float32)
    sweep = sweep_predictions(scored([probability], [truth]), low=0.05, high=0.95, steps=19, fixed=fixed)
    chosen = choose(sweep, "abc", tolerance, fixed)
    predicted = (probability > np.float32(fixed)).ravel()
    assert chosen.threshold == fixed
    assert chosen.f1 == pytest.approx(f1_score(truth.ravel(), predicted))
    assert chosen.iou == pytest.approx(jaccard_score(truth.ravel(), predicted))
    assert chosen.precision == pytest.approx(precision_score(truth.ravel(), predicted, zero_division=0))
    assert chosen.recall == pytest.approx(recall_score(truth.ravel(), predicted))


def test_a_fixed_threshold_is_one_more_in_the_sweep_unless_it_was_there() -> None:
    def tried(fixed: float | None) -> list[float]:
        return sweep_predictions([], low=0.1, high=0.5, steps=3, fixed=fixed).thresholds.tolist()

    assert tried(None) == tried(0.5) == pytest.approx([0.1, 0.3, 0.5])
    assert tried(0.35) == pytest.approx([0.1, 0.3, 0.35, 0.5])
    assert tried(0.7) == pytest.approx([0.1, 0.3, 0.5, 0.7])
