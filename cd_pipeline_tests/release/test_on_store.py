"""Releases on an object store."""

import logging
from contextlib import suppress
from pathlib import Path

import pytest

from cd_pipeline.cli import main
from cd_pipeline.release.on_store import fetch_releases, push_releases
from cd_pipeline.release.store import ReleaseStore
from cd_pipeline.remote.errors import StoreError
from cd_pipeline.remote.lease import leased
from cd_pipeline.remote.object_folder import ObjectFolder
from cd_pipeline_tests.release.deliveries import Releases, scores_with, version_of
from cd_pipeline_tests.stores import Store

RELEASES = "s3://bucket/data/rooms/release"


@pytest.fixture(autouse=True)
def _data_root_on_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.remote.lease.SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("CD_PIPELINE_DATA", "s3://bucket/data")


@pytest.fixture
def releases(store: Store, tmp_path: Path) -> Releases:
    """A first release and a better one, on the machine that made them and on the store."""
    found = Releases(tmp_path / "maker")
    for number, (name, recall) in enumerate((("first", 0.5), ("better", 0.6))):
        found.offer(name, scores_with(recall, seed=number))
    send(found)
    return found


def send(releases: Releases) -> None:
    with leased(ObjectFolder("s3://bucket/data/rooms"), "sending", logging.getLogger(__name__)) as lease:
        push_releases(ObjectFolder(RELEASES), releases.store, lease)


def on_fresh_machine(folder: Path) -> ReleaseStore:
    fetch_releases(ObjectFolder(RELEASES), folder)
    return ReleaseStore(folder)


def test_a_fresh_machine_has_what_is_shipped_and_its_history(releases: Releases, tmp_path: Path) -> None:
    fresh = on_fresh_machine(tmp_path / "fresh")
    assert (fresh.folder / "current" / "change_ts.pt").read_text() == "change_ts.pt of better"
    assert [shipment.version for shipment in fresh.shipments] == [version_of("first"), version_of("better")]
    assert fresh.records() == releases.store.records()
    for name in ("first", "better"):
        fresh.verified(version_of(name))


def test_a_rollback_from_any_machine_is_seen_by_all(
    releases: Releases, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["release", "rollback"]) == 0
    assert capsys.readouterr().out == f"shipped: {version_of('first')}, instead of {version_of('better')}\n"
    fetch_releases(ObjectFolder(RELEASES), releases.store.folder)
    assert releases.current_text() == "change_ts.pt of first"
    assert releases.store.withdrawn == {version_of("better")}
    written = store.writes()
    assert main(["release", "list"]) == 0
    head, *rows, _ = capsys.readouterr().out.splitlines()
    assert head.endswith(f"current leads to {version_of('first')}")
    assert [(row[0], row[1:].split()[1]) for row in rows] == [(" ", "withdrawn"), ("*", "shipped")]
    assert store.writes() == written


def test_only_what_is_new_is_sent(releases: Releases, store: Store) -> None:
    before = store.writes()
    send(releases)
    assert store.writes() == before
    releases.offer("best", scores_with(0.7, seed=3))
    send(releases)
    new = {name for name, count in (store.writes() - before).items() if count}
    kept = f"data/rooms/release/versions/{version_of('best')}/"
    assert {name for name in new if not name.startswith(kept)} <= {
        "data/rooms/release/current.json",
        *(name for name in new if "/scores/" in name or name.endswith("release.json")),
    }


def test_sending_that_stops_anywhere_leaves_a_whole_version_shipped(
    releases: Releases, store: Store, tmp_path: Path
) -> None:
    releases.offer("best", scores_with(0.7, seed=3), keep=0)  # the first one is deleted
    shipped = []
    for requests in range(12):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, requests)
            with (
                leased(
                    ObjectFolder("s3://bucket/data/rooms"), "sending", logging.getLogger(__name__)
                ) as lease,
                suppress(StoreError),
            ):
                push_releases(ObjectFolder(RELEASES), releases.store, lease)
        fresh = on_fresh_machine(tmp_path / f"fresh {requests}")
        assert fresh.shipped is not None
        fresh.verified(fresh.shipped)
        assert fresh.records()[1] == []
        shipped.append(fresh.shipped)
    changed = shipped.index(version_of("best"))
    assert set(shipped[:changed]) == {version_of("better")}
    assert set(shipped[changed:]) == {version_of("best")}


def stop_after(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    left = requests
    for act in ("upload", "delete"):
        real = getattr(ObjectFolder, act)

        def stopping(self: ObjectFolder, *given: object, real: object = real) -> object:
            nonlocal left
            if left == 0:
                raise StoreError("s3://bucket: the store cannot be reached")
            left -= 1
            return real(self, *given)  # type: ignore[operator]

        monkeypatch.setattr(ObjectFolder, act, stopping)


def test_nothing_released_is_told_by_the_address(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["release", "list"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "cd-pipeline release: s3://bucket/data/rooms/release/versions is not there: run dagster"
    )
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"")
    assert main(["predict", str(photo), str(photo), "-o", str(tmp_path / "mask.png")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "cd-pipeline predict: s3://bucket/data/rooms/mlpackage/change_ts.pt is not there: run "
    )


def test_a_bucket_that_is_not_there_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CD_PIPELINE_DATA", "s3://no-bucket/data")
    for action in ("list", "rollback"):
        assert main(["release", action]) == 2
        told = capsys.readouterr().err
        assert told.startswith("cd-pipeline release: s3://no-bucket/data/rooms")
        assert "there is no such bucket; create it" in told
        assert told.count("\n") == 1
