"""The whole pipeline, real assets through Dagster on tiny drawn photos."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import dagster as dg
import numpy as np
import pytest

from cd_pipeline.data.files import file_digest
from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import read_pairs, read_photos
from cd_pipeline.export.coreml import read_package_metadata
from cd_pipeline.recipe import Recipe
from cd_pipeline.training.checkpoint import load_checkpoint
from cd_pipeline_tests.assets.tiny import checks, draw_photos, failure, metadata, run, tiny_recipe, versions
from cd_pipeline_tests.tiny_pairs import draw_pair

ASSETS = (
    "raw_photos",
    "split",
    "pair_manifest",
    "change_masks",
    "checkpoint",
    "threshold",
    "test_predictions",
    "release",
    "report",
    "mlpackage",
)
EVENT_LOG_LIMIT = 100_000


@dataclass(frozen=True)
class Run:
    """One whole run."""

    photos: Path
    folder: Path
    result: dg.ExecuteInProcessResult


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    photos = draw_photos(tmp_path_factory.mktemp("photos"))
    workspace = tmp_path_factory.mktemp("data")
    return Run(photos, workspace / "rooms", run(tiny_recipe(photos), workspace))


def test_every_asset_is_made_and_every_check_passes(whole: Run) -> None:
    assert whole.result.success
    assert set(versions(whole.result)) == set(ASSETS)
    outcome = checks(whole.result)
    assert len(outcome) == 8
    assert all(outcome.values()), outcome


@pytest.fixture(scope="module")
def realistic(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same photos with realistic pairs, the siamese network and real pairs, trained for little."""
    workspace = tmp_path_factory.mktemp("realistic")
    real = workspace / "real"
    for number in range(3):
        pair = draw_pair(number, 80)
        for part, image in zip(("A", "B", "label"), pair.arrays, strict=True):
            write_png(real / part / f"office_{number}.png", image)
    (real / "B" / "office_2.png").write_bytes(b"no picture")
    return Run(whole.photos, workspace / "rooms", run(realistic_recipe(whole.photos, real), workspace))


def realistic_recipe(photos: Path, real: Path | None = None, **synthesis: object) -> Recipe:
    return tiny_recipe(
        photos,
        synthesis={"preset": "realistic", "epoch_pairs": 40, "frozen_pairs": 12, **synthesis},
        model={"name": "tiny_siamese_unet", "pretrained": False},
        training={"preset": "rooms", "epochs": 3, "batch_size": 4},
        threshold={"high": 0.98, "steps": 97, "realistic_pairs": 20},
        real_pairs={"folder": real and str(real)},
    )


@pytest.mark.slow
def test_the_realistic_recipe_makes_every_asset_and_passes_every_check(realistic: Run) -> None:
    assert realistic.result.success
    assert set(versions(realistic.result)) == {*ASSETS, "real_pairs"}
    outcome = checks(realistic.result)
    assert all(outcome.values()), outcome
    figures = metadata(realistic.result, "pair_manifest")
    assert (figures["drawn_each_epoch"], figures["frozen"]) == (3 * 19, 3 * 5 + 2 * 7)  # 19, 5 and 7 photos


@pytest.mark.slow
def test_realistic_pairs_on_disk_have_their_own_before_and_what_counts(realistic: Run) -> None:
    pairs = read_pairs(realistic.folder / "pair_manifest" / "pairs.parquet", "test")
    for pair in pairs:
        assert pair.before == f"workspace:change_masks/test/before/{pair.pair_id}.png"
        for kind in ("before", "after", "mask"):
            assert (realistic.folder / "change_masks" / "test" / kind / f"{pair.pair_id}.png").is_file()
        valid = realistic.folder / "change_masks" / "test" / "valid" / f"{pair.pair_id}.png"
        assert valid.is_file() == (pair.valid is not None)


def kinds_of(manifest: Path, split: str) -> set[str]:
    return {change["kind"] for p in read_pairs(manifest, split) for change in p.realistic_plan["changes"]}


@pytest.mark.slow
def test_recall_is_told_by_kind_and_size(realistic: Run) -> None:
    metrics = json.loads((realistic.folder / "test_predictions" / "metrics.json").read_text())
    assert all(0 <= row["recall"] <= 1 for row in metrics["recall_by_kind"] + metrics["recall_by_size"])
    manifest = realistic.folder / "pair_manifest" / "pairs.parquet"
    assert {row["kind"] for row in metrics["recall_by_kind"]} <= kinds_of(manifest, "test")
    assert metadata(realistic.result, "threshold")["pairs"] == "realistic"


