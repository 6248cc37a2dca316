"""Execution of a saved Core ML package on any machine: its ops, read back from disk, one by one in torch.

Core ML predicts on macOS only. This module computes what the package says, so that a wrong scale, a
swapped channel or a 16-bit overflow shows where the package is made.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cd_pipeline.export.coreml import import_coremltools, load_spec

if TYPE_CHECKING:
    from coremltools.proto.Model_pb2 import FeatureDescription, Model

ExecutionPrecision = Literal["package", "float32"]
Value = Tensor | str | list[Tensor]
Op = Callable[..., Tensor | Sequence[Tensor]]


class UnknownOpError(NotImplementedError):
    """The package holds an op, or a parameter of one, that the executor does not know."""


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


# --- the ops ---------------------------------------------------------------------------------------------


def _ints(value: Tensor) -> list[int]:
    return [int(item) for item in value.flatten().tolist()]


def _spatial(x: Tensor, value: Tensor | None, default: int = 1) -> list[int]:
    return [default] * (x.ndim - 2) if value is None else _ints(value)


def _flag(value: Tensor | bool | None) -> bool:
    return value is not None and bool(value)


def _resolve_padding(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], pad_type: str, pad: Tensor | None
) -> list[tuple[int, int]]:
    """Give (before, after) for each spatial dimension; `kernel` is the dilated extent."""
    if pad_type == "valid":
        return [(0, 0)] * len(kernel)
    if pad_type == "custom":
        flat = _spatial(x, None, 0) * 2 if pad is None else _ints(pad)
        return list(zip(flat[::2], flat[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise UnknownOpError(f"pad_type {pad_type!r}: expected valid, custom, same or same_lower")
    totals = [
        max(0, (math.ceil(n / s) - 1) * s + k - n)
        for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)
    ]
    small_and_large = [(total // 2, total - total // 2) for total in totals]
    return small_and_large if pad_type == "same" else [(b, a) for a, b in small_and_large]


def _pad_spatial(x: Tensor, padding: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    return F.pad(x, [side for pair in reversed(padding) for side in pair], value=value)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
) -> Tensor:
    stride, dilation = _spatial(x, strides), _spatial(x, dilations)
    extent = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    x = _pad_spatial(x, _resolve_padding(x, extent, stride, pad_type, pad))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    return convolve(x, weight, bias, stride=stride, dilation=dilation, groups=int(groups))


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
) -> Tensor:
    stride = _spatial(x, strides)
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[weight.ndim - 3]
    full = transpose(x, weight, stride=stride, dilation=_spatial(x, dilations), groups=int(groups))
    sizes = list(full.shape[2:])
    if pad_type == "same":
        targets = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        cuts = [max(0, n - t) // 2 for n, t in zip(sizes, targets, strict=True)]
    else:
        pairs = _resolve_padding(x, sizes, stride, pad_type, pad)
        targets = [n - first - last for n, (first, last) in zip(sizes, pairs, strict=True)]
        cuts = [first for first, _ in pairs]
    if output_shape is not None:
        targets = _ints(output_shape)[2:]
    # A negative pad crops; beyond the full result there is only the bias.
    crop = [(-cut, t + cut - n) for cut, t, n in zip(cuts, targets, sizes, strict=True)]
    result = _pad_spatial(full, crop)
    return result if bias is None else result + bias.reshape(1, -1, *[1] * len(sizes))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def _matmul(
    x: Tensor, y: Tensor, transpose_x: Tensor | bool = False, transpose_y: Tensor | bool = False
) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _einsum(values: list[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def _instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Tensor | float = 1e-5
) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta, eps=float(epsilon))


def _layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    dims = _axes(x, axes)
    centred = x - x.mean(dims, keepdim=True)
    result = centred / torch.sqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    shape = [n if d in dims else 1 for d, n in enumerate(x.shape)]
    result = result if gamma is None else result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


def _pooling(*, largest: bool) -> Op:
    average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    maximum = (F.max_pool1d, F.max_pool2d, F.max_pool3d)

    def pool(
        x: Tensor,
        kernel_sizes: Tensor,
        pad_type: str,
        strides: Tensor | None = None,
        pad: Tensor | None = None,
        ceil_mode: Tensor | bool = False,
        exclude_padding_from_average: Tensor | bool = False,
    ) -> Tensor:
        kernel, stride = _ints(kernel_sizes), _spatial(x, strides)
        padding = _resolve_padding(x, kernel, stride, pad_type, pad)
        if ceil_mode:  # the padding is symmetric then, and torch cuts the overhanging window as MIL does
            symmetric = [first for first, _ in padding]
            if largest:
                return maximum[x.ndim - 3](x, kernel, stride, symmetric, ceil_mode=True)
            include = not exclude_padding_from_average
            return average[x.ndim - 3](x, kernel, stride, symmetric, True, include)
        if largest:
            return maximum[x.ndim - 3](_pad_spatial(x, padding, -math.inf), kernel, stride)
        mean = average[x.ndim - 3](_pad_spatial(x, padding), kernel, stride)
        if not exclude_padding_from_average:
            return mean
        return mean / average[x.ndim - 3](_pad_spatial(torch.ones_like(x), padding), kernel, stride)

    return pool


def _resize(x: Tensor, height: int, width: int, mode: str, align_corners: bool | None = None) -> Tensor:
    planes = x.reshape(1, -1, *x.shape[-2:])
    resized = F.interpolate(planes, size=(height, width), mode=mode, align_corners=align_corners)
    return resized.reshape(*x.shape[:-2], height, width)


def _scaled(x: Tensor, axis: int, factor: Tensor | float) -> int:
    return math.floor(float(factor) * x.shape[axis])


def _upsample_nearest(
    x: Tensor, scale_factor_height: Tensor | float = 1, scale_factor_width: Tensor | float = 1
) -> Tensor:
    return _resize(x, _scaled(x, -2, scale_factor_height), _scaled(x, -1, scale_factor_width), "nearest")


def _resize_nearest(x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    return _resize(x, int(target_size_height), int(target_size_width), "nearest")


def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | float = 1,
    scale_factor_width: Tensor | float = 1,
    align_corners: Tensor | bool = True,
    half_pixel_centers: Tensor | bool | None = None,
) -> Tensor:
    aligned = bool(align_corners)
    if half_pixel_centers is not None and bool(half_pixel_centers) == aligned:
        raise UnknownOpError(f"upsample_bilinear: align_corners = half_pixel_centers = {aligned}")
    height, width = _scaled(x, -2, scale_factor_height), _scaled(x, -1, scale_factor_width)
    return _resize(x, height, width, "bilinear", aligned)


def _interpolation_matrix(old: int, new: int, sampling_mode: str) -> Tensor:
    """Weights (new, old) of linear interpolation on the grid that MIL states for the mode."""
    index = torch.arange(new, dtype=torch.float64)
    if sampling_mode == "ALIGN_CORNERS" and new == 1:
        grid = torch.tensor([(old - 1) / 2], dtype=torch.float64)
    elif sampling_mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        grid = index * (old - 1) / max(1, new - 1)
    elif sampling_mode == "UNALIGN_CORNERS":
        grid = (index + 0.5) * old / new - 0.5
    elif sampling_mode == "DEFAULT":
        grid = index * old / new
    elif sampling_mode == "OFFSET_CORNERS":
        grid = (index + 0.5) * max(1, old - 1) / new
    else:
        raise UnknownOpError(f"resize_bilinear: sampling_mode {sampling_mode!r}")
    distance = (grid.clamp(0, old - 1)[:, None] - torch.arange(old)[None, :]).abs()
    return (1 - distance).clamp(min=0).float()


def _resize_bilinear(
    x: Tensor,
    target_size_height: Tensor | int = 1,
    target_size_width: Tensor | int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    rows = _interpolation_matrix(x.shape[-2], int(target_size_height), sampling_mode)
    columns = _interpolation_matrix(x.shape[-1], int(target_size_width), sampling_mode)
    return rows @ x @ columns.mT


def _pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | float = 0.0) -> Tensor:
    flat = _ints(pad)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if mode == "constant":
        return _pad_spatial(x, pairs, float(constant_val))
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    numpy_mode: Literal["reflect", "edge"] = "reflect" if mode == "reflect" else "edge"
    return torch.from_numpy(np.pad(x.numpy(), widths, mode=numpy_mode))


def _crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    return F.pad(x, [-n for n in (*_ints(crop_width), *_ints(crop_height))])


def _axes(x: Tensor, axes: Tensor | None) -> list[int]:
    return list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in _ints(axes)]


def _reduction(function: Callable[..., Tensor]) -> Op:
    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
        return function(x, _axes(x, axes), keepdim=bool(keep_dims))

    return reduce


def _concat(values: list[Tensor], axis: Tensor, interleave: Tensor | bool = False) -> Tensor:
    dim = int(axis) % values[0].ndim
    if interleave:
        return torch.stack(values, dim + 1).flatten(dim, dim + 1)
    return torch.cat(values, dim)


def _split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> Sequence[Tensor]:
    dim = int(axis)
    if split_sizes is not None:
        return torch.split(x, _ints(split_sizes), dim)
    assert num_splits is not None, "MIL asks for num_splits or split_sizes"
    return torch.split(x, x.shape[dim] // int(num_splits), dim)


def _stack(values: list[Tensor], axis: Tensor) -> Tensor:
    return torch.stack(values, int(axis))


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    wanted = _ints(shape)
    return x.reshape([x.shape[i] if n == 0 and len(wanted) == x.ndim else n for i, n in enumerate(wanted)])


def _transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(_ints(perm))


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes)))


def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in _ints(axes)):
        x = x.unsqueeze(axis)
    return x


def _tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.tile(_ints(reps))


def _slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    none = torch.zeros(x.ndim, dtype=torch.bool)
    steps = [1] * x.ndim if stride is None else _ints(stride)
    open_begin, open_end, squeeze = (none if m is None else m for m in (begin_mask, end_mask, squeeze_mask))
    index: list[int | slice] = []
    for axis, (first, last, step) in enumerate(zip(_ints(begin), _ints(end), steps, strict=True)):
        if squeeze[axis]:
            index.append(first)
        else:
            index.append(slice(None if open_begin[axis] else first, None if open_end[axis] else last, step))
    # numpy: torch has no negative steps
    return torch.from_numpy(np.array(x.numpy()[tuple(index)]))


def _reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.flip(_axes(x, axes))


def _softmax(x: Tensor, axis: Tensor | int = -1) -> Tensor:
    return x.softmax(int(axis))


def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def _thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def _sigmoid_hard(x: Tensor, alpha: Tensor | float = 0.2, beta: Tensor | float = 0.5) -> Tensor:
    return (x * alpha + beta).clamp(0, 1)


def _leaky_relu(x: Tensor, alpha: Tensor | float = 0.01) -> Tensor:
    return torch.where(x >= 0, x, x * alpha)


def _elu(x: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    return torch.where(x >= 0, x, alpha * torch.expm1(x))


def _prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return F.prelu(x, alpha)


def _clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x.clamp(alpha, beta)


def _rsqrt(x: Tensor, epsilon: Tensor | float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


def _log(x: Tensor, epsilon: Tensor | float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


def _inverse(x: Tensor, epsilon: Tensor | float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def _cast(x: Tensor, dtype: str) -> Tensor:
    targets = {"bool": torch.bool, "int32": torch.int32, "int16": torch.int16, "uint8": torch.uint8}
    return x.to(targets.get(dtype, torch.float32))


def _pixel_shuffle(x: Tensor, upscale_factor: Tensor) -> Tensor:
    return F.pixel_shuffle(x, int(upscale_factor))


def _unary(function: Callable[[Tensor], Tensor]) -> Op:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return apply


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "identity": torch.clone,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tanh": torch.tanh,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.true_divide,
    "sub": torch.sub,
}

OPS: dict[str, Op] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    "avg_pool": _pooling(largest=False),
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": _clip,
    "concat": _concat,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "crop": _crop,
    "einsum": _einsum,
    "elu": _elu,
    "expand_dims": _expand_dims,
    "gelu": _gelu,
    "instance_norm": _instance_norm,
    "inverse": _inverse,
    "layer_norm": _layer_norm,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "log": _log,
    "matmul": _matmul,
    "max_pool": _pooling(largest=True),
    "pad": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "prelu": _prelu,
    "reduce_max": _reduction(torch.amax),
    "reduce_mean": _reduction(torch.mean),
    "reduce_min": _reduction(torch.amin),
    "reduce_sum": _reduction(torch.sum),
    "reshape": _reshape,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest,
    "reverse": _reverse,
    "rsqrt": _rsqrt,
    "select": _select,
    "sigmoid_hard": _sigmoid_hard,
    "slice_by_index": _slice_by_index,
    "softmax": _softmax,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "thresholded_relu": _thresholded_relu,
    "tile": _tile,
    "transpose": _transpose,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
"""Every MIL op that the executor computes; `const` and `constexpr_*` are read, not computed."""


# --- the program -----------------------------------------------------------------------------------------


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

    def run(self, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
        """Compute the outputs for one set of inputs.

        Args:
            arrays: One array for each input. An image: uint8 HxWx3 in RGB (HxW if grey), or float NCHW
                with values 0-255. An array input: numbers of its declared shape.

        Returns:
            The outputs by name, float32, in their declared shapes.

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
        return {name: _tensor(values[name]).to(torch.float32).numpy() for name in self.outputs}

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
