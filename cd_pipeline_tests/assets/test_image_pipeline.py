"""The recipes of single images, real assets through Dagster on tiny drawn pictures."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import dagster as dg
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture
from sklearn.metrics import confusion_matrix

from cd_pipeline.assets.cross_datasets import usable_data_sets
from cd_pipeline.data.image_manifest import read_labelled_images, read_masked_images
from cd_pipeline.data.images import write_png
from cd_pipeline.data.palette import VOC_PALETTE, write_palette_png
from cd_pipeline.export.coreml import read_package_metadata
from cd_pipeline.recipe import Recipe
from cd_pipeline.training.loop import train_epoch
from cd_pipeline_tests.assets.tiny import checks, failure, metadata, run, versions

SIDE = 64
MASK_ASSETS = (
    *("raw_images", "split", "image_manifest", "checkpoint", "threshold"),
    *("test_predictions", "report", "mlpackage", "release", "cross_datasets"),
)
CLASSES = ("ground", "disc", "square")
NETWORK = {"name": "unet", "widths": [8, 16, 32], "align_corners": False}

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def draw_lines(root: Path, dataset: str, count: int, grey: int) -> None:
    """Dark lines on noise, one an image; the mask is the line."""
    for number in range(count):
        rng = np.random.default_rng([grey, number])
        image = rng.normal(grey, 8, (80, 96, 3))
        mask = np.zeros((80, 96), np.uint8)
        ends = rng.integers(0, 80, (2, 2))
        cv2.line(mask, ends[0].tolist(), ends[1].tolist(), 255, 5)
        image[mask > 0] -= 70
        folder = root / dataset
        write_png(folder / "images" / f"wall_{number}.png", np.clip(image, 0, 255).astype(np.uint8))
        write_png(folder / "masks" / f"wall_{number}.png", mask)


def draw_shapes(root: Path, count: int = 24) -> Path:
    """A VOC tree without lists: a red disc or a blue square on green, with void around it."""
    for number in range(count):
        rng = np.random.default_rng(number)
        image = np.full((SIDE, SIDE, 3), (90, 140, 90), np.uint8)
        indices = np.zeros((SIDE, SIDE), np.uint8)
        x, y = (int(v) for v in rng.integers(20, 44, 2))
        for extra, index, colour in (
            (2, 255, (90, 140, 90)),
            (0, 1 + number % 2, ((200, 40, 40), (40, 40, 200))[number % 2]),
        ):
            for canvas, value in ((indices, index), (image, colour)):
                if number % 2:
                    cv2.rectangle(
                        canvas, (x - 12 - extra, y - 12 - extra), (x + 12 + extra, y + 12 + extra), value, -1
                    )
                else:
                    cv2.circle(canvas, (x, y), 14 + extra, value, -1)
        noisy = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        write_png(root / "JPEGImages" / f"s{number}.png", noisy)
        write_palette_png(root / "SegmentationClass" / f"s{number}.png", indices, VOC_PALETTE)
    return root


def mask_recipe(folder: Path, **changes: object) -> Recipe:
    settings: dict[str, object] = {
        "source": {"layout": "masked_images", "folder": str(folder)},
        "split": {"test_share": 0.25, "train_share": 0.7, "exact": True},
        "input": {"size": SIDE, "fit": "tile", "scaling": "min_max"},
        "augmentation": {"epoch_pairs": 16, "max_dominant_share": 1.0, "positive_crops": 0.5},
        "model": NETWORK,
        "training": {
            "preset": "cracks",
            "epochs": 10,
            "batch_size": 4,
            "optimizer": "adamw",
            "schedule": "step",
        },
        "threshold": {"pairs": "own", "tolerance": 0, "low": 0.02, "high": 0.98, "steps": 97},
        "prediction": {"min_area": 10},
        "export": {"precision": "float32"},
    }
    return Recipe(name="walls", **{**settings, **changes})  # type: ignore[arg-type]


def voc_recipe(folder: Path, **changes: object) -> Recipe:
    settings: dict[str, object] = {
        "source": {"layout": "voc", "folder": str(folder), "classes": 3, "class_names": CLASSES},
        "split": {"exact": True},
        "input": {"size": SIDE, "scaling": "mean_std"},
        "model": NETWORK,
        "training": {
            "preset": "voc",
            "epochs": 12,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "loss": "ce_dice",
            "class_weights": "inverse",
            "tensorboard": True,
        },
        "export": {"precision": "float32"},
    }
    return Recipe(name="shapes", **{**settings, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Run:
    """One whole run."""

    source: Path
    folder: Path
    result: dg.ExecuteInProcessResult

    def metrics(self) -> dict[str, float]:
        return json.loads((self.folder / "test_predictions" / "metrics.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Run:
    source = tmp_path_factory.mktemp("walls")
    draw_lines(source, "old", 12, grey=120)
    draw_lines(source, "new", 12, grey=170)
    (source / "old" / "images" / "broken.png").write_bytes(b"no picture")
    shutil.copy(source / "old" / "masks" / "wall_0.png", source / "old" / "masks" / "broken.png")
    workspace = tmp_path_factory.mktemp("data")
    return Run(source, workspace / "walls", run(mask_recipe(source), workspace, workers=0))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    source = draw_shapes(tmp_path_factory.mktemp("shapes"))
    workspace = tmp_path_factory.mktemp("data")
    return Run(source, workspace / "shapes", run(voc_recipe(source), workspace, workers=0))


def test_images_and_masks_become_a_package_and_every_check_passes(walls: Run) -> None:
    assert walls.result.success
    assert set(versions(walls.result)) == set(MASK_ASSETS)
    assert all(checks(walls.result).values()), checks(walls.result)
    told = read_package_metadata(walls.folder / "mlpackage" / "segmenter.mlpackage")
    assert told["recipe"] == "walls"
    assert float(told["threshold"]) == walls.metrics()["threshold"]


def test_a_broken_image_is_left_out_with_its_reason(walls: Run) -> None:
    found = read_masked_images(walls.folder / "raw_images" / "images.parquet")
    (left_out,) = [image for image in found if image.reason]
    assert left_out.name == "broken"
    assert "cannot be decoded" in str(left_out.reason)
    assert metadata(walls.result, "raw_images")["quarantined"] == 1


def test_an_exact_split_has_the_shares_it_was_asked_for_in_every_data_set(walls: Run) -> None:
    images = [
        image for image in read_masked_images(walls.folder / "split" / "split.parquet") if not image.reason
    ]
    for dataset in ("old", "new"):
        splits = [image.split for image in images if image.dataset == dataset]
        assert [splits.count(split) for split in ("train", "val", "test")] == [6, 3, 3]


def test_masks_are_scored_at_the_own_size_of_the_images(walls: Run) -> None:
    metrics, tp, fp, fn = walls.metrics(), 0, 0, 0
    for image in read_labelled_images(walls.folder / "image_manifest" / "images.parquet", "test"):
        mask = cv2.imread(
            str(walls.folder / "test_predictions" / f"{image.image_id}.png"), cv2.IMREAD_UNCHANGED
        )
        truth = cv2.imread(str(walls.source / image.mask.removeprefix("source:")), 0)
        assert mask is not None
        assert truth is not None
        assert mask.shape == truth.shape == (80, 96)
        tp += int(((mask > 0) & (truth > 0)).sum())
        fp += int(((mask > 0) & (truth == 0)).sum())
        fn += int(((mask == 0) & (truth > 0)).sum())
    assert metrics["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert metrics["f1"] > 0.6
    assert metrics["ods"] <= metrics["ois"]


def test_a_network_of_each_data_set_is_tested_on_all_of_them(walls: Run) -> None:
    table = pd.read_parquet(walls.folder / "cross_datasets" / "table.parquet")
    tested = list(table[["trained_on", "tested_on"]].itertuples(index=False, name=None))
    assert tested == [
        (trained, other) for trained in ("new", "old", "all of them") for other in ("new", "old")
    ]
    both = table[table["trained_on"] == "all of them"]
    assert sum(both["images"]) == walls.metrics()["images"]


@pytest.mark.slow
def test_a_comparison_that_was_stopped_does_not_train_again_what_it_had(
    walls: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(walls.folder, tmp_path / "walls")
    own = tmp_path / "walls" / "cross_datasets"
    (own / "table.parquet").unlink()

    def stop(*arguments: object) -> None:
        raise ValueError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr("cd_pipeline.assets.cross_datasets.image_report", stop)
        recipe = mask_recipe(walls.source)
        assert not run(recipe, tmp_path, select=["cross_datasets"], raise_on_error=False, workers=0).success
    assert [path.name for path in (own / ".unfinished").iterdir()] == ["new.pt"]
    epochs = []

    def counted(*arguments: object, **options: object) -> float:
        epochs.append(options["first_step"])
        return train_epoch(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("cd_pipeline.training.loop.train_epoch", counted)
    result = run(recipe, tmp_path, select=["cross_datasets"], workers=0)
    assert len(epochs) == recipe.training.epochs  # of the other data set
    assert versions(result)["cross_datasets"] == versions(walls.result)["cross_datasets"]
    assert not (own / ".unfinished").exists()


def test_the_same_images_give_the_same_bytes_whatever_the_order_of_the_files(
    walls: Run, tmp_path: Path
) -> None:
    copies = tmp_path / "walls"
    for path in sorted(walls.source.rglob("*.png"), reverse=True):
        target = copies / path.relative_to(walls.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    early = ["raw_images", "split", "image_manifest"]
    again = versions(run(mask_recipe(copies), tmp_path / "data", select=early))
    assert again == {name: versions(walls.result)[name] for name in early}


@pytest.mark.parametrize(
    ("changes", "asset", "stale"),
    [
        ({"split": {"test_share": 0.4, "train_share": 0.7, "exact": True}}, "image_manifest", "split"),
        ({"split": {"test_share": 0.4, "train_share": 0.7, "exact": True}}, "checkpoint", "image_manifest"),
        ({"threshold": {"pairs": "own", "fixed": 0.5}}, "test_predictions", "threshold"),
        ({"prediction": {"min_area": 50}}, "mlpackage", "test_predictions"),
        ({"model": {**NETWORK, "norm": "group"}}, "threshold", "checkpoint"),
    ],
)
def test_what_was_made_with_other_settings_is_not_used(
    changes: dict[str, object], asset: str, stale: str, walls: Run, tmp_path: Path
) -> None:
    shutil.copytree(walls.folder, tmp_path / "walls")
    result = run(mask_recipe(walls.source, **changes), tmp_path, select=[asset], raise_on_error=False)
    assert f"{tmp_path / 'walls' / stale} was made for another recipe" in failure(result, asset)


def test_a_data_set_without_every_split_is_left_out_of_the_comparison_by_name(
    walls: Run, caplog: pytest.LogCaptureFixture
) -> None:
    images = read_labelled_images(walls.folder / "image_manifest" / "images.parquet")
    kept = [image for image in images if (image.dataset, image.split) != ("old", "test")]
    with caplog.at_level("WARNING"):
        assert usable_data_sets(logging.getLogger(), kept) == ["new"]  # type: ignore[arg-type]
    assert "old is left out: it has no test" in caplog.text


def test_a_voc_tree_becomes_colour_predictions_and_a_package_of_its_classes(shapes: Run) -> None:
    assert shapes.result.success
    assert "threshold" not in versions(shapes.result)
    assert "cross_datasets" not in versions(shapes.result)  # one data set
    assert all(checks(shapes.result).values()), checks(shapes.result)
    told = read_package_metadata(shapes.folder / "mlpackage" / "segmenter.mlpackage")
    assert told["class_names"] == ", ".join(CLASSES)
    for image in read_labelled_images(shapes.folder / "image_manifest" / "images.parquet", "test"):
        with Picture.open(shapes.folder / "test_predictions" / f"{image.image_id}.png") as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[:9] == VOC_PALETTE[:3].ravel().tolist()  # type: ignore[index]


def test_iou_of_each_class_is_that_of_all_pixels_without_void(shapes: Run) -> None:
    metrics, total = shapes.metrics(), np.zeros((3, 3), int)
    for image in read_labelled_images(shapes.folder / "image_manifest" / "images.parquet", "test"):
        found = np.asarray(Picture.open(shapes.folder / "test_predictions" / f"{image.image_id}.png"))
        truth = np.asarray(Picture.open(shapes.source / image.mask.removeprefix("source:")))
        counted = truth != 255
        total += confusion_matrix(truth[counted], found[counted], labels=[0, 1, 2])
    ious = np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total))
    assert metrics["miou"] == pytest.approx(ious.mean())
    assert metrics["miou"] > 2 * metrics["baseline_miou"]
    assert metrics["pixel_accuracy"] == pytest.approx(np.diag(total).sum() / total.sum())


def test_scalars_for_tensorboard_lie_beside_the_history(shapes: Run) -> None:
    assert len(list((shapes.folder / "checkpoint" / "tensorboard").glob("events.*"))) == 1
    history = pd.read_parquet(shapes.folder / "checkpoint" / "history.parquet")
    assert {"train_pixel_accuracy", "val_pixel_accuracy", "train_iou", "val_iou"} <= set(history.columns)


@pytest.mark.slow
def test_void_can_be_learnt_as_a_class_of_its_own(shapes: Run, tmp_path: Path) -> None:
    source = {"layout": "voc", "folder": str(shapes.source), "classes": 3, "void_as_class": True}
    training = {"preset": "voc", "epochs": 8, "batch_size": 4, "learning_rate": 1e-2, "loss": "ce_dice"}
    early = ["raw_images", "split", "image_manifest", "checkpoint", "test_predictions"]
    result = run(
        voc_recipe(shapes.source, source=source, training=training), tmp_path, select=early, workers=0
    )
    assert result.success
    metrics = json.loads((tmp_path / "shapes" / "test_predictions" / "metrics.json").read_text())
    assert [row["class"] for row in metrics["by_class"]] == ["class_0", "class_1", "class_2", "void"]
    assert metrics["pixel_accuracy"] != metrics["pixel_accuracy_without_void"]
