"""Commands as sides: whole processes, from their start to their end."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cd_pipeline_tests.benchmarks.measure import MeasureError, Side

TOLD = 3000
"""Characters of a failed command's output."""


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def run_command(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command and return what it printed.

    Raises:
        MeasureError: it failed.
    """
    own = {k: v for k, v in os.environ.items() if not k.startswith(("CD_PIPELINE_", "DAGSTER_"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise MeasureError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-TOLD:]}")
    return done.stdout


def command_side(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Side:
    """Return a side that runs a command; its answer is what was printed last."""
    printed: list[str] = []

    def run() -> None:
        printed[:] = [run_command(command, folder, environment)]

    return Side(run, lambda: printed[0])
