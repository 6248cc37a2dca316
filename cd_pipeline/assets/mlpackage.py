"""The network as an app takes it: the Core ML package, other forms of it, and the model card."""

import json
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.identity import NETWORKS
from cd_pipeline.assets.inputs import chosen_threshold, examples_on_disk, measured, samples_by_split, trained
from cd_pipeline.assets.stage import stage
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.export.agreement import Agreement
    from cd_pipeline.export.coreml import PackageLabel
    from cd_pipeline.export.delivery import Delivery, DeliveryPlan
    from cd_pipeline.training.checkpoint import Checkpoint

CHECKED_SAMPLES = 500
"""Test samples, or tiles of large ones, that the exports are compared with the checkpoint on; of more than that,
every second, third and so on."""
TOLD_METRICS = (
    *("pairs", "images", "precision", "recall", "f1", "iou", "mean_image_f1", "differencing_oracle_f1"),
    *("ods", "ois", "miou", "pixel_accuracy"),
)
CARD, AGREEMENT = "MODEL_CARD.md", "agreement.json"
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def mlpackage_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `mlpackage` of a recipe."""
    threshold = ["threshold"] if recipe.has_threshold else []
    used = [recipe.source, recipe.input, recipe.threshold, recipe.prediction, recipe.export]
    after = ["checkpoint", *threshold, "test_predictions", *recipe.sample_assets]

    @stage(
        recipe,
        after=after,
        kinds=["coreml"],
        settings=used,
        code_version=3,
        packages=(*NETWORKS, "coremltools", *ONNX_PACKAGES),
    )
    def mlpackage(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The network for iOS 16 and later, read back from disk and compared with the checkpoint.

        Beside it TorchScript for `cd-pipeline predict`, ONNX where it is asked for, and the model card.
        """
        from cd_pipeline.data.files import digest, file_digest, write_text
        from cd_pipeline.data.samples import input_samples
        from cd_pipeline.export.agreement import Reference
        from cd_pipeline.export.coreml import package_digest
        from cd_pipeline.export.delivery import deliver

        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        metrics = measured(workspace, recipe, saved, chosen)
        plan = delivery_plan(recipe, saved, chosen, metrics)
        examples = examples_on_disk(workspace, recipe, "test")
        folder, roots = workspace.folder(recipe, "mlpackage"), workspace.roots(recipe)
        delivery = deliver(
            Reference.of(saved.model(), recipe.task, plan.interface.threshold),
            folder,
            lambda: (s.pictures for s in input_samples(examples, roots, recipe.input.size, CHECKED_SAMPLES)),
            plan,
        )
        for sentence in delivery.package.given_up:
            context.log.warning(f"exported in {delivery.package.precision}; {sentence}")
        package = package_digest(folder / recipe.package)
        proof = {**delivery.plain(), "checkpoint_version": saved.version, "package_digest": package}
        write_text(folder / AGREEMENT, json.dumps(proof, indent=2) + "\n")
        write_text(folder / CARD, card(workspace, recipe, saved, plan, delivery, metrics))
        tests = workspace.folder(recipe, "test_predictions")
        context.log.info(f"package: {(folder / recipe.package).absolute()}")
        context.log.info(f"gallery: {(tests / 'gallery.png').absolute()}")
        context.log.info(f"metrics: {(tests / 'metrics.json').absolute()} ({test_score(metrics)})")
        others = [name for name in (recipe.torchscript, recipe.onnx) if name is not None]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(package, *(file_digest(folder / name) for name in others))),
            metadata={
                "path": dg.MetadataValue.path((folder / recipe.package).absolute()),
                "model_card": dg.MetadataValue.path((folder / CARD).absolute()),
                "megabytes": sum(
                    f.stat().st_size for f in (folder / recipe.package).rglob("*") if f.is_file()
                )
                / 1e6,
                **interface_texts(recipe),
                "other_forms": ", ".join(others),
                "threshold": chosen.threshold if chosen else "none: the most probable class",
                **{f"test_{name}": metrics[name] for name in ("f1", "miou") if name in metrics},
                "precision": delivery.package.precision,
                **agreement_figures(delivery.agreements["package"]),
            },
        )

    return mlpackage


