"""The configuration in docs/cluster, read by Dagster itself; the pods that it would make, without a cluster."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._grpc.types import ExecuteStepArgs

FOLDER = Path(__file__).parents[2] / "cd_pipeline" / "docs" / "cluster"
IMAGE = "cd-pipeline:1"
pytestmark = pytest.mark.slow


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of dagster.yaml, but with its history in SQLite and without its cluster."""
    pytest.importorskip("dagster_k8s")
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    monkeypatch.setattr("dagster_k8s.launcher.load_kubernetes_config", lambda **options: None)
    history = {"storage": {"sqlite": {"base_dir": str(tmp_path)}}}
    written = yaml.safe_load((FOLDER / "dagster.yaml").read_text())
    written["compute_logs"]["config"]["base_dir"] = str(tmp_path / "logs")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(written))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), overrides=history)) as made:
        yield made


@pytest.fixture(scope="module")
def code_location() -> ReconstructableRepository:
    pytest.importorskip("dagster_k8s")
    return ReconstructableRepository.for_file(str(FOLDER / "on_kubernetes.py"), "defs", container_image=IMAGE)


def job_of(location: ReconstructableRepository, name: str) -> ReconstructableJob:
    return location.get_reconstructable_job(name)


def pod_of_run(instance: dg.DagsterInstance, job: ReconstructableJob, tags: dict[str, str]) -> dict[str, Any]:
    """The Kubernetes job that a run would start, as it is sent to the cluster."""
    run = instance.create_run_for_job(
        job_def=job.get_definition(), job_code_origin=job.get_python_origin(), tags=tags
    )
    api = MagicMock()
    instance.run_launcher._api_client = api  # type: ignore[attr-defined]
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return sent(api)


def sent(api: MagicMock) -> dict[str, Any]:
    call = api.create_namespaced_job_with_retries.call_args
    assert call.kwargs["namespace"] == "cd-pipeline"
    return dict(call.kwargs["body"].to_dict())


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(job: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry for entry in container(job)["env"]}


def test_the_instance_keeps_its_history_in_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    ref = InstanceRef.from_dir(str(FOLDER))
    assert ref.run_storage_data.module_name == "dagster_postgres"
    assert ref.settings["run_monitoring"]["enabled"]


def test_runs_of_one_recipe_wait_for_each_other_as_on_one_machine(instance: dg.DagsterInstance) -> None:
    ours = yaml.safe_load((FOLDER.parents[2] / "dagster.yaml").read_text())["concurrency"]["runs"]
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None
    assert limits.tag_concurrency_limits == ours["tag_concurrency_limits"]


