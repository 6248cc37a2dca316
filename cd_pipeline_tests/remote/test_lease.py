"""One machine at a time writes."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time

import pytest

from cd_pipeline.remote.errors import LeaseLostError
from cd_pipeline.remote.lease import LEASE, Holder, leased, read_lease
from cd_pipeline.remote.object_folder import ObjectFolder
from cd_pipeline_tests.stores import Store

LOG = logging.getLogger(__name__)


@pytest.fixture
def folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> ObjectFolder:
    for name, seconds in {"SETTLE": 0.05, "LOOK": 0.05, "RENEWED": 0.1, "EXPIRES": 1.0}.items():
        monkeypatch.setattr(f"cd_pipeline.remote.lease.{name}_SECONDS", seconds)
    return ObjectFolder("s3://bucket/data/rooms")


def of_another_machine(**changes: object) -> bytes:
    held = Holder(token="other", host="gpu-7", machine="another", process="gpu-7 1 0", purpose="making split")
    return held.model_copy(update=changes).model_dump_json().encode()


def test_a_second_one_waits_until_the_first_has_ended(
    folder: ObjectFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    events: list[str] = []

    def second() -> None:
        with leased(folder, "second", LOG):
            events.append("second")

    with leased(folder, "making checkpoint", LOG):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(1.5)  # longer than a lease that is not renewed lives
        events.append("first ends")
    other.join()
    assert events == ["first ends", "second"]
    assert "another run is making checkpoint (process " in caplog.text
    assert read_lease(folder).token == ""


def test_of_many_at_once_never_two_are_at_work(folder: ObjectFolder) -> None:
    at_work, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal at_work, most
        with leased(folder, "work", LOG):
            with lock:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.02)
            with lock:
                at_work -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_the_lease_of_a_process_of_this_machine_that_was_killed_is_taken_at_once(
    store: Store, folder: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cd_pipeline.remote.lease.EXPIRES_SECONDS", 600)
    script = (
        "import logging, os\nfrom cd_pipeline.remote.lease import leased\n"
        "from cd_pipeline.remote.object_folder import ObjectFolder\n"
        "with leased(ObjectFolder('s3://bucket/data/rooms'), 'dying', logging.getLogger()): os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert read_lease(folder).purpose == "dying"
    with leased(folder, "next", LOG):
        assert read_lease(folder).purpose == "next"


def test_the_lease_of_another_machine_is_taken_only_when_it_is_renewed_no_more(
    store: Store, folder: ObjectFolder
) -> None:
    name = f"data/rooms/{LEASE}"
    store.put(name, of_another_machine())
    began = time.monotonic()
    renewing = threading.Timer(0.6, store.put, (name, of_another_machine(renewed=1)))
    renewing.start()
    with leased(folder, "next", LOG) as lease:
        assert time.monotonic() - began > 1.6
        lease.require()


def test_a_lease_that_was_taken_away_is_told_with_the_remedy(store: Store, folder: ObjectFolder) -> None:
    with leased(folder, "first", LOG) as lease:
        store.put(f"data/rooms/{LEASE}", of_another_machine())
        with pytest.raises(
            LeaseLostError, match=r"^s3://bucket/data/rooms: gpu-7 \(making split\) writes to it too"
        ):
            lease.require()
        time.sleep(0.3)
    assert json.loads(store.get(f"data/rooms/{LEASE}"))["token"] == "other"


@pytest.mark.slow
def test_a_lease_that_could_not_be_given_back_does_not_keep_its_own_process_waiting(
    store: Store, folder: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cd_pipeline.remote.lease.EXPIRES_SECONDS", 600)
    monkeypatch.setattr("cd_pipeline.remote.lease.RENEWED_SECONDS", 600)
    with contextlib.ExitStack() as stack, leased(folder, "first", LOG):
        stack.enter_context(store.away())
    assert read_lease(folder).purpose == "first"
    with leased(folder, "second", LOG) as lease:
        lease.require()


def test_a_damaged_lease_is_held_by_nobody(store: Store, folder: ObjectFolder) -> None:
    store.put(f"data/rooms/{LEASE}", b"{half")
    with leased(folder, "first", LOG) as lease:
        lease.require()
