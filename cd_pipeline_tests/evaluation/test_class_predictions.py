"""What is reported of images with several classes, beside scikit-learn and loops over their pixels."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow
from scipy import ndimage
from sklearn import metrics as sk
from torch import Tensor, nn

from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.palette import VOC_PALETTE, VOID_COLOUR, class_palette, colourise, write_palette_png
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.evaluation import class_predictions
from cd_pipeline.evaluation.class_confusion import ClassConfusion
from cd_pipeline.evaluation.class_predictions import count_classes, measure_classes
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.models.runtime import Runtime
from cd_pipeline_tests.evaluation.test_image_predictions import SIDE, SIZES, write_image

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()
CLASSES, STEP, VOID = 4, 51, 255  # no grey level is as near to one class as to another
NAMES = ("floor", "wall", "문", "window")

Drawn = tuple[np.ndarray, np.ndarray]
"""Image, HWC uint8, and stored mask, HW uint8: indices, 255 = void."""


class Steps(nn.Module):
    """A network whose answer is known: of C classes that whose index is nearest to grey level / 51."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, image: Tensor) -> Tensor:
        level = image.mean(1, keepdim=True) * 255 / STEP
        indices = Tensor(list(range(self.classes))).reshape(1, -1, 1, 1)
        return -((level - indices) ** 2)


def draw(seed: int, height: int, width: int, *, void: float = 0.1) -> Drawn:
    """Draw classes in patches, an image whose levels follow them, and borders and spots of void."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=(height, width)), 4) for _ in range(CLASSES - 1)]
    truth = np.argmax(fields, axis=0)  # the last class is never in the truth
    grey = np.clip(truth * STEP + rng.integers(-100, 101, (height, width)), 0, 255).astype(np.uint8)
    stored = np.where(rng.random((height, width)) < void, VOID, truth).astype(np.uint8)
    return np.dstack([grey] * 3), stored


def predicted(image: np.ndarray, classes: int = CLASSES) -> np.ndarray:
    distance = np.abs(image[..., 0] / STEP - np.arange(classes)[:, None, None])
    return distance.argmin(0)


def write_images(
    root: Path, drawn: Sequence[Drawn], datasets: str = "ab", *, void_as_class: bool = False
) -> tuple[list[LabelledImage], Roots]:
    rows = []
    for index, (image, stored) in enumerate(drawn):
        write_palette_png(root / "masks" / f"i{index}.png", stored, VOC_PALETTE)
        row = write_image(root, f"i{index}", image, datasets[index % len(datasets)])
        rows.append(replace(row, classes=CLASSES, void=VOID, void_as_class=void_as_class))
    return rows, Roots(root, root)


def five() -> list[Drawn]:
    return [draw(seed, *size) for seed, size in enumerate(SIZES)]


def measure(
    root: Path, drawn: Sequence[Drawn], *, void_as_class: bool = False, shown: int = 12
) -> TestReport:
    rows, roots = write_images(root / "pictures", drawn, void_as_class=void_as_class)
    outputs = CLASSES + void_as_class
    return measure_classes(
        Predictor(network_probabilities(Steps(outputs), RUNTIME), SIDE, None, overlap=8),
        rows,
        roots,
        root / "out",
        names=(*NAMES, "void")[:outputs],
        palette=class_palette(CLASSES, void_as_class=void_as_class),
        void_class=CLASSES if void_as_class else None,
        shown=shown,
    )


def pixels(drawn: Sequence[Drawn], classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of all pixels that count, 1-D; void is class 4 where there are five."""
    truths, found = [], []
    for image, stored in drawn:
        truth = np.where(stored == VOID, CLASSES, stored)
        counts = truth < classes
        truths.append(truth[counts])
        found.append(predicted(image, classes)[counts])
    return np.concatenate(truths), np.concatenate(found)


def present(truth: np.ndarray, found: np.ndarray) -> list[int]:
    return sorted({*truth.tolist(), *found.tolist()})


def test_pngs_hold_the_predicted_indices_in_the_colours_of_the_palette(tmp_path: Path) -> None:
    drawn = five()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "i9.png").write_bytes(b"of an earlier run")
    report = measure(tmp_path, drawn)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"i{n}.png" for n in range(5)]
    assert report.scores["file"].tolist() == [f"i{n}.png" for n in range(5)]
    for index, (image, _) in enumerate(drawn):
        written = Pillow.open(tmp_path / "out" / f"i{index}.png")
        assert written.mode == "P"
        expected = predicted(image).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(written), expected)
        np.testing.assert_array_equal(
            np.asarray(written.convert("RGB")), colourise(expected, class_palette(CLASSES))
        )


