"""Two runs at once: one waits for the other, and no file is a mixture."""

import fcntl
import os
import shutil
import signal
from pathlib import Path

import pytest

from cd_pipeline_tests.faults.conftest import SELECTED, Undisturbed
from cd_pipeline_tests.faults.driver import Run, Runner
from cd_pipeline_tests.faults.files import contents, require_whole

pytestmark = pytest.mark.slow

SELECT = SELECTED["levir"]
WAITING = "another run is making checkpoint of levir"


def start_and_stop_in_training(runner: Runner, data: Path, **environment: str) -> Run:
    """Start a run and stop it, as a slow one, while it trains."""
    run = runner.start(data, "levir", SELECT, **environment)
    run.wait_for("training tiny_siamese_unet")
    os.kill(run.pid, signal.SIGSTOP)
    return run


def test_runs_that_start_together_both_end_well(
    runner: Runner, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    runs = [runner.start(tmp_path, "levir", SELECT) for _ in range(2)]
    for run in runs:
        assert run.wait() == 0, run.told()[-6000:]
    assert any("another run is making" in run.told() for run in runs)
    assert sum("epoch 1/2" in run.told() for run in runs) == 1
    assert contents(tmp_path) == undisturbed["levir"].files


def test_a_run_waits_for_another_one_and_then_finds_its_result(
    runner: Runner, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    first = start_and_stop_in_training(runner, tmp_path)
    second = runner.start(tmp_path, "levir", SELECT)
    second.wait_for(f"{WAITING} (process {first.pid}); waiting")
    assert not second.ended()
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == second.wait() == 0
    assert "epoch 1/2" not in second.told()
    assert "unchanged: nothing that checkpoint is made of is new" in second.told()
    assert contents(tmp_path) == undisturbed["levir"].files


def test_a_run_goes_on_when_the_one_it_waits_for_is_killed(
    runner: Runner, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    first = start_and_stop_in_training(runner, tmp_path)
    second = runner.start(tmp_path, "levir", SELECT)
    second.wait_for(WAITING)
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait() == 0, second.told()[-6000:]
    assert contents(tmp_path) == undisturbed["levir"].files


def test_a_waiting_run_can_be_stopped(runner: Runner, tmp_path: Path) -> None:
    first = start_and_stop_in_training(runner, tmp_path)
    second = runner.start(tmp_path, "levir", SELECT)
    second.wait_for(WAITING)
    os.kill(second.pid, signal.SIGINT)
    assert second.wait() != 0
    os.kill(first.pid, signal.SIGKILL)


def test_other_photos_do_not_get_into_a_training_under_way(
    runner: Runner, raw: Path, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    others, data = tmp_path / "others", tmp_path / "data"
    shutil.copytree(raw / "levir", others)
    shutil.copyfile(others / "train" / "B" / "tile_1.png", others / "train" / "B" / "tile_0.png")
    first = start_and_stop_in_training(runner, data)
    second = runner.start(data, "levir", SELECT, CD_PIPELINE_LEVIR=str(others))
    second.wait_for(WAITING)
    os.kill(first.pid, signal.SIGCONT)
    for run in (first, second):  # whichever is overtaken says that what it finds belongs to the other
        if run.wait() != 0:
            told = [line for line in run.told().splitlines() if line.startswith("FAILED ")]
            assert len(told) == 1
            assert "was made for another" in told[0] or "is not the file that" in told[0], told[0]
    require_whole(data)
    runner.complete(data, "levir", SELECT)
    assert contents(data) == undisturbed["levir"].files


def test_recipes_do_not_wait_for_each_other(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    with (tmp_path / "rooms" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = runner.complete(tmp_path, "levir", ["raw_pairs"])
    assert "another run" not in run.told()
