"""The pipeline with its data root, and the raw photos, on an object store, from machines with caches of their own."""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cd_pipeline.assets.memo import RECEIPT, Receipt
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.assets.tiny import checks, draw_photos, failure, metadata, run, tiny_recipe, versions
from cd_pipeline_tests.drawn import draw_photo_tree
from cd_pipeline_tests.stores import Store

ROOT, PHOTOS = "s3://bucket/data", "s3://bucket/photos"
PREPARED = ("raw_photos", "split", "pair_manifest", "change_masks")
ASSETS = (*PREPARED, "checkpoint", "threshold", "test_predictions")

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def recipe_of(photos: str = PHOTOS, **changes: object) -> Recipe:
    training = {"epochs": 1, "batch_size": 4, "sweep": {"high": 0.9}}
    source = {"folder": photos}
    return tiny_recipe(None, **{"source": source, "input": {"size": 32}, "training": training, **changes})


def materialize(
    *select: str, recipe: Recipe | None = None, root: str = ROOT, force: bool = False
) -> dg.ExecuteInProcessResult:
    """Run assets without their checks, which would stop a network that has learnt nothing."""
    recipe = recipe or recipe_of()
    return dg.materialize(
        list(build_pipeline(recipe).assets or []),  # type: ignore[arg-type]
        selection=dg.AssetSelection.assets(*(recipe.asset_key(name) for name in select or PREPARED)),
        resources={"workspace": Workspace(root=root), "compute": Compute(device="cpu", threads=1)},
        tags={"cd_pipeline/force": "true"} if force else None,
        raise_on_error=False,
    )


def made(result: dg.ExecuteInProcessResult) -> list[str]:
    """The assets that were made anew, in the order of the pipeline."""
    assert result.success
    return [name for name in versions(result) if "unchanged" not in metadata(result, name)]