@pytest.mark.parametrize("void_as_class", [False, True])
def test_figures_are_those_of_scikit_learn_over_all_counted_pixels(
    tmp_path: Path, void_as_class: bool
) -> None:
    drawn = five()
    metrics = measure(tmp_path, drawn, void_as_class=void_as_class).metrics
    truth, found = pixels(drawn, CLASSES + void_as_class)
    labels = present(truth, found)
    assert len(labels) == CLASSES + void_as_class
    assert metrics["images"] == 5
    assert metrics["miou"] == pytest.approx(sk.jaccard_score(truth, found, labels=labels, average="macro"))
    assert metrics["mean_dice"] == pytest.approx(sk.f1_score(truth, found, labels=labels, average="macro"))
    assert metrics["pixel_accuracy"] == pytest.approx(sk.accuracy_score(truth, found))
    everywhere = np.full_like(truth, np.bincount(truth).argmax())
    baseline = sk.jaccard_score(truth, everywhere, labels=present(truth, everywhere), average="macro")
    assert metrics["baseline_miou"] == pytest.approx(baseline)
    assert metrics["baseline_pixel_accuracy"] == pytest.approx((truth == everywhere).mean())
    assert metrics["miou_over_baseline"] == pytest.approx(metrics["miou"] - baseline)


def test_without_void_its_pixels_do_not_count_and_predicting_it_is_a_miss(tmp_path: Path) -> None:
    drawn = five()
    report = measure(tmp_path, drawn, void_as_class=True)
    truth, found = pixels(drawn, CLASSES + 1)
    truth, found = truth[truth < CLASSES], found[truth < CLASSES]
    assert (found == CLASSES).any()
    ious = [
        ((truth == index) & (found == index)).sum() / ((truth == index) | (found == index)).sum()
        for index in range(CLASSES)
    ]
    assert report.metrics["miou_without_void"] == pytest.approx(np.mean(ious))
    assert report.metrics["pixel_accuracy_without_void"] == pytest.approx((truth == found).mean())
    rows = report.metrics["by_class"]
    assert [row["class"] for row in rows] == [*NAMES, "void"]
    np.testing.assert_allclose([row["iou_without_void"] for row in rows[:CLASSES]], ious)
    assert rows[CLASSES]["iou_without_void"] is None
    assert rows[CLASSES]["iou"] is not None
    assert "without void" in report.headline


def test_where_void_is_no_class_the_figures_without_it_are_the_same(tmp_path: Path) -> None:
    report = measure(tmp_path, five())
    assert report.metrics["miou_without_void"] == report.metrics["miou"]
    assert report.metrics["pixel_accuracy_without_void"] == report.metrics["pixel_accuracy"]
    assert "void" not in report.headline


def test_each_class_has_a_row_with_its_own_figures(tmp_path: Path) -> None:
    drawn = five()
    rows = measure(tmp_path, drawn).metrics["by_class"]
    truth, found = pixels(drawn)
    precision, recall, dice, support = sk.precision_recall_fscore_support(
        truth, found, labels=range(CLASSES), zero_division=0
    )
    assert [row["class"] for row in rows] == list(NAMES)
    assert [row["pixels"] for row in rows] == support.tolist()
    np.testing.assert_allclose([row["precision"] for row in rows], precision)
    np.testing.assert_allclose([row["recall"] for row in rows[:-1]], recall[:-1])
    assert rows[-1]["recall"] == 1  # never in the truth, so that none was missed
    np.testing.assert_allclose([row["dice"] for row in rows], dice)
    np.testing.assert_allclose([row["iou"] for row in rows], dice / (2 - dice))


def test_each_image_is_scored_over_the_classes_that_it_has(tmp_path: Path) -> None:
    drawn = five()
    scores = measure(tmp_path, drawn).scores
    for index, one in enumerate(drawn):
        truth, found = pixels([one])
        iou = sk.jaccard_score(truth, found, labels=present(truth, found), average="macro")
        assert scores["miou"][index] == pytest.approx(iou)
        assert scores["pixel_accuracy"][index] == pytest.approx((truth == found).mean())
    assert scores["dataset"].tolist() == list("ababa")


def test_four_pixels_of_each_kind_worked_out_by_hand(tmp_path: Path) -> None:
    stored, grey = np.zeros((16, 16), np.uint8), np.zeros((16, 16), np.uint8)
    stored[:, 8:], grey[:, 12:] = 1, STEP  # 128 px each; half of class 1 found
    stored[:4] = VOID
    report = measure(tmp_path, [(np.dstack([grey] * 3), stored)])
    metrics = report.metrics
    # of 192 px: 96 of class 0, all found; 96 of class 1, 48 found
    assert metrics["pixel_accuracy"] == pytest.approx(0.75)
    assert metrics["miou"] == pytest.approx((96 / 144 + 48 / 96) / 2)
    assert metrics["mean_dice"] == pytest.approx((192 / 240 + 96 / 144) / 2)
    assert (metrics["baseline_miou"], metrics["baseline_pixel_accuracy"]) == (0.25, 0.5)
    assert metrics["by_class"][3] == {"class": "window", "pixels": 0} | dict.fromkeys(
        ("iou", "precision", "recall", "dice")
    )
    assert report.headline == ("test mIoU 0.583 (most frequent class everywhere 0.250), pixel accuracy 0.750")


