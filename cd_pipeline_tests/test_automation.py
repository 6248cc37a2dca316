"""What runs by itself: off until it is switched on, debounced, and only what depends on a change."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest

from cd_pipeline.assets.stage import PROCESS_TAG
from cd_pipeline.automation import (
    RECIPE_TAG,
    automate,
    folder_sensor,
    recipe_jobs,
    remake_condition,
    runs_that_died,
)
from cd_pipeline.data.machine import this_process
from cd_pipeline.definitions import defs
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.stores import Store


def definitions(recipe: Recipe) -> dg.Definitions:
    resources = {"workspace": Workspace(), "compute": Compute()}
    return dg.Definitions.merge(build_pipeline(recipe), dg.Definitions(resources=resources))


@pytest.fixture(scope="module")
def everything() -> dg.RepositoryDefinition:
    return defs().get_repository_def()


def test_every_recipe_has_its_jobs_schedule_and_sensors(everything: dg.RepositoryDefinition) -> None:
    recipes = ("rooms", "levir", "cracks", "voc")
    jobs = {job.name for job in everything.get_all_jobs()}
    assert {f"{recipe}_{job}" for recipe in recipes for job in ("retrain", "evaluate", "export")} <= jobs
    assert {f"{recipe}_retraining" for recipe in recipes} == {s.name for s in everything.schedule_defs}
    sensors = {sensor.name for sensor in everything.sensor_defs}
    assert {f"{recipe}_{sensor}" for recipe in recipes for sensor in ("folder", "changes")} <= sensors


def test_nothing_that_starts_runs_is_on_before_it_is_switched_on(everything: dg.RepositoryDefinition) -> None:
    assert {s.default_status for s in everything.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}
    on = [s.name for s in everything.sensor_defs if s.default_status == dg.DefaultSensorStatus.RUNNING]
    assert on == ["runs_that_died"]


def test_runs_are_called_failed_only_when_their_process_has_died() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        gone = this_process().split()[0] + f" {ended.pid} 1700000000"
    processes = {
        "gone": gone,
        "alive": this_process(),
        "elsewhere": f"no-such-host {ended.pid} 1",
        "unknown": "",
    }
    with dg.DagsterInstance.ephemeral() as instance:
        for process in processes.values():
            tags = {PROCESS_TAG: process} if process else {}
            run = dg.DagsterRun(job_name="retrain", status=dg.DagsterRunStatus.STARTED, tags=tags)
            instance.add_run(run)
        for _ in range(2):
            runs_that_died(dg.build_sensor_context(instance))
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert [run.tags[PROCESS_TAG] for run in failed] == [gone]


KILLED_AT_ONCE = """
import os, signal, sys
import dagster as dg

@dg.op
def first():
    os.kill(os.getpid(), signal.SIGKILL)

@dg.job(executor_def=dg.in_process_executor)
def retrain():
    first()

