"""What an asset reads from earlier ones, with the proof that the pieces belong together.

Dagster runs a single selected asset without looking upstream, so what lies on disk can come from different
runs. Every asset after the manifest reads its inputs here.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from cd_pipeline.data.image_manifest import LabelledImage
    from cd_pipeline.data.manifest import Pair
    from cd_pipeline.evaluation.predictor import Predictor
    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.evaluation.tiled import Probabilities
    from cd_pipeline.training.checkpoint import Checkpoint

HOW_IT_STARTED = {"start_from", "pretrained"}
"""Settings of a network that its checkpoint no longer depends on."""
MASKS_STAMP = "manifest.sha256"
"""Written last into change_masks: the hash of the manifest that its pictures were rendered for."""


class StaleInputError(ValueError):
    """Files of earlier assets that do not belong together; the message names both and the remedy."""


def found_images(workspace: Workspace, recipe: Recipe) -> Path:
    """Return the path of the table of raw images.

    Raises:
        StaleInputError: they were read with other settings than those of the recipe.
    """
    return _made_for(workspace, recipe, recipe.raw_asset, "images.parquet", recipe.source_version, "source")


def divided_images(workspace: Workspace, recipe: Recipe) -> Path:
    """Return the path of the table of images with their splits.

    Raises:
        StaleInputError: they were divided with other settings than those of the recipe.
    """
    return _made_for(workspace, recipe, "split", "split.parquet", recipe.split_version, "source or split")


def manifest_path(workspace: Workspace, recipe: Recipe) -> Path:
    """Return the path of the manifest.

    Raises:
        StaleInputError: its rows were made with other settings than those of the recipe.
    """
    parts = "source, split or input" if recipe.one_image else "source, synthesis or input"
    return _made_for(workspace, recipe, *recipe.manifest, recipe.plan_version, parts)


def rendered_pairs(workspace: Workspace, recipe: Recipe, split: str | None = None) -> list["Pair"]:
    """Read the pairs of a split (None: of all) whose pictures are on disk: rendered, or the user's own.

    Raises:
        FileNotFoundError: manifest or pictures are missing.
        StaleInputError: the pictures were rendered for another manifest.
    """
    from cd_pipeline.data.manifest import each_pair

    manifest = manifest_path(workspace, recipe)
    pairs = list(each_pair(manifest, split, frozen=True))
    if any(map(_is_rendered, pairs)):
        _require_rendered(workspace, recipe, manifest)
    return pairs


def _is_rendered(pair: "Pair") -> bool:
    return str(pair.mask).startswith("workspace:")


def _require_rendered(workspace: Workspace, recipe: Recipe, manifest: Path) -> None:
    from cd_pipeline.data.files import file_digest

    stamp = workspace.require(recipe, "change_masks", MASKS_STAMP)
    if stamp.read_text() != file_digest(manifest):
        raise _stale(workspace, recipe, "change_masks", "another manifest")


def labelled_images(workspace: Workspace, recipe: Recipe, split: str | None = None) -> list["LabelledImage"]:
    """Read the images of a split (None: of all).

    Raises:
        FileNotFoundError: the manifest is missing.
    """
    from cd_pipeline.data.image_manifest import read_labelled_images

    return read_labelled_images(manifest_path(workspace, recipe), split)


def examples_on_disk(
    workspace: Workspace, recipe: Recipe, split: str | None = None
) -> "Sequence[Pair] | Sequence[LabelledImage]":
    """Read the pairs or images of a split (None: of all) whose pictures are on disk; errors as of either."""
    if recipe.one_image:
        return labelled_images(workspace, recipe, split)
    return rendered_pairs(workspace, recipe, split)


def require_examples(workspace: Workspace, recipe: Recipe) -> None:
    """See that the pictures of the manifest are on disk, without holding its rows; errors as of `examples_on_disk`."""
    from cd_pipeline.data.manifest import each_pair

    manifest = manifest_path(workspace, recipe)
    if not recipe.one_image and any(map(_is_rendered, each_pair(manifest, frozen=True))):
        _require_rendered(workspace, recipe, manifest)


def samples_by_split(workspace: Workspace, recipe: Recipe) -> dict[str, int]:
    """Count the rows of the manifest, also of pairs that are drawn anew each epoch; parts without any are left out."""
    from cd_pipeline.data.manifest import count_splits
    from cd_pipeline.data.split import SPLITS

    splits = count_splits(manifest_path(workspace, recipe))
    return {split: splits[split] for split in SPLITS if splits[split]}


def trained(workspace: Workspace, recipe: Recipe) -> "Checkpoint":
    """Read the checkpoint.

    Raises:
        StaleInputError: it was trained on another manifest or for another input size.
    """
    from cd_pipeline.data.files import file_digest
    from cd_pipeline.training.checkpoint import load_checkpoint

    saved = load_checkpoint(workspace.require(recipe, "checkpoint", "model.pt"))
    if saved.data_version != file_digest(manifest_path(workspace, recipe)):
        raise _stale(workspace, recipe, "checkpoint", "another manifest")
    if saved.task != recipe.task.plain():
        raise _stale(workspace, recipe, "checkpoint", "another recipe (source)")
    network = recipe.model.model_dump(mode="json", exclude=HOW_IT_STARTED)
    found = {name: value for name, value in saved.recipe["model"].items() if name not in HOW_IT_STARTED}
    if saved.recipe["input"] != recipe.input.model_dump(mode="json") or found != network:
        raise _stale(workspace, recipe, "checkpoint", "another recipe (input or model)")
    return saved


def chosen_threshold(workspace: Workspace, recipe: Recipe, saved: "Checkpoint") -> "ChosenThreshold | None":
    """Read the threshold of a checkpoint; None where the recipe has none.

    Raises:
        StaleInputError: it was chosen for another checkpoint, or by other settings.
    """
    from cd_pipeline.evaluation.threshold import ChosenThreshold

    if not recipe.has_threshold:
        return None
    chosen = ChosenThreshold.load(workspace.require(recipe, "threshold", "threshold.json"))
    if chosen.checkpoint_version != saved.version:
        raise _stale(workspace, recipe, "threshold", "another checkpoint")
    if chosen.chosen_by != recipe.threshold.choice:
        raise _stale(workspace, recipe, "threshold", "another recipe (threshold)")
    return chosen


def measured(
    workspace: Workspace, recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold | None"
) -> dict[str, Any]:
    """Read the test metrics of a checkpoint at its threshold.

    Raises:
        StaleInputError: they are of another checkpoint or threshold, or of masks made otherwise.
    """
    metrics = read_json(workspace.require(recipe, "test_predictions", "metrics.json"))
    threshold = chosen.threshold if chosen else None
    if (metrics.get("checkpoint_version"), metrics.get("threshold")) != (saved.version, threshold):
        raise _stale(workspace, recipe, "test_predictions", "another checkpoint or threshold")
    if metrics.get("mask_rule") != recipe.mask_rule:
        raise _stale(
            workspace, recipe, "test_predictions", "another recipe (threshold, prediction or classes)"
        )
    return metrics


def predictor_of(
    recipe: Recipe, compute: Compute, saved: "Checkpoint", chosen: "ChosenThreshold | None"
) -> "Predictor":
    """Bring a checkpoint to the device, in float32, with its threshold."""
    return predictor_for(recipe, compute, saved.model(), chosen.threshold if chosen else None)


def predictor_for(
    recipe: Recipe, compute: Compute, model: "nn.Module", threshold: float | None
) -> "Predictor":
    """Bring a network to the device, in float32, with a threshold (None: of several classes)."""
    from cd_pipeline.evaluation.predict import network_probabilities

    runtime = compute.runtime().exact()
    runtime.prepare()
    return predictor_by(recipe, network_probabilities(runtime.place(model), runtime), threshold)


def predictor_by(recipe: Recipe, network: "Probabilities", threshold: float | None) -> "Predictor":
    """Return how the recipe makes masks of what a network says, with a threshold (None: of several classes)."""
    from cd_pipeline.evaluation.predictor import Predictor

    return Predictor(
        network=network,
        size=recipe.input.size,
        threshold=threshold,
        smooth=recipe.threshold.smooth,
        overlap=int(recipe.prediction.overlap * recipe.input.size),
        opening=recipe.prediction.opening,
        min_area=recipe.prediction.min_area,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of an earlier asset.

    Raises:
        ValueError: naming the file and the remedy.
    """
    remedy = f"delete it and materialize {path.parent.name} again"
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {type(content).__name__}, expected an object; {remedy}")
    return content


def _made_for(workspace: Workspace, recipe: Recipe, asset: str, file: str, version: str, parts: str) -> Path:
    from cd_pipeline.data.manifest import plan_version_of

    path = workspace.require(recipe, asset, file)
    if plan_version_of(path) != version:
        raise _stale(workspace, recipe, asset, f"another recipe ({parts})")
    return path


def _stale(workspace: Workspace, recipe: Recipe, asset: str, other: str) -> StaleInputError:
    folder = workspace.folder(recipe, asset)
    return StaleInputError(f"{folder} was made for {other}: run {workspace.remedy(recipe, asset)}")
