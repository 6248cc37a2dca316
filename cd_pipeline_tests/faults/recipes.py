"""Tiny pipelines for real processes: `dagster asset materialize -m cd_pipeline_tests.faults.recipes` runs them."""

import os
from pathlib import Path

import dagster as dg

from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.assets.test_image_pipeline import draw_lines, mask_recipe
from cd_pipeline_tests.assets.test_two_date_pipeline import draw_tiles, two_date_recipe
from cd_pipeline_tests.assets.tiny import tiny_recipe
from cd_pipeline_tests.drawn import draw_photo_tree
from cd_pipeline_tests.faults.driver import RAW

COUNTS = {"trainval": {"KITCHEN": 10, "STUDY": 5}, "test": {"KITCHEN": 2, "STUDY": 1}}
TRAINING = {
    "epochs": 12,
    "batch_size": 4,
    "learning_rate": 2e-2,
    "ema_decay": 0.8,
    "warmup_epochs": 1,
    "sweep": {"high": 0.9},
}


def draw_raw(root: Path) -> Path:
    """Draw the raw folders of all recipes."""
    draw_photo_tree(root / "rooms", COUNTS, size=(96, 72))
    draw_tiles(root / "levir", 64)
    for dataset, grey in (("floor", 150), ("wall", 120)):
        draw_lines(root / "walls", dataset, 8, grey)
    return root


def recipes(raw: Path) -> dict[str, Recipe]:
    """The recipes on the raw folders below a folder, by name."""
    found = [
        tiny_recipe(raw / "rooms", input={"size": 32}, training=TRAINING),
        two_date_recipe(raw / "levir", training={"preset": "two_date", "epochs": 2, "batch_size": 4}),
        mask_recipe(raw / "walls", training={"preset": "cracks", "epochs": 2, "batch_size": 4}),
    ]
    return {recipe.name: recipe for recipe in found}


def resources(data: Path | None = None) -> dict[str, dg.ConfigurableResource]:  # type: ignore[type-arg]
    """One thread, and no processes beside, so that a test's process is all there is."""
    workspace = Workspace(root=str(data) if data else "")
    return {"workspace": workspace, "compute": Compute(device="cpu", threads=1, workers=0)}


@dg.definitions
def defs() -> dg.Definitions:
    """Everything on the raw folder of the environment."""
    built = [build_pipeline(recipe) for recipe in recipes(Path(os.environ[RAW])).values()]
    shared = dg.Definitions(resources=resources(), executor=dg.in_process_executor)
    return dg.Definitions.merge(*built, shared)


def levir_evaluate() -> dg.JobDefinition:
    """A job as the UI starts it."""
    return defs().resolve_job_def("levir_evaluate")
