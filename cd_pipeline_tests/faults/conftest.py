"""Raw folders, a process that runs pipelines, and what an undisturbed run leaves."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cd_pipeline_tests.faults.driver import Runner
from cd_pipeline_tests.faults.files import contents
from cd_pipeline_tests.faults.recipes import draw_raw

SELECTED = {
    "rooms": (
        *("raw_photos", "split", "pair_manifest", "change_masks", "checkpoint", "threshold"),
        *("test_predictions", "mlpackage", "report"),
    ),
    "levir": ("raw_pairs", "pair_manifest", "checkpoint", "threshold", "test_predictions"),
    "walls": (
        *("raw_images", "split", "image_manifest", "checkpoint", "threshold"),
        *("test_predictions", "cross_datasets"),
    ),
}
"""What is made of each recipe; packages, the slowest, of one alone."""


@dataclass(frozen=True)
class Undisturbed:
    """What one run from nothing leaves, and how long it took."""

    data: Path
    files: dict[str, Any]
    seconds: float


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def runner(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(raw, tmp_path_factory.mktemp("home")) as runner:
        yield runner


@pytest.fixture(scope="session")
def undisturbed(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """By recipe."""
    found = {}
    for recipe, select in SELECTED.items():
        data = tmp_path_factory.mktemp("undisturbed")
        start = time.monotonic()
        runner.complete(data, recipe, select)
        found[recipe] = Undisturbed(data, contents(data), time.monotonic() - start)
    return found
