import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from scipy.ndimage import uniform_filter
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.preprocessing import resize_mask
from cd_pipeline.data.samples import Roots, Sample, at_input_size
from cd_pipeline.evaluation.differencing import DifferencingOracle
from cd_pipeline.evaluation.figures import gallery, pair_row
from cd_pipeline.evaluation.metrics import Confusion
from cd_pipeline.evaluation.pair_shard import PairScore, predict_pairs
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictions import (
    measure_pairs,
    scores_by_class,
    summarise,
)
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.sample_prediction import Prediction, predict_sample
from cd_pipeline.models.runtime import Runtime
from cd_pipeline_tests.tiny_pairs import BrightnessChange, draw_pair, enlarged, write_pair, write_pairs_to

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()
SIZE = 64
PREDICTOR = Predictor(network_probabilities(BrightnessChange(), RUNTIME), SIZE, 0.3)
FACTORS = (2, 3)
"""The photos are 128 px high and 192 px wide: each pixel of the input is a block of 2 x 3."""


def large(pair: Sample) -> Sample:
    return Sample.of_pair(*(enlarged(image, *FACTORS) for image in pair.arrays))


def predict(
    tmp_path: Path, pairs: list[Sample], threshold: float = 0.3, smooth: bool = False
) -> list[PairScore]:
    """Predict pairs named p0, p1, …; the PNGs lie in `tmp_path / "out"`."""
    rows, roots = write_pairs_to(tmp_path / "pictures", pairs)
    predictor = Predictor(network_probabilities(BrightnessChange(), RUNTIME), SIZE, threshold, smooth=smooth)
    return predict_pairs(predictor, rows, roots, tmp_path / "out")


def small_probability(pair: Sample) -> np.ndarray:
    """Return what `BrightnessChange` answers, in float64."""
    before, after = pair.before.astype(np.float64) / 255, pair.after.astype(np.float64) / 255
    answer: np.ndarray = 1 / (1 + np.exp(-40 * (np.abs(before - after).mean(-1) - 0.1)))
    return answer


def large_probability(pair: Sample) -> np.ndarray:
    small = torch.from_numpy(small_probability(pair))[None, None]
    size = (SIZE * FACTORS[0], SIZE * FACTORS[1])
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


def read(path: Path) -> np.ndarray:
    return np.asarray(Pillow.open(path))


def counts(prediction: np.ndarray, truth: np.ndarray) -> Confusion:
    flat = (truth > 0).ravel(), (prediction > 0).ravel()
    tn, fp, fn, tp = (int(n) for n in confusion_matrix(*flat, labels=[False, True]).ravel())
    return Confusion(tp, fp, fn, tn)


def test_a_pixel_is_changed_where_its_probability_is_above_the_threshold() -> None:
    probability = np.array([[0.0, 0.29999, 0.30001], [0.5, 0.29998, 1.0]], np.float32)
    mask = PREDICTOR.mask_of(probability)
    assert mask.tolist() == [[0, 0, 255], [255, 0, 255]]
    assert mask.dtype == np.uint8
    assert replace(PREDICTOR, threshold=0.5).mask_of(probability).tolist() == [[0, 0, 0], [0, 0, 255]]


def test_smoothing_is_the_majority_of_nine() -> None:
    probability = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    average = uniform_filter((probability > 0.4).astype(np.float64), 3, mode="constant")
    expected = np.where(average > 0.5, 255, 0)
    predictor = replace(PREDICTOR, threshold=0.4, smooth=True)
    np.testing.assert_array_equal(predictor.mask_of(probability), expected)


