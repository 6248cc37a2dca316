"""What runs by itself once it is switched on in the UI: jobs, schedules and sensors of each recipe.

One sensor is always on. It starts nothing: it closes runs whose process has died.
"""

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.runs import SqliteRunStorage

from cd_pipeline.assets.stage import PROCESS_TAG
from cd_pipeline.data.machine import has_ended, is_gone
from cd_pipeline.data.places import is_remote, local_folder
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

RECIPE_TAG = "cd_pipeline/recipe"
"""Runs of one recipe wait for each other, see `dagster.yaml`."""
SENSOR_INTERVAL_SECONDS, STORE_INTERVAL_SECONDS = 30, 300
"""Between two looks; an object store is asked less often, as each listing of 1000 objects is a paid request."""


def remake_condition() -> dg.AutomationCondition:  # type: ignore[type-arg]
    """An asset is made again when its code or settings have changed, or what it is made from was made anew.

    Assets that were never made, or whose inputs are missing or being made, wait.
    """
    input_changed = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    )
    changed = dg.AutomationCondition.code_version_changed() | input_changed
    return (
        changed.since_last_handled()  # type: ignore[misc]
        & ~dg.AutomationCondition.missing()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("code, settings or inputs have changed")


def recipe_jobs(recipe: Recipe, names: Sequence[str]) -> "list[UnresolvedAssetJobDefinition]":
    """Build the jobs of a recipe: retrain (everything), evaluate and export (from the checkpoint on disk).

    Args:
        recipe: gives keys and names.
        names: of its assets, within the recipe.
    """
    evaluated = ["threshold", "test_predictions", "real_pairs", "cross_datasets", "report"]
    parts = {
        "retrain": (list(names), "Everything, from the raw folder to the package and its release."),
        "evaluate": (evaluated, "Threshold, test predictions and report of the checkpoint on disk."),
        "export": (["mlpackage", "release"], "The package of the checkpoint on disk, and its release."),
    }
    return [
        dg.define_asset_job(
            f"{recipe.name}_{job}",
            selection=dg.AssetSelection.assets(
                *(dg.AssetKey(recipe.asset_key(name)) for name in chosen if name in names)
            ),
            tags={RECIPE_TAG: recipe.name},
            description=description,
        )
        for job, (chosen, description) in parts.items()
    ]


def retrain_schedule(recipe: Recipe, job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Build the schedule that retrains a recipe; it is off until it is switched on."""
    return dg.ScheduleDefinition(
        name=f"{recipe.name}_retraining",
        job=job,
        cron_schedule=recipe.automation.cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        tags={RECIPE_TAG: recipe.name},
        description="Retrains on what lies in the raw folder; what has not changed is not made again.",
    )


def folder_sensor(recipe: Recipe, job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """Build the sensor that retrains a recipe when its raw folder has changed; it is off until switched on.

    It looks at names, sizes and times, every 30 seconds, of an object store every 5 minutes, and acts once nothing has
    moved for `automation.quiet_seconds`.
    """
    on_store = "://" in (Workspace().source_place(recipe) or "")

    @dg.sensor(
        name=f"{recipe.name}_folder",
        job=job,
        minimum_interval_seconds=STORE_INTERVAL_SECONDS if on_store else SENSOR_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Starts a run when photos were added, changed or removed and the folder has come to rest.",
    )
    def watch(context: dg.SensorEvaluationContext, workspace: Workspace) -> dg.SensorResult | dg.SkipReason:
        from cd_pipeline.data.folder_watch import Watch, fingerprint, fingerprint_on_store

        folder = workspace.source_place(recipe)
        if folder is None:
            return dg.SkipReason(
                f"no folder: set {recipe.environment_variable}, or source.folder in the recipe"
            )
        try:
            seen = fingerprint_on_store(folder) if is_remote(folder) else fingerprint(local_folder(folder))
        except (OSError, ValueError) as error:
            return dg.SkipReason(str(error))
        known = Watch(**json.loads(context.cursor)) if context.cursor else Watch()
        watched, act = known.look(seen, time.time(), recipe.automation.quiet_seconds)
        requests = (
            [dg.RunRequest(run_key=f"{recipe.name}-{seen}", tags={RECIPE_TAG: recipe.name})] if act else []
        )
        waiting = watched.seen != watched.handled
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps(watched.plain()),
            skip_reason=None
            if requests
            else "the folder has changed and is not at rest yet"
            if waiting
            else f"{folder}: nothing has changed",
        )

    return watch


@dg.sensor(
    name="runs_that_died",
    minimum_interval_seconds=SENSOR_INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Calls runs failed whose process is gone: killed, or of a machine that was switched off. Dagster "
    "would take them for running for ever, and keep every later run that needs their pool or recipe waiting.",
)
def runs_that_died(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Call runs failed whose process has died; they can then be executed again from where they stopped."""
    at_work = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    dead = [
        run
        for run in context.instance.get_runs(dg.RunsFilter(statuses=at_work))
        if has_died(context.instance, run)
    ]
    for run in dead:
        context.instance.report_run_failed(run, "The process of this run was killed, or its machine stopped.")
    return dg.SkipReason(
        f"called failed: {', '.join(run.run_id for run in dead)}" if dead else "none has died"
    )


def has_died(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Tell whether the process of a run has ended.

    It is named by the run's tag from its first asset on. Before that it is the one that Dagster's log numbers, in a
    history that belongs to this machine alone.
    """
    if PROCESS_TAG in run.tags:
        return has_ended(run.tags[PROCESS_TAG])
    if not isinstance(instance.run_storage, SqliteRunStorage):
        return False
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    pids = [
        (int(str(event.dagster_event.engine_event_data.metadata["pid"].value)), event.timestamp)
        for event in events
        if event.dagster_event and "pid" in event.dagster_event.engine_event_data.metadata
    ]
    return bool(pids) and all(is_gone(pid, at_work) for pid, at_work in pids)


def automate(recipe: Recipe, assets: Sequence[dg.AssetsDefinition]) -> dg.Definitions:
    """Build everything of a recipe that runs by itself.

    Args:
        recipe: of the assets.
        assets: all of the recipe.
    """
    names = [key.path[-1] for key in _keys(assets)]
    jobs = recipe_jobs(recipe, names)
    condition_sensor = dg.AutomationConditionSensorDefinition(
        f"{recipe.name}_changes",
        target=dg.AssetSelection.groups(recipe.name),
        default_status=dg.DefaultSensorStatus.STOPPED,
        run_tags={RECIPE_TAG: recipe.name},
        description="Makes again what depends on changed code, settings or inputs, and nothing else.",
    )
    return dg.Definitions(
        jobs=jobs,
        schedules=[retrain_schedule(recipe, jobs[0])],
        sensors=[folder_sensor(recipe, jobs[0]), condition_sensor],
    )


def _keys(assets: Sequence[dg.AssetsDefinition]) -> Iterator[dg.AssetKey]:
    for asset in assets:
        yield from asset.keys
