"""Export of a trained network as a Core ML ML Program (`.mlpackage`), byte for byte reproducible."""

import contextlib
import functools
import hashlib
import json
import logging
import math
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn
from tqdm import tqdm

from cd_pipeline.data.task import Task
from cd_pipeline.export.network import (
    CLASS_MAP,
    MASK,
    PROBABILITY,
    ExportedNetwork,
    evaluation_copy,
    traced,
)

if TYPE_CHECKING:
    from coremltools.models import MLModel
    from coremltools.proto.Model_pb2 import Model

Precision = Literal["float16", "mixed", "float32"]

CLASS_NAMES = "class_names"
"""The user metadata that a package with several classes has: its classes in the order of their indices."""

PRECISION, FLOAT32_OPS = "precision", "float32_ops"
"""User metadata that every package has: the export's precision, and the ops that "mixed" keeps in float32."""


@dataclass(frozen=True, slots=True)
class PackageLabel:
    """Who made a package, what others may do with it, and which one it is; free text, empty: not stated."""

    author: str = ""
    license: str = ""
    version: str = "1.0"


_CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"
_IMPORT_NOISE = ("scikit-learn version", "Torch version", "Failed to load _ML")
_CONVERSION_NOISE = ("Tuple detected at graph output",)
_SPEC_FILE = Path("Data/com.apple.CoreML/model.mlmodel")
_WEIGHTS_FILE = Path("Data/com.apple.CoreML/weights/weight.bin")


@contextlib.contextmanager
def _without_records(beginnings: tuple[str, ...]) -> Iterator[None]:
    """Keep coremltools' log records that begin so from being told inside the block."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginnings)

    logger = logging.getLogger("coremltools")
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


@functools.cache
def import_coremltools() -> ModuleType:
    """Import coremltools without its start-up warnings.

    Left out are those about untested torch and scikit-learn versions and, away from macOS, about the
    missing Core ML runtime. Every other record passes.

    Returns:
        The module `coremltools`.
    """
    with _without_records(_IMPORT_NOISE[:2] if sys.platform == "darwin" else _IMPORT_NOISE):
        import coremltools
    module: ModuleType = coremltools
    return module


def export_mlpackage(
    model: nn.Module,
    path: Path,
    *,
    task: Task = Task(),  # noqa: B008 - frozen
    size: int,
    pixel_scale: float,
    metadata: Mapping[str, str],
    description: str,
    label: PackageLabel = PackageLabel(),
    precision: Precision = "float16",
    mask_threshold: float | None = None,
) -> None:
    """Write a network as an ML Program for iOS 16 and later.

    The package takes RGB images of size x size pixels with values 0-255: `before` and `after`, or `image`.
    It gives `probability`, float32 in [0, 1]: of a binary task (1, 1, size, size), of C classes
    (1, C, size, size) with a sum of 1, and then also `class_map`, int32 (1, size, size), the index of the
    largest probability; of equal ones Core ML may give any. With `mask_threshold` a binary task also gives
    `mask`, a grayscale image of size x size, 255 where the probability is greater, else 0.

    The same model and arguments give the same bytes with the same package versions. The package appears
    under its name only when it is whole, in place of one already there.

    Args:
        model: A network, `model(*pictures) -> logits`, float NxCxHxW, on RGB in [0, 1]; only its evaluation
            mode is used.
        path: Where to write; the name ends in `.mlpackage` and the folder exists.
        task: How many pictures the network takes and how many classes it gives.
        size: Height and width of the inputs, pixels.
        pixel_scale: What a pixel value 0-255 is multiplied by before the model sees it (1/255 for [0, 1]).
        metadata: User-defined metadata, text to text; with several classes `class_names` among it. `precision`
            and, where it is mixed, `float32_ops` are added.
        description: Short description of the model.
        label: Author, licence and version, as shown by Xcode.
        precision: Type of weights and activations; "mixed" is float16 with float32 for the ops that read
            tensors of the images' own size, the first layers and the last, or nothing but single numbers,
            such as an image's largest value.
        mask_threshold: Adds the output `mask`; None: there is none.

    Raises:
        ValueError: The name lacks `.mlpackage`, the metadata lack `class_names`, the task has several classes
            and a mask is asked for, or the model does not give 1xCxsizexsize.
        TypeError: A metadata key or value is not text.
    """
    _check_arguments(path, metadata, task)
    wrapper = ExportedNetwork(evaluation_copy(model), task, mask_threshold).eval()
    mlmodel = _convert(wrapper, size, pixel_scale, precision)
    mlmodel.short_description = description
    mlmodel.author, mlmodel.license, mlmodel.version = label.author, label.license, label.version
    _describe_ports(mlmodel, wrapper, size)
    mlmodel.user_defined_metadata.update(dict(metadata))
    mlmodel.user_defined_metadata[PRECISION] = precision
    if precision == "mixed":
        mlmodel.user_defined_metadata[FLOAT32_OPS] = ", ".join(float32_ops(mlmodel.get_spec()))
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


def float32_ops(spec: "Model") -> tuple[str, ...]:
    """Name the ops of a package that compute in float32, casts left out."""
    from coremltools.proto.MIL_pb2 import DataType

    blocks = spec.mlProgram.functions["main"].block_specializations.values()
    float32 = DataType.Value("FLOAT32")
    return tuple(
        f"{op.outputs[0].name} ({op.type})"
        for block in blocks
        for op in block.operations
        if op.type not in ("const", "cast") and op.outputs[0].type.tensorType.dataType == float32
    )


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


def _check_arguments(path: Path, metadata: Mapping[str, str], task: Task) -> None:
    if path.suffix != ".mlpackage":
        raise ValueError(f"{path}: a Core ML package must be named *.mlpackage, found suffix {path.suffix!r}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata {key!r}: found {type(value).__name__}, expected str; convert it first")
    if task.multi_class and CLASS_NAMES not in metadata:
        raise ValueError(
            f"metadata: no {CLASS_NAMES!r}; give the names of the {task.classes} classes in order"
        )


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Disable the bars made inside the block: coremltools offers no switch for its own."""
    original = tqdm.__init__
    setattr(tqdm, "__init__", functools.partialmethod(original, disable=True))  # noqa: B010
    try:
        yield
    finally:
        setattr(tqdm, "__init__", original)  # noqa: B010


