"""What an asset has made, on the store and on two machines."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cd_pipeline.data.files import keep_only
from cd_pipeline.remote.errors import LeaseLostError, SpoiltResultError, StoreError
from cd_pipeline.remote.lease import LEASE, Lease, leased
from cd_pipeline.remote.object_folder import ObjectFolder
from cd_pipeline.remote.results import StoredResult
from cd_pipeline_tests.stores import Store

OLD = {"same.png": "same", "changed.png": "old", "in/gone.png": "gone"}
NEW = {"same.png": "same", "changed.png": "new", "in/added.png": "added", "added.png": "added"}
RECEIPT = ".receipt.json"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.remote.lease.SETTLE_SECONDS", 0.0)


@pytest.fixture
def lease(store: Store) -> Iterator[Lease]:
    with leased(ObjectFolder("s3://bucket/data/rooms"), "testing", logging.getLogger(__name__)) as held:
        yield held


@pytest.fixture
def machines(tmp_path: Path) -> tuple[StoredResult, StoredResult]:
    """One asset on two machines."""
    return on_machine(tmp_path / "a"), on_machine(tmp_path / "b")


def on_machine(folder: Path) -> StoredResult:
    return StoredResult(ObjectFolder("s3://bucket/data/rooms/asset"), folder / "asset")


def make(result: StoredResult, files: Mapping[str, str]) -> None:
    """Do what an asset does: write files, delete those of before, and write the receipt last."""
    for path in [path for path in result.local.rglob("*") if path.is_file() and path.name[0] != "."]:
        path.unlink()
    for name, text in files.items():
        (result.local / name).parent.mkdir(parents=True, exist_ok=True)
        (result.local / name).write_text(text)
    records = {
        name: {"size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for name, text in files.items()
    }
    (result.local / RECEIPT).write_text(json.dumps({"identity": {"code": "1"}, "files": records}))


def seen(result: StoredResult) -> dict[str, str] | None:
    """The files on a machine if its receipt is of them; None: there is none."""
    if not (result.local / RECEIPT).exists():
        return None
    told = json.loads((result.local / RECEIPT).read_text())["files"]
    for name, record in told.items():
        assert hashlib.sha256((result.local / name).read_bytes()).hexdigest() == record["sha256"]
    return {name: (result.local / name).read_text() for name in told}


def test_what_one_machine_made_another_has_after_fetching_it(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, other = machines
    make(one, OLD)
    one.send(lease)
    other.fetch(lease)
    assert seen(other) == OLD
    make(one, NEW)
    one.send(lease)
    other.fetch(lease)
    assert seen(other) == NEW
    assert not (other.local / "in/gone.png").exists()
    assert "data/rooms/asset/in/gone.png" not in store.names()


def test_only_what_is_new_is_sent_and_fetched(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, other = machines
    make(one, OLD)
    one.send(lease)
    other.fetch(lease)
    kept = (other.local / "same.png").stat().st_ino
    make(one, NEW)
    one.send(lease)
    other.fetch(lease)
    written = store.writes("data/rooms/asset/")
    assert written["data/rooms/asset/same.png"] == 1
    assert written["data/rooms/asset/changed.png"] == 2
    assert (other.local / "same.png").stat().st_ino == kept
    for machine in machines:
        machine.fetch(lease)
        machine.send(lease)
    assert store.writes("data/rooms/asset/") == written


def stop_at(monkeypatch: pytest.MonkeyPatch, request: int) -> Callable[[], int]:
    """Let the store fail from a request on that changes it; return how many there were."""
    count = 0
    for act in ("write", "upload", "delete"):
        real = getattr(ObjectFolder, act)

        def stopping(self: ObjectFolder, *given: object, real: Callable[..., object] = real) -> object:
            nonlocal count
            count += 1
            if count >= request:
                raise StoreError("s3://bucket: the store cannot be reached")
            return real(self, *given)

        monkeypatch.setattr(ObjectFolder, act, stopping)
    return lambda: count


def test_sending_that_stops_anywhere_is_never_believed_and_is_completed_by_the_next_run(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult], tmp_path: Path
) -> None:
    one, other = machines
    make(one, OLD)
    one.send(lease)
    other.fetch(None)
    outcomes = []
    for request in range(1, 10):
        make(one, NEW)
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, request)
            try:
                one.send(lease)
            except StoreError:
                outcomes.append(told_elsewhere(tmp_path / f"fresh {request}"))
                other.fetch(None)  # has the old one, and goes on with it
                assert seen(other) == OLD
            else:
                outcomes.append("done")
        one.fetch(lease)  # the next run
        third = on_machine(tmp_path / f"after {request}")
        third.fetch(None)
        assert seen(third) == NEW
        make(one, OLD)
        one.send(lease)
    notice, *half, done = list(dict.fromkeys(outcomes))
    assert (notice, half, done) == ("old", ["not believed"], "done")


def told_elsewhere(folder: Path) -> str:
    machine = on_machine(folder)
    try:
        machine.fetch(None)
    except SpoiltResultError as error:
        assert "s3://bucket/data/rooms/asset was sent only in part" in str(error)
        assert seen(machine) is None
        return "not believed"
    assert seen(machine) in (OLD, NEW)
    return "old" if seen(machine) == OLD else "new"


def test_a_first_result_that_was_sent_in_part_is_as_good_as_none(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = machines
    make(one, OLD)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StoreError):
            one.send(lease)
    with pytest.raises(SpoiltResultError, match="only in part"):
        other.fetch(lease)
    make(other, NEW)  # made anew elsewhere, with other files
    other.send(lease)
    one.fetch(lease)
    assert seen(one) == NEW
    assert set(store.names("data/rooms/asset/")) == {f"data/rooms/asset/{name}" for name in (*NEW, RECEIPT)}


def test_work_that_was_not_sent_is_kept_until_it_is(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, other = machines
    make(one, OLD)
    one.send(lease)
    make(one, NEW)  # and then it was killed
    one.fetch(None)
    assert seen(one) == NEW
    one.fetch(lease)
    other.fetch(None)
    assert seen(other) == NEW


def test_work_that_was_not_sent_is_kept_when_leftovers_beside_it_are_deleted(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, _ = machines
    make(one, OLD)
    one.send(lease)
    make(one, NEW)
    keep_only(one.local, set(NEW))
    one.fetch(None)
    assert seen(one) == NEW


def test_where_another_machine_was_faster_the_store_is_right(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, other = machines
    make(one, OLD)
    one.send(lease)
    other.fetch(lease)
    make(one, {"a": "never sent"})
    make(other, NEW)
    other.send(lease)
    one.fetch(lease)
    assert seen(one) == NEW


def test_what_is_deleted_on_the_store_counts_no_more(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, _ = machines
    make(one, OLD)
    one.send(lease)
    store.delete(f"data/rooms/asset/{RECEIPT}")
    one.fetch(lease)
    assert seen(one) is None
    assert [path for path in one.local.rglob("*") if path.is_file()] == []
    assert f"data/rooms/asset/{RECEIPT}" not in store.names()


@pytest.mark.parametrize("content", [b"othr", None])
def test_an_object_that_is_damaged_or_gone_is_noticed_and_sent_again(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult], content: bytes | None
) -> None:
    one, other = machines
    make(one, OLD)
    one.send(lease)
    name = "data/rooms/asset/same.png"
    store.put(name, content) if content else store.delete(name)
    with pytest.raises(SpoiltResultError, match=r"^s3://bucket/data/rooms/asset/same.png is"):
        other.fetch(lease)
    assert seen(other) is None
    other.disown(lease)
    make(other, OLD)
    other.send(lease)
    assert store.get(name) == b"same"


def test_a_local_file_that_was_damaged_is_fetched_again(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, _ = machines
    make(one, OLD)
    one.send(lease)
    (one.local / "same.png").write_text("damaged")
    (one.local / "in/gone.png").unlink()
    (one.local / "unfinished.pt").write_text("state of a training")
    one.fetch(lease)
    assert seen(one) == OLD
    assert (one.local / "unfinished.pt").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "in/../../evil", ".receipt.json", ".hidden/evil", ""])
def test_a_receipt_that_names_files_elsewhere_is_not_believed(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult], tmp_path: Path, name: str
) -> None:
    record = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    store.put(f"data/rooms/asset/{RECEIPT}", json.dumps({"files": {name: record}}).encode())
    with pytest.raises(SpoiltResultError):
        machines[1].fetch(lease)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nothing_is_called_whole_once_another_machine_has_taken_over(
    store: Store, lease: Lease, machines: tuple[StoredResult, StoredResult]
) -> None:
    one, other = machines
    make(one, OLD)
    store.put(
        f"data/rooms/{LEASE}", json.dumps({"token": "x", "host": "gpu-7", "purpose": "making it"}).encode()
    )
    with pytest.raises(LeaseLostError, match=r"gpu-7 \(making it\) writes to it too"):
        one.send(lease)
    other.fetch(None)
    assert seen(other) is None
