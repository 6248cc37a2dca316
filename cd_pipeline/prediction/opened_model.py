"""A trained model in any of its forms, opened for prediction."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.tiled import Probabilities, Probability
from cd_pipeline.export.interface import ModelInterface

Form = Literal["TorchScript", "checkpoint", "Core ML", "ONNX"]


class ModelError(ValueError):
    """A model that cannot be opened or used so; the message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A network that is ready to predict, and what one must know to use it.

    Attributes:
        path: of its file.
        form: of the file.
        device: where it computes.
        network: its probabilities.
        interface: its task, input and mask rule.
        no_threshold: of a checkpoint of one class, why the interface has no threshold; otherwise empty.
    """

    path: Path
    form: Form
    device: str
    network: Probabilities
    interface: ModelInterface
    no_threshold: str = ""

    def predictor(self, threshold: float | None, overlap: int | None = None) -> Predictor:
        """Return it with its own mask rule.

        Args:
            threshold: above it a pixel is marked; None: of several classes the most probable one is taken.
            overlap: of tiles, px; None: the model's own.
        """
        known = self.interface
        return Predictor(
            network=self.network,
            size=known.size,
            threshold=threshold,
            smooth=known.smooth,
            overlap=known.overlap if overlap is None else overlap,
            opening=known.opening,
            min_area=known.min_area,
        )


def open_model(path: Path, device: str = "auto") -> OpenedModel:
    """Open a model for prediction.

    Args:
        path: TorchScript (.pt), a checkpoint (.pt), a Core ML package (.mlpackage) or ONNX (.onnx).
        device: auto, cpu, cuda, cuda:<n> or mps.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not a model of this pipeline, or the device cannot be used.
    """
    form = form_of(path)
    if form == "TorchScript":
        from cd_pipeline.prediction.torchscript_model import open_torchscript

        return open_torchscript(path, device)
    if form == "checkpoint":
        from cd_pipeline.prediction.checkpoint_model import open_checkpoint

        return open_checkpoint(path, device)
    if form == "Core ML":
        from cd_pipeline.prediction.core_ml_model import open_package

        return open_package(path, device)
    from cd_pipeline.prediction.onnx_model import open_onnx

    return open_onnx(path, device)


def form_of(path: Path) -> Form:
    """Tell the form of a model's file by its name, and the two kinds of .pt apart by what is inside.

    Raises:
        FileNotFoundError: nothing is there.
        ModelError: none of the forms.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model")
    suffix = path.suffix.lower()
    if suffix == ".mlpackage" and path.is_dir():
        return "Core ML"
    if suffix == ".onnx" and path.is_file():
        return "ONNX"
    if suffix in (".pt", ".pth", ".ts") and path.is_file():
        return "TorchScript" if _holds_code(path) else "checkpoint"
    found = f"a folder named *{path.suffix}" if path.is_dir() else f"a file named *{path.suffix}"
    raise ModelError(
        f"{path}: {found} is no model; expected TorchScript or a checkpoint (.pt), .onnx or .mlpackage"
    )


def _holds_code(path: Path) -> bool:
    # both are zip archives; only TorchScript keeps its constants in a file of their own
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def planes(probability: npt.NDArray[Any], interface: ModelInterface, path: Path) -> Sequence[Probability]:
    """Return the probabilities of N samples as `Probabilities` gives them.

    Args:
        probability: NxCxSxS, as an exported model gives it.
        interface: of the model.
        path: of the model, for messages.

    Raises:
        ModelError: they are of another shape than the metadata say.
    """
    classes, size = interface.task.classes, interface.size
    if probability.ndim != 4 or probability.shape[1:] != (classes, size, size):
        raise ModelError(
            f"{path}: found a probability of shape {probability.shape}, "
            f"expected (N, {classes}, {size}, {size}) as its metadata say; export the model again"
        )
    found = np.asarray(probability, np.float32)
    return list(found if interface.task.multi_class else found[:, 0])