def test_the_pod_of_a_run_sees_data_photos_and_memory_for_loaders(
    instance: dg.DagsterInstance, code_location: ReconstructableRepository
) -> None:
    made = pod_of_run(instance, job_of(code_location, "rooms_retrain"), {})
    pod, mounts = made["spec"]["template"]["spec"], container(made)["volume_mounts"]
    assert {
        mount["name"]: mount["mount_path"] for mount in mounts if mount["name"] in ("data", "photos", "shm")
    } == {
        "data": environment(made)["CD_PIPELINE_DATA"]["value"],
        "photos": environment(made)["CD_PIPELINE_ROOMS"]["value"],
        "shm": "/dev/shm",
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["empty_dir"]["medium"] == "Memory"
    assert volumes["photos"]["persistent_volume_claim"]["read_only"]
    assert volumes["data"]["persistent_volume_claim"]["claim_name"] == "cd-pipeline-data"
    assert pod["service_account_name"] == "dagster"
    assert container(made)["image"] == IMAGE
    assert container(made)["env_from"][0]["secret_ref"]["name"] == "cd-pipeline-postgres"
    assert environment(made)["CPU_LIMIT"]["value_from"]["resource_field_ref"]["resource"] == "limits.cpu"
    assert "nvidia.com/gpu" not in container(made)["resources"]["limits"]


def test_a_run_with_the_tag_gets_a_gpu(
    instance: dg.DagsterInstance, code_location: ReconstructableRepository
) -> None:
    tags = json.loads((FOLDER / "gpu_run.json").read_text())
    normal = {name: json.dumps(value) for name, value in tags.items()}  # as Dagster keeps tags
    made = pod_of_run(instance, job_of(code_location, "levir_retrain"), normal)
    assert container(made)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (toleration,) = made["spec"]["template"]["spec"]["tolerations"]
    assert (toleration["key"], toleration["operator"]) == ("nvidia.com/gpu", "Exists")
    assert environment(made)["CD_PIPELINE_DATA"]["value"] == "/data"  # what every run has is kept


def pod_of_step(
    instance: dg.DagsterInstance, job: ReconstructableJob, step: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The Kubernetes job that the executor would start for a step."""
    from dagster._core.execution.context_creation_job import create_context_creation_data, create_executor
    from dagster._core.executor.step_delegating.step_handler.base import StepHandlerContext

    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)
    definition = job.get_definition()
    run = instance.create_run_for_job(job_def=definition, job_code_origin=job.get_python_origin())
    plan = dg._core.execution.api.create_execution_plan(job)  # type: ignore[attr-defined]
    creation = create_context_creation_data(job, plan, {}, run, instance)
    handler = create_executor(creation)._step_handler  # type: ignore[attr-defined]
    handler._api_client = api = MagicMock()
    arguments = ExecuteStepArgs(
        job_origin=job.get_python_origin(),
        run_id=run.run_id,
        step_keys_to_execute=[step],
        instance_ref=instance.get_ref(),
    )
    context = MagicMock(
        spec=StepHandlerContext,
        dagster_run=run,
        instance=instance,
        execute_step_args=arguments,
        step_tags={step: plan.get_step_by_key(step).tags},
    )
    context.get_step_context.return_value = SimpleNamespace(
        step=SimpleNamespace(op_name=plan.get_step_by_key(step).node_handle.name)
    )
    monkeypatch.setattr("dagster_k8s.executor.DagsterEvent", MagicMock())
    list(handler.launch_step(context))
    return sent(api)


@pytest.mark.parametrize(("step", "gpus"), [("checkpoint", "1"), ("threshold", "1"), ("change_masks", None)])
def test_only_steps_that_train_or_predict_get_a_gpu(
    step: str,
    gpus: str | None,
    instance: dg.DagsterInstance,
    code_location: ReconstructableRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = pod_of_step(instance, job_of(code_location, "rooms_retrain"), step, monkeypatch)
    limits = container(made)["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == gpus
    assert limits["cpu"] == ("8" if gpus else "2")
    assert {"data", "photos", "shm"} <= {mount["name"] for mount in container(made)["volume_mounts"]}
    assert environment(made)["CPU_LIMIT"]["value_from"]["resource_field_ref"]["resource"] == "limits.cpu"


def test_every_step_that_is_named_is_one_of_the_recipe(code_location: ReconstructableRepository) -> None:
    steps = yaml.safe_load((FOLDER / "steps.yaml").read_text())["per_step_k8s_config"]
    nodes = {node.name for node in job_of(code_location, "rooms_retrain").get_definition().nodes}
    assert set(steps) <= nodes


def test_a_pod_has_as_many_threads_as_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dagster_k8s")
    monkeypatch.setenv("CPU_LIMIT", "3")
    spec = importlib.util.spec_from_file_location("on_kubernetes_of_three", FOLDER / "on_kubernetes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.defs().resources["compute"].threads == 3


def test_runs_can_become_jobs_of_a_ray_cluster(tmp_path: Path) -> None:
    pytest.importorskip("dagster_ray")
    both = {**yaml.safe_load((FOLDER / "dagster-ray.yaml").read_text()), "telemetry": {"enabled": False}}
    both["storage"] = {"sqlite": {"base_dir": str(tmp_path)}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(both))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as made:
        launcher: Any = made.run_launcher
        assert type(launcher).__name__ == "RayRunLauncher"
        assert (launcher.address, launcher.num_gpus) == ("http://ray-head:8265", 1)
        assert "CD_PIPELINE_DATA=/data" in launcher.env_vars
