"""Training on a Ray cluster; that of the slow tests is of this machine alone."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from cd_pipeline.data.datasets import EpochSampler
from cd_pipeline.engine.ray_cluster import Node, connected
from cd_pipeline.engine.settings import EngineSettings
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.job import JobResult, TrainingJob, packed, run_job, unpacked
from cd_pipeline.training.loop import TrainingResult
from cd_pipeline.training.progress import EpochRecord
from cd_pipeline.training.ray_job import Share, own_runtime, placed, wanted_runtime
from cd_pipeline_tests.assets.tiny import draw_photos, metadata, run, tiny_recipe, versions
from cd_pipeline_tests.training.tiny_job import draw_job

LOGGER = logging.getLogger(__name__)
TRAIN_PAIRS = 13
EPOCHS = 30
"""Of a training that must not end before it is killed."""
TO_CHECKPOINT = ("raw_photos", "split", "pair_manifest", "change_masks", "checkpoint")
OPEN = {
    "device": "auto",
    "precision": "auto",
    "threads": None,
    "workers": 0,
    "channels_last": True,
    "deterministic": True,
    "processes": None,
}
"""The resource compute, with all that matters here left open."""


def asked(**compute: object) -> Runtime:
    return wanted_runtime({**OPEN, **compute})


def test_a_cluster_without_gpus_trains_in_one_process_a_node_with_all_its_cores() -> None:
    runtime, share = placed(asked(), None, [Node(cpus=16, gpus=0), Node(cpus=16, gpus=0), Node(0, 0)])
    assert (runtime.device, runtime.precision) == ("cpu", "float32")
    assert (runtime.processes, runtime.threads) == (2, 16)
    assert share == Share(threads=16, cpus=16, gpus=0)


def test_a_cluster_with_gpus_trains_on_all_of_them_and_shares_out_the_cores() -> None:
    there = [Node(cpus=8, gpus=0), Node(cpus=32, gpus=4), Node(cpus=32, gpus=4)]
    runtime, share = placed(asked(), None, there)
    assert (runtime.device, runtime.precision, runtime.processes) == ("cuda", "float16", 8)
    assert share == Share(threads=8, cpus=8, gpus=1)


def test_a_cpu_is_taken_where_it_is_asked_for_beside_gpus() -> None:
    runtime, share = placed(asked(device="cpu"), 2, [Node(cpus=8, gpus=1)])
    assert (runtime.device, runtime.processes, share) == ("cpu", 2, Share(threads=4, cpus=4, gpus=0))


def test_gpus_of_unlike_nodes_get_no_more_cores_than_the_poorest_has() -> None:
    _, share = placed(asked(), None, [Node(cpus=8, gpus=8), Node(cpus=64, gpus=2)])
    assert share.cpus == 1


@pytest.mark.parametrize(
    ("machines", "gpus", "reserved", "loaders"), [(4, 2, 16, 8), (8, 8, 4, 3), (1, 32, 1, 1)]
)
def test_a_gpu_gets_the_loader_processes_that_its_node_has_cores_for_however_many_nodes_there_are(
    monkeypatch: pytest.MonkeyPatch, machines: int, gpus: int, reserved: int, loaders: int
) -> None:
    monkeypatch.setattr("cd_pipeline.models.runtime.usable_cores", lambda: 32)
    runtime, share = placed(asked(workers=None), None, [Node(cpus=32, gpus=gpus)] * machines)
    assert share.cpus == reserved
    own = own_runtime(runtime, share, "cuda:1", rank=1)
    assert (own.device, own.rank, own.processes) == ("cuda:1", 1, machines * gpus)
    assert own.loader_processes(draws=True) == loaders
    assert own.loader_processes(draws=False) == 0
    assert replace(own, workers=2).loader_processes(draws=True) == 2


@pytest.mark.parametrize(
    ("workers", "compute", "expected"), [(3, {"processes": 2}, 3), (None, {"processes": 2}, 2), (None, {}, 1)]
)
def test_workers_of_the_recipe_go_before_processes_of_the_run(
    workers: int | None, compute: dict[str, object], expected: int
) -> None:
    assert placed(asked(**compute), workers, [Node(cpus=8, gpus=0)])[0].processes == expected


def test_threads_are_those_of_a_node_as_under_torchrun() -> None:
    runtime, share = placed(asked(threads=4), 2, [Node(cpus=16, gpus=0)])
    assert (runtime.threads, share.threads) == (4, 2)
    assert runtime.description == "cpu, float32, 4 threads, 2 processes"


@pytest.mark.parametrize(
    ("compute", "workers", "told"),
    [
        ({"device": "mps"}, None, "compute.device is 'mps'; on a Ray cluster use one of: auto, cpu, cuda"),
        ({"device": "cuda"}, None, "no node of the Ray cluster has a GPU; use auto or cpu"),
        ({"precision": "float8"}, None, "compute.precision is 'float8'; use one of: auto, float32"),
        (
            {},
            9,
            "compute.workers is 9; the Ray cluster has 8 CPUs, and each process takes one; "
            "set it to at most 8, or leave it out",
        ),
        (
            {"processes": 10},
            None,
            "compute.processes of the run is 10; the Ray cluster has 8 CPUs, and each process takes one; "
            "set it to at most 8, or leave it out",
        ),
        ({"processes": 10}, 9, "compute.workers is 9; the Ray cluster has 8 CPUs"),
    ],
)
def test_what_the_cluster_cannot_give_is_refused(
    compute: dict[str, object], workers: int | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        placed(asked(**compute), workers, [Node(cpus=8, gpus=0)])


def test_a_cluster_that_only_has_a_head_is_told_to_get_nodes() -> None:
    with pytest.raises(ValueError, match="no node of the Ray cluster has a CPU to work with; start nodes"):
        placed(asked(), None, [Node(cpus=0, gpus=0)])


def test_a_job_is_the_same_whichever_engine_runs_its_processes(tmp_path: Path) -> None:
    job = draw_job(tmp_path, 2)
    two = by_torchrun(job)
    runtime, _ = placed(asked(), 2, [Node(cpus=2, gpus=0)])
    on_ray = job.model_copy(update={"runtime": runtime, "engine": EngineSettings(engine="ray", workers=2)})
    assert on_ray.identity == two.identity
    assert on_ray.identity != job.identity  # that of another number of processes
    assert TrainingJob.model_validate_json(on_ray.model_dump_json()) == on_ray


def test_a_result_comes_whole_from_another_process() -> None:
    record = EpochRecord(1, 1e-3, 0.5, 0.25, 0.5, 0.25, 0.5, 0.75, 0.5, 0.5, None, 1.0, 1.0, 4.0, 0.5, None)
    weights = {"head.weight": torch.arange(4.0)}
    sent = JobResult(TrainingResult(weights, record, [record], 2.5, "all 1 epochs done"), True, 3, 2, "cpu")
    found = unpacked(packed(sent))
    assert torch.equal(found.training.weights.pop("head.weight"), weights.pop("head.weight"))
    assert found == sent


@pytest.fixture(scope="module")
def cluster() -> Iterator[EngineSettings]:
    """A cluster of two processes, which all tests share."""
    pytest.importorskip("ray")
    settings = EngineSettings(engine="ray", workers=2)
    with pytest.MonkeyPatch.context() as patch, connected(settings, LOGGER):
        patch.delenv("RAY_ADDRESS", raising=False)
        yield settings


def on_cluster(job: TrainingJob, cluster: EngineSettings, **changes: object) -> TrainingJob:
    return job.model_copy(update={"runtime": asked(), "engine": cluster, **changes})


def by_torchrun(job: TrainingJob) -> TrainingJob:
    return job.model_copy(update={"runtime": replace(job.runtime, processes=2, threads=2)})


def assert_close(found: TrainingResult, expected: TrainingResult) -> None:
    """Sums of two processes differ from those of one in the last digits."""
    assert set(found.weights) == set(expected.weights)
    for name, value in found.weights.items():
        torch.testing.assert_close(value, expected.weights[name], rtol=1e-3, atol=1e-4)
    for row, reference in zip(found.history, expected.history, strict=True):
        assert row.train_loss == pytest.approx(reference.train_loss, rel=1e-4)
        assert row.val_loss == pytest.approx(reference.val_loss, rel=1e-3)
        assert row.val_f1 == pytest.approx(reference.val_f1, abs=0.01)


@pytest.mark.slow
def test_two_processes_on_ray_train_as_two_under_torchrun_and_as_one(
    cluster: EngineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = draw_job(tmp_path, TRAIN_PAIRS)
    one = run_job(job, LOGGER)
    torchrun = run_job(by_torchrun(job), LOGGER)
    monkeypatch.chdir(tmp_path)
    here = {"manifest": Path("pairs.parquet"), "source": Path(), "workspace": Path()}
    told: list[EpochRecord] = []
    found = run_job(on_cluster(job, cluster, **here), LOGGER, on_epoch=told.append)
    assert told == found.training.history
    assert found.training.history[-1].train_loss < found.training.history[0].train_loss - 0.1  # it does learn
    assert_close(found.training, torchrun.training)
    assert_close(found.training, one.training)
    assert (found.train_samples, found.val_samples) == (one.train_samples, one.val_samples)
    assert (found.training.best.epoch, found.training.stop_reason) == (
        one.training.best.epoch,
        one.training.stop_reason,
    )


def kill_a_trainer() -> None:
    """Kill one of the processes that train, as the system does when memory runs out."""
    for process in psutil.Process().children(recursive=True):
        if process.status() != psutil.STATUS_ZOMBIE and "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()
            return
    raise AssertionError("no process trains")


@pytest.mark.slow
def test_a_killed_process_ends_the_training_which_then_goes_on_to_the_same_weights(
    cluster: EngineSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = draw_job(tmp_path, TRAIN_PAIRS, epochs=EPOCHS)
    whole = run_job(by_torchrun(job), LOGGER).training
    kept = on_cluster(job, cluster, unfinished=tmp_path / "state.pt")

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == 2:
            kill_a_trainer()

    with pytest.raises(RuntimeError, match="training on the Ray cluster failed; the log says why"):
        run_job(kept, LOGGER, on_epoch=on_epoch)
    again: list[EpochRecord] = []
    told: list[EpochRecord] = []
    result = run_job(kept, LOGGER, on_epoch=told.append, on_resume=again.extend).training
    assert f"resuming after epoch {len(again)} of {EPOCHS}" in caplog.messages
    assert 2 <= len(again) < EPOCHS
    assert [record.epoch for record in [*again, *told]] == list(range(1, EPOCHS + 1))
    assert_close(result, whole)


@pytest.mark.slow
def test_a_picture_that_one_process_cannot_read_is_told_in_one_line(
    cluster: EngineSettings, tmp_path: Path
) -> None:
    job = draw_job(tmp_path, TRAIN_PAIRS, max_pos_weight=1.0, epochs=1)
    order = list(EpochSampler(TRAIN_PAIRS, shuffle_seed=job.training.seed))
    _, second = order[1]  # of the second process: dealt out like cards
    (tmp_path / "after" / f"p{second}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=rf"p{second}\.png: cannot be decoded") as caught:
        run_job(on_cluster(job, cluster), LOGGER)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_asset_checkpoint_of_a_recipe_on_ray_is_that_of_the_same_recipe_here(
    cluster: EngineSettings, tmp_path: Path
) -> None:
    photos, training = draw_photos(tmp_path / "photos"), {"epochs": 2, "batch_size": 4}
    recipe = tiny_recipe(photos, training=training)
    here = run(
        recipe, tmp_path / "here", select=TO_CHECKPOINT, raise_on_error=False
    )  # so short, it learns little
    compute = cluster.model_copy(update={"workers": 1})
    recipe = tiny_recipe(photos, training=training, compute=compute)
    there = run(recipe, tmp_path / "there", select=TO_CHECKPOINT, raise_on_error=False)
    assert versions(there)["checkpoint"] == versions(here)["checkpoint"]
    assert metadata(there, "checkpoint")["device"] == "cpu, float32, 1 threads"
    assert not (tmp_path / "there" / "rooms" / "checkpoint" / "unfinished.pt").exists()