@pytest.mark.slow
def test_nothing_sees_a_held_out_kind_before_the_test(realistic: Run, tmp_path: Path) -> None:
    recipe = realistic_recipe(realistic.photos, held_out_kinds=["recolour"], frozen_pairs=40)
    recipe.training.epochs = 1
    result = run(recipe, tmp_path, select=ASSETS[:-1], raise_on_error=False, workers=0)
    metrics = json.loads((tmp_path / "rooms" / "test_predictions" / "metrics.json").read_text())
    assert metrics["held_out_kinds"] == ["recolour"]
    assert "recolour" in {row["kind"] for row in metrics["recall_by_kind"]}
    assert "recolour" not in kinds_of(tmp_path / "rooms" / "pair_manifest" / "pairs.parquet", "val")
    # the protocol's pairs hold recoloured things too: they do not choose the threshold
    assert metadata(result, "threshold")["pairs"] == "own"


@pytest.mark.slow
def test_real_pairs_are_scored_apart_and_a_bad_one_is_named(realistic: Run) -> None:
    own = realistic.folder / "real_pairs"
    assert {path.name for path in own.iterdir() if not path.name.startswith(".")} == {
        "office_0.png",
        "office_1.png",
        "gallery.png",
        "metrics.json",
    }
    metrics = json.loads((own / "metrics.json").read_text())
    for name in ("as they are", "with nuisance on the second photo"):
        assert metrics[name]["pairs"] == 2
        assert 0 <= metrics[name]["f1"] <= 1
    shown = metadata(realistic.result, "real_pairs")
    assert "office_2.png" in str(shown["left_out"])
    test_metrics = json.loads((realistic.folder / "test_predictions" / "metrics.json").read_text())
    assert test_metrics["pairs"] == 14


def test_without_real_pairs_the_asset_is_skipped(whole: Run) -> None:
    assert not (whole.folder / "real_pairs").exists()
    assert "real_pairs" not in versions(whole.result)


def test_every_asset_writes_its_files_into_the_folder_named_after_it(whole: Run) -> None:
    files = {
        "raw_photos/photos.parquet",
        "split/split.parquet",
        "pair_manifest/pairs.parquet",
        "checkpoint/model.pt",
        "checkpoint/history.parquet",
        "checkpoint/curves.png",
        "threshold/threshold.json",
        "threshold/sweep.parquet",
        "threshold/sweep.png",
        "test_predictions/predictions.parquet",
        "test_predictions/metrics.json",
        "test_predictions/gallery.png",
        "mlpackage/change_detector.mlpackage/Manifest.json",
        "mlpackage/agreement.json",
    }
    found = {path.relative_to(whole.folder).as_posix() for path in whole.folder.rglob("*") if path.is_file()}
    assert files <= found
    assert not [name for name in found if ".tmp" in name]


def test_the_users_photos_are_only_read(whole: Run, tmp_path: Path) -> None:
    fresh = draw_photos(tmp_path)
    before = {path.relative_to(fresh): file_digest(path) for path in fresh.rglob("*") if path.is_file()}
    after = {p.relative_to(whole.photos): file_digest(p) for p in whole.photos.rglob("*") if p.is_file()}
    assert after == before


def test_each_prediction_is_named_after_its_pair_and_has_the_photos_own_size(whole: Run) -> None:
    pairs = read_pairs(whole.folder / "pair_manifest" / "pairs.parquet", "test")
    assert len(pairs) == 7
    for pair in pairs:
        mask = cv2.imread(
            str(whole.folder / "test_predictions" / f"{pair.pair_id}.png"), cv2.IMREAD_UNCHANGED
        )
        assert mask.shape == (pair.height, pair.width)
        assert set(np.unique(mask)) <= {0, 255}


def test_the_package_tells_threshold_metrics_and_versions(whole: Run) -> None:
    told = read_package_metadata(whole.folder / "mlpackage" / "change_detector.mlpackage")
    chosen = json.loads((whole.folder / "threshold" / "threshold.json").read_text())
    metrics = json.loads((whole.folder / "test_predictions" / "metrics.json").read_text())
    saved = load_checkpoint(whole.folder / "checkpoint" / "model.pt")
    assert float(told["threshold"]) == chosen["threshold"]
    assert float(told["test_f1"]) == pytest.approx(metrics["f1"], rel=1e-4)
    assert told["checkpoint_version"] == saved.version
    assert told["data_version"] == file_digest(whole.folder / "pair_manifest" / "pairs.parquet")


