"""A training as plain values, so that it runs here, in the processes of torchrun or on a Ray cluster.

    torchrun --nproc-per-node 2 -m cd_pipeline.training.job JOB.json RESULT.pt

trains the job in a file; `run_job` does that by itself where its runtime asks for several processes.
"""

import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from pathlib import Path

import torch
from pydantic import BaseModel, Field

from cd_pipeline.data.files import digest, file_digest, write_bytes, write_text
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import AugmentationSettings, InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.engine.settings import EngineSettings
from cd_pipeline.models.build import start_model
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.settings import SynthesisSettings
from cd_pipeline.training.distributed import has_batch_norm, process_group
from cd_pipeline.training.loop import TrainingResult, train
from cd_pipeline.training.progress import EpochRecord
from cd_pipeline.training.sample_sets import inverse_class_weights, training_sets
from cd_pipeline.training.settings import CODE_VERSION, PACKAGES, TELLING, TrainingSettings
from cd_pipeline.training.telling import Listener, OnEpoch, OnResume, Teller, heard, tell_line
from cd_pipeline.training.unfinished import TrainingState, UnfinishedFile

PLACES = {"manifest", "source", "workspace", "unfinished", "engine"}
"""Where the files of a job lie and its processes run: it can be another place when it resumes."""


class TrainingJob(BaseModel):
    """What is trained, on what (`data_set`: on those samples alone), how and where.

    `unfinished` keeps the state after each epoch, from which the same job resumes; it stays there when training
    has ended, so that its result is not lost before it is saved. None: nothing is kept. Where the engine is ray,
    `runtime` is what is asked of the cluster, as `wanted_runtime` returns it.
    """

    manifest: Path
    source: Path
    workspace: Path
    data_set: str | None = None
    input: InputSettings
    task: Task
    synthesis: SynthesisSettings
    augmentation: AugmentationSettings | None
    model: ModelSettings
    training: TrainingSettings
    runtime: Runtime
    engine: EngineSettings = Field(default_factory=EngineSettings)
    unfinished: Path | None = None

    @property
    def identity(self) -> str:
        """Hash of everything that determines the weights, on one machine."""
        start = self.model.start_from and Path(self.model.start_from).expanduser()
        settings = self.model_dump(mode="json", exclude={*PLACES, "runtime"})
        for name in TELLING:
            settings["training"].pop(name)
        return digest(
            CODE_VERSION,
            json.dumps(settings, sort_keys=True),
            (self.runtime.description, self.runtime.channels_last, self.runtime.deterministic),
            file_digest(self.manifest),
            file_digest(start) if start and start.is_file() else "",
            *(package_version(name) for name in PACKAGES),
        )


@dataclass(frozen=True, slots=True)
class JobResult:
    """How training went, whether its encoder was pretrained, how many samples it had, and where it ran."""

    training: TrainingResult
    pretrained: bool
    train_samples: int
    val_samples: int
    device: str


def run_job(
    job: TrainingJob,
    logger: logging.Logger,
    *,
    on_epoch: OnEpoch = lambda record: None,
    on_resume: OnResume = lambda history: None,
    show_progress: bool = False,
) -> JobResult:
    """Train, in this process, in as many as the job's runtime asks for, or on a Ray cluster.

    Args:
        job: what to do.
        logger: gets warnings, and what other processes print.
        on_epoch: called after each epoch.
        on_resume: called with the epochs of before, where a training that was stopped goes on.
        show_progress: draw bars; only of a single process.

    Raises:
        FloatingPointError, ValueError, OSError: as `train` and the readers of the data do.
        RuntimeError: one of several processes failed.
    """
    if job.engine.engine == "ray":
        from cd_pipeline.training.ray_job import run_on_ray

        return run_on_ray(job, Listener(logger, on_epoch, on_resume))
    if job.runtime.processes > 1:
        return _in_processes(job, Listener(logger, on_epoch, on_resume))
    return train_here(job, job.runtime, logger, on_epoch, on_resume, show_progress=show_progress)


