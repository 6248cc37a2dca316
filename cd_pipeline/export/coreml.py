"""Export of a trained change detector as a Core ML ML Program (`.mlpackage`), byte for byte reproducible."""

import contextlib
import copy
import functools
import hashlib
import json
import logging
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

if TYPE_CHECKING:
    from coremltools.models import MLModel
    from coremltools.proto.Model_pb2 import Model

Precision = Literal["float16", "mixed", "float32"]

INPUT_NAMES = ("before", "after")
OUTPUT_NAME = "probability"

_CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"
_IMPORT_NOISE = ("scikit-learn version", "Torch version", "Failed to load _ML")
_SPEC_FILE = Path("Data/com.apple.CoreML/model.mlmodel")
_WEIGHTS_FILE = Path("Data/com.apple.CoreML/weights/weight.bin")


class ExportedChangeDetector(nn.Module):
    """The trained network as an app sees it: two images in, a probability map out.

    Args:
        model: Change detector, `model(before, after) -> logits`, float Nx1xHxW.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Predict the probability of change.

        Args:
            before: Earlier image, float Nx3xHxW, RGB in [0, 1].
            after: Later image, the same shape and range.

        Returns:
            Probability of change per pixel, float Nx1xHxW in [0, 1].
        """
        return torch.sigmoid(self.model(before, after))


@functools.cache
def import_coremltools() -> ModuleType:
    """Import coremltools without its start-up warnings.

    Left out are those about untested torch and scikit-learn versions and, away from macOS, about the
    missing Core ML runtime. Every other record passes.

    Returns:
        The module `coremltools`.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        expected = _IMPORT_NOISE[:2] if sys.platform == "darwin" else _IMPORT_NOISE
        return not message.startswith(expected)

    logger = logging.getLogger("coremltools")
    logger.addFilter(is_wanted)
    try:
        import coremltools
    finally:
        logger.removeFilter(is_wanted)
    module: ModuleType = coremltools
    return module


def evaluation_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the CPU in float32, contiguous and in evaluation mode.

    Args:
        model: Any module, on any device; it is left as it is.

    Returns:
        The copy.
    """
    copied = copy.deepcopy(model).to(device="cpu", dtype=torch.float32)
    return copied.to(memory_format=torch.contiguous_format).eval()


def export_mlpackage(
    model: nn.Module,
    path: Path,
    *,
    size: int,
    pixel_scale: float,
    metadata: Mapping[str, str],
    description: str,
    version: str = "1.0",
    precision: Precision = "float16",
) -> None:
    """Write a change detector as an ML Program for iOS 16 and later.

    The package takes two RGB images `before` and `after`, size x size pixels with values 0-255, and gives
    `probability`, float32 (1, 1, size, size) in [0, 1]. The same model and arguments give the same bytes
    with the same package versions. The package appears under its name only when it is whole, in place
    of one already there.

    Args:
        model: Change detector, `model(before, after) -> logits`, float Nx1xHxW, on RGB in [0, 1].
        path: Where to write; the name ends in `.mlpackage` and the folder exists.
        size: Height and width of the inputs, pixels.
        pixel_scale: What a pixel value 0-255 is multiplied by before the model sees it (1/255 for [0, 1]).
        metadata: User-defined metadata, text to text.
        description: Short description of the model.
        version: Version of the model, as shown by Xcode.
        precision: Type of weights and activations; "mixed" is float16 with float32 for the ops that read
            tensors of the images' own size: the first layers and the last.

    Raises:
        ValueError: The name lacks `.mlpackage`, or the model does not give 1x1xsizexsize.
        TypeError: A metadata key or value is not text.
    """
    _check_arguments(path, metadata)
    wrapper = ExportedChangeDetector(evaluation_copy(model)).eval()
    mlmodel = _convert(_trace(wrapper, size), size, pixel_scale, precision)
    _describe(mlmodel, size, description, version)
    mlmodel.user_defined_metadata.update(dict(metadata))
    _save(mlmodel, path)


def load_spec(path: Path) -> "Model":
    """Read the specification of a package.

    Args:
        path: A `.mlpackage`.

    Returns:
        The protobuf message `Model`, without the weights.

    Raises:
        FileNotFoundError: No package is at `path`.
    """
    if not (path / _SPEC_FILE).is_file():
        raise FileNotFoundError(f"{path}: no Core ML package (expected {_SPEC_FILE} inside); export it first")
    return import_coremltools().utils.load_spec(str(path))


def read_package_metadata(path: Path) -> dict[str, str]:
    """Read the user-defined metadata of a package, with coremltools' own entries.

    Args:
        path: A `.mlpackage`.

    Returns:
        Text to text, sorted by key.

    Raises:
        FileNotFoundError: No package is at `path`.
    """
    return dict(sorted(load_spec(path).description.metadata.userDefined.items()))


