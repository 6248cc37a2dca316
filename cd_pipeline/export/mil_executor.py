"""Execution of a saved Core ML package on any machine: its ops, read back from disk, one by one in torch.

Core ML predicts on macOS only. This module computes what the package says, so that a wrong scale, a
swapped channel or a 16-bit overflow shows where the package is made.
"""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cd_pipeline.export.coreml import import_coremltools, load_spec
from cd_pipeline.export.mil_ops import OPS, UnknownOpError, Value

if TYPE_CHECKING:
    from coremltools.proto.Model_pb2 import FeatureDescription, Model

ExecutionPrecision = Literal["package", "float32"]


@dataclass(frozen=True)
class PackagePort:
    """One input or output of a package.

    Attributes:
        name: Its name.
        shape: Shape of the tensor; an image is (1, channels, height, width).
        color: "RGB", "BGR" or "GRAYSCALE" for an image, None for an array.
    """

    name: str
    shape: tuple[int, ...]
    color: str | None


class _MilVar(Protocol):
    name: str
    shape: tuple[object, ...]
    dtype: type
    val: object


class _MilOp(Protocol):
    name: str
    op_type: str
    inputs: Mapping[str, "_MilVar | Sequence[_MilVar] | None"]
    outputs: Sequence[_MilVar]

    def materialized_val_inference(self) -> object:
        """Give the value of a constexpr op."""


@dataclass(frozen=True)
class _Output:
    name: str
    dtype: str  # fp16, fp32, int32, bool, ...
    shape: tuple[int | None, ...]  # None where the program leaves a dimension open


@dataclass(frozen=True)
class _Step:
    kind: str
    name: str
    arguments: dict[str, str | list[str]]  # parameter -> name or names of values
    outputs: tuple[_Output, ...]
    finished: tuple[str, ...]  # values that no later step reads


class PackageExecutor:
    """Computes a saved package on the CPU.

    With precision "package" every op takes and gives values of the type that the program declares: the
    result of a float16 op is computed in float32 from its float16 inputs and then rounded to float16. That
    is what hardware does that keeps the sums inside one op in float32, and torch on a CPU is several times
    slower in true float16; a device that sums in float16 differs more than is shown here. With "float32"
    nothing is rounded: float16 weights are widened and casts to float16 do nothing.

    Args:
        path: A `.mlpackage` holding an ML Program with a function `main`.
        precision: "package" or "float32".

    Attributes:
        inputs: The inputs by name.
        outputs: The outputs by name.

    Raises:
        FileNotFoundError: No package is at `path`.
        ValueError: The package holds no ML Program, or an image input of an unknown kind.
        UnknownOpError: The program holds an op or a parameter that `OPS` lacks.
    """

    def __init__(self, path: Path, precision: ExecutionPrecision = "package") -> None:
        spec = load_spec(path)
        if not spec.HasField("mlProgram"):
            raise ValueError(f"{path}: holds no ML Program; export it with convert_to='mlprogram'")
        self._round_to_half = precision == "package"
        self._non_finite: dict[str, None] = {}
        self._constants: dict[str, Value] = {}
        _check_op_types(spec, path)
        operations = _load_operations(spec, path)
        self.inputs = {item.name: _read_port(item, path) for item in spec.description.input}
        self.outputs = {item.name: _read_port(item, path) for item in spec.description.output}
        self._read_constants(operations)
        self._steps = _make_steps(operations, keep={*self.outputs, *self._constants})

    @property
    def op_types(self) -> frozenset[str]:
        """Types of the ops that the program computes."""
        return frozenset(step.kind for step in self._steps)

    @property
    def non_finite_ops(self) -> tuple[str, ...]:
        """Names of the ops, weights included, that have given NaN or infinity so far, in order.

        A scalar constant is left out: `clip` without a bound is written with an infinite one.
        """
        return tuple(self._non_finite)

    def run(self, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.number]]:
        """Compute the outputs for one set of inputs.

        Args:
            arrays: One array for each input. An image: uint8 HxWx3 in RGB (HxW if grey), or float NCHW
                with values 0-255. An array input: numbers of its declared shape.

        Returns:
            The outputs by name in their declared shapes, float32, or int32 where whole numbers are declared.

        Raises:
            ValueError: An input is missing, unknown, or of another shape or range.
        """
        if set(arrays) != set(self.inputs):
            raise ValueError(f"inputs: found {sorted(arrays)}, expected {sorted(self.inputs)}")
        values = dict(self._constants)
        with torch.inference_mode():
            for name, port in self.inputs.items():
                values[name] = _to_tensor(port, arrays[name])
            for step in self._steps:
                self._execute(step, values)
        return {name: _to_array(_tensor(values[name])) for name in self.outputs}

    def _execute(self, step: _Step, values: dict[str, Value]) -> None:
        arguments = {key: _look_up(name, values) for key, name in step.arguments.items()}
        result = OPS[step.kind](**arguments)
        results = [result] if isinstance(result, Tensor) else result
        for output, tensor in zip(step.outputs, results, strict=True):
            _check_shape(step, output, tensor)
            values[output.name] = self._finish(tensor, output.dtype, step.name)
        for name in step.finished:
            values.pop(name, None)

    def _finish(self, tensor: Tensor, dtype: str, op_name: str) -> Tensor:
        if dtype == "fp16" and self._round_to_half:
            tensor = tensor.to(torch.float16).to(torch.float32)
        if not _is_finite(tensor):
            self._non_finite[op_name] = None
        return tensor

    def _read_constants(self, operations: Sequence[_MilOp]) -> None:
        for op in operations:
            if not _is_constant(op.op_type):
                continue
            raw = op.outputs[0].val if op.op_type == "const" else op.materialized_val_inference()
            value = _constant_value(raw)
            self._constants[op.outputs[0].name] = value
            if isinstance(value, Tensor) and value.ndim > 0 and not _is_finite(value):
                self._non_finite[op.name] = None


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return all(math.isfinite(bound) for bound in tensor.aminmax())  # NaN passes through both


