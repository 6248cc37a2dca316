"""The checks find what they are for: each is shown a spoiled workspace."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from cd_pipeline.checks import build_checks
from cd_pipeline.data.files import file_digest
from cd_pipeline.data.frames import write_frame
from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import read_pairs, read_photos, write_photos
from cd_pipeline.export.coreml import export_mlpackage, package_digest
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline.training.checkpoint import Checkpoint, save_checkpoint
from cd_pipeline_tests.assets.tiny import draw_photos, run, tiny_recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A workspace up to the masks."""
    recipe = tiny_recipe(draw_photos(tmp_path_factory.mktemp("photos")))
    root = tmp_path_factory.mktemp("data")
    run(recipe, root, select=["raw_photos", "split", "pair_manifest", "change_masks"])
    return recipe, root


@pytest.fixture
def spoilt(made: tuple[Recipe, Path], tmp_path: Path) -> tuple[Recipe, Path]:
    recipe, root = made
    shutil.copytree(root, tmp_path / "data")
    return recipe, tmp_path / "data"


def evaluate(name: str, recipe: Recipe, root: Path) -> dg.AssetCheckEvaluation:
    """Run one check on a workspace."""
    (check,) = [check for check in build_checks(recipe) if name in str(check.check_key.name)]
    resources = {"workspace": Workspace(root=str(root)), "compute": Compute(device="cpu")}
    result = dg.materialize(
        [check], resources=resources, selection=dg.AssetSelection.checks(check), raise_on_error=False
    )  # type: ignore[list-item]
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_a_picture_in_two_splits_is_found(spoilt: tuple[Recipe, Path]) -> None:
    recipe, root = spoilt
    path = root / "rooms" / "split" / "split.parquet"
    assert evaluate("no_picture", recipe, root).passed
    photos = read_photos(path)
    train = next(photo for photo in photos if photo.split == "train")
    write_photos(path, [*photos, replace(train, path="trainval/images/KITCHEN/copy.jpg", split="val")])
    found = evaluate("no_picture", recipe, root)
    assert not found.passed
    assert found.blocking


@pytest.mark.parametrize(("shape", "value"), [((96, 128), 128), ((96, 127), 255)])
def test_a_mask_of_other_values_or_size_is_found(
    shape: tuple[int, int], value: int, spoilt: tuple[Recipe, Path]
) -> None:
    recipe, root = spoilt
    pair = read_pairs(root / "rooms" / "pair_manifest" / "pairs.parquet", "val")[0]
    write_png(
        root / "rooms" / "change_masks" / "val" / "mask" / f"{pair.pair_id}.png",
        np.full(shape, value, np.uint8),
    )
    found = evaluate("masks_are_binary", recipe, root)
    assert not found.passed
    assert pair.pair_id in str(found.description)


def test_masks_without_any_change_block_what_comes_after(spoilt: tuple[Recipe, Path]) -> None:
    recipe, root = spoilt
    for path in (root / "rooms" / "change_masks").glob("*/mask/*.png"):
        write_png(path, np.zeros((96, 128), np.uint8))
    found = evaluate("positive_share", recipe, root)
    assert (found.passed, found.severity, found.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)


def test_a_split_without_any_change_blocks(spoilt: tuple[Recipe, Path]) -> None:
    recipe, root = spoilt
    for path in (root / "rooms" / "change_masks" / "val").glob("mask/*.png"):
        write_png(path, np.zeros((96, 128), np.uint8))
    found = evaluate("positive_share", recipe, root)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "val 0.00%" in str(found.description)


def test_pictures_that_are_not_what_their_plan_gives_are_found(spoilt: tuple[Recipe, Path]) -> None:
    recipe, root = spoilt
    assert evaluate("truth", recipe, root).passed
    for path in (root / "rooms" / "change_masks").glob("*/after/*.png"):
        write_png(path, np.full((96, 128, 3), 7, np.uint8))
    found = evaluate("truth", recipe, root)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_a_loss_that_is_not_finite_is_found(spoilt: tuple[Recipe, Path]) -> None:
    recipe, root = spoilt
    path = root / "rooms" / "checkpoint" / "history.parquet"
    good = {"epoch": 1, "train_loss": 0.5, "val_loss": 0.6}
    write_frame(path, pd.DataFrame([good]))
    assert evaluate("finite", recipe, root).passed
    write_frame(path, pd.DataFrame([good, {**good, "epoch": 2, "val_loss": float("nan")}]))
    assert not evaluate("finite", recipe, root).passed


def test_a_useless_network_is_found(spoilt: tuple[Recipe, Path]) -> None:
    recipe, root = spoilt
    for best_epoch, passes in ((1, True), (2, False)):
        checkpoint = Checkpoint(
            weights={},
            recipe=recipe.plain(),
            history=[{"epoch": 1, "val_f1": 0.9}, {"epoch": 2, "val_f1": 0.01}],
            versions={},
            pretrained=False,
            data_version=file_digest(root / "rooms" / "pair_manifest" / "pairs.parquet"),
            best_epoch=best_epoch,
        )
        save_checkpoint(root / "rooms" / "checkpoint" / "model.pt", checkpoint)
        found = evaluate("beats", recipe, root)
        assert found.passed is passes
        assert "plain differencing at its best" in str(found.description)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small package."""
    path = tmp_path_factory.mktemp("package") / "change_detector.mlpackage"
    model = TinyChangeUNet().eval()
    export_mlpackage(model, path, size=32, pixel_scale=1 / 255, metadata={}, description="test")
    return path


AGREEMENT = {
    "samples": 7,
    "non_empty_samples": 6,
    "max_probability_difference": 0.004,
    "mean_probability_difference": 0.0002,
    "flipped_share": 0.0003,
    "mask_iou": 0.997,
    "non_finite_ops": [],
}


@pytest.mark.parametrize("form", ["package", "torchscript"])
@pytest.mark.parametrize(
    "fault",
    [
        {"max_probability_difference": 0.021},
        {"mask_iou": 0.98},
        {"flipped_share": 0.0011},
        {"non_finite_ops": ["conv_1"]},
        {"decision_faults": 1},
    ],
)
def test_a_form_that_disagrees_is_found(
    fault: dict[str, object], form: str, spoilt: tuple[Recipe, Path], package: Path
) -> None:
    recipe, root = spoilt
    folder = root / "rooms" / "mlpackage"
    shutil.copytree(package, folder / "change_detector.mlpackage")
    forms = {"package": AGREEMENT, "torchscript": AGREEMENT}
    good = {"forms": forms, "package_digest": package_digest(package)}
    (folder / "agreement.json").write_text(json.dumps(good))
    assert evaluate("package_agrees", recipe, root).passed
    for bad in (
        {**good, "forms": {**forms, form: {**AGREEMENT, **fault}}},
        {**good, "package_digest": "of another"},
    ):
        (folder / "agreement.json").write_text(json.dumps(bad))
        assert not evaluate("package_agrees", recipe, root).passed
