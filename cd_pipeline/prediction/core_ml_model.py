"""A Core ML package: run by Core ML on macOS, and op by op elsewhere."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.evaluation.tiled import Probability
from cd_pipeline.export.coreml import read_package_metadata
from cd_pipeline.export.interface import ModelInterface
from cd_pipeline.export.mil_executor import PackageExecutor
from cd_pipeline.export.network import PROBABILITY
from cd_pipeline.export.package_check import core_ml_outputs
from cd_pipeline.prediction.opened_model import OpenedModel, planes

Run = Callable[[Mapping[str, Image]], npt.NDArray[Any]]
"""The pictures by input name, SxSx3 uint8 RGB -> probability 1xCxSxS."""


def open_package(path: Path, device: str = "auto") -> OpenedModel:
    """Open a Core ML package; its samples are predicted one by one.

    Args:
        path: of a `.mlpackage` folder.
        device: auto, or cpu; on macOS auto lets Core ML use GPU and Neural Engine.

    Raises:
        FileNotFoundError: the folder holds no package.
        ValueError: not a package of this pipeline, or another device.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"device is {device!r}; a Core ML package takes auto or cpu: {path}")
    interface = ModelInterface.from_metadata(read_package_metadata(path), str(path))
    names = interface.task.picture_names
    place, run = _core_ml(path, device) if sys.platform == "darwin" else ("cpu, op by op", _op_by_op(path))

    def network(pictures: Sequence[npt.NDArray[np.uint8]]) -> Sequence[Probability]:
        found = [run(dict(zip(names, sample, strict=True))) for sample in zip(*pictures, strict=True)]
        return planes(np.concatenate(found), interface, path)

    return OpenedModel(path, "Core ML", place, network, interface)


def _op_by_op(path: Path) -> Run:
    executor = PackageExecutor(path)
    return lambda pictures: executor.run(pictures)[PROBABILITY]


def _core_ml(path: Path, device: str) -> tuple[str, Run]:
    units = "CPU_ONLY" if device == "cpu" else "ALL"
    outputs = core_ml_outputs(path, units)
    return f"Core ML, {units}", lambda pictures: outputs(pictures)[PROBABILITY]