def _convert(wrapper: ExportedNetwork, size: int, pixel_scale: float, precision: Precision) -> "MLModel":
    ct = import_coremltools()
    inputs = [
        ct.ImageType(name=name, shape=(1, 3, size, size), scale=pixel_scale, color_layout=ct.colorlayout.RGB)
        for name in wrapper.task.picture_names
    ]
    kinds = {
        PROBABILITY: partial(ct.TensorType, dtype=np.float32),
        CLASS_MAP: partial(ct.TensorType, dtype=np.int32),
        MASK: partial(ct.ImageType, color_layout=ct.colorlayout.GRAYSCALE),
    }
    outputs = [kinds[name](name=name) for name in wrapper.output_names]
    precisions = {
        "float16": ct.precision.FLOAT16,
        "mixed": ct.transform.FP16ComputePrecision(partial(_below_full_size, size)),
        "float32": ct.precision.FLOAT32,
    }
    with _without_progress_bars(), _without_records(_CONVERSION_NOISE):
        return ct.convert(
            traced(wrapper, size),
            convert_to="mlprogram",
            inputs=inputs,
            outputs=outputs,
            compute_precision=precisions[precision],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        )


def _below_full_size(size: int, op: Any) -> bool:  # noqa: ANN401 - coremltools' own Operation
    # Rounding the images and the first weights is what costs most: it reaches every later op. So does
    # rounding a number by which a whole image is scaled, and an epsilon added to it may vanish.
    values = [value if isinstance(value, tuple | list) else [value] for value in op.inputs.values()]
    read = [var for vars_ in values for var in vars_ if var is not None]
    shapes = [tuple(var.shape) for var in read if var.op is None or var.op.op_type != "const"]
    full_size = any(len(shape) >= 4 and shape[-2:] == (size, size) for shape in shapes)
    single_numbers = bool(shapes) and all(math.prod(shape) == 1 for shape in shapes)
    return not full_size and not single_numbers


_PICTURES = {
    "before": "The earlier image",
    "after": "The later image, of the same view",
    "image": "The image",
}


def _describe_ports(mlmodel: "MLModel", wrapper: ExportedNetwork, size: int) -> None:
    task, threshold = wrapper.task, wrapper.mask_threshold
    for name in task.picture_names:
        mlmodel.input_description[name] = f"{_PICTURES[name]}: RGB, {size}x{size} pixels, values 0-255"
    for name in wrapper.output_names:
        mlmodel.output_description[name] = _describe_output(name, task, size, threshold)


def _describe_output(name: str, task: Task, size: int, threshold: float | None) -> str:
    if name == MASK:
        return f"Grayscale image, {size}x{size} pixels: 255 where probability > {threshold!r}, else 0"
    order = f"in the order of the metadata entry {CLASS_NAMES}"
    if name == CLASS_MAP:
        return (
            f"Index of the most probable class at each pixel, int32, shape (1, {size}, {size}), "
            f"values 0 to {task.classes - 1}; the classes are {order}"
        )
    shape = f"float32, shape (1, {task.classes}, {size}, {size})"
    if not task.multi_class:
        event = "changed" if task.pictures == 2 else "is foreground"
        return f"Probability from 0 to 1 that a pixel {event}, {shape}"
    return (
        f"Probability from 0 to 1 of each class at each pixel, {shape}; the classes are {order}, "
        "and their probabilities at a pixel sum to 1"
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