def test_each_pair_gets_a_png_of_its_name_at_the_size_of_its_photo(tmp_path: Path) -> None:
    pairs = [large(draw_pair(0, SIZE)), draw_pair(1, SIZE), draw_pair(2, 96)]
    scores = predict(tmp_path, pairs)
    assert [score.pair_id for score in scores] == ["p0", "p1", "p2"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p0.png", "p1.png", "p2.png"]
    for index, pair in enumerate(pairs):
        mask = read(tmp_path / "out" / f"p{index}.png")
        assert mask.shape == pair.mask.shape
        assert set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize("smooth", [False, True])
def test_masks_and_counts_are_those_of_a_plain_computation(tmp_path: Path, smooth: bool) -> None:
    pairs = [draw_pair(seed, SIZE) for seed in range(4)]
    scores = predict(tmp_path, [large(pair) for pair in pairs], smooth=smooth)
    for index, (pair, score) in enumerate(zip(pairs, scores, strict=True)):
        small, own = small_probability(pair) > 0.3, large_probability(pair) > 0.3
        if smooth:
            small, own = (
                uniform_filter(m.astype(np.float64), 3, mode="constant") > 0.5 for m in (small, own)
            )
        written = read(tmp_path / "out" / f"p{index}.png") > 0
        assert (written != own).mean() < 1e-4  # a pixel may lie on the threshold itself
        assert score.own_size == counts(written, large(pair).mask)
        assert score.confusion == counts(small, pair.mask)


def test_predicting_one_pair_gives_both_sizes() -> None:
    pair = large(draw_pair(3, SIZE))
    _, probability, prediction, own = predict_sample(PREDICTOR, pair)
    np.testing.assert_array_equal(prediction > 0, probability > 0.3)
    assert (prediction.shape, own.shape) == ((SIZE, SIZE), pair.mask.shape)


def test_a_higher_threshold_marks_fewer_pixels(tmp_path: Path) -> None:
    pair = [large(draw_pair(0, SIZE))]
    low, high = (predict(tmp_path, pair, threshold)[0].own_size for threshold in (0.02, 0.98))
    assert high.tp + high.fp < low.tp + low.fp


def test_leftovers_of_an_earlier_run_are_deleted(tmp_path: Path) -> None:
    for count in (2, 1):
        rows, roots = write_pairs_to(tmp_path / "pictures", [draw_pair(seed) for seed in range(count)])
        measure_pairs(PREDICTOR, rows, roots, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["p0.png"]


def test_korean_names_and_spaces_are_kept(tmp_path: Path) -> None:
    row = write_pair(tmp_path, "방 하나__a.b__0badcafe", draw_pair(0))
    roots = write_pairs_to(tmp_path, [])[1]
    out = tmp_path / "out"
    predict_pairs(PREDICTOR, [row], roots, out)
    assert [path.name for path in out.iterdir()] == ["방 하나__a.b__0badcafe.png"]


def test_the_callback_gets_the_pair_and_its_prediction_at_the_input_size(tmp_path: Path) -> None:
    seen: list[tuple[Pair, Prediction]] = []
    pair = draw_pair(0, SIZE)
    rows, roots = write_pairs_to(tmp_path, [large(pair)])
    predict_pairs(
        PREDICTOR,
        rows,
        roots,
        tmp_path / "out",
        on_pair=lambda row, found: seen.append((row, found)),
    )
    ((row, (arrays, probability, mask, _)),) = seen
    np.testing.assert_array_equal(mask > 0, probability > 0.3)
    assert row == rows[0]
    np.testing.assert_array_equal(arrays.after, pair.after)
    np.testing.assert_array_equal(arrays.mask, pair.mask)
    np.testing.assert_array_equal(mask > 0, small_probability(pair) > 0.3)


def test_what_is_marked_where_nothing_counts_is_no_alarm(tmp_path: Path) -> None:
    before = np.full((SIZE, SIZE, 3), 100, np.uint8)
    after = before.copy()
    after[:8] = 200
    valid = np.full((SIZE, SIZE), 255, np.uint8)
    valid[:8] = 0
    write_png(tmp_path / "valid" / "p0.png", valid)
    (row,), roots = write_pairs_to(tmp_path, [Sample.of_pair(before, after, np.zeros_like(valid))])
    for counting, alarm in ((row, True), (replace(row, valid="workspace:valid/p0.png"), False)):
        (score,) = predict_pairs(PREDICTOR, [counting], roots, tmp_path / "out")
        assert score.alarm is alarm


@pytest.mark.parametrize(("width", "alarm"), [(20, False), (21, True)])  # 0.5 % of 4,096 pixels are 20.48
def test_one_region_of_half_a_percent_is_an_alarm(tmp_path: Path, width: int, alarm: bool) -> None:
    before = np.full((SIZE, SIZE, 3), 100, np.uint8)
    after = before.copy()
    after[5, 3 : 3 + width] = 200
    after[40, 2:20] = 200  # 18 pixels of their own do not count with the others
    (score,) = predict(tmp_path, [Sample.of_pair(before, after, np.zeros((SIZE, SIZE), np.uint8))])
    assert score.confusion == Confusion(fp=width + 18, tn=SIZE * SIZE - width - 18)
    assert (score.alarm, score.changed) == (alarm, False)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    rows, roots = write_pairs_to(tmp_path, [draw_pair(0)])
    (tmp_path / "after" / "p0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"p0\.png"):
        predict_pairs(PREDICTOR, rows, roots, tmp_path / "out")


def score(
    name: str, confusion: Confusion, own_size: Confusion | None = None, alarm: bool = False
) -> PairScore:
    changed = confusion.tp + confusion.fn > 0
    return PairScore(name, "SMALL_THEATER", changed, alarm, confusion, own_size or confusion, confusion)


SCORES = [
    score("a", Confusion(tp=6, fp=2, fn=4, tn=88), Confusion(tp=60, fp=20, fn=40, tn=880)),
    score("b", Confusion(tp=0, fp=0, fn=10, tn=90), Confusion(tp=10, fp=0, fn=90, tn=900)),
    score("c", Confusion(tp=0, fp=0, fn=0, tn=100), Confusion(tp=0, fp=0, fn=0, tn=1000)),
    score("d", Confusion(tp=0, fp=8, fn=0, tn=92), Confusion(tp=0, fp=80, fn=0, tn=920), alarm=True),
]


def test_the_figures_of_four_pairs_worked_out_by_hand() -> None:
    # pooled TP 6, FP 10, FN 14; own size TP 70, FP 100, FN 130
    # images' F1 12/18, 0, 1, 0 and IoU 6/12, 0, 1, 0
    figures = summarise(SCORES)
    assert figures["pairs"] == 4
    assert figures["precision"] == pytest.approx(6 / 16)
    assert figures["recall"] == pytest.approx(6 / 20)
    assert figures["f1"] == pytest.approx(12 / 36)
    assert figures["iou"] == pytest.approx(6 / 30)
    assert figures["own_size_f1"] == pytest.approx(140 / 370)
    assert figures["mean_image_f1"] == pytest.approx((12 / 18 + 1) / 4)
    assert figures["mean_image_iou"] == pytest.approx((6 / 12 + 1) / 4)
    assert (figures["no_change_pairs"], figures["no_change_alarm_rate"]) == (2, 0.5)
    # Wilson, 1 of 2: (0.5 + z²/4 ± z·sqrt(0.125 + z²/16)) / (1 + z²/2)
    z = 1.96
    half = z * math.sqrt(0.125 + z * z / 16)
    assert figures["no_change_alarm_rate_low"] == pytest.approx((0.5 + z * z / 4 - half) / (1 + z * z / 2))
    assert figures["no_change_alarm_rate_high"] == pytest.approx((0.5 + z * z / 4 + half) / (1 + z * z / 2))


def test_an_alarm_on_a_changed_pair_is_no_false_alarm() -> None:
    figures = summarise([score("a", Confusion(tp=50, tn=50), alarm=True), score("b", Confusion(tn=100))])
    assert (figures["no_change_pairs"], figures["no_change_alarm_rate"]) == (1, 0)


def test_without_no_change_pairs_nothing_is_known_about_their_alarms() -> None:
    figures = summarise([SCORES[0]])
    assert (figures["no_change_alarm_rate_low"], figures["no_change_alarm_rate_high"]) == (0, 1)


def test_no_pair_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        summarise([])


def test_a_score_as_a_row_names_its_png_and_all_counts() -> None:
    rows = [score.to_row() for score in SCORES]
    assert [row["file"] for row in rows] == ["a.png", "b.png", "c.png", "d.png"]
    assert rows[0]["f1"] == pytest.approx(12 / 18)
    assert [rows[0][key] for key in ("tp", "fp", "fn", "tn", "own_size_tp")] == [6, 2, 4, 88, 60]
    assert [row["alarm"] for row in rows] == [False, False, False, True]
    assert [row["changed"] for row in rows] == [True, True, False, False]


def test_scores_by_class_pool_the_pixels_of_each_class() -> None:
    table = scores_by_class(SCORES).set_index("class")
    for name in {score.class_name for score in SCORES}:
        members = [score.confusion for score in SCORES if score.class_name == name]
        tp, fp, fn = (sum(getattr(c, key) for c in members) for key in ("tp", "fp", "fn"))
        assert table.loc[name, "pairs"] == len(members)
        assert table.loc[name, "f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1)


def tiled_rows(tmp_path: Path, pairs: list[Sample]) -> tuple[list[Pair], Roots]:
    rows, roots = write_pairs_to(tmp_path / "pictures", pairs)
    return [replace(row, tiled=True) for row in rows], roots


def rectangular(seed: int, height: int, width: int) -> Sample:
    return Sample.of_pair(*(image[:height, :width] for image in draw_pair(seed, max(height, width)).arrays))


@pytest.mark.parametrize("smooth", [False, True])
def test_a_tiled_pair_is_scored_at_its_own_size_and_its_png_is_that_mask(
    tmp_path: Path, smooth: bool
) -> None:
    pairs = [rectangular(0, 150, 100), rectangular(1, 64, 64), rectangular(2, 40, 200)]
    rows, roots = tiled_rows(tmp_path, pairs)
    predictor = Predictor(
        network_probabilities(BrightnessChange(), RUNTIME), SIZE, 0.3, smooth=smooth, overlap=16
    )
    scores = predict_pairs(predictor, rows, roots, tmp_path / "out")
    for index, (pair, score) in enumerate(zip(pairs, scores, strict=True)):
        expected = small_probability(pair) > 0.3  # each pixel's answer is its own, whatever the tiles
        if smooth:
            expected = uniform_filter(expected.astype(np.float64), 3, mode="constant") > 0.5
        written = read(tmp_path / "out" / f"p{index}.png")
        np.testing.assert_array_equal(written, np.where(expected, 255, 0))
        assert score.confusion == score.own_size == counts(expected, pair.mask)
        assert score.confusion.pixels == pair.mask.size
        assert score.changed is bool(pair.mask.any())


def test_the_callback_gets_a_tiled_pair_as_it_is(tmp_path: Path) -> None:
    pair = rectangular(0, 90, 70)
    rows, roots = tiled_rows(tmp_path, [pair])
    seen: list[Prediction] = []
    predict_pairs(PREDICTOR, rows, roots, tmp_path / "out", on_pair=lambda _, found: seen.append(found))
    ((arrays, probability, mask, _),) = seen
    np.testing.assert_array_equal(mask > 0, probability > 0.3)
    np.testing.assert_array_equal(arrays.before, pair.before)
    np.testing.assert_array_equal(mask, read(tmp_path / "out" / "p0.png"))


class Brighter(nn.Module):
    """A network that marks only what has become brighter: a pixel's logit is 40 * (mean (after - before) - 0.1)."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return 40 * ((after - before).mean(1, keepdim=True) - 0.1)


@pytest.mark.parametrize("tiled", [False, True])
def test_exchanged_counts_are_those_of_the_network_on_after_and_before(tmp_path: Path, tiled: bool) -> None:
    before = np.full((SIZE, SIZE, 3), 100, np.uint8)
    after, mask = before.copy(), np.zeros((SIZE, SIZE), np.uint8)
    after[:8], after[20:25] = 200, 20  # brighter in 8 rows, darker in 5
    mask[:8] = mask[20:25] = 255
    valid = np.full_like(mask, 255)
    valid[:, :4] = 0
    pictures = Sample.of_pair(before, after, mask)
    if tiled:
        pictures = Sample.of_pair(*(np.concatenate([image, image], 1) for image in pictures.arrays))
        valid = np.concatenate([valid, valid], 1)
    write_png(tmp_path / "pictures" / "valid" / "p0.png", valid)
    (row,), roots = tiled_rows(tmp_path, [pictures])
    row = replace(row, tiled=tiled, valid="workspace:valid/p0.png")
    predictor = Predictor(network_probabilities(Brighter(), RUNTIME), SIZE, 0.5, overlap=8)
    (score,) = predict_pairs(predictor, [row], roots, tmp_path / "out")
    width = int((valid[0] > 0).sum())
    assert score.confusion == Confusion(tp=8 * width, fn=5 * width, tn=51 * width)
    assert score.exchanged == Confusion(tp=5 * width, fn=8 * width, tn=51 * width)
    assert summarise([score])["exchanged_f1"] == pytest.approx(10 / 18)
    assert score.to_row()["exchanged_f1"] == pytest.approx(10 / 18)


def test_a_network_without_direction_scores_the_same_on_exchanged_pairs(tmp_path: Path) -> None:
    for score in predict(tmp_path, [large(draw_pair(seed, SIZE)) for seed in range(3)]):
        assert score.exchanged == score.confusion


def test_what_is_reported_of_tiled_pairs_is_at_their_own_size(tmp_path: Path) -> None:
    pairs = [rectangular(seed, 100, 130) for seed in range(3)]
    rows, roots = tiled_rows(tmp_path, pairs)
    found = measure_pairs(PREDICTOR, rows, roots, tmp_path / "out", shown=2)
    drawn = [at_input_size(pairs[index], SIZE) for index in (0, 2)]
    predicted = [resize_mask(read(tmp_path / "out" / f"p{index}.png"), SIZE) for index in (0, 2)]
    np.testing.assert_array_equal(found.sheet, gallery(list(map(pair_row, drawn, predicted))))
    assert found.tables["per_kind"] == found.tables["per_size"] == []
    oracle = DifferencingOracle()
    for pair in pairs:
        oracle.update(*pair.arrays)
    assert found.metrics["differencing_oracle_f1"] == oracle.best().f1
    scores = predict_pairs(PREDICTOR, rows, roots, tmp_path / "out")
    assert found.scores.to_dict("records") == [score.to_row() for score in scores]
    assert {name: found.metrics[name] for name in summarise(scores)} == summarise(scores)
    assert found.metrics["f1"] == found.metrics["own_size_f1"]
    assert f"F1 {found.metrics['f1']:.3f}" in found.headline


def test_the_report_names_the_kinds_that_no_training_pair_had(tmp_path: Path) -> None:
    rows, roots = write_pairs_to(tmp_path / "pictures", [draw_pair(0, SIZE)])
    found = measure_pairs(PREDICTOR, rows, roots, tmp_path / "out", held_out_kinds=["moved"])
    assert found.metrics["held_out_kinds"] == ["moved"]
    assert (
        found.metrics["by_class"]
        == found.tables["per_class"]
        == scores_by_class(predict_pairs(PREDICTOR, rows, roots, tmp_path / "out")).to_dict("records")
    )