with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    retrain.execute_in_process(instance=instance)
"""


def test_a_run_that_was_killed_before_its_first_asset_is_called_failed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_AT_ONCE, str(tmp_path)], capture_output=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        (killed,) = instance.get_runs()
        assert killed.status == dg.DagsterRunStatus.STARTED and PROCESS_TAG not in killed.tags
        runs_that_died(dg.build_sensor_context(instance))
        (killed,) = instance.get_runs()
        assert killed.status == dg.DagsterRunStatus.FAILURE


def test_retraining_is_weekly_and_its_runs_carry_the_recipe(everything: dg.RepositoryDefinition) -> None:
    schedule = everything.get_schedule_def("levir_retraining")
    assert schedule.cron_schedule == "0 3 * * 1"
    assert everything.get_job("levir_retrain").tags[RECIPE_TAG] == "levir"


def test_a_wrong_schedule_is_refused_when_the_definitions_load() -> None:
    recipe = Recipe(name="garage", automation={"cron": "every monday"})
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="every monday"):
        definitions(recipe)


def keys(job: str, repository: dg.RepositoryDefinition) -> set[str]:
    return {key.path[-1] for key in repository.get_job(job).asset_layer.selected_asset_keys}


def test_each_job_makes_its_part(everything: dg.RepositoryDefinition) -> None:
    whole = {key.path[-1] for key in everything.asset_graph.get_all_asset_keys() if key.path[0] == "cracks"}
    assert keys("cracks_retrain", everything) == whole
    assert keys("cracks_evaluate", everything) == {
        "threshold",
        "test_predictions",
        "cross_datasets",
        "report",
    }
    assert {"mlpackage"} <= keys("cracks_export", everything) <= {"mlpackage", "release"}
    assert keys("voc_evaluate", everything) == {"test_predictions", "cross_datasets", "report"}


class Sensor:
    """The sensor of a recipe on a folder, at chosen times."""

    def __init__(self, folder: Path | str | None, monkeypatch: pytest.MonkeyPatch, quiet: float = 60) -> None:
        recipe = Recipe(
            name="garage",
            source={"folder": str(folder) if folder else None},
            automation={"quiet_seconds": quiet},
        )
        job = recipe_jobs(recipe, ["raw_photos"])[0]
        self.sensor, self.monkeypatch, self.cursor = folder_sensor(recipe, job), monkeypatch, ""

    def tick(self, now: float) -> tuple[list[dg.RunRequest], str]:
        self.monkeypatch.setattr("time.time", lambda: now)
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(
                instance=instance, cursor=self.cursor, resources={"workspace": Workspace()}
            )
            found = self.sensor(context)
        if isinstance(found, dg.SkipReason):
            return [], str(found.skip_message)
        self.cursor = str(found.cursor)
        reason = found.skip_reason.skip_message if found.skip_reason else ""
        return list(found.run_requests or []), str(reason)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images" / "hall").mkdir(parents=True)
    (tmp_path / "images" / "hall" / "a.jpg").write_bytes(b"a")
    return tmp_path


def counts(sensor: Sensor, times: Sequence[float]) -> list[int]:
    return [len(sensor.tick(now)[0]) for now in times]


def test_a_folder_that_rests_starts_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = Sensor(folder, monkeypatch)
    assert counts(sensor, [0, 30, 600, 6000]) == [0, 0, 0, 0]
    assert "nothing has changed" in sensor.tick(7000)[1]


def test_a_folder_that_is_being_copied_starts_one_run_when_it_has_come_to_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Sensor(folder, monkeypatch)
    started = counts(sensor, [0])
    for number, now in enumerate(range(30, 330, 30)):  # a photo more at every look
        (folder / "images" / "hall" / f"{number}.jpg").write_bytes(b"b")
        requests, reason = sensor.tick(now)
        started.append(len(requests))
        assert "not at rest" in reason
    started += counts(sensor, [330, 360, 390, 420])
    assert started == [0] * 12 + [1, 0, 0]


@pytest.mark.parametrize("change", ["added", "changed", "removed", "renamed"])
def test_every_kind_of_change_is_seen_and_runs_once(
    change: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor, photo = Sensor(folder, monkeypatch), folder / "images" / "hall" / "a.jpg"
    sensor.tick(0)
    if change == "added":
        photo.with_name("b.jpg").write_bytes(b"b")
    elif change == "changed":
        photo.write_bytes(b"c")
        os.utime(photo, ns=(1, 1))
    elif change == "removed":
        photo.unlink()
    else:
        photo.rename(photo.with_name("c.jpg"))
    requests = [request for now in (30, 100, 160, 220) for request in sensor.tick(now)[0]]
    assert len(requests) == 1
    assert requests[0].tags[RECIPE_TAG] == "garage"


def test_hidden_files_and_an_undone_change_start_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Sensor(folder, monkeypatch)
    sensor.tick(0)
    (folder / ".DS_Store").write_bytes(b"x")
    extra = folder / "images" / "b.jpg"
    extra.write_bytes(b"x")
    sensor.tick(30)
    extra.unlink()
    assert counts(sensor, [60, 120, 180]) == [0, 0, 0]


def test_a_folder_that_is_gone_or_not_set_is_said_and_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Sensor(folder, monkeypatch)
    sensor.tick(0)
    away = folder.with_name("away")
    folder.rename(away)
    assert "the folder is not there" in sensor.tick(30)[1]
    away.rename(folder)
    assert counts(sensor, [60, 160]) == [0, 0]
    assert "set CD_PIPELINE_GARAGE" in Sensor(None, monkeypatch).tick(0)[1]


def test_the_cursor_is_readable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = Sensor(folder, monkeypatch)
    sensor.tick(5)
    assert set(json.loads(sensor.cursor)) == {"seen", "since", "handled"}


def chain(version: str, data: dict[str, str]) -> dg.Definitions:
    """raw -> middle -> last, and other beside them; `version` is that of middle's code."""

    def asset(name: str, deps: list[str], code: str = "1") -> dg.AssetsDefinition:
        @dg.asset(name=name, deps=deps, code_version=code, automation_condition=remake_condition())
        def made() -> dg.MaterializeResult:
            return dg.MaterializeResult(data_version=dg.DataVersion(data.get(name, "same")))

        return made

    return dg.Definitions(
        [
            asset("raw", []),
            asset("middle", ["raw"], version),
            asset("last", ["middle"]),
            asset("other", ["raw"]),
        ]
    )


