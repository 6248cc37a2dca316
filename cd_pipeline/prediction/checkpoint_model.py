"""A checkpoint of the pipeline, with the threshold that was chosen for it."""

from pathlib import Path

from pydantic import ValidationError

from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.threshold import ChosenThreshold
from cd_pipeline.export.interface import interface_of
from cd_pipeline.prediction.device import exact_runtime
from cd_pipeline.prediction.opened_model import ModelError, OpenedModel
from cd_pipeline.recipe import Recipe
from cd_pipeline.training.checkpoint import Checkpoint, load_checkpoint


def open_checkpoint(path: Path, device: str = "auto") -> OpenedModel:
    """Open a checkpoint.

    Its threshold is that of `../threshold/threshold.json`, where the pipeline wrote it for these weights.

    Args:
        path: of `model.pt`.
        device: auto, cpu, cuda, cuda:<n> or mps.

    Raises:
        ValueError: not a checkpoint of this version, or the device cannot be used.
    """
    runtime = exact_runtime(device)
    saved = load_checkpoint(path)
    try:
        recipe = Recipe(**saved.recipe)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ModelError(
            f"{path}: made with settings of another version ({field}: {error.errors()[0]['msg']}); "
            "materialize checkpoint again"
        ) from None
    threshold, reason = (None, "") if recipe.task.multi_class else _threshold_beside(path, saved)
    return OpenedModel(
        path=path,
        form="checkpoint",
        device=runtime.device,
        network=network_probabilities(runtime.place(saved.model()), runtime),
        interface=interface_of(recipe, saved, threshold),
        no_threshold=reason,
    )


def _threshold_beside(path: Path, saved: Checkpoint) -> tuple[float | None, str]:
    file = path.absolute().parent.parent / "threshold" / "threshold.json"
    if not file.is_file():
        return None, f"{file} is not there"
    chosen = ChosenThreshold.load(file)
    if chosen.checkpoint_version != saved.version:
        return None, f"{file} was chosen for another checkpoint"
    return chosen.threshold, ""
