"""What nothing has changed for is not done again."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from cd_pipeline.assets.memo import RECEIPT
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.assets.tiny import failure, metadata, tiny_recipe, versions
from cd_pipeline_tests.drawn import draw_photo_tree

ASSETS = (
    *("raw_photos", "split", "pair_manifest", "change_masks"),
    *("checkpoint", "threshold", "test_predictions"),
)
WORK = (
    *("cd_pipeline.data.photos.scan_photos", "cd_pipeline.data.split.assign_splits"),
    *("cd_pipeline.synthesis.pairs.each_planned", "cd_pipeline.synthesis.rendered_pairs.render_pairs"),
    *("cd_pipeline.training.job.run_job", "cd_pipeline.evaluation.threshold.sweep_predictions"),
    "cd_pipeline.evaluation.predictions.measure_pairs",
)
"""What each of the assets does, in their order."""

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def recipe_of(photos: Path, **changes: object) -> Recipe:
    training = {"epochs": 1, "batch_size": 4, "sweep": {"high": 0.9}}
    return tiny_recipe(photos, **{"input": {"size": 32}, "training": training, **changes})


def materialize(
    recipe: Recipe,
    root: Path,
    select: tuple[str, ...] = ASSETS,
    tags: dict[str, str] | None = None,
    **compute: object,
) -> dg.ExecuteInProcessResult:
    """Run assets without their checks, which would stop a network that has learnt nothing."""
    return dg.materialize(
        list(build_pipeline(recipe).assets or []),  # type: ignore[arg-type]
        selection=dg.AssetSelection.assets(*(recipe.asset_key(name) for name in select)),
        resources={
            "workspace": Workspace(root=str(root)),
            "compute": Compute(**{"device": "cpu", "threads": 1, **compute}),  # type: ignore[arg-type]
        },
        tags=tags,
        raise_on_error=False,
    )


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    """The assets that were made anew, in the order of the pipeline."""
    assert result.success
    return [name for name in versions(result) if "unchanged" not in metadata(result, name)]


@dataclass(frozen=True)
class Made:
    """One run, and a copy of all it read and wrote."""

    photos: Path
    root: Path
    first: dg.ExecuteInProcessResult

    def again(self, *select: str, **changes: object) -> dg.ExecuteInProcessResult:
        return materialize(recipe_of(self.photos, **changes), self.root, select or ASSETS)

    def file(self, name: str) -> Path:
        return self.root / "rooms" / name


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Made:
    photos = tmp_path_factory.mktemp("photos")
    draw_photo_tree(photos, {"trainval": {"KITCHEN": 8, "STUDY": 4}, "test": {"KITCHEN": 2}}, size=(64, 48))
    (photos / "trainval" / "images" / "STUDY" / "cut.jpg").write_bytes(b"no picture")
    root = tmp_path_factory.mktemp("data")
    return Made(photos, root, materialize(recipe_of(photos), root))


@pytest.fixture
def run(once: Made, tmp_path: Path) -> Made:
    """The workspace elsewhere, for a test to change; photos stay where they were."""
    shutil.copytree(once.root, tmp_path / "data")
    return Made(once.photos, tmp_path / "data", once.first)


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("work was done again")

    for name in WORK:
        monkeypatch.setattr(name, refuse)


def test_the_first_run_makes_everything(once: Made) -> None:
    assert made(once.first) == list(ASSETS)


def test_a_second_run_does_no_work_and_says_so(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_work(monkeypatch)
    again = run.again()
    assert made(again) == []
    assert versions(again) == versions(run.first)
    for asset in ASSETS:
        now, then = metadata(again, asset), metadata(run.first, asset)
        assert now.pop("unchanged") is True
        assert set(now) == set(then)
        assert {k: v for k, v in now.items() if k != "path"} == {k: v for k, v in then.items() if k != "path"}
    assert metadata(again, "checkpoint")["path"] == str(run.file("checkpoint/model.pt"))  # it has moved


def test_warnings_are_told_again(run: Made, capfd: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(3):
        run.again("raw_photos")
        told.append([line for line in capfd.readouterr().err.splitlines() if " WARNING " in line])
    for (line,) in told:
        assert line.endswith(
            "- raw_photos - quarantined trainval/images/STUDY/cut.jpg: "
            "cannot be decoded as an image (10 bytes): cut short or another format"
        )


@pytest.mark.parametrize("asset", ASSETS)
def test_the_work_that_is_watched_is_that_of_each_asset(
    run: Made, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_work(monkeypatch)
    run.file(f"{asset}/{RECEIPT}").unlink()
    result = run.again(asset)
    assert not result.success
    assert not run.file(f"{asset}/{RECEIPT}").exists()


def test_files_that_only_look_younger_are_unchanged(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_work(monkeypatch)
    touched = [path for path in run.root.rglob("*") if path.is_file() and path.name != RECEIPT]
    for path in touched:
        os.utime(path)
    assert made(run.again()) == []


def flip(path: Path) -> None:
    """Change a byte as a bad disk does: size and times stay."""
    content, before = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "name",
    [
        "raw_photos/photos.parquet",
        "split/split.parquet",
        "pair_manifest/pairs.parquet",
        "checkpoint/curves.png",
        "threshold/sweep.png",
        "test_predictions/metrics.json",
    ],
)
def test_a_file_with_one_byte_changed_is_made_again_and_what_follows_is_not(run: Made, name: str) -> None:
    asset = name.partition("/")[0]
    flip(run.file(name))
    again = run.again()
    assert made(again) == [asset]
    assert versions(again) == versions(run.first)


@pytest.mark.parametrize("spoil", [flip, Path.unlink])
def test_a_mask_that_was_altered_or_is_gone_is_rendered_again(
    run: Made, spoil: Callable[[Path], None]
) -> None:
    mask = next(run.file("change_masks").glob("val/mask/*.png"))
    whole = mask.read_bytes()
    spoil(mask)
    assert made(run.again()) == ["change_masks"]
    assert mask.read_bytes() == whole


def test_another_threshold_does_not_train_again(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.training.job.run_job", None)
    chosen = {"high": 0.9, "pairs": "own", "tolerance": 0, "steps": 7}
    again = run.again(threshold=chosen)
    assert made(again) == ["threshold", "test_predictions"]
    assert made(run.again(threshold=chosen)) == []


def test_other_training_settings_train_again_and_leave_the_data_alone(run: Made) -> None:
    training = {"epochs": 1, "batch_size": 2, "sweep": {"high": 0.9}}
    assert made(run.again(training=training)) == ["checkpoint", "threshold", "test_predictions"]


def test_a_changed_photo_changes_everything_after_it(
    run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(run.photos, photos)
    monkeypatch.setenv("CD_PIPELINE_ROOMS", str(photos))
    assert made(run.again()) == ["raw_photos"]  # another folder, the same photos
    folder = photos / "trainval" / "images" / "KITCHEN"
    size_and_time = (folder / "photo_001.jpg").stat()
    shutil.copyfile(photos / "test" / "images" / "KITCHEN" / "photo_001.jpg", folder / "photo_001.jpg")
    os.utime(folder / "photo_001.jpg", ns=(size_and_time.st_atime_ns, size_and_time.st_mtime_ns))
    assert made(run.again()) == list(ASSETS)
    assert made(run.again()) == []


@pytest.mark.slow
def test_other_threads_train_again_and_nothing_else_where_the_weights_stay(run: Made) -> None:
    again = made(materialize(recipe_of(run.photos), run.root, threads=2))
    assert again[0] == "checkpoint"


@pytest.mark.parametrize(("word", "forces"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_an_environment_variable_or_a_tag_forces_work(
    run: Made, word: str, forces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ["split"] if forces else []
    recipe = recipe_of(run.photos)
    assert made(materialize(recipe, run.root, ("split",), {"cd_pipeline/force": word})) == expected
    monkeypatch.setenv("CD_PIPELINE_FORCE", word)
    assert made(run.again("split")) == expected


def test_a_receipt_with_one_byte_changed_is_no_receipt(run: Made) -> None:
    receipt = run.file(f"split/{RECEIPT}")
    whole = receipt.read_bytes()
    receipt.write_bytes(whole.replace(b"train", b"tra1n", 1))
    assert made(run.again("split")) == ["split"]
    assert receipt.read_bytes() == whole


@pytest.mark.parametrize("content", ["", "{}", "no receipt", '{"identity": {}}'])
def test_a_broken_receipt_is_no_receipt(run: Made, content: str) -> None:
    run.file(f"split/{RECEIPT}").write_text(content)
    assert made(run.again("split")) == ["split"]
    assert made(run.again("split")) == []


def test_other_package_versions_make_it_again(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "cd_pipeline.assets.memo.package_version", lambda name: "9.9" if name == "numpy" else "1"
    )
    assert made(run.again("split")) == ["split"]


def test_a_training_whose_result_could_not_be_saved_is_not_done_again(
    run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.file("checkpoint") / RECEIPT).unlink()
    with monkeypatch.context() as patched:
        patched.setattr("cd_pipeline.evaluation.figures.training_curves", lambda *_: 1 / 0)
        assert not run.again("checkpoint").success
    assert not (run.file("checkpoint") / RECEIPT).exists()
    unfinished = run.file("checkpoint/unfinished.pt")
    assert unfinished.is_file()
    monkeypatch.setattr("cd_pipeline.training.loop.train_epoch", None)
    again = run.again("checkpoint")
    assert made(again) == ["checkpoint"]
    assert versions(again)["checkpoint"] == versions(run.first)["checkpoint"]
    assert not unfinished.exists()


def test_an_asset_alone_is_not_called_unchanged_when_what_it_reads_is_of_another_recipe(run: Made) -> None:
    result = run.again("test_predictions", model={"name": "tiny_siamese_unet", "pretrained": False})
    assert "checkpoint was made for another recipe (input or model)" in failure(result, "test_predictions")
    assert made(run.again()) == []  # and the attempt costs nothing


def test_an_asset_that_failed_half_way_is_made_again(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"high": 0.9, "pairs": "own", "tolerance": 0, "steps": 7}
    with monkeypatch.context() as patched:
        patched.setattr("cd_pipeline.evaluation.threshold.ChosenThreshold.save", lambda *_: 1 / 0)
        assert not run.again("threshold", threshold=chosen).success  # the new sweep is there
    assert made(run.again()) == ["threshold"]


def test_an_asset_alone_refuses_what_was_altered_until_it_is_made_again_or_accepted(run: Made) -> None:
    path = run.file("threshold/threshold.json")
    path.write_text(path.read_text().replace('"threshold": 0.', '"threshold": 0.0'))
    told = failure(run.again("test_predictions"), "test_predictions")
    assert told.startswith(f"{path} is not the file that threshold wrote")
    assert '--select "*threshold"' in told
    (path.parent / RECEIPT).unlink()
    assert made(run.again("test_predictions")) == ["test_predictions"]
    assert made(run.again("test_predictions")) == []
