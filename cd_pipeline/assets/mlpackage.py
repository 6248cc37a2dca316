"""The Core ML package."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.inputs import chosen_threshold, examples_on_disk, measured, trained
from cd_pipeline.assets.stage import stage
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.export.package_check import PackageAgreement
    from cd_pipeline.training.checkpoint import Checkpoint

CHECKED_SAMPLES = 320
"""Samples, or tiles of large ones, that the package is compared with the checkpoint on."""
TOLD_METRICS = (
    *("pairs", "images", "precision", "recall", "f1", "iou", "mean_image_f1", "differencing_oracle_f1"),
    *("ods", "ois", "miou", "pixel_accuracy"),
)


def mlpackage_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `mlpackage` of a recipe."""
    threshold = ["threshold"] if recipe.has_threshold else []
    used = [recipe.source, recipe.input, recipe.threshold, recipe.prediction, recipe.export]
    after = ["checkpoint", *threshold, "test_predictions", *recipe.sample_assets]

    @stage(recipe, after=after, kinds=["coreml"], settings=used)
    def mlpackage(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The network for iOS 16 and later, read back from disk and compared with the checkpoint."""
        from cd_pipeline.data.files import write_text
        from cd_pipeline.data.preprocessing import PIXEL_SCALE
        from cd_pipeline.data.samples import input_samples
        from cd_pipeline.export.agreeing import AgreementLimits, export_agreeing
        from cd_pipeline.export.coreml import package_digest

        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        metrics = measured(workspace, recipe, saved, chosen)
        examples = examples_on_disk(workspace, recipe, "test")
        size, folder = recipe.input.size, workspace.folder(recipe, "mlpackage")
        folder.mkdir(parents=True, exist_ok=True)
        model, path, roots = saved.model(), folder / recipe.package, workspace.roots(recipe)
        export = export_agreeing(
            model,
            path,
            lambda: (sample.pictures for sample in input_samples(examples, roots, size, CHECKED_SAMPLES)),
            task=recipe.task,
            precision=recipe.export.precision,
            limits=AgreementLimits(**recipe.export.limits()),
            size=size,
            threshold=chosen.threshold if chosen else None,
            pixel_scale=PIXEL_SCALE,
            metadata=package_metadata(recipe, saved, chosen, metrics),
            description=description(recipe),
        )
        if export.given_up:
            context.log.warning(f"exported in {export.precision}; {' '.join(export.given_up)}")
        proof = {**asdict(export.agreement), "package_digest": package_digest(path)}
        write_text(folder / "agreement.json", json.dumps(proof, indent=2) + "\n")
        tests = workspace.folder(recipe, "test_predictions")
        context.log.info(f"package: {path.absolute()}")
        context.log.info(f"gallery: {(tests / 'gallery.png').absolute()}")
        context.log.info(f"metrics: {(tests / 'metrics.json').absolute()} ({test_score(metrics)})")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(proof["package_digest"]),
            metadata={
                "path": dg.MetadataValue.path(path.absolute()),
                "megabytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6,
                **interface(recipe),
                "threshold": chosen.threshold if chosen else "none: the most probable class",
                **{f"test_{name}": metrics[name] for name in ("f1", "miou") if name in metrics},
                "precision": export.precision,
                **agreement_figures(export.agreement),
            },
        )

    return mlpackage


def agreement_figures(agreement: "PackageAgreement") -> dict[str, float | str]:
    """Return how closely the package agrees with the checkpoint."""
    iou = agreement.mask_iou
    return {
        "max_probability_difference": agreement.max_probability_difference,
        "flipped_share": agreement.flipped_share,
        "mask_iou": iou if iou is not None else "every prediction is empty",
    }


def description(recipe: Recipe) -> str:
    """Return what the package does, in a sentence."""
    if not recipe.one_image:
        return "Marks what changed between two photos of the same place."
    if recipe.task.multi_class:
        return f"Tells {recipe.task.classes} classes apart, pixel by pixel."
    return "Marks what it was trained to find in a photo, pixel by pixel."


def interface(recipe: Recipe) -> dict[str, str]:
    """Return the package's inputs and outputs."""
    size, classes = recipe.input.size, recipe.task.classes
    outputs = f"probability: (1, {classes}, {size}, {size}), float32 in [0, 1]"
    if recipe.task.multi_class:
        outputs += f"; class_map: (1, {size}, {size}), int32, the most probable class"
    names = ", ".join(recipe.task.picture_names)
    return {"inputs": f"{names}: RGB image {size}x{size}, values 0-255", "outputs": outputs}


def test_score(metrics: dict[str, Any]) -> str:
    """Return the figure that a test set is known by."""
    return f"test F1 {metrics['f1']:.3f}" if "f1" in metrics else f"test mIoU {metrics['miou']:.3f}"


def package_metadata(
    recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold | None", metrics: dict[str, Any]
) -> dict[str, str]:
    """Return what an app developer reads in the package: threshold, metrics, recipe and versions."""
    found = {
        "input_size": str(recipe.input.size),
        "input_fit": input_fit(recipe),
        "recipe": recipe.name,
        "checkpoint_version": saved.version,
        "data_version": saved.data_version,
        "pretrained": str(saved.pretrained).lower(),
        **{f"test_{name}": f"{metrics[name]:.6g}" for name in TOLD_METRICS if name in metrics},
    }
    if recipe.input.clahe is not None:
        found["before_the_package"] = (
            f"CLAHE, clip limit {recipe.input.clahe:g}, 8x8 parts, on the lightness of CIELAB; "
            "the app applies it to the whole image"
        )
    if chosen is None:
        return {**found, "class_names": ", ".join(recipe.class_names)}
    return {**found, "threshold": repr(chosen.threshold), "test_masks": test_masks(recipe)}


def input_fit(recipe: Recipe) -> str:
    """Return how pictures of other sizes were brought to the input size."""
    if recipe.input.fit == "resize":
        return "the whole picture is resized to the input size, by area"
    overlap = int(recipe.prediction.overlap * recipe.input.size)
    return (
        f"tiles of the input size at the picture's own scale, overlapping by {overlap} px; "
        "smaller pictures are mirrored at the right and the bottom"
    )


def test_masks(recipe: Recipe) -> str:
    """Return how the test masks were made of the package's probability."""
    steps = ["probability > threshold"]
    if recipe.threshold.smooth:
        steps.append("smoothed 3x3")
    if recipe.prediction.opening > 1:
        steps.append(f"opened {recipe.prediction.opening}x{recipe.prediction.opening}")
    if recipe.prediction.min_area > 1:
        steps.append(f"areas below {recipe.prediction.min_area} px removed")
    return ", ".join(steps)
