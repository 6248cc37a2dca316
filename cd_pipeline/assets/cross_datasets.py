"""Cross-data-set evaluation: trained on each data set, tested on all of them."""

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.assets.checkpoint import progress_line, training_here, training_job
from cd_pipeline.assets.identity import training
from cd_pipeline.assets.inputs import chosen_threshold, labelled_images, predictor_for, predictor_of, trained
from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.assets.test_predictions import image_report
from cd_pipeline.assets.threshold import choose_on
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline.training.settings import CODE_VERSION, PACKAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cd_pipeline.data.image_manifest import LabelledImage
    from cd_pipeline.evaluation.predictor import Predictor
    from cd_pipeline.training.progress import EpochRecord

ALL = "all of them"
UNFINISHED = ".unfinished"
"""Folder of the states of the trainings, until the table is there."""
FIGURES = ("images", "precision", "recall", "f1", "iou", "ods", "ois", "miou", "pixel_accuracy")


def cross_datasets_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `cross_datasets` of a recipe."""
    used: list[BaseModel] = [recipe.source, recipe.input, recipe.model, recipe.training]
    used += [recipe.threshold, recipe.prediction]
    if recipe.augmentation is not None:
        used.append(recipe.augmentation)
    threshold = ["threshold"] if recipe.has_threshold else []

    @stage(
        recipe,
        after=["image_manifest", "checkpoint", *threshold],
        kinds=["pytorch"],
        settings=used,
        code_version=CODE_VERSION,
        pool=GPU_POOL,
        optional=True,
        packages=PACKAGES,
        also=training(recipe),
    )
    def cross_datasets(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult | None:  # type: ignore[type-arg]
        """A table: a network trained on each data set, and the checkpoint, tested on every data set.

        Each network has the recipe's training, and chooses epoch and threshold on its own data set's val. Of a
        single data set nothing is made. Each training keeps its state until the table is there: stopped and
        started again, the asset goes on where it was.
        """
        import pandas as pd

        from cd_pipeline.data.files import digest
        from cd_pipeline.data.frames import write_frame

        data_sets = usable_data_sets(context.log, labelled_images(workspace, recipe))
        if len(data_sets) < 2:
            context.log.info(f"{len(data_sets)} data sets with train, val and test: two are needed")
            return None
        tests: dict[str, list[LabelledImage]] = {name: [] for name in data_sets}
        for image in labelled_images(workspace, recipe, "test"):
            tests.get(image.class_name, []).append(image)
        folder, main = workspace.folder(recipe, "cross_datasets"), "f1" if recipe.has_threshold else "miou"
        clear(folder)  # predictions of other data sets
        saved, rows = trained(workspace, recipe), []
        for name in (*tests, ALL):
            if name == ALL:
                chosen = chosen_threshold(workspace, recipe, saved)
                predictor = predictor_of(recipe, compute, saved, chosen)
            else:
                predictor = trained_on(context.log, workspace, recipe, compute, name)
            for other, images in tests.items():
                report = image_report(workspace, recipe, predictor, images, folder / name / other)
                found = {figure: report.metrics[figure] for figure in FIGURES if figure in report.metrics}
                rows.append({"trained_on": name, "tested_on": other, **found})
                context.log.info(f"trained on {name}, tested on {other}: {report.headline}")
        frame = pd.DataFrame(rows)
        write_frame(folder / "table.parquet", frame)
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        pivot = frame.pivot_table(index="trained_on", columns="tested_on", values=main, sort=False)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(frame.to_json())),
            metadata={
                "data_sets": len(tests),
                main: table(pivot.reset_index()),
                "all_figures": table(frame),
                "path": dg.MetadataValue.path(folder.absolute()),
            },
        )

    return cross_datasets


def clear(folder: "Path") -> None:
    """Delete what an earlier run left in a folder, but not the states of its trainings."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.name != UNFINISHED:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def usable_data_sets(log: dg.DagsterLogManager, images: "Sequence[LabelledImage]") -> list[str]:
    """Return the names of the data sets that have images in every split; the others are told to the log."""
    from cd_pipeline.data.split import SPLITS

    splits: dict[str, set[str]] = {}
    for image in images:
        splits.setdefault(image.class_name, set()).add(image.split)
    for name, found in sorted(splits.items()):
        if lacking := [split for split in SPLITS if split not in found]:
            log.warning(
                f"{name} is left out: it has no {' and no '.join(lacking)}; add images, or set split.exact"
            )
    return sorted(name for name, found in splits.items() if found >= set(SPLITS))


def trained_on(
    log: dg.DagsterLogManager, workspace: Workspace, recipe: Recipe, compute: Compute, data_set: str
) -> "Predictor":
    """Train on one data set alone, choose the threshold on its val, and return what predicts."""
    from cd_pipeline.data.samples import input_samples
    from cd_pipeline.models.build import build_model
    from cd_pipeline.training.job import run_job

    settings = training_here(workspace, recipe, log)
    log.info(f"training on {data_set} alone")
    state = workspace.folder(recipe, "cross_datasets") / UNFINISHED / f"{data_set}.pt"
    job = training_job(workspace, recipe, compute, settings, data_set, unfinished=state)

    def on_epoch(record: "EpochRecord") -> None:
        log.info(progress_line(record, settings.epochs, recipe.task))

    done = run_job(job, log, on_epoch=on_epoch)
    model = build_model(recipe.model, recipe.task, recipe.input)
    model.load_state_dict(done.training.weights)
    predictor = predictor_for(recipe, compute, model, None)
    if not recipe.has_threshold:
        return predictor
    val = [image for image in labelled_images(workspace, recipe, "val") if image.class_name == data_set]
    samples = input_samples(val, workspace.roots(recipe), recipe.input.size)
    _, chosen = choose_on(predictor, samples, recipe.threshold, "")
    return replace(predictor, threshold=chosen.threshold)
