"""The asset release, real assets through Dagster on tiny drawn pictures."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import torch

from cd_pipeline.assets.release import release_asset, scores_of_champion
from cd_pipeline.checks import not_worse_check
from cd_pipeline.cli import main
from cd_pipeline.data.files import file_digest
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.release.store import ReleaseStore
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline.training.checkpoint import load_checkpoint, save_checkpoint
from cd_pipeline_tests.assets.test_image_pipeline import draw_lines, draw_shapes, mask_recipe, voc_recipe
from cd_pipeline_tests.assets.tiny import checks, draw_photos, failure, metadata, tiny_recipe, versions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_torch_thread")]

MEASURED = ("threshold", "test_predictions", "mlpackage", "release")
"""What follows a new checkpoint."""
LEFT_OUT = {"report", "real_pairs", "cross_datasets"}
SMALL = {"name": "unet", "widths": [8, 16], "align_corners": False}
EXACT = {"precision": "float32"}


def run(
    recipe: Recipe, workspace: Path, select: Sequence[str] | None = None, *, raise_on_error: bool = True
) -> dg.ExecuteInProcessResult:
    """Run assets with their checks; None: all that lead to the release."""
    definitions = build_pipeline(recipe)
    assets = list(definitions.assets or [])
    found = [*assets, *(definitions.asset_checks or [])]
    names = {key.path[-1] for asset in assets for key in asset.keys}  # type: ignore[union-attr]
    if "release" not in names:
        found += [release_asset(recipe), not_worse_check(recipe)]
    wanted = [name for name in select or (names | {"release"}) - LEFT_OUT if name in names | {"release"}]
    return dg.materialize(
        found,  # type: ignore[arg-type]
        selection=dg.AssetSelection.assets(*(recipe.asset_key(name) for name in wanted)),
        resources={
            "workspace": Workspace(root=str(workspace)),
            "compute": Compute(device="cpu", workers=0),
        },
        raise_on_error=raise_on_error,
    )


@dataclass(frozen=True)
class Trained:
    """A recipe that was run as far as its first release."""

    recipe: Recipe
    workspace: Path
    result: dg.ExecuteInProcessResult

    @property
    def folder(self) -> Path:
        return self.workspace / self.recipe.name

    def copy(self, to: Path) -> "Trained":
        shutil.copytree(self.workspace, to, symlinks=True)
        return replace(self, workspace=to)

    def spoil(self, amount: float, seed: int = 0) -> None:
        """Add noise to the weights on disk; a share of each tensor's own spread."""
        path = self.folder / "checkpoint" / "model.pt"
        saved, generator = load_checkpoint(path), torch.Generator().manual_seed(seed)
        weights = {
            name: value + amount * value.std(correction=0) * torch.randn(value.shape, generator=generator)
            if value.is_floating_point() and value.dim() > 1
            else value
            for name, value in saved.weights.items()
        }
        save_checkpoint(path, replace(saved, weights=weights))
        path.with_name(".receipt.json").unlink(missing_ok=True)  # it is used as it is

    def release(self, *select: str) -> dg.ExecuteInProcessResult:
        return run(self.recipe, self.workspace, select or MEASURED)

    def shipped(self) -> str:
        return (self.folder / "release" / "current").readlink().name


def trained(recipe: Recipe, workspace: Path) -> Trained:
    """Run a recipe up to its first release, also where its network is not worth much."""
    before = {
        "raw_photos",
        "raw_images",
        "split",
        "pair_manifest",
        "image_manifest",
        "change_masks",
        "checkpoint",
    }
    run(recipe, workspace, sorted(before), raise_on_error=False)
    return Trained(recipe, workspace, run(recipe, workspace, MEASURED))


