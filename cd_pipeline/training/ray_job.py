"""A training job on a Ray cluster, by Ray Train. Needs the extra `ray`, loaded when it is used.

Each process reads its share of every batch itself: data root and source folder lie at the same paths on all nodes.
The cluster's task `_fit` owns the processes, so that they end with it, whatever ends it; what they tell comes through
a queue on the cluster. A process that fails ends the training: a bad picture would fail again, and one that was
killed or ran out of memory is for a person to look at. Run again, the job goes on after its last whole epoch. Only
where a provider takes a machine back, with notice, can Ray start the processes again by itself.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cd_pipeline.engine.ray_cluster import Node, at_work, connected, nodes, require_room
from cd_pipeline.models.runtime import Runtime, resolved_precision
from cd_pipeline.training.distributed import PATIENCE
from cd_pipeline.training.job import JobResult, TrainingJob, packed, train_here, unpacked
from cd_pipeline.training.telling import Listener, Teller

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.util.queue import Queue

AUTO = "auto"
POLL_SECONDS = 0.5
STOP_SECONDS = 20
"""What processes have to end by themselves, before they are killed."""


@dataclass(frozen=True, slots=True)
class Share:
    """What each process of a training gets of its node.

    Attributes:
        threads: of torch.
        cpus: reserved; on a GPU also for the processes that load samples.
        gpus: 1, or 0 where training is on CPUs.
    """

    threads: int
    cpus: int
    gpus: int


def wanted_runtime(compute: Mapping[str, Any]) -> Runtime:
    """Return what is asked of a cluster whose machines are not known yet.

    Args:
        compute: the settings of `resolve_runtime`; what they leave open is auto or 0 in the result.
    """
    return Runtime(**{**compute, "threads": compute["threads"] or 0, "processes": compute["processes"] or 0})


def placed(wanted: Runtime, workers: int | None, there: Sequence[Node]) -> tuple[Runtime, Share]:
    """Choose device, precision, threads and processes for the machines of a cluster.

    Training is on GPUs, one a process, where the cluster has any; otherwise on CPUs, with one process a node that has
    all of its cores. As under torchrun, a node's threads are divided among its processes.

    Args:
        wanted: of `wanted_runtime`.
        workers: how many processes; None: those of `wanted`, or else as many as GPUs or nodes.
        there: the machines of the cluster.

    Raises:
        ValueError: the cluster cannot give what is asked for.
    """
    used, on_gpu = _machines(wanted, there)
    places = [node.places(on_gpu=on_gpu) for node in used]
    processes = workers or wanted.processes or (sum(places) if on_gpu else len(used))
    setting = "compute.workers" if workers else "compute.processes of the run"
    require_room(setting, processes, sum(places), on_gpu=on_gpu)
    # GPUs of a node are filled before the next one's; CPUs are taken from all nodes alike
    a_node = min(processes, max(places)) if on_gpu else math.ceil(processes / len(used))
    cores = min(node.cpus for node in used)
    threads = min(wanted.threads or cores, cores)
    each = max(1, threads // a_node)
    reserved = (
        min(node.cpus // min(processes, place) for node, place in zip(used, places, strict=True))
        if on_gpu
        else each
    )
    runtime = replace(
        wanted,
        device="cuda" if on_gpu else "cpu",
        precision=resolved_precision(wanted.precision, on_gpu=on_gpu),
        threads=threads,
        processes=processes,
    )
    return runtime, Share(threads=each, cpus=reserved, gpus=int(on_gpu))


def _machines(wanted: Runtime, there: Sequence[Node]) -> tuple[list[Node], bool]:
    """Return the nodes that train, and whether they do so on GPUs."""
    if wanted.device not in (AUTO, "cpu", "cuda"):
        raise ValueError(f"compute.device is {wanted.device!r}; on a Ray cluster use one of: auto, cpu, cuda")
    used, on_gpu = at_work(there, gpu=wanted.device != "cpu")
    if wanted.device == "cuda" and not on_gpu:
        raise ValueError(
            "compute.device is 'cuda', and no node of the Ray cluster has a GPU; use auto or cpu"
        )
    return used, on_gpu


def own_runtime(runtime: Runtime, share: Share, device: str, rank: int) -> Runtime:
    """Return the runtime of one of the processes that train.

    Args:
        runtime: that of all of them, and
        share: what each gets, as `placed` chose them.
        device: on its machine.
        rank: its number.
    """
    return replace(runtime, device=device, threads=share.threads, cores=share.cpus, rank=rank)


def run_on_ray(job: TrainingJob, listener: Listener) -> JobResult:
    """Train a job in the processes of the Ray cluster that its engine names.

    Args:
        job: its runtime is of `wanted_runtime`.
        listener: is told of epochs and log lines.

    Raises:
        ConnectionError: there is no cluster at the address, or it is lost meanwhile.
        ValueError: the cluster cannot give what is asked for, or a process found its data or training at fault.
        RuntimeError: a process failed otherwise, or was killed.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.queue import Queue

    with connected(job.engine, listener.logger):
        runtime, share = placed(job.runtime, job.engine.workers, nodes())
        listener.logger.info(f"{runtime.processes} processes, each {share.cpus} CPUs and {share.gpus} GPUs")
        mailbox = Queue(actor_options={"num_cpus": 0})
        settings = {
            "job": _at_absolute_paths(job.model_copy(update={"runtime": runtime})).model_dump_json(),
            "share": share,
            "mailbox": mailbox,
        }
        fit: Any = ray.remote(num_cpus=0, max_retries=0, runtime_env=_environment())(_fit)
        fitting: ObjectRef[None] = fit.remote(settings, runtime.processes, share)
        try:
            content = _listen(mailbox, fitting, listener)
            _check(fitting, listener)
        except RayError as error:
            told = " ".join(str(error).split())
            raise ConnectionError(f"the Ray cluster is lost ({told}); run again: training goes on") from error
        finally:
            with suppress(RayError):  # what is lost has ended
                _stop(fitting)
                mailbox.shutdown(force=True)
    if content is None:
        raise RuntimeError("training on the Ray cluster ended without a result; Ray's logs say why")
    return unpacked(content)


