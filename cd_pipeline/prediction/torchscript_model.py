"""A TorchScript model: the form that starts fastest, with nothing but torch."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cd_pipeline.data.preprocessing import to_network
from cd_pipeline.evaluation.tiled import Probability
from cd_pipeline.export.interface import ModelInterface
from cd_pipeline.export.torchscript import METADATA_FILE, load_torchscript
from cd_pipeline.prediction.device import torch_device
from cd_pipeline.prediction.opened_model import ModelError, OpenedModel, planes


def open_torchscript(path: Path, device: str = "auto") -> OpenedModel:
    """Open a TorchScript model.

    Args:
        path: of an archive with `metadata.json` among its extra files.
        device: auto, cpu, cuda, cuda:<n> or mps.

    Raises:
        ValueError: not such a file, or the device cannot be used.
    """
    place = torch_device(device)
    try:
        module, text = load_torchscript(path, place)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path}: not readable TorchScript ({reason}); export it again") from None
    interface = ModelInterface.from_metadata(_read_metadata(text, path), str(path))

    def network(pictures: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Probability]:
        return planes(_run(module, place, pictures), interface, path)

    return OpenedModel(path, "TorchScript", place, network, interface)


def _read_metadata(text: str, path: Path) -> dict[str, str]:
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ModelError(
            f"{path}: no {METADATA_FILE} inside that says what the model is; export it again with this pipeline"
        )
    return content


def _run(
    module: torch.jit.ScriptModule, device: str, pictures: Sequence[npt.NDArray[np.uint8]]
) -> npt.NDArray[np.float32]:
    # unoptimised: profiling and fusing cost the first two calls more than they bring
    with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        given = [torch.from_numpy(picture).permute(0, 3, 1, 2).to(device) for picture in pictures]
        found = module(*(to_network(picture) for picture in given))
    probability: Tensor = found[0] if isinstance(found, tuple) else found
    array: npt.NDArray[np.float32] = probability.float().cpu().numpy()
    return array