def test_several_data_sets_are_each_measured_as_if_they_were_alone(tmp_path: Path) -> None:
    drawn = five()
    report = measure(tmp_path, drawn)
    for row, members in zip(report.tables["per_dataset"], (drawn[::2], drawn[1::2]), strict=True):
        alone = measure(tmp_path, members).metrics
        assert row["images"] == len(members)
        for key in ("miou", "pixel_accuracy", "miou_without_void", "mean_dice"):
            assert row[key] == alone[key]
    single = measure(tmp_path, drawn[:1])
    assert list(single.tables) == ["per_class"]
    assert len(single.metrics["by_dataset"]) == 1


def test_an_image_that_is_all_void_has_no_score_and_changes_nothing(tmp_path: Path) -> None:
    image, stored = draw(9, 30, 30)
    drawn = five()
    report, more = measure(tmp_path, drawn), measure(tmp_path, [*drawn, (image, np.full_like(stored, VOID))])
    assert more.scores[["miou", "pixel_accuracy"]].isna().iloc[-1].all()
    assert more.metrics["miou"] == report.metrics["miou"]
    assert json.loads(json.dumps(more.metrics, allow_nan=False)) == more.metrics
    with pytest.raises(ValueError, match="no counted pixel"):
        measure(tmp_path, [(image, np.full_like(stored, VOID))])


def test_where_all_is_void_and_void_is_a_class_there_are_no_figures_without_it(tmp_path: Path) -> None:
    image, stored = draw(9, 30, 30)
    metrics = measure(tmp_path, [(image, np.full_like(stored, VOID))], void_as_class=True).metrics
    assert (metrics["miou_without_void"], metrics["pixel_accuracy_without_void"]) == (None, None)
    assert metrics["baseline_pixel_accuracy"] == 1


def test_counting_a_part_of_the_rows_at_a_time_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    found, truth = rng.integers(0, 5, (2, 37, 13)).astype(np.uint8)
    valid = np.where(rng.random((37, 13)) < 0.7, 255, 0).astype(np.uint8)
    whole = ClassConfusion.of(found, np.where(valid > 0, truth, 99), 5, ignore=99)
    for at_once in (1, 13, 60, 10_000):
        monkeypatch.setattr(class_predictions, "_PIXELS_AT_ONCE", at_once)
        parts = count_classes(found, Sample((), truth, valid), 5)
        np.testing.assert_array_equal(parts.counts, whole.counts)
        uncut = count_classes(found, Sample((), truth), 5)
        np.testing.assert_array_equal(uncut.counts, sk.confusion_matrix(truth.ravel(), found.ravel()))


def colours(sheet: np.ndarray) -> set[tuple[int, ...]]:
    codes = np.unique(sheet.astype(int) @ (1 << 16, 1 << 8, 1))
    return {(code >> 16, code >> 8 & 255, code & 255) for code in codes.tolist()}


def test_the_gallery_shows_truth_and_prediction_in_the_colours_of_the_classes(tmp_path: Path) -> None:
    sheet = measure(tmp_path, five(), shown=2).sheet
    palette = {tuple(colour) for colour in class_palette(CLASSES).tolist()}
    assert palette | {VOID_COLOUR} <= colours(sheet)
    assert VOID_COLOUR not in colours(measure(tmp_path, [draw(0, 30, 30, void=0)]).sheet)
    assert measure(tmp_path, five(), shown=5).sheet.shape[0] > 2 * sheet.shape[0]


def test_metrics_are_plain_and_scores_can_be_stored(tmp_path: Path) -> None:
    for void_as_class in (False, True):
        report = measure(tmp_path, five(), void_as_class=void_as_class)
        assert json.loads(json.dumps(report.metrics, allow_nan=False)) == report.metrics
        assert set(report.shown_columns) <= set(report.scores.columns)
        report.scores.to_parquet(tmp_path / "scores.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), report.scores)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    rows, roots = write_images(tmp_path / "pictures", five()[:1])
    predictor = Predictor(network_probabilities(Steps(), RUNTIME), SIDE, None)
    out, palette = tmp_path / "out", class_palette(CLASSES)
    with pytest.raises(ValueError, match="at least one image"):
        measure_classes(predictor, [], roots, out, names=NAMES, palette=palette)
    with pytest.raises(ValueError, match="without a threshold"):
        measure_classes(replace(predictor, threshold=0.5), rows, roots, out, names=NAMES, palette=palette)
    with pytest.raises(ValueError, match=r"classes in \[0, 3\)"):
        measure_classes(predictor, rows, roots, out, names=NAMES[:3], palette=palette)
