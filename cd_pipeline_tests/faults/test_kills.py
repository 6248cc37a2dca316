"""A run can be killed at any moment; the next one ends where it would have ended."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cd_pipeline_tests.faults.conftest import SELECTED, Undisturbed
from cd_pipeline_tests.faults.driver import Run, Runner, running_in_session, wait_until
from cd_pipeline_tests.faults.files import contents, require_whole

pytestmark = pytest.mark.slow

KILLS = {"rooms": 6, "levir": 6, "walls": 8}


def kill_after(run: Run, seconds: float) -> bool:
    """Kill a run when so much time has passed; tell whether it still ran."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not run.ended():
        time.sleep(0.01)
    if not run.ended():
        os.kill(run.pid, signal.SIGKILL)
    status = run.wait()
    assert status in (0, -signal.SIGKILL), run.told()[-6000:]
    return status != 0


@pytest.mark.parametrize("recipe", KILLS)
def test_a_pipeline_that_was_killed_again_and_again_ends_as_if_nothing_had_been(
    recipe: str, runner: Runner, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    rng, whole = random.Random(recipe), undisturbed[recipe]
    kills, anew = 0, {}
    while kills < KILLS[recipe]:
        run = runner.start(tmp_path, recipe, SELECTED[recipe], **anew)
        if kill_after(run, rng.uniform(0, 0.6 * whole.seconds)):
            kills += 1
            wait_until(lambda run=run: not running_in_session(run.pid), "processes are left")  # type: ignore[misc]
            require_whole(tmp_path)
        else:
            anew = {"CD_PIPELINE_FORCE": "1"}  # from now on over what is there
    runner.complete(tmp_path, recipe, SELECTED[recipe])
    assert contents(tmp_path) == whole.files


def test_processes_that_draw_the_sample_end_with_the_run_that_was_killed(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from cd_pipeline.synthesis.sample_rooms import draw_sample_rooms
if __name__ == "__main__":
    draw_sample_rooms(Path({str(tmp_path)!r}) / "sample", workers=2)
"""
    (tmp_path / "draw.py").write_text(code)
    drawing = subprocess.Popen([sys.executable, str(tmp_path / "draw.py")], start_new_session=True)
    wait_until(lambda: any(tmp_path.glob("sample/**/*.jpg")), "the first room")
    assert len(running_in_session(drawing.pid)) > 2
    drawing.kill()
    drawing.wait()
    wait_until(lambda: not running_in_session(drawing.pid), "processes are left")
