"""The trained network."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.assets.inputs import examples_on_disk, manifest_path
from cd_pipeline.assets.stage import GPU_POOL, on_terminal, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from cd_pipeline.training.job import TrainingJob
    from cd_pipeline.training.loop import EpochRecord, TrainingResult
    from cd_pipeline.training.settings import TrainingSettings

VERSIONED_PACKAGES = ("cd_pipeline", "torch", "timm", "opencv-python", "numpy")


def checkpoint_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `checkpoint` of a recipe."""
    used: list[BaseModel] = [recipe.task, recipe.synthesis, recipe.input, recipe.model, recipe.training]
    if recipe.augmentation is not None:
        used.append(recipe.augmentation)

    @stage(recipe, after=recipe.sample_assets, kinds=["pytorch"], settings=used, pool=GPU_POOL)
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

        manifest = manifest_path(workspace, recipe)
        data_version = file_digest(manifest)
        examples_on_disk(workspace, recipe)
        log, runtime = context.log, compute.runtime()
        training = training_here(workspace, recipe, log)
        job = training_job(workspace, recipe, compute, training)
        log.info(f"training {recipe.model.name}: {runtime.description}")
        folder = workspace.folder(recipe, "checkpoint")
        with scalars(training, folder / "tensorboard") as write_scalars:

            def on_epoch(record: "EpochRecord") -> None:
                log.info(progress_line(record, training.epochs))
                write_scalars(asdict(record))

            done = run_job(job, log, on_epoch=on_epoch, show_progress=on_terminal())
        result = done.training
        best = result.best
        log.info(
            f"{result.stop_reason}; best epoch {best.epoch}, val F1 {best.val_f1:.3f}, IoU {best.val_iou:.3f}"
        )
        history = [asdict(record) for record in result.history]
        versions = {name: package_version(name) for name in VERSIONED_PACKAGES}
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
        return dg.MaterializeResult(
            data_version=dg.DataVersion(saved.version),
            metadata={
                **training_figures(result),
                "pretrained": done.pretrained,
                "train_samples": done.train_samples,
                "val_samples": done.val_samples,
                "parameters": sum(p.numel() for p in build_model(recipe.model, recipe.task).parameters()),
                "device": runtime.description,
                "curves": picture(curves),
                "history": table(history),
                "path": dg.MetadataValue.path((folder / "model.pt").absolute()),
            },
        )

    return checkpoint


def training_here(workspace: Workspace, recipe: Recipe, log: dg.DagsterLogManager) -> "TrainingSettings":
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
    training: "TrainingSettings",
    data_set: str | None = None,
) -> "TrainingJob":
    """Return what is to be trained: on all samples, or on those of one data set."""
    from cd_pipeline.training.job import TrainingJob

    roots = workspace.roots(recipe)
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
        runtime=compute.runtime(),
    )


@contextmanager
def scalars(training: "TrainingSettings", folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what writes an epoch for TensorBoard, or nothing where the recipe does not ask for it."""
    from cd_pipeline.training.scalars import EpochScalars

    if not training.tensorboard:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier training
        yield lambda record: None
        return
    with EpochScalars(folder) as writer:
        yield writer.add


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


def progress_line(record: "EpochRecord", epochs: int) -> str:
    """Return one epoch as one line of the log."""
    return (
        f"epoch {record.epoch}/{epochs}: train loss {record.train_loss:.4f}, "
        f"val loss {record.val_loss:.4f}, val F1 {record.val_f1:.3f}, IoU {record.val_iou:.3f}, "
        + (f"threshold {record.threshold:.2f}, " if record.threshold is not None else "")
        + f"{record.images_per_second:.0f} images/s"
    )