def train_here(
    job: TrainingJob,
    runtime: Runtime,
    logger: logging.Logger,
    on_epoch: OnEpoch,
    on_resume: OnResume,
    *,
    show_progress: bool = False,
) -> JobResult:
    """Train in this process, which is alone or one of several with the same job, each with its own runtime.

    Raises:
        FloatingPointError, ValueError, OSError: as `train` and the readers of the data do.
    """
    train_set, val_set = training_sets(
        job.manifest,
        Roots(job.source, job.workspace),
        job.input.size,
        job.synthesis,
        job.augmentation,
        pictures=job.task.pictures,
        data_set=job.data_set,
        nuisance_on=job.training.nuisance_on,
        rendering_on=job.training.rendering_on,
    )
    file = unfinished_file(job, logger)
    found = file.read() if file else None
    settings = job.model
    if found:  # its weights replace whatever the network starts from
        settings = settings.model_copy(update={"pretrained": False, "start_from": None})
        on_resume([EpochRecord(**row) for row in found[0].history])
    elif runtime.rank:  # is given the weights of the first
        settings = settings.model_copy(update={"pretrained": False})
    model, pretrained = start_model(settings, job.task, job.input, seed=job.training.seed, logger=logger)
    pretrained = found[1] if found else pretrained

    def keep(state: TrainingState) -> None:
        if file and runtime.rank == 0:
            file.write(state, pretrained=pretrained)

    if runtime.processes > 1 and runtime.device_type == "cpu" and has_batch_norm(model):
        logger.info("batch norm on CPUs: each process has its own statistics; group norm does without")
    weighted = job.training.class_weights == "inverse"
    result = train(
        model,
        train_set,
        val_set,
        job.training,
        runtime,
        class_weights=inverse_class_weights(train_set.examples) if weighted else None,
        resume=found[0] if found else None,
        keep=keep if file else None,
        on_epoch=on_epoch,
        show_progress=show_progress,
    )
    return JobResult(
        result, pretrained, len(train_set.examples), len(val_set.examples), job.runtime.description
    )


def unfinished_file(job: TrainingJob, logger: logging.Logger) -> UnfinishedFile | None:
    """Return the file that keeps the job's state, or None where the job asks for none."""
    if job.unfinished is None:
        return None
    return UnfinishedFile(job.unfinished, job.identity, job.training.epochs, logger)


def _in_processes(job: TrainingJob, listener: Listener) -> JobResult:
    with tempfile.TemporaryDirectory(prefix="cd_pipeline_") as folder:
        file, result = Path(folder, "job.json"), Path(folder, "result.pt")
        write_text(file, job.model_dump_json())
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(job.runtime.processes)),
            *("-m", "cd_pipeline.training.job", str(file), str(result)),
        ]
        threads = str(max(1, job.runtime.threads // job.runtime.processes))
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    listener.hear(heard(line))
            finally:
                running.terminate()  # has ended, unless reading was interrupted
        if listener.failure:
            raise ValueError(listener.failure)
        if running.returncode or not result.is_file():
            raise RuntimeError(f"training in {job.runtime.processes} processes failed; the log says why")
        return unpacked(result.read_bytes())


def packed(result: JobResult) -> bytes:
    """Return a result as bytes, for another process."""
    buffer = io.BytesIO()
    torch.save({**asdict(result), "weights": result.training.weights}, buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> JobResult:
    """Return the result that was packed."""
    found = torch.load(io.BytesIO(content), weights_only=True)
    training = found["training"]
    return JobResult(
        TrainingResult(
            weights=found["weights"],
            best=EpochRecord(**training["best"]),
            history=[EpochRecord(**record) for record in training["history"]],
            pos_weight=training["pos_weight"],
            stop_reason=training["stop_reason"],
        ),
        found["pretrained"],
        found["train_samples"],
        found["val_samples"],
        found["device"],
    )


def main(arguments: list[str]) -> int:
    """Train the job of a file as one of torchrun's processes; the first one tells of it and writes the result."""
    job = TrainingJob.model_validate_json(Path(arguments[0]).read_text())
    with process_group(job.runtime) as runtime:
        first = runtime.rank == 0
        teller = Teller(tell_line, first=first)
        try:
            result = train_here(job, runtime, teller.logger, teller.on_epoch, teller.on_resume)
        except (ValueError, OSError, FloatingPointError) as error:
            teller.failed(error)
            return 1
        if first:
            write_bytes(Path(arguments[1]), packed(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
