"""The test predictions."""

import json
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from cd_pipeline.assets.identity import NETWORKS, predicting_in_shards
from cd_pipeline.assets.inputs import (
    chosen_threshold,
    labelled_images,
    predictor_by,
    predictor_of,
    rendered_pairs,
    trained,
)
from cd_pipeline.assets.memo import on_disk
from cd_pipeline.assets.shards import shard_runner
from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cd_pipeline.data.image_manifest import LabelledImage
    from cd_pipeline.engine.runner import ShardRunner
    from cd_pipeline.evaluation.predictor import Predictor
    from cd_pipeline.evaluation.report import TestReport
    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.export.interface import ModelInterface
    from cd_pipeline.training.checkpoint import Checkpoint


def test_predictions_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `test_predictions` of a recipe."""
    used = [recipe.source, recipe.input, recipe.threshold, recipe.prediction]
    after = ["checkpoint", *(["threshold"] if recipe.has_threshold else []), *recipe.sample_assets]
    machine = predicting_in_shards(recipe)

    @stage(
        recipe,
        after=after,
        kinds=["png"],
        settings=used,
        pool=GPU_POOL,
        packages=NETWORKS,
        also=machine,
    )
    def test_predictions(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """What the network marks on the test set: a PNG each at the pictures' own size, and the scores."""
        from cd_pipeline.data.files import digest, file_digest, write_text
        from cd_pipeline.data.frames import write_frame
        from cd_pipeline.data.images import write_png
        from cd_pipeline.evaluation.figures import inline_jpeg

        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        folder = workspace.folder(recipe, "test_predictions")
        made_of = [
            *(on_disk(workspace, recipe, asset) for asset in after),
            machine(workspace, compute),
            recipe.compute.engine,
        ]
        with shard_runner(
            context, workspace, recipe, threads=1, packages=NETWORKS, made_of=made_of, gpu=on_gpu(compute)
        ) as runner:
            predictor = sharded_predictor(recipe, compute, saved, chosen)
            report = test_report(workspace, recipe, predictor, folder, runner=runner)
            metrics = {
                **report.metrics,
                "threshold": chosen.threshold if chosen else None,
                "mask_rule": recipe.mask_rule,
                "checkpoint_version": saved.version,
            }
            write_frame(folder / "predictions.parquet", report.scores)
            if report.sweep is not None:
                write_frame(folder / "sweep.parquet", report.sweep.frame().assign(file=report.scores["file"]))
            write_png(folder / "gallery.png", report.sheet)
            write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        context.log.info(f"{report.headline}; gallery: {folder / 'gallery.png'}")
        files = [file_digest(folder / name) for name in report.scores["file"]]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(*files, json.dumps(metrics))),
            metadata={
                **{key: value for key, value in metrics.items() if isinstance(value, (int, float, str))},
                "gallery": picture(inline_jpeg(report.sheet), "image/jpeg"),
                **{name: table(rows) for name, rows in report.tables.items()},
                "scores": table(report.scores[list(report.shown_columns)]),
                "path": dg.MetadataValue.path(folder.absolute()),
            },
        )

    return test_predictions


def test_report(
    workspace: Workspace,
    recipe: Recipe,
    predictor: "Predictor",
    folder: "Path",
    seen: "ModelInterface | None" = None,
    runner: "ShardRunner | None" = None,
) -> "TestReport":
    """Predict the recipe's test set, write a picture of each prediction, and return the figures.

    Args:
        workspace: where the test set is.
        recipe: whose it is.
        predictor: the network and its threshold.
        folder: for the pictures.
        seen: the interface of a model that is given the examples in its own way; None: in the recipe's.
        runner: where shards are predicted; None: here.
    """
    from cd_pipeline.evaluation.predictions import measure_pairs
    from cd_pipeline.release.champion import as_the_model_sees

    if not recipe.one_image:
        pairs = rendered_pairs(workspace, recipe, "test")
        pairs = as_the_model_sees(pairs, seen) if seen else pairs
        return measure_pairs(
            predictor,
            pairs,
            workspace.roots(recipe),
            folder,
            held_out_kinds=recipe.held_out_kinds,
            runner=runner,
        )
    images = labelled_images(workspace, recipe, "test")
    images = as_the_model_sees(images, seen) if seen else images
    return image_report(workspace, recipe, predictor, images, folder, runner)


def image_report(
    workspace: Workspace,
    recipe: Recipe,
    predictor: "Predictor",
    images: "Sequence[LabelledImage]",
    folder: "Path",
    runner: "ShardRunner | None" = None,
) -> "TestReport":
    """Predict images, of one class or several, as `test_report` does."""
    from cd_pipeline.data.palette import class_palette
    from cd_pipeline.evaluation.class_predictions import measure_classes
    from cd_pipeline.evaluation.image_predictions import measure_images

    roots, source = workspace.roots(recipe), recipe.source
    if not recipe.task.multi_class:
        return measure_images(predictor, images, roots, folder, runner=runner)
    return measure_classes(
        predictor,
        images,
        roots,
        folder,
        names=recipe.class_names,
        palette=class_palette(source.classes, void_as_class=source.void_as_class),
        void_class=source.classes if source.void_as_class else None,
        runner=runner,
    )


def sharded_predictor(
    recipe: Recipe, compute: Compute, saved: "Checkpoint", chosen: "ChosenThreshold | None"
) -> "Predictor":
    """Bring a checkpoint to the device; for Ray one that each worker brings to its own, with one thread."""
    from cd_pipeline.evaluation.portable import PortableNetwork
    from cd_pipeline.models.runtime import resolve_runtime

    if recipe.compute.engine == "local":
        return predictor_of(recipe, compute, saved, chosen)
    runtime = partial(
        resolve_runtime,
        device=compute.device.partition(":")[0],  # a worker sees its own GPU alone
        threads=1,
        channels_last=compute.channels_last,
        deterministic=compute.deterministic,
    )
    network = PortableNetwork(saved.model(), runtime)
    return predictor_by(recipe, network, chosen.threshold if chosen else None)


def on_gpu(compute: Compute) -> bool:
    """Tell whether networks run on a GPU where there is one."""
    return compute.device == "auto" or compute.device.startswith("cuda")