def test_pictures_in_the_metadata_are_small_enough_for_the_event_log(whole: Run) -> None:
    shown = {
        "change_masks": "contact_sheet",
        "checkpoint": "curves",
        "threshold": "curve",
        "test_predictions": "gallery",
    }
    for asset, key in shown.items():
        text = str(metadata(whole.result, asset)[key])
        assert text.startswith("![](data:image/")
        assert len(text) < EVENT_LOG_LIMIT


@pytest.mark.slow
def test_the_same_photos_copied_in_another_order_give_the_same_versions(whole: Run, tmp_path: Path) -> None:
    copies = tmp_path / "photos"
    for path in sorted(whole.photos.rglob("*"), reverse=True):
        if path.is_file():
            target = copies / path.relative_to(whole.photos)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    again = run(tiny_recipe(copies), tmp_path / "data")
    found, expected = versions(again), versions(whole.result)
    assert found.pop("report") != expected.pop("report")  # it shows where the photos are
    assert found == expected
    pages = [folder / "report" / "index.html" for folder in (tmp_path / "data" / "rooms", whole.folder)]
    ours, theirs = (page.read_text() for page in pages)
    assert ours.replace(str(copies), str(whole.photos)) == theirs
    for name in ("split/split.parquet", "pair_manifest/pairs.parquet"):
        assert file_digest(tmp_path / "data" / "rooms" / name) == file_digest(whole.folder / name)
    pairs = read_pairs(whole.folder / "pair_manifest" / "pairs.parquet")
    named = {str(reference) for pair in pairs for reference in (pair.before, pair.after, pair.mask)}
    pictures = [path.relative_to(whole.folder) for path in whole.folder.glob("change_masks/*/*/*.png")]
    assert {f"workspace:{path}" for path in pictures} == {n for n in named if not n.startswith("source:")}
    assert len(pictures) > len(pairs) == 31
    assert all(
        file_digest(tmp_path / "data" / "rooms" / path) == file_digest(whole.folder / path)
        for path in pictures
    )


def test_the_package_alone_is_made_again_from_what_is_on_disk(whole: Run) -> None:
    again = run(tiny_recipe(whole.photos), whole.folder.parent, select=["mlpackage"])
    assert versions(again) == {"mlpackage": versions(whole.result)["mlpackage"]}


@pytest.mark.parametrize(
    ("asset", "missing"),
    [
        ("split", "raw_photos"),
        ("checkpoint", "pair_manifest"),
        ("threshold", "checkpoint"),
        ("mlpackage", "checkpoint"),
    ],
)
def test_without_its_inputs_an_asset_fails_with_the_command_that_makes_them(
    asset: str, missing: str, tmp_path: Path
) -> None:
    result = run(tiny_recipe(None), tmp_path, select=[asset], raise_on_error=False)
    assert not result.success
    message = failure(result, asset)
    assert "\n" not in message
    assert f'dagster asset materialize -m cd_pipeline.definitions --select "*{missing}"' in message


