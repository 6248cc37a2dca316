"""The recipe of two-date folders, real assets through Dagster on tiny drawn tiles."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import dagster as dg
import numpy as np
import pandas as pd
import pytest

from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import read_pairs, read_two_date
from cd_pipeline.export.coreml import read_package_metadata
from cd_pipeline.recipe import Recipe
from cd_pipeline.synthesis.sample_tiles import draw_tile
from cd_pipeline_tests.assets.tiny import checks, failure, metadata, run, versions

ASSETS = (
    "raw_pairs",
    "pair_manifest",
    "checkpoint",
    "threshold",
    "test_predictions",
    "report",
    "mlpackage",
    "release",
)
COUNTS = {"train": 4, "val": 2, "test": 2}
SIDE = 128

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_torch_thread")]


def draw_tiles(root: Path, side: int = SIDE) -> Path:
    """Draw tiny tiles in the LEVIR-CD layout."""
    for part, (split, count) in enumerate(COUNTS.items()):
        for number in range(count):
            pictures = draw_tile(100 * part + number, side)
            for folder, image in zip(("A", "B", "label"), pictures, strict=True):
                write_png(root / split / folder / f"tile_{number}.png", image)
    return root


def two_date_recipe(folder: Path | None, **changes: object) -> Recipe:
    settings: dict[str, object] = {
        "source": {"layout": "two_date", "folder": folder and str(folder)},
        "input": {"size": 64, "fit": "tile"},
        "augmentation": {},
        "model": {"name": "tiny_siamese_unet", "pretrained": False},
        "training": {"preset": "two_date", "epochs": 8, "batch_size": 4},
        "threshold": {"pairs": "own", "tolerance": 0, "low": 0.02, "high": 0.98, "steps": 97},
        "export": {"precision": "float32"},
    }
    return Recipe(name="levir", **{**settings, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Run:
    """One whole run."""

    tiles: Path
    folder: Path
    result: dg.ExecuteInProcessResult

    def metrics(self) -> dict[str, object]:
        return json.loads((self.folder / "test_predictions" / "metrics.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    tiles = draw_tiles(tmp_path_factory.mktemp("tiles"))
    shutil.copy(tiles / "train" / "A" / "tile_0.png", tiles / "train" / "A" / "lonely.png")
    workspace = tmp_path_factory.mktemp("data")
    return Run(tiles, workspace / "levir", run(two_date_recipe(tiles), workspace, workers=0))


def test_a_folder_of_pairs_becomes_a_package_and_every_check_passes(whole: Run) -> None:
    assert whole.result.success
    assert set(versions(whole.result)) == set(ASSETS)
    assert all(checks(whole.result).values()), checks(whole.result)
    assert (
        read_package_metadata(whole.folder / "mlpackage" / "change_detector.mlpackage")["recipe"] == "levir"
    )


def test_training_and_val_pairs_are_tiles_and_test_pairs_are_whole(whole: Run) -> None:
    pairs = read_pairs(whole.folder / "pair_manifest" / "pairs.parquet")
    tiles = (SIDE // 64) ** 2
    assert [sum(pair.split == split for pair in pairs) for split in COUNTS] == [4 * tiles, 2 * tiles, 2]
    assert all((pair.crop is None) == (pair.split == "test") for pair in pairs)
    assert all(pair.before.startswith("source:") and pair.tiled for pair in pairs)


def test_predictions_have_the_size_of_the_pictures(whole: Run) -> None:
    pairs = read_pairs(whole.folder / "pair_manifest" / "pairs.parquet", "test")
    for pair in pairs:
        path = whole.folder / "test_predictions" / f"{pair.pair_id}.png"
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.shape == (SIDE, SIDE)
        assert set(np.unique(mask)) <= {0, 255}


def test_metrics_are_pooled_over_the_whole_pictures(whole: Run) -> None:
    metrics, tp, fp, fn = whole.metrics(), 0, 0, 0
    for pair in read_pairs(whole.folder / "pair_manifest" / "pairs.parquet", "test"):
        mask = cv2.imread(str(whole.folder / "test_predictions" / f"{pair.pair_id}.png"), 0)
        truth = cv2.imread(str(whole.tiles / str(pair.mask).removeprefix("source:")), 0)
        assert mask is not None
        assert truth is not None
        tp += int(((mask > 0) & (truth > 0)).sum())
        fp += int(((mask > 0) & (truth == 0)).sum())
        fn += int(((mask == 0) & (truth > 0)).sum())
    assert metrics["precision"] == pytest.approx(tp / (tp + fp))
    assert metrics["recall"] == pytest.approx(tp / (tp + fn))
    assert metrics["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert metrics["exchanged_f1"] == pytest.approx(metrics["f1"], abs=1e-3)  # this network is symmetric


def test_a_file_without_its_partners_is_named_and_stops_nothing(whole: Run) -> None:
    found = read_two_date(whole.folder / "raw_pairs" / "pairs.parquet")
    (left_out,) = [pair for pair in found if pair.reason]
    assert (left_out.split, left_out.name, left_out.reason) == ("train", "lonely", "not in B, label")
    assert metadata(whole.result, "raw_pairs")["quarantined"] == 1


def test_the_same_pairs_copied_in_another_order_give_the_same_manifest(whole: Run, tmp_path: Path) -> None:
    copies = tmp_path / "tiles"
    for path in sorted(whole.tiles.rglob("*.png"), reverse=True):
        target = copies / path.relative_to(whole.tiles)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    again = run(two_date_recipe(copies), tmp_path / "data", select=["raw_pairs", "pair_manifest"])
    first = versions(whole.result)
    assert versions(again) == {name: first[name] for name in ("raw_pairs", "pair_manifest")}


def test_a_picture_that_changed_after_the_manifest_is_not_used(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "levir")
    tiles = shutil.copytree(whole.tiles, tmp_path / "tiles")
    path = tiles / "test" / "B" / "tile_0.png"
    write_png(path, np.zeros((SIDE, SIDE, 3), np.uint8))
    result = run(two_date_recipe(tiles), tmp_path, select=["test_predictions"], raise_on_error=False)
    assert f"{path}: the file has changed" in failure(result, "test_predictions")


def test_a_label_without_any_change_in_training_stops_before_it(tmp_path: Path) -> None:
    tiles = draw_tiles(tmp_path / "tiles", 64)
    for path in (tiles / "train" / "label").iterdir():
        write_png(path, np.zeros((64, 64), np.uint8))
    recipe = two_date_recipe(tiles)
    result = run(recipe, tmp_path, select=ASSETS[:3], raise_on_error=False)
    assert not checks(result)["positive_share_is_plausible"]
    assert "checkpoint" not in versions(result)


def test_a_picture_in_train_and_test_is_found(tmp_path: Path) -> None:
    tiles = draw_tiles(tmp_path / "tiles", 64)
    shutil.copy(tiles / "train" / "A" / "tile_0.png", tiles / "test" / "A" / "tile_1.png")
    result = run(two_date_recipe(tiles), tmp_path, select=["raw_pairs"], raise_on_error=False)
    assert not checks(result)["no_picture_in_two_splits"]


def test_pictures_can_be_resized_as_published(whole: Run, tmp_path: Path) -> None:
    recipe = two_date_recipe(
        whole.tiles,
        input={"size": 64},
        augmentation={"preset": "published"},
        model={"name": "siamese_unet", "width": 8, "pretrained": False},
        training={"preset": "siamese", "epochs": 30, "batch_size": 2, "learning_rate": 3e-3},
        threshold={"pairs": "own", "fixed": 0.5},
    )
    result = run(recipe, tmp_path, select=ASSETS[:5], workers=0)
    assert metadata(result, "threshold")["threshold"] == 0.5
    pairs = read_pairs(tmp_path / "levir" / "pair_manifest" / "pairs.parquet")
    assert [sum(pair.split == split for pair in pairs) for split in COUNTS] == [4, 2, 2]
    predictions = tmp_path / "levir" / "test_predictions"
    mask = cv2.imread(str(predictions / f"{pairs[0].pair_id}.png"), 0)
    assert mask is not None
    assert mask.shape == (SIDE, SIDE)
    counts = pd.read_parquet(predictions / "predictions.parquet")[["tp", "fp", "fn", "tn"]]
    assert (counts.sum(axis=1) == SIDE * SIDE).all()  # scored at the size of the pictures
