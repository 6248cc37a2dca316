"""The Ray cluster that a recipe names, or one of this machine alone. Needs the extra `ray`, loaded when it is used."""

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cd_pipeline.data.machine import usable_cores
from cd_pipeline.engine.settings import EngineSettings

LOCAL = "local"
"""Ray's word for a cluster of this machine alone, that ends with the process that starts it."""
ADDRESS_VARIABLE = "RAY_ADDRESS"
ANSWER_SECONDS = 20
"""In which a named host must answer; Ray itself would try for minutes."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a machine of the cluster offers in all, used or not."""

    cpus: int
    gpus: int

    def places(self, *, on_gpu: bool) -> int:
        """Return how many processes it has room for: one a CPU, or one a GPU that has a CPU beside it."""
        return min(self.gpus, self.cpus) if on_gpu else self.cpus


def at_work(there: Sequence[Node], *, gpu: bool) -> tuple[list[Node], bool]:
    """Choose the machines that work: those with GPUs where any has one, else all with CPUs.

    Args:
        there: the machines of the cluster.
        gpu: GPUs are of use.

    Returns:
        The machines, and whether they work on their GPUs.

    Raises:
        ValueError: there is none.
    """
    with_cpus = [node for node in there if node.cpus]
    if not with_cpus:
        raise ValueError(
            "no node of the Ray cluster has a CPU to work with; start nodes (ray start --address)"
        )
    with_gpus = [node for node in with_cpus if node.gpus] if gpu else []
    return with_gpus or with_cpus, bool(with_gpus)


def require_room(setting: str, processes: int, places: int, *, on_gpu: bool) -> None:
    """Check that a cluster has a place for each process; Ray would wait for one that it lacks, or do without.

    Args:
        setting: where the number of processes was set.
        processes: how many are asked for.
        places: how many the cluster has room for.
        on_gpu: they are GPUs.

    Raises:
        ValueError: it has not; the message names the setting and the most that can be asked for.
    """
    if processes > places:
        raise ValueError(
            f"{setting} is {processes}; the Ray cluster has {places} {'GPUs' if on_gpu else 'CPUs'}, and each process "
            f"takes one; set it to at most {places}, or leave it out"
        )


def cluster_address(settings: EngineSettings) -> str:
    """Return where the cluster is: `settings.address`, or else RAY_ADDRESS, or else `LOCAL`."""
    return settings.address or os.environ.get(ADDRESS_VARIABLE) or LOCAL


def nodes() -> list[Node]:
    """Return the machines of the cluster that this process is connected to."""
    import ray

    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    offered = [node["Resources"] for node in found if node["Alive"]]
    return [Node(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in offered]


@contextmanager
def connected(settings: EngineSettings, logger: logging.Logger) -> Iterator[None]:
    """Stay connected to a cluster for the length of the block; a cluster started here is shut down with it.

    Where this process is connected already, that connection is used and left open.

    Args:
        settings: `address` says which cluster; None: that of RAY_ADDRESS, or else one is started on this machine,
            without dashboard, with a CPU for each core and at least one for each of `workers`.
        logger: is told where the work runs.

    Raises:
        ConnectionError: no cluster answers at the address, it runs other versions of Python or Ray, it asks for a
            token, or none can be started here.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = cluster_address(settings)
    _connect(address, settings.workers)
    try:
        where = "of this machine alone" if address == LOCAL else f"at {address}"
        there = nodes()
        cpus, gpus = sum(node.cpus for node in there), sum(node.gpus for node in there)
        logger.info(f"Ray cluster {where}: {len(there)} nodes, {cpus} CPUs, {gpus} GPUs")
        yield
    finally:
        ray.shutdown()


def _connect(address: str, workers: int | None) -> None:
    import ray

    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address == LOCAL:
        options |= {"include_dashboard": False, "num_cpus": max(usable_cores(), workers or 1)}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _look_for(address)
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, AssertionError, ray.exceptions.RayError) as error:
        raise ConnectionError(_no_cluster(address, " ".join(str(error).split()))) from error
    finally:
        if (
            handler is not None and signal.getsignal(signal.SIGTERM) is not handler
        ):  # Ray's own would end a run in Dagster's place
            signal.signal(signal.SIGTERM, handler)


def _no_cluster(address: str, found: str) -> str:
    if address == LOCAL:
        return f"compute.engine: Ray does not start on this machine ({found}); set engine to local"
    return (
        f"compute.address: no Ray cluster to work with at {address!r} ({found}); start it (ray start --head), "
        "with the versions of Python and Ray of this machine; where it asks for a token, set RAY_AUTH_MODE and "
        "RAY_AUTH_TOKEN_PATH as there; or leave address out"
    )


def _look_for(address: str) -> None:
    host = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address)
    if host:
        with socket.create_connection((host[1], int(host[2])), timeout=ANSWER_SECONDS):
            pass