def requested(result: dg.EvaluateAutomationConditionsResult) -> set[str]:
    return {
        key for key in ("raw", "middle", "last", "other") if result.get_num_requested(dg.AssetKey(key)) > 0
    }


def test_changed_settings_mark_just_what_depends_on_them() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        before, after = chain("1", {}), chain("2", {})
        never_made = dg.evaluate_automation_conditions(before, instance)
        assert requested(never_made) == set()
        assert dg.materialize(list(before.assets or []), instance=instance).success
        quiet = dg.evaluate_automation_conditions(before, instance, cursor=never_made.cursor)
        quiet = dg.evaluate_automation_conditions(before, instance, cursor=quiet.cursor)
        assert requested(quiet) == set()
        changed = dg.evaluate_automation_conditions(after, instance, cursor=quiet.cursor)
        assert requested(changed) == {"middle", "last"}


def test_an_input_made_again_with_the_same_content_marks_nothing() -> None:
    data: dict[str, str] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = chain("1", data)
        assets = list(definitions.assets or [])
        assert dg.materialize(assets, instance=instance).success
        state = dg.evaluate_automation_conditions(definitions, instance)
        state = dg.evaluate_automation_conditions(definitions, instance, cursor=state.cursor)
        dg.materialize(assets, selection=["raw"], instance=instance)
        state = dg.evaluate_automation_conditions(definitions, instance, cursor=state.cursor)
        assert requested(state) == set()
        data["raw"] = "new photos"
        dg.materialize(assets, selection=["raw"], instance=instance)
        state = dg.evaluate_automation_conditions(definitions, instance, cursor=state.cursor)
        assert requested(state) == {"middle", "last", "other"}


def test_all_assets_of_a_recipe_follow_changes() -> None:
    recipe = Recipe(name="garage")
    graph = definitions(recipe).resolve_asset_graph()
    assert all(graph.get(key).automation_condition is not None for key in graph.get_all_asset_keys())
    assert automate(recipe, []).jobs


def test_a_folder_on_an_object_store_is_watched_by_listing_alone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = Sensor("s3://bucket/photos", monkeypatch)
    assert "s3://bucket/photos: nothing is there; put it back" in sensor.tick(0)[1]
    store.put("photos/images/hall/a.jpg", b"1")
    assert counts(sensor, [0, 300]) == [0, 0]
    store.put("photos/images/hall/b.jpg", b"1")
    assert counts(sensor, [900, 1200]) == [0, 1]
    store.put("photos/images/hall/a.jpg", b"22")
    assert counts(sensor, [1800, 2100]) == [0, 1]
    store.delete("photos/images/hall/b.jpg")
    assert counts(sensor, [2700, 3000]) == [0, 1]
    store.put("photos/images/hall/.hidden", b"1")
    assert "nothing has changed" in sensor.tick(4000)[1]
    assert not store.reads()
    assert not (tmp_path / "cache").exists()