def delivery_plan(
    recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold | None", metrics: dict[str, Any]
) -> "DeliveryPlan":
    """Return what is written, and what is said in it."""
    from cd_pipeline.export.agreement import AgreementLimits
    from cd_pipeline.export.delivery import DeliveryPlan
    from cd_pipeline.export.interface import interface_of

    return DeliveryPlan(
        interface=interface_of(recipe, saved, chosen.threshold if chosen else None),
        package=recipe.package,
        torchscript=recipe.torchscript,
        onnx=recipe.onnx,
        description=description(recipe),
        label=package_label(recipe, saved),
        metadata={
            "pretrained": str(saved.pretrained).lower(),
            "preparation": preparation(recipe),
            "marking": marking(recipe),
            **{f"test_{name}": f"{metrics[name]:.6g}" for name in TOLD_METRICS if name in metrics},
        },
        precision=recipe.export.precision,
        limits=AgreementLimits(**recipe.export.limits()),
        mask=recipe.export.mask,
    )


def package_label(recipe: Recipe, saved: "Checkpoint") -> "PackageLabel":
    """Return author, licence and version of the package."""
    from cd_pipeline.export.coreml import PackageLabel

    export = recipe.export
    return PackageLabel(export.author, export.license, export.version or saved.version[:12])


def card(
    workspace: Workspace,
    recipe: Recipe,
    saved: "Checkpoint",
    plan: "DeliveryPlan",
    delivery: "Delivery",
    metrics: dict[str, Any],
) -> str:
    """Return the model card."""
    from cd_pipeline.export.model_card import CardFacts, model_card

    parameters = sum(value.numel() for value in saved.model().parameters())
    return model_card(
        CardFacts(
            title=f"{recipe.package.removesuffix('.mlpackage')} of the recipe {recipe.name}",
            description=plan.description,
            label=plan.label,
            interface=plan.interface,
            ports=tuple(f"{name}: {text}." for name, text in interface_texts(recipe).items()),
            preparation=preparation(recipe),
            marking=marking(recipe),
            network=f"{recipe.model.name} of {parameters:,} parameters",
            pretrained=saved.pretrained,
            samples=samples_by_split(workspace, recipe),
            metrics=metrics,
            delivery=delivery.plain(),
            versions={
                "checkpoint": saved.version,
                "manifest": saved.data_version,
                **saved.versions,
            },
        )
    )


def agreement_figures(agreement: "Agreement") -> dict[str, float | str]:
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


def interface_texts(recipe: Recipe) -> dict[str, str]:
    """Return the package's inputs and outputs."""
    size, classes = recipe.input.size, recipe.task.classes
    outputs = f"probability: (1, {classes}, {size}, {size}), float32 in [0, 1]"
    if recipe.task.multi_class:
        outputs += f"; class_map: (1, {size}, {size}), int32, the most probable class"
    if recipe.export.mask:
        outputs += f"; mask: grayscale image {size}x{size}, 255 where probability > threshold, else 0"
    names = ", ".join(recipe.task.picture_names)
    return {"inputs": f"{names}: RGB image {size}x{size}, values 0-255", "outputs": outputs}


def test_score(metrics: dict[str, Any]) -> str:
    """Return the figure that a test set is known by."""
    return f"test F1 {metrics['f1']:.3f}" if "f1" in metrics else f"test mIoU {metrics['miou']:.3f}"


def preparation(recipe: Recipe) -> str:
    """Return how pictures of other sizes are brought to the input size."""
    if recipe.input.fit == "resize":
        return "the whole picture is resized to the input size, by area"
    overlap = int(recipe.prediction.overlap * recipe.input.size)
    return (
        f"tiles of the input size at the picture's own scale, overlapping by {overlap} px; "
        "smaller pictures are mirrored at the right and the bottom"
    )


def marking(recipe: Recipe) -> str:
    """Return how the test masks were made of the package's probability."""
    if not recipe.has_threshold:
        return "the most probable class"
    steps = ["probability > threshold"]
    if recipe.threshold.smooth:
        steps.append("smoothed 3x3")
    if recipe.prediction.opening > 1:
        steps.append(f"opened {recipe.prediction.opening}x{recipe.prediction.opening}")
    if recipe.prediction.min_area > 1:
        steps.append(f"areas below {recipe.prediction.min_area} px removed")
    return ", ".join(steps)
