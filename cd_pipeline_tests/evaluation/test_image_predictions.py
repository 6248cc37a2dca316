"""What is reported of images with a binary mask, beside loops over their pixels."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from cd_pipeline.data.files import file_digest
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import write_png
from cd_pipeline.data.samples import Roots
from cd_pipeline.evaluation.image_predictions import measure_images
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.models.runtime import Runtime

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()
SIDE = 32
SIZES = [(40, 52), (32, 32), (18, 70), (61, 20), (24, 16)]
"""Height and width: larger than a tile, as large, and smaller along one axis or both."""

Drawn = tuple[np.ndarray, np.ndarray]
"""Image, HWC uint8, and mask, HW uint8 0 or 255."""


class Brightness(nn.Module):
    """A network whose answer is known: a pixel's logit is 10 * (its mean - 0.5)."""

    def forward(self, image: Tensor) -> Tensor:
        return 10 * (image.mean(1, keepdim=True) - 0.5)


def draw(seed: int, height: int, width: int, *, marked: bool = True) -> Drawn:
    """Draw a grey image whose bright parts are roughly the marked ones."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), 3)
    mask = (field > 0.6 * field.max()) & marked
    grey = np.clip(np.where(mask, 165, 100) + rng.normal(0, 35, (height, width)), 0, 255).astype(np.uint8)
    return np.dstack([grey] * 3), np.where(mask, 255, 0).astype(np.uint8)


def write_image(root: Path, name: str, image: np.ndarray, dataset: str = "here") -> LabelledImage:
    """Write an image, and return its row; its mask must already be there."""
    write_png(root / "images" / f"{name}.png", image)
    return LabelledImage(
        image_id=name,
        split="test",
        dataset=dataset,
        image=f"source:images/{name}.png",
        mask=f"source:masks/{name}.png",
        image_sha256=file_digest(root / "images" / f"{name}.png"),
        mask_sha256=file_digest(root / "masks" / f"{name}.png"),
        classes=1,
        void=None,
        void_as_class=False,
        crop=None,
        tiled=True,
        clahe=None,
        width=image.shape[1],
        height=image.shape[0],
        seed=3,
    )


def write_images(
    root: Path, drawn: Sequence[Drawn], datasets: str = "ab"
) -> tuple[list[LabelledImage], Roots]:
    """Write images named i0, i1, … of data sets in turn, and return their rows and roots."""
    rows = []
    for index, (image, mask) in enumerate(drawn):
        write_png(root / "masks" / f"i{index}.png", mask)
        rows.append(write_image(root, f"i{index}", image, datasets[index % len(datasets)]))
    return rows, Roots(root, root)


def five() -> list[Drawn]:
    return [draw(seed, *size, marked=seed != 3) for seed, size in enumerate(SIZES)]


def predictor(threshold: float = 0.6, **cleaning: int) -> Predictor:
    return Predictor(network_probabilities(Brightness(), RUNTIME), SIDE, threshold, overlap=8, **cleaning)


def probability(image: np.ndarray) -> np.ndarray:
    """What `Brightness` answers, in float64."""
    answer: np.ndarray = 1 / (1 + np.exp(-10 * (image[..., 0] / 255 - 0.5)))
    return answer


def measure(root: Path, drawn: Sequence[Drawn], threshold: float = 0.6, **cleaning: int) -> TestReport:
    rows, roots = write_images(root / "pictures", drawn)
    return measure_images(predictor(threshold, **cleaning), rows, roots, root / "out")


def counted(found: np.ndarray, truth: np.ndarray) -> tuple[int, int, int, int]:
    tn, fp, fn, tp = (
        int(n) for n in confusion_matrix(truth.ravel() > 0, found.ravel() > 0, labels=[False, True]).ravel()
    )
    return tp, fp, fn, tn


def plain(tp: int, fp: int, fn: int, tn: int = 0) -> tuple[float, float, float, float]:
    """Precision, recall, F1 and IoU in plain words."""
    precision = tp / (tp + fp) if tp + fp else float(fn == 0)
    recall = tp / (tp + fn) if tp + fn else 1.0
    nothing = tp + fp + fn == 0
    return (
        precision,
        recall,
        1.0 if nothing else 2 * tp / (2 * tp + fp + fn),
        1.0 if nothing else tp / (tp + fp + fn),
    )


NAMES = ("precision", "recall", "f1", "iou")


def test_pngs_are_the_masks_at_the_size_of_each_image_and_leftovers_are_deleted(tmp_path: Path) -> None:
    drawn = five()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "i9.png").write_bytes(b"of an earlier run")
    report = measure(tmp_path, drawn)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"i{n}.png" for n in range(5)]
    assert report.scores["file"].tolist() == [f"i{n}.png" for n in range(5)]
    for index, (image, _) in enumerate(drawn):
        written = np.asarray(Pillow.open(tmp_path / "out" / f"i{index}.png"))
        np.testing.assert_array_equal(written, np.where(probability(image) > 0.6, 255, 0))


def test_figures_at_the_threshold_are_those_of_a_plain_count(tmp_path: Path) -> None:
    drawn = five()
    report = measure(tmp_path, drawn)
    each = [counted(probability(image) > 0.6, mask) for image, mask in drawn]
    for key, value in zip(NAMES, plain(*np.sum(each, axis=0)), strict=True):
        assert report.metrics[key] == pytest.approx(value)
    for column, key in enumerate(NAMES):
        values = [plain(*counts)[column] for counts in each]
        assert report.metrics[f"mean_image_{key}"] == pytest.approx(np.mean(values))
        np.testing.assert_allclose(report.scores[key], values)
    np.testing.assert_array_equal(report.scores[["tp", "fp", "fn", "tn"]], each)
    assert report.metrics["images"] == 5
    positives, pixels = sum((mask > 0).sum() for _, mask in drawn), sum(mask.size for _, mask in drawn)
    assert report.metrics["everything_marked_f1"] == pytest.approx(2 * positives / (pixels + positives))


def test_ods_and_ois_are_those_of_a_loop_with_the_published_formula(tmp_path: Path) -> None:
    drawn = [draw(seed, *size) for seed, size in enumerate(SIZES)]  # the formula is not for empty masks
    report = measure(tmp_path, drawn)
    table = np.zeros((len(drawn), 101, 3))
    pooled = np.zeros((101, 4), int)
    for index, (image, mask) in enumerate(drawn):
        for step in range(101):
            found, truth = probability(image) > step / 100, mask > 0
            tp, fp, fn, tn = ((found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum(), 0)
            precision, recall = tp / (tp + fp + 1e-7), tp / (tp + fn + 1e-7)
            table[index, step] = precision, recall, 2 * precision * recall / (precision + recall + 1e-7)
            pooled[step] += tp, fp, fn, tn
    means = table.mean(0)
    metrics = report.metrics
    assert metrics["ods"] == pytest.approx(means[10:, 2].max(), abs=1e-6)
    at = round(metrics["ods_threshold"] * 100)
    assert means[at, 2] == pytest.approx(metrics["ods"], abs=1e-6)
    assert metrics["ods_precision"] == pytest.approx(means[at, 0], abs=1e-6)
    assert metrics["ods_recall"] == pytest.approx(means[at, 1], abs=1e-6)
    assert metrics["ois"] == pytest.approx(table[..., 2].max(1).mean(), abs=1e-6)
    np.testing.assert_allclose(report.scores["best_f1"], table[..., 2].max(1), atol=1e-6)
    best = [plain(*counts)[2] for counts in pooled]
    assert metrics["best_f1"] == pytest.approx(max(best))
    assert best[round(metrics["best_f1_threshold"] * 100)] == pytest.approx(max(best))


def edge_points(mask: np.ndarray) -> np.ndarray:
    around = np.pad(mask > 0, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.argwhere((mask > 0) & ~inner)


def test_hausdorff_distances_are_those_of_all_pairs_of_boundary_pixels(tmp_path: Path) -> None:
    drawn = five()
    report = measure(tmp_path, drawn)
    expected = []
    for image, mask in drawn:
        found, wanted = edge_points((probability(image) > 0.6) * 255), edge_points(mask)
        if len(found) and len(wanted):
            apart = cdist(found, wanted)
            expected.append(max(apart.min(0).max(), apart.min(1).max()))
        else:
            expected.append(math.nan)
    np.testing.assert_allclose(report.scores["hausdorff"], expected, rtol=1e-5)
    assert report.metrics["hausdorff"] == pytest.approx(np.nanmean(expected), rel=1e-5)
    assert report.metrics["hausdorff_unmeasured"] == np.isnan(expected).sum() == 1
    assert 0 < report.metrics["hausdorff_95"] < report.metrics["hausdorff"]


def test_where_no_image_can_be_measured_there_is_no_distance(tmp_path: Path) -> None:
    report = measure(tmp_path, [draw(1, 30, 30, marked=False)])
    assert (report.metrics["hausdorff"], report.metrics["hausdorff_95"]) == (None, None)
    assert report.metrics["hausdorff_unmeasured"] == 1
    assert report.scores["hausdorff"].isna().all()
    assert report.metrics["everything_marked_f1"] == 0


def test_a_small_image_worked_out_by_hand(tmp_path: Path) -> None:
    grey, mask = np.full((16, 16), 51), np.zeros((16, 16), np.uint8)
    mask[4, 2:12] = 255
    grey[4, 2:8] = 204  # 6 of 10 found
    grey[7, 2:5] = 204  # 3 false alarms, 3 px away
    image = np.dstack([grey] * 3).astype(np.uint8)
    report = measure(tmp_path, [(image, mask)], threshold=0.5)
    metrics = report.metrics
    assert (metrics["precision"], metrics["recall"]) == (pytest.approx(6 / 9), pytest.approx(6 / 10))
    assert (metrics["f1"], metrics["iou"]) == (pytest.approx(12 / 19), pytest.approx(6 / 13))
    assert metrics["hausdorff"] == pytest.approx(4)  # from (4, 11) to (4, 7)
    # sigmoid(-3) is 0.047 and sigmoid(3) is 0.953: all thresholds of 0.05 to 0.95 mark the same pixels
    assert (metrics["ods"], metrics["ois"]) == (pytest.approx(12 / 19), pytest.approx(12 / 19))
    assert metrics["ods_threshold"] == pytest.approx(0.52)  # the middle of 0.10 to 0.95
    assert metrics["best_f1_threshold"] == pytest.approx(0.50)  # the middle of 0.05 to 0.95
    assert report.headline == "test F1 0.632, ODS 0.632, OIS 0.632"


def test_cleaning_changes_the_masks_and_leaves_ods_and_ois_alone(tmp_path: Path) -> None:
    raw, cleaned = (
        measure(tmp_path, five(), **settings) for settings in ({}, {"opening": 3, "min_area": 12})
    )
    keys = ("ods", "ods_threshold", "ods_precision", "ods_recall", "ois", "best_f1", "best_f1_threshold")
    assert [raw.metrics[key] for key in keys] == [cleaned.metrics[key] for key in keys]
    assert cleaned.metrics["precision"] > raw.metrics["precision"]
    assert cleaned.scores["fp"].sum() < raw.scores["fp"].sum()


def test_a_data_set_is_measured_as_if_it_were_alone(tmp_path: Path) -> None:
    rows, roots = write_images(tmp_path / "pictures", five(), "ba")
    whole = measure_images(predictor(), rows, roots, tmp_path / "out")
    assert [row["dataset"] for row in whole.metrics["by_dataset"]] == ["a", "b"]
    for row in whole.metrics["by_dataset"]:
        members = [example for example in rows if example.dataset == row["dataset"]]
        alone = measure_images(predictor(), members, roots, tmp_path / "out").metrics
        figures = {key: value for key, value in row.items() if key != "dataset"}
        assert figures == pytest.approx({key: alone[key] for key in alone if key != "by_dataset"})
    assert [row["dataset"] for row in whole.tables["per_dataset"]] == ["a", "b"]
    assert sum(row["images"] for row in whole.tables["per_dataset"]) == 5


def test_an_image_that_is_not_tiled_is_predicted_at_the_input_size_and_enlarged(tmp_path: Path) -> None:
    small = np.full((SIDE, SIDE), 60, np.uint8)
    small[8:20, 10:26] = 200
    image = np.dstack([small.repeat(3, 0).repeat(2, 1)] * 3)
    mask = np.where(image[..., 0] > 100, 255, 0).astype(np.uint8)
    rows, roots = write_images(tmp_path / "pictures", [(image, mask)])
    report = measure_images(predictor(0.5), [replace(rows[0], tiled=False)], roots, tmp_path / "out")
    written = np.asarray(Pillow.open(tmp_path / "out" / "i0.png"))
    assert written.shape == (96, 64)
    near = ndimage.binary_dilation(mask > 0, iterations=3) & ~ndimage.binary_erosion(mask > 0, iterations=3)
    np.testing.assert_array_equal(written[~near], mask[~near])  # only its border is blurred
    assert report.metrics["f1"] > 0.97


def test_metrics_are_plain_and_their_names_do_not_depend_on_the_set(tmp_path: Path) -> None:
    some, none = measure(tmp_path, five()), measure(tmp_path, [draw(1, 30, 30, marked=False)])
    assert list(some.metrics) == list(none.metrics)
    for report in (some, none):
        assert json.loads(json.dumps(report.metrics, allow_nan=False)) == report.metrics
        assert set(report.shown_columns) <= set(report.scores.columns)
        report.scores.to_parquet(tmp_path / "scores.parquet")
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), report.scores)


def test_the_gallery_shows_some_images_evenly_spread(tmp_path: Path) -> None:
    rows, roots = write_images(tmp_path / "pictures", [draw(seed, 30, 40) for seed in range(6)])
    one, two, six = (
        measure_images(predictor(), rows, roots, tmp_path / "out", shown=shown).sheet for shown in (1, 2, 12)
    )
    assert one.shape[1] < two.shape[1] == six.shape[1]
    assert one.shape[0] == two.shape[0] < six.shape[0] < 3 * two.shape[0]
    assert {sheet.dtype for sheet in (one, two, six)} == {np.dtype(np.uint8)}


def test_without_images_or_threshold_nothing_is_measured(tmp_path: Path) -> None:
    rows, roots = write_images(tmp_path / "pictures", [draw(1, 30, 30)])
    with pytest.raises(ValueError, match="at least one image"):
        measure_images(predictor(), [], roots, tmp_path / "out")
    with pytest.raises(ValueError, match="with a threshold"):
        measure_images(replace(predictor(), threshold=None), rows, roots, tmp_path / "out")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    rows, roots = write_images(tmp_path / "pictures", [draw(1, 30, 30)])
    (tmp_path / "pictures" / "images" / "i0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"i0\.png"):
        measure_images(predictor(), rows, roots, tmp_path / "out")