def _is_constant(op_type: str) -> bool:
    return op_type == "const" or op_type.startswith("constexpr_")


def _check_op_types(spec: "Model", path: Path) -> None:
    """Refuse unknown ops before coremltools reads the program: it would name no op."""
    if "main" not in spec.mlProgram.functions:
        found = sorted(spec.mlProgram.functions)
        raise ValueError(f"{path}: found functions {found}, expected one named main")
    for block in spec.mlProgram.functions["main"].block_specializations.values():
        for op in block.operations:
            if op.type not in OPS and not _is_constant(op.type):
                name = op.outputs[0].name if op.outputs else "?"
                raise UnknownOpError(
                    f"{path}: op {op.type!r} that gives {name!r} is not known; add it to OPS in {__name__}"
                )


def _load_operations(spec: "Model", path: Path) -> list[_MilOp]:
    import_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    weights = path / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights))
    return list(program.functions["main"].operations)


def _constant_value(raw: object) -> Value:
    if isinstance(raw, str):
        return raw
    array = np.array(raw)
    if array.dtype.kind in "US":
        return str(array)
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)


def _make_steps(operations: Sequence[_MilOp], keep: set[str]) -> list[_Step]:
    steps: list[_Step] = []
    needed = set(keep)
    for op in reversed(operations):
        if _is_constant(op.op_type):
            continue
        arguments = _read_arguments(op)
        _check_parameters(op, arguments)
        read = set(_flatten(arguments.values()))
        finished = tuple(sorted(read - needed))
        needed |= read
        outputs = tuple(_read_output(var) for var in op.outputs)
        steps.append(_Step(op.op_type, op.name, arguments, outputs, finished))
    return steps[::-1]


def _read_arguments(op: _MilOp) -> dict[str, str | list[str]]:
    arguments: dict[str, str | list[str]] = {}
    for key, value in op.inputs.items():
        if isinstance(value, (list, tuple)):
            arguments[key] = [item.name for item in value]
        elif value is not None:
            arguments[key] = value.name  # type: ignore[union-attr]
    return arguments


def _check_parameters(op: _MilOp, arguments: Mapping[str, object]) -> None:
    try:
        inspect.signature(OPS[op.op_type]).bind(**arguments)
    except TypeError as error:
        raise UnknownOpError(f"op {op.op_type!r} named {op.name!r}: {error}; extend it in OPS") from error


def _read_output(var: _MilVar) -> _Output:
    from coremltools.converters.mil.mil import types

    shape = tuple(int(n) if isinstance(n, (int, np.integer)) else None for n in var.shape)
    return _Output(var.name, types.builtin_to_string(var.dtype), shape)


def _flatten(names: Iterable[str | list[str]]) -> Iterator[str]:
    for name in names:
        yield from [name] if isinstance(name, str) else name


def _look_up(name: str | list[str], values: Mapping[str, Value]) -> Value:
    if isinstance(name, str):
        return values[name]
    return [_tensor(values[item]) for item in name]


def _tensor(value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _to_array(tensor: Tensor) -> NDArray[np.number]:
    whole = tensor.dtype in (torch.int32, torch.int16, torch.uint8)
    array: NDArray[np.number] = tensor.to(torch.int32 if whole else torch.float32).numpy()
    return array


def _check_shape(step: _Step, output: _Output, tensor: Tensor) -> None:
    found = tuple(tensor.shape)
    same_rank = len(found) == len(output.shape)
    if same_rank and all(n is None or n == m for n, m in zip(output.shape, found, strict=True)):
        return
    raise ValueError(
        f"op {step.kind!r} named {step.name!r}: computed shape {found}, the program declares {output.shape}"
    )


# --- the inputs ------------------------------------------------------------------------------------------

_COLORS = {10: "GRAYSCALE", 20: "RGB", 30: "BGR"}


def _read_port(feature: "FeatureDescription", path: Path) -> PackagePort:
    if feature.type.WhichOneof("Type") != "imageType":
        return PackagePort(feature.name, tuple(feature.type.multiArrayType.shape), None)
    image = feature.type.imageType
    if image.colorSpace not in _COLORS:
        raise ValueError(
            f"{path}: {feature.name}: found color space {image.colorSpace}, expected {list(_COLORS.values())}"
        )
    color = _COLORS[image.colorSpace]
    return PackagePort(feature.name, (1, 1 if color == "GRAYSCALE" else 3, image.height, image.width), color)


def _to_tensor(port: PackagePort, array: NDArray[np.generic]) -> Tensor:
    """Give float32 in the port's shape, an image in the channel order that the package asks for."""
    if port.color is not None and array.dtype == np.uint8 and array.ndim < 4:
        array = np.atleast_3d(array).transpose(2, 0, 1)[None]  # HWC -> NCHW
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    if tuple(tensor.shape) != port.shape:
        raise ValueError(f"input {port.name}: found shape {tuple(tensor.shape)}, expected {port.shape}")
    if port.color is not None and not bool(((tensor >= 0) & (tensor <= 255)).all()):
        raise ValueError(f"input {port.name}: an image holds values from 0 to 255")
    return tensor.flip(1) if port.color == "BGR" else tensor
