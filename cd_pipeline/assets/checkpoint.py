"""The trained network."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.assets.identity import training
from cd_pipeline.assets.inputs import manifest_path, require_examples
from cd_pipeline.assets.stage import GPU_POOL, on_terminal, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline.training.settings import CODE_VERSION, PACKAGES, TrainingSettings

if TYPE_CHECKING:
    from cd_pipeline.data.task import Task
    from cd_pipeline.training.job import TrainingJob
    from cd_pipeline.training.loop import TrainingResult
    from cd_pipeline.training.progress import EpochRecord

UNFINISHED = "unfinished.pt"
"""The state of a training that has not ended, beside what it will become."""


def checkpoint_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `checkpoint` of a recipe."""
    used: list[BaseModel] = [recipe.task, recipe.synthesis, recipe.input, recipe.model, recipe.training]
    if recipe.augmentation is not None:
        used.append(recipe.augmentation)

    @stage(
        recipe,
        after=recipe.sample_assets,
        kinds=["pytorch"],
        settings=used,
        code_version=CODE_VERSION,
        pool=GPU_POOL,
        packages=PACKAGES,
        also=training(recipe),
    )
    def checkpoint(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The trained network: the averaged weights of the epoch that is best on val."""
        import pandas as pd

        from cd_pipeline.data.files import file_digest, write_bytes
        from cd_pipeline.data.frames import write_frame
        from cd_pipeline.evaluation.figures import training_curves
        from cd_pipeline.models.build import build_model
        from cd_pipeline.training.checkpoint import Checkpoint, save_checkpoint
        from cd_pipeline.training.job import run_job
        from cd_pipeline.training.unfinished import discard

        manifest = manifest_path(workspace, recipe)
        data_version = file_digest(manifest)
        require_examples(workspace, recipe)
        log = context.log
        settings = training_here(workspace, recipe, log)
        folder = workspace.folder(recipe, "checkpoint")
        job = training_job(workspace, recipe, compute, settings, unfinished=folder / UNFINISHED)
        where = "on Ray" if recipe.compute.engine == "ray" else job.runtime.description
        log.info(f"training {recipe.model.name}: {where}")
        with written_down(settings, folder, recipe, data_version, log) as write:

            def on_epoch(record: "EpochRecord") -> None:
                log.info(progress_line(record, settings.epochs, recipe.task))
                write(record)

            def on_resume(records: "list[EpochRecord]") -> None:
                for record in records:
                    write(record)

            done = run_job(job, log, on_epoch=on_epoch, on_resume=on_resume, show_progress=on_terminal())
        result = done.training
        best = result.best
        log.info(f"{result.stop_reason}; best epoch {best.epoch}, {val_scores(best, recipe.task)}")
        history = [asdict(record) for record in result.history]
        versions = {name: package_version(name) for name in PACKAGES}
        saved = Checkpoint(
            weights=result.weights,
            recipe=recipe.plain(),
            history=history,
            versions=versions,
            pretrained=done.pretrained,
            data_version=data_version,
            best_epoch=best.epoch,
            task=recipe.task.plain(),
        )
        curves = training_curves(history, best.epoch)
        save_checkpoint(folder / "model.pt", saved)
        write_frame(folder / "history.parquet", pd.DataFrame(history))
        write_bytes(folder / "curves.png", curves)
        discard(folder / UNFINISHED)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(saved.version),
            metadata={
                **training_figures(result),
                "pretrained": done.pretrained,
                "train_samples": done.train_samples,
                "val_samples": done.val_samples,
                "parameters": sum(p.numel() for p in build_model(recipe.model, recipe.task).parameters()),
                "device": done.device,
                "curves": picture(curves),
                "history": table(history),
                "path": dg.MetadataValue.path((folder / "model.pt").absolute()),
            },
        )

    return checkpoint


def training_here(workspace: Workspace, recipe: Recipe, log: dg.DagsterLogManager) -> TrainingSettings:
    """Return the recipe's training, shorter where it is of drawn sample data."""
    training = recipe.training
    if training.sample_epochs and workspace.configured_source(recipe) is None:
        log.info(f"sample data: {training.sample_epochs} epochs, {training.epochs} with your own")
        return training.model_copy(update={"epochs": training.sample_epochs})
    return training


def training_job(
    workspace: Workspace,
    recipe: Recipe,
    compute: Compute,
    training: TrainingSettings,
    data_set: str | None = None,
    *,
    unfinished: Path,
) -> "TrainingJob":
    """Return what is to be trained: on all samples, or on those of one data set.

    `unfinished` is the file of its state, for the caller to discard when the result is saved.
    """
    from cd_pipeline.training.job import TrainingJob
    from cd_pipeline.training.ray_job import wanted_runtime

    roots = workspace.roots(recipe)
    on_ray = recipe.compute.engine == "ray"
    return TrainingJob(
        manifest=manifest_path(workspace, recipe),
        source=roots.source,
        workspace=roots.workspace,
        data_set=data_set,
        input=recipe.input,
        task=recipe.task,
        synthesis=recipe.synthesis,
        augmentation=recipe.augmentation,
        model=recipe.model,
        training=training,
        runtime=wanted_runtime(compute.model_dump()) if on_ray else compute.runtime(),
        engine=recipe.compute,
        unfinished=unfinished.absolute(),
    )


@contextmanager
def written_down(
    settings: TrainingSettings,
    folder: Path,
    recipe: Recipe,
    data_version: str,
    log: dg.DagsterLogManager,
) -> Iterator[Callable[["EpochRecord"], None]]:
    """Yield what writes an epoch wherever the recipe asks for it: for TensorBoard, to MLflow."""
    from cd_pipeline.training.mlflow_run import MlflowRun
    from cd_pipeline.training.scalars import EpochScalars

    with ExitStack() as stack:
        writers: list[EpochScalars | MlflowRun] = []
        if settings.tensorboard:
            writers.append(stack.enter_context(EpochScalars(folder / "tensorboard")))
        else:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)  # of an earlier training
        if settings.mlflow:
            tags = {"data_version": data_version}
            writers.append(stack.enter_context(MlflowRun(recipe.name, recipe.plain(), tags, log)))

        def write(record: "EpochRecord") -> None:
            for writer in writers:
                writer.add(asdict(record))

        yield write


