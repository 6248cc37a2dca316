"""Runs of a pipeline as real processes, started from one that has loaded the libraries already.

`Runner` starts `python -m cd_pipeline_tests.faults.driver`, which loads torch and the rest once, a matter of
seconds, and forks a process for each run that it is asked for. A run is a process of its own, with a session of
its own, and can be killed like any other.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

RAW = "FAULTS_RAW"
"""Names the environment's variable with the folder of raw data, one folder a recipe."""
SETTINGS = Path(__file__).parents[2] / "dagster.yaml"
"""Of the project, as its users run it."""
PATIENCE_SECONDS = 120
"""How long to wait for what must happen; a busy machine may be slow."""


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < end, f"waited {PATIENCE_SECONDS} s in vain: {what}"
        time.sleep(0.02)


@dataclass
class Run:
    """A run that was started.

    Attributes:
        pid: of its process, which leads a session of its own.
        log: file of what it prints.
    """

    runner: "Runner"
    pid: int
    log: Path
    status: int | None = None

    def wait(self) -> int:
        """Wait until it ends; 0: all was made, 1: an asset failed, -9: it was killed."""
        wait_until(lambda: self.runner.ended(self), f"the end of {self.pid}:\n{self.told()[-4000:]}")
        assert self.status is not None
        return self.status

    def ended(self) -> bool:
        return self.runner.ended(self)

    def told(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, words: str) -> None:
        """Wait until it has printed something."""
        wait_until(lambda: words in self.told() or self.ended(), f"{words!r}:\n{self.told()[-4000:]}")
        assert words in self.told(), f"ended without {words!r}:\n{self.told()[-4000:]}"


class Runner:
    """Starts runs of the tiny recipes.

    Args:
        raw: folder of the raw folders.
        home: DAGSTER_HOME, where the history of all runs is kept; logs go there too.
    """

    def __init__(self, raw: Path, home: Path) -> None:
        self._raw, self.home = raw, home
        home.mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_load(SETTINGS.read_text())
        kept = {
            key: part for key, part in settings.items() if "storage" not in key
        }  # history in `home` itself
        kept["python_logs"] = {"python_log_level": "DEBUG"}  # tells when a step starts
        (home / "dagster.yaml").write_text(yaml.safe_dump(kept))
        self._runs: dict[int, Run] = {}

    def __enter__(self) -> Self:
        environment = {**os.environ, "DAGSTER_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "cd_pipeline_tests.faults.driver", str(self._raw)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *error: object) -> None:
        for run in self._runs.values():
            if not run.ended():
                os.kill(run.pid, 9)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, data: Path, recipe: str, select: Sequence[str] = (), **environment: str) -> Run:
        """Start a run of a recipe's assets (none: of all) with their checks; `data` is the data root."""
        return self._start({"data": str(data), "recipe": recipe, "select": list(select)}, environment)

    def start_job(self, data: Path, job: str, after: str = "") -> Run:
        """Start a job of `recipes`, or what is left of it after a failed run, given by its id."""
        settings = {"CD_PIPELINE_DATA": str(data), RAW: str(self._raw), "CD_PIPELINE_FORCE": "1"}
        return self._start({"recipe": "levir", "job": job, "after": after}, settings)

    def _start(self, asked: dict[str, Any], environment: dict[str, str]) -> Run:
        log = self.home / f"run_{len(self._runs)}.log"
        question = {"job": "", "after": "", "log": str(log), "environment": environment, **asked}
        run = Run(self, self._ask(question), log)
        self._runs[run.pid] = run
        return run

    def complete(self, data: Path, recipe: str, select: Sequence[str] = (), **environment: str) -> Run:
        """Run to the end, which must be a good one."""
        run = self.start(data, recipe, select, **environment)
        assert run.wait() == 0, run.told()[-6000:]
        return run

    def failed(self, data: Path, recipe: str, select: Sequence[str] = (), **environment: str) -> list[str]:
        """Run to the end, which must be a failure, and return what was told as an error."""
        run = self.start(data, recipe, select, **environment)
        assert run.wait() == 1, run.told()[-6000:]
        return [line for line in run.told().splitlines() if line.startswith("FAILED ")]

    def ended(self, run: Run) -> bool:
        if run.status is None:
            run.status = self._ask({"ended": run.pid})
        return run.status is not None

    def _ask(self, question: dict[str, Any]) -> Any:  # noqa: ANN401 - of JSON
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def running_in_session(leader: int) -> list[int]:
    """The processes of a session that still run, those whose parent has died too."""
    return [pid for pid in psutil.pids() if _session(pid) == leader and _runs(pid)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(raw: Path) -> None:
    """Answer questions from stdin, one a line: run something, or has it ended?"""
    import coremltools  # noqa: F401 - loaded once for all runs
    import dagster as dg  # noqa: F401
    import torch

    from cd_pipeline_tests.faults import recipes

    torch.set_num_threads(1)
    made = recipes.recipes(raw)
    for line in sys.stdin:
        question = json.loads(line)
        if "ended" in question:
            found, status = os.waitpid(question["ended"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    os._exit(_run(made[question["recipe"]], question))
                finally:  # whatever happens, a forked process answers no questions
                    os._exit(2)
        print(json.dumps(answer), flush=True)


def _run(recipe: Any, question: dict[str, Any]) -> int:  # noqa: ANN401 - a recipe, imported above
    import dagster as dg

    from cd_pipeline.pipeline import build_pipeline
    from cd_pipeline_tests.faults.recipes import resources

    os.setsid()
    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(question["environment"])
    with dg.DagsterInstance.get() as instance:
        if question["job"]:
            return _execute_job(question, instance)
        definitions, names = build_pipeline(recipe), question["select"]
        selection = dg.AssetSelection.assets(*(recipe.asset_key(name) for name in names))
        result = dg.materialize(
            [*(definitions.assets or []), *(definitions.asset_checks or [])],  # type: ignore[list-item]
            selection=selection if names else dg.AssetSelection.all(),
            resources=resources(Path(question["data"])),
            instance=instance,
            raise_on_error=False,
        )
    for event in result.all_node_events:
        if event.is_step_failure:
            data = event.step_failure_data
            told = data.user_failure_data.description if data.user_failure_data else str(data.error)
            print(f"FAILED {event.node_name}: {told}", flush=True)
    return 0 if result.success else 1


def _execute_job(question: dict[str, Any], instance: Any) -> int:  # noqa: ANN401 - of Dagster, loaded above
    import dagster as dg

    from cd_pipeline_tests.faults import recipes

    again = dg.ReexecutionOptions.from_failure(question["after"], instance) if question["after"] else None
    job = dg.reconstructable(getattr(recipes, question["job"]))
    with dg.execute_job(job, instance, reexecution_options=again) as result:
        return 0 if result.success else 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