def _at_absolute_paths(job: TrainingJob) -> TrainingJob:
    # each process works in a folder of its own
    places = {"manifest": job.manifest, "source": job.source, "workspace": job.workspace}
    update: dict[str, Any] = {name: path.absolute() for name, path in places.items()}
    if job.unfinished is not None:
        update["unfinished"] = job.unfinished.absolute()
    if job.model.start_from:
        start = str(Path(job.model.start_from).expanduser().absolute())
        update["model"] = job.model.model_copy(update={"start_from": start})
    return job.model_copy(update=update)


def _environment() -> dict[str, Any]:
    return {"env_vars": {"RAY_TRAIN_V2_ENABLED": "1"}}  # the default from Ray 2.51 on


def _fit(settings: dict[str, Any], processes: int, share: Share) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    with tempfile.TemporaryDirectory(prefix="cd_pipeline_") as folder:
        TorchTrainer(
            _train_one,
            train_loop_config=settings,
            torch_config=TorchConfig(
                backend="nccl" if share.gpus else "gloo", timeout_s=int(PATIENCE.total_seconds())
            ),
            scaling_config=ScalingConfig(
                num_workers=processes,
                use_gpu=share.gpus > 0,
                resources_per_worker={"CPU": share.cpus, **({"GPU": share.gpus} if share.gpus else {})},
                placement_strategy="PACK" if share.gpus else "SPREAD",
            ),
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
        ).fit()


def _train_one(settings: dict[str, Any]) -> None:
    """Train in one of the processes, which Ray has joined."""
    from ray.train import get_context
    from ray.train.torch import get_device

    job = TrainingJob.model_validate_json(settings["job"])
    context, mailbox = get_context(), settings["mailbox"]
    rank = context.get_world_rank()
    device = str(get_device()) if job.runtime.device_type == "cuda" else job.runtime.device
    runtime = own_runtime(job.runtime, settings["share"], device, rank)
    teller = Teller(lambda **message: mailbox.put(message), first=rank == 0)
    try:
        result = train_here(job, runtime, teller.logger, teller.on_epoch, teller.on_resume)
    except (ValueError, OSError, FloatingPointError) as error:
        teller.failed(error)
        raise
    if rank == 0:
        mailbox.put({"result": packed(result)})


def _listen(mailbox: "Queue", fitting: "ObjectRef[None]", listener: Listener) -> bytes | None:
    import ray
    from ray.util.queue import Empty

    content: bytes | None = None
    while True:
        ended = bool(
            ray.wait([fitting], timeout=0)[0]
        )  # asked first: what it has told by then is in the queue
        try:
            message = mailbox.get(timeout=POLL_SECONDS)
        except Empty:
            if ended:
                return content
            continue
        content = message.get("result", content)
        listener.hear(message)


def _check(fitting: "ObjectRef[None]", listener: Listener) -> None:
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(fitting)
    except RayError as error:
        if listener.failure:
            raise ValueError(listener.failure) from None
        listener.logger.info(str(error))
        raise RuntimeError("training on the Ray cluster failed; the log says why") from error


def _stop(fitting: "ObjectRef[None]") -> None:
    import ray

    for force in (False, True):
        if ray.wait([fitting], timeout=0)[0]:
            return
        ray.cancel(fitting, force=force)
        ray.wait([fitting], timeout=STOP_SECONDS)