def package_digest(path: Path) -> str:
    """Hash what a package computes and says, without identifiers and dates.

    Args:
        path: A `.mlpackage`.

    Returns:
        SHA-256 of the specification (less the date of conversion) and the weights, 64 hex digits.

    Raises:
        FileNotFoundError: No package is at `path`.
    """
    digest = hashlib.sha256(_canonical_bytes(load_spec(path)))
    weights = path / _WEIGHTS_FILE
    if weights.is_file():
        digest.update(hashlib.sha256(weights.read_bytes()).digest())
    return digest.hexdigest()


def _check_arguments(path: Path, metadata: Mapping[str, str]) -> None:
    if path.suffix != ".mlpackage":
        raise ValueError(f"{path}: a Core ML package must be named *.mlpackage, found suffix {path.suffix!r}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata {key!r}: found {type(value).__name__}, expected str; convert it first")


def _trace(wrapper: nn.Module, size: int) -> torch.jit.ScriptModule:
    example = torch.linspace(0, 1, 3 * size * size).reshape(1, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        # sizes are fixed in a package, so what is traced of them holds
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        shape = tuple(wrapper(example, example.flip(-1)).shape)
        if shape != (1, 1, size, size):
            raise ValueError(
                f"model output: found shape {shape}, expected (1, 1, {size}, {size}); "
                "the model must give one logit for each input pixel"
            )
        # unchecked: the package check compares on real pairs
        traced = torch.jit.trace(wrapper, (example, example.flip(-1)), check_trace=False)  # type: ignore[no-untyped-call]
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Disable the bars made inside the block: coremltools offers no switch for its own."""
    original = tqdm.__init__
    setattr(tqdm, "__init__", functools.partialmethod(original, disable=True))  # noqa: B010
    try:
        yield
    finally:
        setattr(tqdm, "__init__", original)  # noqa: B010


def _convert(
    traced: torch.jit.ScriptModule, size: int, pixel_scale: float, precision: Precision
) -> "MLModel":
    ct = import_coremltools()
    inputs = [
        ct.ImageType(name=name, shape=(1, 3, size, size), scale=pixel_scale, color_layout=ct.colorlayout.RGB)
        for name in INPUT_NAMES
    ]
    precisions = {
        "float16": ct.precision.FLOAT16,
        "mixed": ct.transform.FP16ComputePrecision(partial(_below_full_size, size)),
        "float32": ct.precision.FLOAT32,
    }
    with _without_progress_bars():
        return ct.convert(
            traced,
            convert_to="mlprogram",
            inputs=inputs,
            outputs=[ct.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
            compute_precision=precisions[precision],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        )


def _below_full_size(size: int, op: Any) -> bool:  # noqa: ANN401 - coremltools' own Operation
    # Rounding the images and the first weights is what costs most: it reaches every later op.
    tensors = [
        var for value in op.inputs.values() for var in (value if isinstance(value, tuple | list) else [value])
    ]
    shapes = [var.shape for var in tensors if var is not None and len(var.shape) == 4]
    return not any(tuple(shape[-2:]) == (size, size) for shape in shapes)


def _describe(mlmodel: "MLModel", size: int, description: str, version: str) -> None:
    image = f"RGB, {size}x{size} pixels, values 0-255"
    mlmodel.short_description = description
    mlmodel.version = version
    mlmodel.input_description["before"] = f"The earlier image: {image}"
    mlmodel.input_description["after"] = f"The later image, of the same view: {image}"
    mlmodel.output_description[OUTPUT_NAME] = (
        f"Probability from 0 to 1 that a pixel changed, float32, shape (1, 1, {size}, {size})"
    )


def _save(mlmodel: "MLModel", path: Path) -> None:
    staged = path.with_name(f".{path.stem}.new.mlpackage")
    retired = path.with_name(f".{path.stem}.old.mlpackage")
    if retired.exists() and not path.exists():  # an earlier run was killed between the two renames
        retired.rename(path)
    _remove(staged)
    _remove(retired)
    try:
        mlmodel.save(str(staged))
        _normalise(staged)
        _swap_in(staged, path, retired)
    finally:
        _remove(staged)
    _remove(retired)


def _swap_in(staged: Path, path: Path, retired: Path) -> None:
    if path.exists():
        path.rename(retired)
    try:
        staged.rename(path)
    except OSError:
        if retired.exists():
            retired.rename(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _normalise(package: Path) -> None:
    """Make two conversions equal: no random identifiers, no date, map entries in order."""
    (package / _SPEC_FILE).write_bytes(_canonical_bytes(load_spec(package)))
    manifest = json.loads((package / "Manifest.json").read_text())
    entries = manifest["itemInfoEntries"]
    fixed = {key: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for key, entry in entries.items()}
    manifest["itemInfoEntries"] = {fixed[key]: entry for key, entry in entries.items()}
    manifest["rootModelIdentifier"] = fixed[manifest["rootModelIdentifier"]]
    (package / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def _canonical_bytes(spec: "Model") -> bytes:
    spec.description.metadata.userDefined.pop(_CONVERSION_DATE, None)
    serialised: bytes = spec.SerializeToString(deterministic=True)
    return serialised
