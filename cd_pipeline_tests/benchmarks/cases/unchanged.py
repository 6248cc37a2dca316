"""The last asset asked for again when nothing has changed, from the start of the process to its end.

The code is a copy of the product in which the recipe rooms is a short one, made once from start to end.
"""

import shutil
import sys
from pathlib import Path

import yaml

from cd_pipeline_tests.benchmarks.cases.commands import command_side, python, run_command
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

ROOT = Path(__file__).parents[3]
SHORT = {
    "synthesis": {"preset": "realistic", "epoch_pairs": 1, "frozen_pairs": 1},
    "input": {"size": 64},
    "model": {"name": "tiny_siamese_unet", "pretrained": False},
    "training": {"preset": "rooms", "epochs": 2},
    "threshold": {"pairs": "own"},
}
"""What the recipe rooms has, on few small pictures."""
PHOTOS = {"trainval": {"KITCHEN": 12, "STUDY": 8}, "test": {"KITCHEN": 3, "STUDY": 2}}
DAGSTER = str(Path(sys.executable).with_name("dagster"))
MATERIALIZE = [DAGSTER, "asset", "materialize", "-m", "cd_pipeline.definitions", "--select"]


def prepare(folder: Path, sizes: Sizes) -> None:
    from cd_pipeline_tests.drawn import draw_photo_tree

    project = folder / "project"
    if project.exists():
        return
    shutil.copytree(
        ROOT / "cd_pipeline", project / "cd_pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", project)
    recipe = project / "cd_pipeline" / "defs" / "rooms" / "defs.yaml"
    recipe.write_text(yaml.safe_dump({"type": "cd_pipeline.Pipeline", "attributes": SHORT}))
    draw_photo_tree(folder / "few_photos", PHOTOS, size=(128, 96))
    (folder / "home").mkdir()
    run_command([*MATERIALIZE, "*mlpackage"], project, environment(folder))


def environment(folder: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str((folder / "project").absolute()),
        "CD_PIPELINE_ROOMS": str((folder / "few_photos").absolute()),
        "CD_PIPELINE_DATA": str((folder / "data").absolute()),
        "DAGSTER_HOME": str((folder / "home").absolute()),
    }


def ours(folder: Path, sizes: Sizes) -> Side:
    return command_side([*MATERIALIZE, "mlpackage"], folder / "project", environment(folder))


def reference(folder: Path, sizes: Sizes) -> Side:
    return command_side(python("-c", "import torch, dagster"), folder / "project", environment(folder))


def compare(found: str, expected: str) -> str:
    assert "unchanged: nothing that mlpackage is made of is new" in found, found[-2000:]
    return "the run succeeded and said that nothing was new"