@pytest.fixture(autouse=True)
def _photos_on_the_store(store: Store, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_folder(drawn, "photos")
    monkeypatch.setattr("cd_pipeline.remote.lease.SETTLE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = tmp_path_factory.mktemp("photos")
    draw_photo_tree(photos, {"trainval": {"KITCHEN": 6, "STUDY": 3}, "test": {"KITCHEN": 2}}, size=(64, 48))
    return photos


def on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "other") -> None:
    monkeypatch.setenv("CD_PIPELINE_CACHE", str(tmp_path / name))


def require_whole(store: Store, asset: str, root: str = "data") -> Receipt:
    """What lies on the store of an asset is what its receipt says."""
    prefix = f"{root}/rooms/{asset}/"
    receipt = Receipt.model_validate_json(store.get(prefix + RECEIPT))
    assert receipt == receipt.sealed()
    there = {name.removeprefix(prefix) for name in store.names(prefix) if not name.endswith("/")}
    assert there == {*receipt.files, RECEIPT}
    for name, record in receipt.files.items():
        assert hashlib.sha256(store.get(prefix + name)).hexdigest() == record.sha256
    return receipt


def test_the_same_is_made_as_of_local_folders(store: Store, drawn: Path, tmp_path: Path) -> None:
    remote = materialize()
    local = materialize(recipe=recipe_of(str(drawn)), root=str(tmp_path / "local"))
    assert made(remote) == list(PREPARED)
    assert versions(remote) == versions(local)
    for asset in PREPARED:
        found = require_whole(store, asset)
        folder = tmp_path / "local" / "rooms" / asset
        assert {name: (folder / name).stat().st_size for name in found.files} == {
            name: record.size for name, record in found.files.items()
        }
    assert str(metadata(remote, "raw_photos")["folder"]) == PHOTOS
    assert metadata(remote, "split")["on_store"] == f"{ROOT}/rooms/split"


def test_what_nothing_has_changed_for_is_neither_made_nor_sent_nor_fetched_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = materialize()
    written, read = store.writes(), store.reads()
    again = materialize()
    assert made(again) == []
    assert store.writes() == written
    assert {name.rpartition("/")[2] for name in store.reads() - read} == {RECEIPT, ".lease.json"}
    on_another_machine(tmp_path, monkeypatch)
    elsewhere = materialize()
    assert made(elsewhere) == []
    assert versions(first) == versions(again) == versions(elsewhere)
    assert store.writes() == written


@pytest.mark.slow
def test_an_asset_alone_is_made_on_a_fresh_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = materialize()
    written = store.writes()
    on_another_machine(tmp_path, monkeypatch)
    alone = materialize("change_masks", force=True)
    assert made(alone) == ["change_masks"]
    assert versions(alone)["change_masks"] == versions(first)["change_masks"]
    assert {name for name, count in (store.writes() - written).items() if count} <= {
        f"data/rooms/change_masks/{RECEIPT}"
    }


@pytest.mark.slow
def test_checks_on_a_fresh_machine_see_the_same_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize()
    on_another_machine(tmp_path, monkeypatch)
    recipe = recipe_of()
    definitions = build_pipeline(recipe)
    result = dg.materialize(
        [*(definitions.assets or []), *(definitions.asset_checks or [])],  # type: ignore[list-item]
        selection=dg.AssetSelection.checks_for_assets(dg.AssetKey("split"), dg.AssetKey("change_masks")),
        resources={"workspace": Workspace(root=ROOT), "compute": Compute(device="cpu", threads=1)},
        raise_on_error=False,
    )
    found = checks(result)
    found.pop("positive_share_is_plausible")  # of so few pairs it may be anything
    assert found == dict.fromkeys(
        ["no_picture_in_two_splits", "masks_are_binary_and_sized", "masks_tell_the_truth"], True
    )


def test_a_photo_that_changes_comes_or_goes_is_noticed_and_nothing_else_fetched(
    store: Store, drawn: Path
) -> None:
    materialize("raw_photos", "split")
    read = store.reads("photos")
    images = "photos/trainval/images/KITCHEN"
    one, two, *_ = sorted(name for name in store.names(images))
    other = sorted(name for name in store.names("photos/trainval/images/STUDY"))[0]
    store.put(one, store.get(other))
    store.put(f"{images}/new.jpg", b"no picture")
    store.delete(two)
    before = store.reads("photos") - read
    again = materialize("raw_photos", "split")
    assert made(again) == ["raw_photos", "split"]
    fetched = {name for name, count in (store.reads("photos") - read - before).items() if count}
    assert fetched == {one, f"{images}/new.jpg"}
    quarantined = metadata(again, "raw_photos")["quarantined_files"]
    assert any("new.jpg" in str(record.data["file"]) for record in quarantined.records)  # type: ignore[union-attr, attr-defined]
    assert metadata(again, "raw_photos")["photos"] == 10


def test_an_object_whose_name_leads_elsewhere_is_listed_with_its_reason(store: Store, tmp_path: Path) -> None:
    store.put("photos/test/images/KITCHEN/../../../../../evil.jpg", b"x")
    result = materialize("raw_photos")
    (record,) = metadata(result, "raw_photos")["refused_objects"].records  # type: ignore[attr-defined]
    assert record.data["object"] == "test/images/KITCHEN/../../../../../evil.jpg"
    assert "rename it" in record.data["reason"]
    assert not list(tmp_path.rglob("evil.jpg"))


KILLED = """
import os, signal
from cd_pipeline.remote.object_folder import ObjectFolder
from cd_pipeline_tests.assets.test_remote_root import materialize

real, sent = ObjectFolder.upload, []

def killing(self, path, name):
    if "change_masks" in self.uri:
        sent.append(name)
    if len(sent) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, path, name)

ObjectFolder.upload = killing
materialize()
"""


def kill_while_sending(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, cwd=tmp_path, check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr.decode()[-2000:]


@pytest.mark.slow
def test_what_a_killed_run_has_sent_in_part_is_not_believed_elsewhere_and_made_by_a_plain_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_while_sending(tmp_path)
    assert any(name.startswith("data/rooms/change_masks/") for name in store.names())
    on_another_machine(tmp_path, monkeypatch)
    told = failure(materialize("checkpoint"), "checkpoint")
    assert told == (
        "s3://bucket/data/rooms/change_masks was sent only in part, by a run that was stopped: "
        'run dagster asset materialize -m cd_pipeline.definitions --select "*change_masks"'
    )
    assert made(materialize()) == ["change_masks"]
    require_whole(store, "change_masks")


@pytest.mark.slow
def test_the_machine_whose_run_was_killed_while_sending_only_sends_the_rest(
    store: Store, tmp_path: Path
) -> None:
    kill_while_sending(tmp_path)
    assert made(materialize()) == []
    require_whole(store, "change_masks")


@pytest.mark.slow
def test_a_store_that_goes_away_is_one_line_and_a_plain_run_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cd_pipeline.data import split

    real = split.assign_splits
    with store.away():
        told = failure(materialize("raw_photos"), "raw_photos")
    assert told.startswith(f"{ROOT}/rooms/.lease.json: the store cannot be reached; check the network")
    assert "\n" not in told
    with ExitStack() as stack, monkeypatch.context() as patch:

        def losing_the_store(photos: Any, settings: Any) -> object:  # noqa: ANN401
            stack.enter_context(store.away())
            return real(photos, settings)

        patch.setattr(split, "assign_splits", losing_the_store)
        failed = materialize()
    assert failure(failed, "split").startswith(f"{ROOT}/rooms/split/{RECEIPT}: the store cannot be reached")
    assert made(materialize()) == ["pair_manifest", "change_masks"]  # what was divided is only sent
    for asset in PREPARED:
        require_whole(store, asset)


def test_a_bucket_that_is_not_there_and_a_user_who_may_not_are_told_with_the_remedy(store: Store) -> None:
    told = failure(materialize("raw_photos", root="s3://no-bucket/data"), "raw_photos")
    assert told.startswith(
        "s3://no-bucket/data/rooms: there is no such bucket; create it, or correct the address"
    )
    told = failure(materialize("raw_photos", recipe=recipe_of("s3://no-bucket/photos")), "raw_photos")
    assert told.startswith("s3://no-bucket/photos: there is no such bucket")
    told = failure(materialize("raw_photos", recipe=recipe_of("s3://bucket/nothing")), "raw_photos")
    assert told == "s3://bucket/nothing: no such folder; set the recipe's source folder to your photos"
    told = failure(materialize("raw_photos", root="ftp://bucket/data"), "raw_photos")
    assert told.startswith("ftp://bucket/data: found ftp://, expected s3://<bucket>/<prefix>")
    with store.refusing():
        told = failure(materialize("raw_photos"), "raw_photos")
    assert told.startswith(f"{ROOT}/rooms/.lease.json: the store refuses access; set AWS_ACCESS_KEY_ID")


def test_an_earlier_asset_that_is_not_on_the_store_is_told_with_the_command(store: Store) -> None:
    told = failure(materialize("split"), "split")
    assert told == (
        f"{ROOT}/rooms/raw_photos/photos.parquet is not there: "
        'run dagster asset materialize -m cd_pipeline.definitions --select "*raw_photos"'
    )


def test_photos_on_a_store_and_results_in_a_folder_and_the_other_way_round(
    store: Store, drawn: Path, tmp_path: Path
) -> None:
    one = materialize(root=str(tmp_path / "here"))
    other = materialize(recipe=recipe_of(str(drawn)))
    assert made(one) == made(other) == list(PREPARED)
    assert versions(one) == versions(other)
    assert not list((tmp_path / "here").rglob(".on_store"))


def test_real_pairs_on_a_store_are_mirrored_without_what_lies_beside_them(
    store: Store, tmp_path: Path
) -> None:
    for name in ("A/1.png", "B/1.png", "label/1.png", "raw/1.png"):
        store.put(f"pairs/{name}", b"1")
    recipe = recipe_of(real_pairs={"folder": "s3://bucket/pairs"})
    folder = Workspace(root=str(tmp_path / "here")).configured_pairs(recipe)
    assert folder is not None
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == [
        *("A/1.png", "B/1.png", "label/1.png"),
    ]


@pytest.mark.slow
def test_sample_data_is_drawn_once_for_all_machines(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cd_pipeline.synthesis.sample_rooms.draw_sample_rooms", draw_few)
    recipe = tiny_recipe(None)
    first = materialize(recipe=recipe)
    on_another_machine(tmp_path, monkeypatch)
    monkeypatch.setattr("cd_pipeline.synthesis.sample_rooms.draw_sample_rooms", None)
    assert made(materialize("change_masks", recipe=recipe, force=True)) == ["change_masks"]
    assert versions(materialize(recipe=recipe)) == versions(first)


def draw_few(folder: Path, /, **options: object) -> None:
    draw_photo_tree(folder, {"trainval": {"KITCHEN": 4, "STUDY": 3}, "test": {"KITCHEN": 2}}, size=(64, 48))


@pytest.mark.slow
def test_the_whole_pipeline_from_photos_to_release_on_two_machines(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cd_pipeline.cli import main

    monkeypatch.setattr("cd_pipeline.remote.lease.RENEWED_SECONDS", 0.5)
    store.clear()
    store.put_folder(draw_photos(tmp_path / "photos"), "photos")
    recipe = tiny_recipe(None, source={"folder": PHOTOS})
    first = run(recipe, ROOT)  # type: ignore[arg-type]
    assert all(checks(first).values())
    for asset in (*ASSETS, "mlpackage", "report"):
        require_whole(store, asset)
    written = store.writes()
    on_another_machine(tmp_path, monkeypatch)
    alone = run(recipe, ROOT, select=["threshold"])  # type: ignore[arg-type]
    assert versions(alone)["threshold"] == versions(first)["threshold"]
    second = run(recipe, ROOT)  # type: ignore[arg-type]
    assert all(checks(second).values())
    assert made(second) == ["release"]
    assert versions(second) == versions(first)
    assert store.writes() == written
    on_another_machine(tmp_path, monkeypatch, "third")
    monkeypatch.setenv("CD_PIPELINE_DATA", ROOT)
    assert main(["release", "list"]) == 0
    assert "  shipped  " in capsys.readouterr().out
    photo = next((tmp_path / "photos").rglob("*.jpg"))
    assert main(["predict", str(photo), str(photo), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]
