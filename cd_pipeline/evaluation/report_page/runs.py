"""The history of headline figures: a line of JSON a run, told apart by checkpoint and threshold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cd_pipeline.data.files import write_text


@dataclass(frozen=True, slots=True)
class Run:
    """The headline figures of one checkpoint at one threshold.

    Attributes:
        checkpoint_version: hash of the weights.
        threshold: a pixel is marked above it; None: of several classes.
        data_version: hash of the manifest, which holds the test set.
        figures: by the names of `figures.FIGURES`.
    """

    checkpoint_version: str
    threshold: float | None
    data_version: str
    figures: Mapping[str, float | None]

    @property
    def identity(self) -> tuple[str, float | None]:
        """What a run is told apart by."""
        return self.checkpoint_version, self.threshold


def read_runs(path: Path) -> list[Run]:
    """Read the runs of a history, oldest first; none where there is no file.

    Raises:
        ValueError: a line is not that of a run; the message names it and the remedy.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_run(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def with_run(runs: Sequence[Run], run: Run) -> list[Run]:
    """Add a run; the last one is replaced where it is of the same checkpoint and threshold."""
    return [*runs_before(runs, run), run]


def runs_before(runs: Sequence[Run], run: Run) -> list[Run]:
    """Return the runs that came before one, which may be the last of them."""
    again = bool(runs) and runs[-1].identity == run.identity
    return list(runs[:-1] if again else runs)


def write_runs(path: Path, runs: Sequence[Run]) -> None:
    """Write a history, whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(run), sort_keys=True) + "\n" for run in runs))


def _run(path: Path, number: int, line: str) -> Run:
    expected = sorted(field.name for field in fields(Run))
    try:
        content: Any = json.loads(line)
        if not isinstance(content, dict) or sorted(content) != expected:
            raise ValueError(f"expected an object with {', '.join(expected)}")
        if not isinstance(content["figures"], dict):
            raise ValueError("expected figures to be an object")
    except ValueError as error:
        raise ValueError(
            f"{path}: line {number} is not a run ({error}); delete that line, or the file to begin anew"
        ) from None
    return Run(**content)
