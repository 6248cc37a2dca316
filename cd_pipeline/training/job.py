"""A training as plain values, so that it runs here or in the processes of torchrun.

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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from cd_pipeline.data.files import digest, file_digest, write_bytes, write_text
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import AugmentationSettings, InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.build import start_model
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.settings import SynthesisSettings
from cd_pipeline.training.distributed import has_batch_norm, process_group
from cd_pipeline.training.loop import TrainingResult, train
from cd_pipeline.training.progress import EpochRecord
from cd_pipeline.training.sample_sets import inverse_class_weights, training_sets
from cd_pipeline.training.settings import CODE_VERSION, PACKAGES, TELLING, TrainingSettings
from cd_pipeline.training.unfinished import TrainingState, UnfinishedFile

OnEpoch = Callable[[EpochRecord], None]
OnResume = Callable[[list[EpochRecord]], None]
PLACES = {"manifest", "source", "workspace", "unfinished"}
"""Where the files of a job lie: it can be another place when it resumes."""


class TrainingJob(BaseModel):
    """What is trained, on what (`data_set`: on those samples alone), how and where.

    `unfinished` keeps the state after each epoch, from which the same job resumes; it stays there when training
    has ended, so that its result is not lost before it is saved. None: nothing is kept.
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
    """How training went, whether its encoder was pretrained, and how many samples it had."""

    training: TrainingResult
    pretrained: bool
    train_samples: int
    val_samples: int


def run_job(
    job: TrainingJob,
    logger: logging.Logger,
    *,
    on_epoch: OnEpoch = lambda record: None,
    on_resume: OnResume = lambda history: None,
    show_progress: bool = False,
) -> JobResult:
    """Train, in this process or in as many as the job's runtime asks for.

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
    if job.runtime.processes > 1:
        return _in_processes(job, logger, on_epoch, on_resume)
    return _train(job, job.runtime, logger, on_epoch, on_resume, show_progress)


def _train(
    job: TrainingJob,
    runtime: Runtime,
    logger: logging.Logger,
    on_epoch: OnEpoch,
    on_resume: OnResume,
    show_progress: bool,
) -> JobResult:
    train_set, val_set = training_sets(
        job.manifest,
        Roots(job.source, job.workspace),
        job.input.size,
        job.synthesis,
        job.augmentation,
        pictures=job.task.pictures,
        data_set=job.data_set,
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
    return JobResult(result, pretrained, len(train_set.examples), len(val_set.examples))


def unfinished_file(job: TrainingJob, logger: logging.Logger) -> UnfinishedFile | None:
    """Return the file that keeps the job's state, or None where the job asks for none."""
    if job.unfinished is None:
        return None
    return UnfinishedFile(job.unfinished, job.identity, job.training.epochs, logger)


def _in_processes(
    job: TrainingJob, logger: logging.Logger, on_epoch: OnEpoch, on_resume: OnResume
) -> JobResult:
    with tempfile.TemporaryDirectory(prefix="cd_pipeline_") as folder:
        file, result = Path(folder, "job.json"), Path(folder, "result.pt")
        write_text(file, job.model_dump_json())
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(job.runtime.processes)),
            *("-m", "cd_pipeline.training.job", str(file), str(result)),
        ]
        failure = ""
        threads = str(max(1, job.runtime.threads // job.runtime.processes))
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    message = _message(line)
                    if "resumed" in message:
                        on_resume([EpochRecord(**row) for row in message["resumed"]])
                    if "epoch" in message:
                        on_epoch(EpochRecord(**message["epoch"]))
                    failure = failure or message.get("failure", "")
                    if "log" in message:
                        logger.info(message["log"])
            finally:
                running.terminate()  # has ended, unless reading was interrupted
        if failure:
            raise ValueError(failure)
        if running.returncode or not result.is_file():
            raise RuntimeError(f"training in {job.runtime.processes} processes failed; the log says why")
        return _read_result(result)


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    return message if isinstance(message, dict) else {"log": line.rstrip()}


def _write_result(path: Path, result: JobResult) -> None:
    buffer = io.BytesIO()
    torch.save({**asdict(result), "weights": result.training.weights}, buffer)
    write_bytes(path, buffer.getvalue())


def _read_result(path: Path) -> JobResult:
    content = torch.load(path, weights_only=True)
    training = content["training"]
    history = [EpochRecord(**record) for record in training["history"]]
    return JobResult(
        TrainingResult(
            weights=content["weights"],
            best=EpochRecord(**training["best"]),
            history=history,
            pos_weight=training["pos_weight"],
            stop_reason=training["stop_reason"],
        ),
        content["pretrained"],
        content["train_samples"],
        content["val_samples"],
    )


class _Teller(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _tell(log=record.getMessage())


def _telling_logger(first: bool) -> logging.Logger:
    logger = logging.getLogger("cd_pipeline")
    logger.propagate = False
    logger.setLevel(logging.INFO if first else logging.CRITICAL)
    logger.addHandler(_Teller())
    return logger


def _tell(**message: object) -> None:
    print(json.dumps(message), flush=True)


def main(arguments: list[str]) -> int:
    """Train the job of a file as one of torchrun's processes; the first one tells of it and writes the result."""
    job = TrainingJob.model_validate_json(Path(arguments[0]).read_text())
    with process_group(job.runtime) as runtime:
        first = runtime.rank == 0
        logger = _telling_logger(first)

        def on_epoch(record: EpochRecord) -> None:
            if first:
                _tell(epoch=asdict(record))

        def on_resume(history: list[EpochRecord]) -> None:
            if first:
                _tell(resumed=[asdict(record) for record in history])

        try:
            result = _train(job, runtime, logger, on_epoch, on_resume, show_progress=False)
        except (ValueError, OSError, FloatingPointError) as error:
            _tell(failure=str(error))  # of any process: each reads pictures of its own
            return 1
        if first:
            _write_result(Path(arguments[1]), result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