def test_a_configured_folder_that_is_missing_is_an_error_and_no_sample_is_drawn(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    result = run(tiny_recipe(gone), tmp_path / "data", select=["raw_photos"], raise_on_error=False)
    assert not result.success
    assert str(gone) in str(result.all_node_events)
    assert not (tmp_path / "data" / "rooms" / "raw_photos" / "trainval").exists()


def test_the_environment_points_the_recipe_at_a_folder(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CD_PIPELINE_ROOMS", str(whole.photos))
    result = run(tiny_recipe(tmp_path / "gone"), tmp_path, select=["raw_photos"])
    assert metadata(result, "raw_photos")["photos"] == 31


def test_bad_files_are_listed_with_a_reason_and_never_stop_a_run(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    folder = photos / "trainval" / "images" / "KITCHEN"
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes((folder / "photo_000.jpg").read_bytes()[:500])
    label = photos / "trainval" / "labels" / "KITCHEN" / "photo_001.txt"
    label.write_text(label.read_text() + "0 nan 0.5 0.2 0.2\n0 0.5 0.5 0.2\n")
    result = run(tiny_recipe(photos), tmp_path / "data", select=["raw_photos", "split"])
    told = metadata(result, "raw_photos")
    assert (told["quarantined"], told["dropped_label_lines"]) == (2, 2)
    rows = read_photos(tmp_path / "data" / "rooms" / "split" / "split.parquet")
    reasons = {Path(row.path).name: row.reason for row in rows if row.reason}
    assert set(reasons) == {"empty.jpg", "cut.jpg"}
    assert "0 bytes" in str(reasons["empty.jpg"])
    assert next(r.split for r in rows if r.path == "trainval/images/KITCHEN/photo_001.jpg") in {
        "train",
        "val",
    }


def test_fresh_pairs_train_without_frozen_training_pictures(whole: Run, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        whole.photos, synthesis={"train_pairs": "fresh"}, training={"epochs": 2, "sweep": {"high": 0.9}}
    )
    select = ["raw_photos", "split", "pair_manifest", "change_masks", "checkpoint"]
    result = run(recipe, tmp_path, select=select, raise_on_error=False, workers=0)
    assert {path.name for path in (tmp_path / "rooms" / "change_masks").glob("*/")} == {"val", "test"}
    assert metadata(result, "pair_manifest")["drawn_each_epoch"] == 19
    assert (tmp_path / "rooms" / "checkpoint" / "model.pt").is_file()


def test_untruthful_masks_that_the_recipe_asks_for_warn_and_do_not_stop(whole: Run, tmp_path: Path) -> None:
    recipe = tiny_recipe(whole.photos, synthesis={"truthful_masks": False, "reencode_jpeg": True})
    result = run(recipe, tmp_path, select=["raw_photos", "split", "pair_manifest", "change_masks"])
    assert result.success
    assert checks(result)["masks_tell_the_truth"] is False


def test_a_new_split_makes_everything_after_it_stale(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "rooms")
    recipe = tiny_recipe(whole.photos, synthesis={"seed": 7})
    assert run(recipe, tmp_path, select=["pair_manifest"]).success
    for asset, stale in (
        ("checkpoint", "change_masks"),
        ("threshold", "checkpoint"),
        ("test_predictions", "checkpoint"),
        ("mlpackage", "checkpoint"),
    ):
        message = failure(run(recipe, tmp_path, select=[asset], raise_on_error=False), asset)
        assert message.startswith(f"{tmp_path / 'rooms' / stale} was made for another manifest: run ")


@pytest.mark.slow
def test_a_manifest_planned_with_other_settings_is_not_used(realistic: Run) -> None:
    recipe = realistic_recipe(realistic.photos, max_changes=2)
    for asset in ("change_masks", "checkpoint", "mlpackage"):
        result = run(recipe, realistic.folder.parent, select=[asset], raise_on_error=False)
        assert "pair_manifest was made for another recipe (source, synthesis or input): run" in failure(
            result, asset
        )


def test_a_threshold_or_metrics_of_another_checkpoint_are_not_used(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "rooms")
    recipe = tiny_recipe(whole.photos)
    path = tmp_path / "rooms" / "test_predictions" / "metrics.json"
    path.write_text(path.read_text().replace('"checkpoint_version": "', '"checkpoint_version": "0'))
    message = failure(run(recipe, tmp_path, select=["mlpackage"], raise_on_error=False), "mlpackage")
    assert "metrics.json is not the file that" in message
    path.with_name(".receipt.json").unlink()  # from here on it is used as it is
    message = failure(run(recipe, tmp_path, select=["mlpackage"], raise_on_error=False), "mlpackage")
    assert "test_predictions was made for another checkpoint or threshold: run dagster" in message
    path = tmp_path / "rooms" / "threshold" / "threshold.json"
    path.with_name(".receipt.json").unlink()
    path.write_text(path.read_text().replace('"checkpoint_version": "', '"checkpoint_version": "0'))
    message = failure(
        run(recipe, tmp_path, select=["test_predictions"], raise_on_error=False), "test_predictions"
    )
    assert "threshold was made for another checkpoint: run dagster" in message


def test_a_checkpoint_of_another_input_size_is_not_exported(whole: Run) -> None:
    recipe = tiny_recipe(whole.photos, input={"size": 96})
    result = run(recipe, whole.folder.parent, select=["mlpackage"], raise_on_error=False)
    assert "checkpoint was made for another recipe (input or model)" in failure(result, "mlpackage")


@pytest.mark.slow
def test_sample_rooms_are_drawn_once_and_said_to_be_sample_data(tmp_path: Path) -> None:
    recipe = tiny_recipe(None)
    first = run(recipe, tmp_path, select=["raw_photos"])
    assert metadata(first, "raw_photos")["sample_data"] is True
    folder = tmp_path / "rooms" / "raw_photos"
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert len(times) == 180
    again = run(recipe, tmp_path, select=["raw_photos"])
    assert versions(again) == versions(first)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == times
    next(iter(times)).unlink()
    mended = run(recipe, tmp_path, select=["raw_photos"])
    assert versions(mended) == versions(first)
