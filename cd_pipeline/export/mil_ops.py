"""The MIL ops that the package executor knows: one small torch function each, and the table `OPS`.

Parameters carry the names that MIL gives them; semantics are those of the MIL op set up to iOS 16.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Value = Tensor | str | list[Tensor]
Op = Callable[..., Tensor | Sequence[Tensor]]


class UnknownOpError(NotImplementedError):
    """The package holds an op, or a parameter of one, that the executor does not know."""


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


def _reduce_argmax(x: Tensor, axis: Tensor | int = -1, keep_dims: Tensor | bool = False) -> Tensor:
    # of equal ones the first; MIL leaves it open
    return x.argmax(int(axis), keepdim=bool(keep_dims)).to(torch.int32)


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
    "reduce_argmax": _reduce_argmax,
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
