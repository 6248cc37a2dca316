"""An ONNX model, run by ONNX Runtime (extra `onnx`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.preprocessing import PIXEL_SCALE
from cd_pipeline.evaluation.tiled import Probability
from cd_pipeline.export.interface import ModelInterface
from cd_pipeline.export.network import PROBABILITY
from cd_pipeline.prediction.opened_model import ModelError, OpenedModel, planes

_ERRORS_ONLY = 3
"""Of ONNX Runtime's log."""


def open_onnx(path: Path, device: str = "auto") -> OpenedModel:
    """Open an ONNX model.

    Args:
        path: of a `.onnx` file with the metadata of this pipeline.
        device: auto, cpu or cuda (with onnxruntime-gpu).

    Raises:
        ModelError: ONNX Runtime is not installed, or not a model of this pipeline.
        ValueError: the device cannot be used.
    """
    runtime = _import_runtime(path)
    place = _place(device, runtime.get_available_providers())
    provider = "CUDAExecutionProvider" if place == "cuda" else "CPUExecutionProvider"
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # its own exceptions have no common base but this
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path}: not a readable ONNX model ({reason}); export it again") from None
    interface = ModelInterface.from_metadata(session.get_modelmeta().custom_metadata_map, str(path))
    names = interface.task.picture_names
    if {port.name for port in session.get_inputs()} != set(names):
        found = ", ".join(port.name for port in session.get_inputs())
        raise ModelError(f"{path}: found inputs {found}, expected {', '.join(names)}; export it again")

    def network(pictures: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Probability]:
        scaled = [_scaled(picture) for picture in pictures]
        found = [
            session.run(
                [PROBABILITY], {name: picture[part] for name, picture in zip(names, scaled, strict=True)}
            )
            for part in _parts(len(scaled[0]), session.get_inputs()[0].shape[0])
        ]
        return planes(np.concatenate([probability for (probability,) in found]), interface, path)

    return OpenedModel(path, "ONNX", place, network, interface)


def _import_runtime(path: Path) -> Any:  # noqa: ANN401 - a module without types
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            f"{path}: ONNX Runtime is not installed: pip install 'cd_pipeline[onnx]', or use the .pt file"
        ) from None
    return onnxruntime


def _place(device: str, providers: Sequence[str]) -> str:
    usable = ["cpu", "cuda"] if "CUDAExecutionProvider" in providers else ["cpu"]
    if device == "auto":
        return usable[-1]
    if device not in usable:
        raise ValueError(
            f"device is {device!r}, which ONNX Runtime lacks here; use auto or {' or '.join(usable)}"
        )
    return device


def _parts(samples: int, batch: int | str) -> list[slice]:
    # a model whose batch size is fixed gets its samples in as many calls
    step = batch if isinstance(batch, int) else max(1, samples)
    return [slice(first, first + step) for first in range(0, samples, step)]


def _scaled(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    # NxSxSx3 -> Nx3xSxS, in [0, 1]
    return np.ascontiguousarray(picture.transpose(0, 3, 1, 2), np.float32) * np.float32(PIXEL_SCALE)
