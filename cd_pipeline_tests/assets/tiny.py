"""A recipe small enough to run the whole pipeline in seconds, and a way to run it."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.drawn import draw_photo_tree

COUNTS = {"trainval": {"KITCHEN": 14, "STUDY": 10}, "test": {"KITCHEN": 4, "STUDY": 3}}


def tiny_recipe(photos: Path | None, **changes: object) -> Recipe:
    """A recipe named rooms at 64x64 that learns something in a few epochs."""
    settings: dict[str, object] = {
        "source": {"folder": str(photos) if photos else None},
        "input": {"size": 64},
        "model": {"pretrained": False},
        "training": {
            "epochs": 30,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "ema_decay": 0.8,
            "sweep": {"high": 0.9},
        },
        "threshold": {"high": 0.9, "pairs": "own", "tolerance": 0},
    }
    return Recipe(name="rooms", **{**settings, **changes})  # type: ignore[arg-type]


def draw_photos(root: Path) -> Path:
    """Draw the tiny photo set."""
    return draw_photo_tree(root, COUNTS, size=(128, 96))


def run(
    recipe: Recipe,
    workspace: Path,
    *,
    select: Sequence[str] | None = None,
    raise_on_error: bool = True,
    workers: int | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the recipe's assets, or those selected, with their checks, through Dagster in this process."""
    definitions = build_pipeline(recipe)
    assets, checks = list(definitions.assets or []), list(definitions.asset_checks or [])
    selection = dg.AssetSelection.all()
    if select is not None:
        selection = dg.AssetSelection.assets(*(recipe.asset_key(name) for name in select))
    return dg.materialize(
        [*assets, *checks],  # type: ignore[list-item]
        selection=selection,
        resources={
            "workspace": Workspace(root=str(workspace)),
            "compute": Compute(device="cpu", threads=1, workers=workers),
        },
        raise_on_error=raise_on_error,
    )


def versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The data version of each materialized asset."""
    events = result.get_asset_materialization_events()
    return {
        str(event.asset_key and event.asset_key.path[-1]): str(
            (event.materialization.tags or {})["dagster/data_version"]
        )
        for event in events
    }


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, object]:
    """The metadata values of a materialized asset, by its name within the recipe."""
    (event,) = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key and event.asset_key.path[-1] == asset
    ]
    return {key: value.value for key, value in event.metadata.items()}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Whether each check passed."""
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult, asset: str) -> str:
    """The description of a step's failure, by the asset's name within the recipe."""
    (event,) = [
        event
        for event in result.all_node_events
        if event.is_step_failure and event.node_name.rpartition("__")[2] == asset
    ]
    return str(event.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
