"""Loading all recipes in a fresh process."""

from pathlib import Path

from cd_pipeline_tests.benchmarks.cases.commands import command_side, python
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

ROOT = Path(__file__).parents[3]
LOAD = "from cd_pipeline.definitions import defs; print(len(list(defs().resolve_all_asset_keys())))"
LEAST = 30
"""Assets of the four recipes."""


def prepare(folder: Path, sizes: Sizes) -> None:
    """There is nothing to prepare."""


def ours(folder: Path, sizes: Sizes) -> Side:
    return command_side(python("-c", LOAD), ROOT, {})


def reference(folder: Path, sizes: Sizes) -> Side:
    return command_side(python("-c", "import dagster; print(dagster.__version__)"), ROOT, {})


def compare(found: str, expected: str) -> str:
    assert int(found.split()[-1]) >= LEAST, found
    return f"{found.split()[-1]} assets, beside dagster {expected.split()[-1]} without any"
