"""How many Ray workers a cluster gets; its machines are told, and none is started."""

import logging
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from cd_pipeline.engine.build import build_engine
from cd_pipeline.engine.ray_cluster import Node
from cd_pipeline.engine.settings import EngineSettings

pytest.importorskip("ray")

LOGGER = logging.getLogger(__name__)
Workers = Callable[..., str]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Workers:
    """Builds an engine for a cluster of some machines and returns what the log says of it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("cd_pipeline.engine.ray_cluster.connected", lambda settings, logger: nullcontext())

    def told(*there: Node, asked: int | None = None, gpu: bool = False) -> str:
        monkeypatch.setattr("cd_pipeline.engine.ray_cluster.nodes", lambda: list(there))
        with build_engine(EngineSettings(engine="ray", workers=asked), threads=1, logger=LOGGER, gpu=gpu):
            return caplog.messages[-1]

    return told


MACHINES = (Node(cpus=0, gpus=0), Node(cpus=8, gpus=0), Node(cpus=4, gpus=2))


@pytest.mark.parametrize(
    ("asked", "gpu", "expected"),
    [
        (None, False, "12 Ray workers, each with one core"),
        (None, True, "2 Ray workers, each with a GPU"),
        (12, False, "12 Ray workers, each with one core"),
        (1, True, "1 Ray workers, each with a GPU"),
    ],
)
def test_a_cluster_gets_a_worker_for_each_core_or_gpu_or_as_many_as_are_asked_for(
    workers: Workers, asked: int | None, gpu: bool, expected: str
) -> None:
    assert workers(*MACHINES, asked=asked, gpu=gpu) == expected


def test_work_that_could_use_a_gpu_takes_cores_where_the_cluster_has_none(workers: Workers) -> None:
    assert workers(Node(cpus=3, gpus=0), gpu=True) == "3 Ray workers, each with one core"


@pytest.mark.parametrize(
    ("asked", "gpu", "found", "most"), [(13, False, "12 CPUs", 12), (3, True, "2 GPUs", 2)]
)
def test_more_workers_than_the_cluster_has_cores_or_gpus_are_refused_as_training_refuses_them(
    workers: Workers, asked: int, gpu: bool, found: str, most: int
) -> None:
    message = (
        f"compute.workers is {asked}; the Ray cluster has {found}, and each process takes one; "
        f"set it to at most {most}, or leave it out"
    )
    with pytest.raises(ValueError, match=message):
        workers(*MACHINES, asked=asked, gpu=gpu)


def test_a_cluster_that_only_has_a_head_is_told_to_get_nodes(workers: Workers) -> None:
    with pytest.raises(ValueError, match="no node of the Ray cluster has a CPU to work with; start nodes"):
        workers(Node(cpus=0, gpus=0))
