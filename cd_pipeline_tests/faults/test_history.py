"""What Dagster remembers of a run that was killed: it keeps nobody waiting, and can be executed again."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.utils import make_new_run_id

from cd_pipeline.automation import runs_that_died
from cd_pipeline_tests.faults.conftest import Undisturbed
from cd_pipeline_tests.faults.driver import Runner
from cd_pipeline_tests.faults.files import require_whole

pytestmark = pytest.mark.slow


@pytest.fixture
def instance(runner: Runner) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(runner.home)) as instance:
        yield instance


def would_wait(instance: dg.DagsterInstance, like: dg.DagsterRun) -> bool:
    """Whether the queue would hold back a new run, by what Dagster's daemon asks."""
    for _ in range(2):  # the first look makes the pool known
        counter = GlobalOpConcurrencyLimitsCounter(
            instance,
            [new := like._replace(run_id=make_new_run_id())],
            instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)),
            instance.event_log_storage.get_concurrency_keys(),
            instance.event_log_storage.get_pool_limits(),
            pool_granularity=instance.get_concurrency_config().pool_config.pool_granularity,
        )
        waits = counter.is_blocked(new)
    return waits


def test_a_killed_run_keeps_no_other_waiting_and_is_executed_again_from_where_it_was(
    runner: Runner, instance: dg.DagsterInstance, undisturbed: dict[str, Undisturbed], tmp_path: Path
) -> None:
    for earlier in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS_RUN_STATUSES)):
        instance.report_run_failed(earlier)  # of other tests, some killed before their first asset
    data = shutil.copytree(undisturbed["levir"].data, tmp_path / "data")
    run = runner.start_job(data, "levir_evaluate")
    run.wait_for('Started execution of step "levir__test_predictions"')
    os.kill(run.pid, signal.SIGSTOP)
    (under_way,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert would_wait(instance, under_way)
    runs_that_died(dg.build_sensor_context(instance))
    assert would_wait(instance, under_way)  # it is slow, not dead

    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    runs_that_died(dg.build_sensor_context(instance))
    killed = instance.get_run_by_id(under_way.run_id)
    assert killed is not None and killed.status == dg.DagsterRunStatus.FAILURE
    assert not would_wait(instance, under_way)
    assert instance.event_log_storage.get_concurrency_info("gpu").claimed_slots == []

    again = runner.start_job(data, "levir_evaluate", after=under_way.run_id)
    assert again.wait() == 0, again.told()[-6000:]
    assert 'step "levir__test_predictions"' in again.told()
    assert 'step "levir__threshold"' not in again.told()  # was made before
    require_whole(data)