def training_figures(result: "TrainingResult") -> dict[str, Any]:
    """Return the figures of a training run under constant names."""
    rates = sorted(record.images_per_second for record in result.history)
    return {
        "epochs": len(result.history),
        "best_epoch": result.best.epoch,
        "val_f1": result.best.val_f1,
        "val_iou": result.best.val_iou,
        "val_pixel_accuracy": result.best.val_pixel_accuracy,
        "train_loss": result.best.train_loss,
        "val_loss": result.best.val_loss,
        "pos_weight": result.pos_weight,
        "images_per_second": rates[len(rates) // 2],
        "stopped": result.stop_reason,
    }


def progress_line(record: "EpochRecord", epochs: int, task: "Task") -> str:
    """Return one epoch as one line of the log; the time left is that of so many epochs like this one."""
    seconds = (record.train_seconds + record.val_seconds) * (epochs - record.epoch)
    gpu = f", GPU {record.gpu_memory_gb:.1f} GB" if record.gpu_memory_gb is not None else ""
    return (
        f"epoch {record.epoch}/{epochs}: train loss {record.train_loss:.4f}, "
        f"val loss {record.val_loss:.4f}, {val_scores(record, task)}, "
        + (f"threshold {record.threshold:.2f}, " if record.threshold is not None else "")
        + f"lr {record.learning_rate:.1e}, {record.images_per_second:.0f} images/s, "
        f"{duration(seconds)} left, {record.memory_gb:.1f} GB{gpu}"
    )


def val_scores(record: "EpochRecord", task: "Task") -> str:
    """Return the scores of val under their right names: of several classes they are means over them."""
    from cd_pipeline.training.progress import score_names

    names = score_names(task)
    return f"val {names['f1']} {record.val_f1:.3f}, {names['iou']} {record.val_iou:.3f}"


def duration(seconds: float) -> str:
    """Return a time in the unit that a person would take.

    >>> duration(8.4), duration(100), duration(9000)
    ('8 s', '2 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