def shapes_recipe(source: Path, epochs: int = 6, **changes: object) -> Recipe:
    training = {
        "preset": "voc",
        "epochs": epochs,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "loss": "ce_dice",
        "class_weights": "inverse",
    }
    settings: dict[str, object] = {"model": SMALL, "training": training, "export": EXACT, **changes}
    return voc_recipe(source, **settings)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    source = draw_shapes(tmp_path_factory.mktemp("shapes"), 24)
    return trained(shapes_recipe(source), tmp_path_factory.mktemp("data"))


def test_the_first_package_is_released_and_copied_whole(shapes: Trained) -> None:
    shown = metadata(shapes.result, "release")
    assert shown["released"] is True
    assert shown["state"] == "shipped"
    assert shown["against"] == "none"
    assert checks(shapes.result)["challenger_is_not_worse"] is True
    current, made = shapes.folder / "release" / "current", shapes.folder / "mlpackage"
    assert shown["path"] == str(current)
    delivered = [path for path in made.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(delivered) >= 5
    for path in delivered:
        assert file_digest(current / path.relative_to(made)) == file_digest(path)
    rows = pd.read_parquet(shapes.folder / "test_predictions" / "predictions.parquet")
    assert shown["challenger"] == pytest.approx(rows["miou"].mean())


def test_a_worse_checkpoint_is_rejected_and_that_is_seen(shapes: Trained, tmp_path: Path) -> None:
    mine, first = shapes.copy(tmp_path / "data"), shapes.shipped()
    mine.spoil(1.0)
    result = mine.release()
    assert result.success
    shown = metadata(result, "release")
    assert (shown["released"], shown["state"], shown["shipped"]) == (False, "rejected", first)
    assert mine.shipped() == first
    assert float(str(shown["difference_low"])) < -0.01
    assert float(str(shown["challenger"])) < float(str(shown["champion"]))
    (check,) = [
        found
        for found in result.get_asset_check_evaluations()
        if found.check_name == "challenger_is_not_worse"
    ]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"of {first}: difference -" in str(check.description)
    rows = [record.data for record in shown["versions"].records]  # type: ignore[attr-defined]
    assert [row["state"] for row in rows] == ["rejected", "shipped"]
    assert versions(result)["release"] == versions(shapes.result)["release"]  # what is shipped is as it was


def test_the_same_checkpoint_again_changes_nothing(shapes: Trained, tmp_path: Path) -> None:
    mine = shapes.copy(tmp_path / "data")

    def times() -> dict[Path, int]:
        files = (path for path in (mine.folder / "release").rglob("*") if path.is_file() or path.is_symlink())
        return {path: path.lstat().st_mtime_ns for path in files if path.name != ".lock"}

    before = times()
    assert versions(mine.release("mlpackage", "release"))["release"] == shapes.shipped()
    assert times() == before


def test_a_rollback_holds_against_the_same_package_and_gives_way_to_one_that_is_not_worse(
    shapes: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, first = shapes.copy(tmp_path / "data"), shapes.shipped()
    monkeypatch.setenv("CD_PIPELINE_DATA", str(mine.workspace))
    mine.spoil(1.0)
    lax = replace(mine, recipe=shapes_recipe(Path(str(mine.recipe.source.folder)), release={"margin": 0.99}))
    assert metadata(lax.release(), "release")["state"] == "shipped"
    spoilt = mine.shipped()
    assert spoilt != first
    assert main(["release", "rollback", "--recipe", "shapes"]) == 0
    assert f"shipped: {first}, instead of {spoilt}" in capsys.readouterr().out
    shown = metadata(lax.release("mlpackage", "release"), "release")
    assert (shown["state"], shown["shipped"]) == ("withdrawn", first)
    shutil.copyfile(shapes.folder / "checkpoint" / "model.pt", mine.folder / "checkpoint" / "model.pt")
    mine.spoil(0.001)
    shown = metadata(mine.release(), "release")
    assert (shown["state"], shown["against"]) == ("shipped", first)
    assert mine.shipped() not in (spoilt, first)


def test_new_test_images_have_the_champion_predicted_anew(shapes: Trained, tmp_path: Path) -> None:
    mine = shapes.copy(tmp_path / "data")
    source = draw_shapes(tmp_path / "shapes", 34)
    shown = metadata(trained(shapes_recipe(source, epochs=1), mine.workspace).result, "release")
    assert shown["against"] == shapes.shipped()
    scored = list((mine.folder / "release" / "versions" / shapes.shipped() / "scores").iterdir())
    old, new = sorted((pd.read_parquet(path) for path in scored), key=len)
    assert set(old["example"]) != set(new["example"])
    assert shown["champion"] == pytest.approx(new["miou"].mean())


def walls_recipe(tmp: pytest.TempPathFactory) -> Recipe:
    source = tmp.mktemp("walls")
    draw_lines(source, "old", 10, grey=120)
    draw_lines(source, "new", 10, grey=170)
    training = {"preset": "cracks", "epochs": 2, "batch_size": 4, "optimizer": "adamw", "schedule": "step"}
    return mask_recipe(source, model=SMALL, training=training, export={**EXACT, "onnx": True})


def rooms_recipe(tmp: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(
        draw_photos(tmp.mktemp("photos")),
        input={"size": 32},
        model={"name": "siamese_unet", "width": 8},
        training={
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "ema_decay": 0.8,
            "sweep": {"high": 0.9},
        },
        export=EXACT,
    )


@pytest.mark.parametrize("recipe_of", [walls_recipe, rooms_recipe])
def test_a_champion_predicted_from_its_torchscript_scores_as_its_checkpoint_did(
    recipe_of: Callable[[pytest.TempPathFactory], Recipe], tmp_path_factory: pytest.TempPathFactory
) -> None:
    mine = trained(recipe_of(tmp_path_factory), tmp_path_factory.mktemp("data"))
    store = ReleaseStore(mine.folder / "release")
    (known,) = (mine.folder / "release").glob("versions/*/scores/*.parquet")
    before = pd.read_parquet(known)
    assert before[["tp", "fp"]].to_numpy().sum() > 0  # something is marked
    workspace, compute = Workspace(root=str(mine.workspace)), Compute(device="cpu")
    after = scores_of_champion(workspace, mine.recipe, compute, store, store.record(mine.shipped()))
    assert after[["example", "cluster"]].equals(before[["example", "cluster"]])
    for column in before.columns.drop(["example", "cluster"]):
        # the same network in another form: a pixel at the threshold can flip
        np.testing.assert_allclose(after[column], before[column], atol=3)
    metrics = json.loads((mine.folder / "test_predictions" / "metrics.json").read_text())
    assert metadata(mine.result, "release")["challenger"] == pytest.approx(metrics["f1"])
    for name in (mine.recipe.torchscript, mine.recipe.onnx):
        assert name is None or (mine.folder / "release" / "current" / name).is_file()


def test_a_package_that_does_not_agree_or_is_of_another_checkpoint_is_refused(
    shapes: Trained, tmp_path: Path
) -> None:
    mine = shapes.copy(tmp_path / "data")

    def refused() -> str:
        message = failure(run(mine.recipe, mine.workspace, ["release"], raise_on_error=False), "release")
        assert "\n" not in message
        return message

    path = mine.folder / "mlpackage" / "agreement.json"
    told = json.loads(path.read_text())
    told["forms"]["torchscript"]["max_probability_difference"] = 0.5
    path.write_text(json.dumps(told))
    assert "not released, as it does not agree with the checkpoint: The largest probability" in refused()
    told["package_digest"] = "0" * 64
    path.write_text(json.dumps(told))
    another = "mlpackage was made for another checkpoint, threshold or recipe: run dagster"
    assert another in refused()
    mine.spoil(0.1)
    assert run(mine.recipe, mine.workspace, ["test_predictions"]).success
    assert another in refused()
    shutil.rmtree(mine.folder / "mlpackage")
    assert (
        'is not there: run dagster asset materialize -m cd_pipeline.definitions --select "*shapes/mlpackage"'
        in refused()
    )
