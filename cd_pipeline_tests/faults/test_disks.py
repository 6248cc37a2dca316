"""Disks that are full or read-only, and a raw folder that goes away: one clear line, and nothing is lost."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cd_pipeline_tests.faults.conftest import SELECTED, Undisturbed
from cd_pipeline_tests.faults.driver import Runner
from cd_pipeline_tests.faults.files import contents, files_below, require_whole

pytestmark = pytest.mark.slow

AMPLE = 64 << 20
FORCE = {"CD_PIPELINE_FORCE": "1"}


class Disk:
    """A small disk in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._run("mount", "-t", "tmpfs", "-o", f"size={AMPLE}", "tmpfs")

    def hold(self, size: int) -> None:
        """Let it hold so many bytes, no fewer than it does."""
        self._run("mount", "-o", f"remount,size={size}")

    def protect(self, mode: str) -> None:
        """Make it read-only (ro) or writable (rw)."""
        self._run("mount", "-o", f"remount,{mode}")

    def used(self) -> int:
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _run(self, *command: str) -> None:
        subprocess.run([*command, str(self.folder)], check=True, capture_output=True)

    def close(self) -> None:
        self._run("umount")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path / "disk")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"a disk of its own cannot be mounted here: {error}")
    yield disk
    disk.close()


def require_one_line(told: list[str], *words: str) -> None:
    assert len(told) == 1, told
    assert all(word in told[0] for word in words), told[0]


def test_a_full_disk_stops_a_run_with_one_line_and_loses_nothing(
    disk: Disk, runner: Runner, undisturbed: dict[str, Undisturbed]
) -> None:
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in files_below(undisturbed["rooms"].data))
    failures = 0
    for share in (0.02, 0.3, 0.6, 0.85):
        disk.hold(max(int(share * needed), disk.used() + 4096))
        run = runner.start(disk.folder, "rooms", SELECTED["rooms"])
        if run.wait() != 0:
            failures += 1
            told = [line for line in run.told().splitlines() if line.startswith("FAILED ")]
            require_one_line(told, f"{disk.folder}/rooms/", f"the disk mounted at {disk.folder} is full")
        require_whole(disk.folder)
    assert failures >= 3
    disk.hold(AMPLE)
    runner.complete(disk.folder, "rooms", SELECTED["rooms"])
    assert contents(disk.folder) == undisturbed["rooms"].files


def test_what_was_there_stays_when_there_is_no_room_to_make_it_anew(
    disk: Disk, runner: Runner, undisturbed: dict[str, Undisturbed]
) -> None:
    runner.complete(disk.folder, "levir", SELECTED["levir"])
    for asset in ("raw_pairs", "pair_manifest", "checkpoint", "threshold"):
        disk.hold(disk.used())
        told = runner.failed(disk.folder, "levir", [asset], **FORCE)
        require_one_line(told, f"{disk.folder}/levir/{asset}/", f"the disk mounted at {disk.folder} is full")
        require_whole(disk.folder)
    disk.hold(AMPLE)
    runner.complete(disk.folder, "levir", SELECTED["levir"])
    assert contents(disk.folder) == undisturbed["levir"].files


def test_a_read_only_disk_is_named_and_what_is_on_it_can_be_read(
    disk: Disk, runner: Runner, undisturbed: dict[str, Undisturbed]
) -> None:
    disk.protect("ro")
    told = runner.failed(disk.folder, "levir", ["raw_pairs"])
    require_one_line(told, f"{disk.folder}/levir", f"the disk mounted at {disk.folder} is read-only")
    disk.protect("rw")
    runner.complete(disk.folder, "levir", SELECTED["levir"])
    disk.protect("ro")
    runner.complete(disk.folder, "levir", SELECTED["levir"])  # nothing has changed, so nothing is written
    for asset in ("raw_pairs", "checkpoint", "test_predictions"):
        told = runner.failed(disk.folder, "levir", [asset], **FORCE)
        require_one_line(told, f"{disk.folder}/levir/{asset}", "is read-only", "CD_PIPELINE_DATA")
    assert contents(disk.folder) == undisturbed["levir"].files


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written_is_named(runner: Runner, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    require_one_line(runner.failed(data, "levir", ["raw_pairs"]), str(data), "may not read or write it")
    data.chmod(0o700)
    runner.complete(data, "levir", ["raw_pairs"])


def test_a_raw_folder_that_goes_away_meanwhile_is_named_and_nothing_is_lost(
    raw: Path,
    runner: Runner,
    undisturbed: dict[str, Undisturbed],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    photos, put_away = raw / "rooms", raw / "away"
    request.addfinalizer(lambda: put_away.exists() and put_away.rename(photos))
    select = SELECTED["rooms"][: SELECTED["rooms"].index("mlpackage")]
    failed = 0
    for step in select:
        run = runner.start(tmp_path, "rooms", select)
        run.wait_for(f'STEP_START - Started execution of step "{step}"')
        os.kill(run.pid, signal.SIGSTOP)
        photos.rename(put_away)
        os.kill(run.pid, signal.SIGCONT)
        if run.wait() != 0:
            failed += 1
            told = [line for line in run.told().splitlines() if line.startswith("FAILED ")]
            require_one_line(told, str(photos))
        require_whole(tmp_path)
        put_away.rename(photos)
    assert failed >= 2
    runner.complete(tmp_path, "rooms", select)
    whole = undisturbed["rooms"].files
    assert contents(tmp_path) == {name: whole[name] for name in contents(tmp_path)}
