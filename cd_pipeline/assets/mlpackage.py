"""The Core ML package."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.inputs import chosen_threshold, measured, rendered_pairs, trained
from cd_pipeline.assets.stage import stage
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.export.package_check import PackageAgreement
    from cd_pipeline.training.checkpoint import Checkpoint

CHECKED_PAIRS = 320
"""Pairs, or tiles of large ones, that the package is compared with the checkpoint on."""
PACKAGE = "change_detector.mlpackage"
TOLD_METRICS = ("pairs", "precision", "recall", "f1", "iou", "mean_image_f1", "differencing_oracle_f1")
DESCRIPTION = "Marks what changed between two photos of the same place."


def mlpackage_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `mlpackage` of a recipe."""
    after = ["checkpoint", "threshold", "test_predictions", *recipe.pair_assets]

    @stage(recipe, after=after, kinds=["coreml"], settings=[recipe.input, recipe.export])
    def mlpackage(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The network for iOS 16 and later, read back from disk and compared with the checkpoint."""
        from cd_pipeline.data.files import write_text
        from cd_pipeline.data.pairs import input_pairs
        from cd_pipeline.data.preprocessing import PIXEL_SCALE
        from cd_pipeline.export.agreeing import AgreementLimits, export_agreeing
        from cd_pipeline.export.coreml import package_digest

        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        metrics = measured(workspace, recipe, saved, chosen)
        pairs = rendered_pairs(workspace, recipe, "test")
        size, folder = recipe.input.size, workspace.folder(recipe, "mlpackage")
        folder.mkdir(parents=True, exist_ok=True)
        model, path, roots = saved.model(), folder / PACKAGE, workspace.roots(recipe)
        export = export_agreeing(
            model,
            path,
            lambda: ((pair.before, pair.after) for pair in input_pairs(pairs, roots, size, CHECKED_PAIRS)),
            precision=recipe.export.precision,
            limits=AgreementLimits(**recipe.export.limits()),
            size=size,
            threshold=chosen.threshold,
            pixel_scale=PIXEL_SCALE,
            metadata=package_metadata(recipe, saved, chosen, metrics),
            description=DESCRIPTION,
        )
        if export.given_up:
            context.log.warning(f"exported in {export.precision}; {' '.join(export.given_up)}")
        proof = {**asdict(export.agreement), "package_digest": package_digest(path)}
        write_text(folder / "agreement.json", json.dumps(proof, indent=2) + "\n")
        tests = workspace.folder(recipe, "test_predictions")
        context.log.info(f"package: {path.absolute()}")
        context.log.info(f"gallery: {(tests / 'gallery.png').absolute()}")
        context.log.info(f"metrics: {(tests / 'metrics.json').absolute()} (test F1 {metrics['f1']:.3f})")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(proof["package_digest"]),
            metadata={
                "path": dg.MetadataValue.path(path.absolute()),
                "megabytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6,
                "inputs": f"before, after: RGB image {size}x{size}, values 0-255",
                "outputs": f"probability: (1, 1, {size}, {size}), float32 in [0, 1]",
                "threshold": chosen.threshold,
                "test_f1": metrics["f1"],
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


def package_metadata(
    recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold", metrics: dict[str, Any]
) -> dict[str, str]:
    """Return what an app developer reads in the package: threshold, metrics, recipe and versions."""
    return {
        "threshold": repr(chosen.threshold),
        "input_size": str(recipe.input.size),
        "recipe": recipe.name,
        "checkpoint_version": saved.version,
        "data_version": saved.data_version,
        "pretrained": str(saved.pretrained).lower(),
        **{f"test_{name}": f"{metrics[name]:.6g}" for name in TOLD_METRICS},
        "test_masks": "smoothed 3x3" if metrics["smoothed"] else "probability > threshold",
    }
