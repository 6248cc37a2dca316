"""Each op is converted by coremltools, read back from disk and compared with torch or MIL's reference."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.export import mil_ops
from cd_pipeline.export.coreml import import_coremltools
from cd_pipeline.export.mil_executor import PackageExecutor, PackagePort
from cd_pipeline.export.mil_ops import OPS, UnknownOpError

ct = import_coremltools()


pytestmark = [pytest.mark.usefixtures("one_torch_thread"), pytest.mark.slow]


class Function(nn.Module):
    """A function as a module, so that it can be traced."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def convert_module(
    module: nn.Module, inputs: list[Tensor], path: Path, precision: str, outputs: int = 1
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: deprecation, and sizes taken as constants
        traced = torch.jit.trace(module.eval(), inputs, check_trace=False)
        ct.convert(
            traced,
            convert_to="mlprogram",
            inputs=[ct.TensorType(name=f"x{i}", shape=tuple(x.shape)) for i, x in enumerate(inputs)],
            outputs=[ct.TensorType(name=f"y{i}", dtype=np.float32) for i in range(outputs)],
            compute_precision=ct.precision.FLOAT16 if precision == "package" else ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        ).save(str(path))
    return path


def convert_mil(
    build: Callable[..., object], shapes: list[tuple[int, ...]], path: Path, target: str = "iOS16"
) -> Path:
    """Convert a program written with MIL's builder, for what the torch frontend does not emit."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    specs = [mb.TensorSpec(shape=shape) for shape in shapes]
    names = ", ".join(f"x{i}" for i in range(len(shapes)))
    function = eval(f"lambda {names}: build({names})", {"build": build})  # the builder reads the names
    version = getattr(ct.target, target)
    program = mb.program(input_specs=specs, opset_version=version)(function)
    ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=version,
        skip_model_load=True,
        pass_pipeline=ct.PassPipeline.EMPTY,
    ).save(str(path))
    return path


def run(path: Path, inputs: list[Tensor], precision: str) -> np.ndarray:
    executor = PackageExecutor(path, precision)
    (output,) = executor.run({f"x{i}": x.numpy() for i, x in enumerate(inputs)}).values()
    return output


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def min_max(x: Tensor) -> Tensor:
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low + 1e-6)


IMAGE = (1, 4, 6, 8)

# op that must appear -> module, input shapes
CASES: dict[str, tuple[str, Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "conv": ("conv", lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), [IMAGE]),
    "conv, depthwise": ("conv", lambda: nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4), [IMAGE]),
    "conv, dilated in groups": ("conv", lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2, groups=2), [IMAGE]),
    "conv, padding same": ("conv", lambda: nn.Conv2d(4, 4, 4, padding="same"), [IMAGE]),
    "conv 1-D": ("conv", lambda: nn.Conv1d(4, 6, 3, padding=1), [(1, 4, 9)]),
    "conv_transpose": ("conv_transpose", lambda: nn.ConvTranspose2d(4, 3, 2, stride=2), [IMAGE]),
    "conv_transpose, padded": (
        "conv_transpose",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        [IMAGE],
    ),
    "batch_norm": ("batch_norm", lambda: shaken(nn.BatchNorm2d(4)), [IMAGE]),
    "instance_norm": ("instance_norm", lambda: nn.InstanceNorm2d(4, affine=True), [IMAGE]),
    "group_norm": ("reduce_mean", lambda: nn.GroupNorm(2, 4), [IMAGE]),
    "layer_norm": ("layer_norm", lambda: nn.LayerNorm(8), [IMAGE]),
    "linear": ("linear", lambda: nn.Linear(8, 5), [(3, 8)]),
    "matmul": ("matmul", lambda: Function(lambda a, b: a @ b.transpose(-1, -2)), [(2, 3, 4), (2, 5, 4)]),
    "max_pool": ("max_pool", lambda: nn.MaxPool2d(3, 2, 1), [IMAGE]),
    "max_pool, ceil": ("max_pool", lambda: nn.MaxPool2d(3, 2, ceil_mode=True), [IMAGE]),
    "avg_pool": ("avg_pool", lambda: nn.AvgPool2d(3, 2, 1), [IMAGE]),
    "avg_pool, padding excluded": (
        "avg_pool",
        lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        [IMAGE],
    ),
    "avg_pool, global": ("reduce_mean", lambda: nn.AdaptiveAvgPool2d(1), [IMAGE]),
    "upsample_bilinear": (
        "upsample_bilinear",
        lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        [IMAGE],
    ),
    "upsample_bilinear, corners": (
        "upsample_bilinear",
        lambda: nn.Upsample(scale_factor=3, mode="bilinear", align_corners=True),
        [IMAGE],
    ),
    "upsample_bilinear to a size": (
        "upsample_bilinear",
        lambda: Function(lambda x: F.interpolate(x, size=(9, 20), mode="bilinear", align_corners=False)),
        [IMAGE],
    ),
    "upsample_bilinear to a size, corners": (
        "upsample_bilinear",
        lambda: Function(lambda x: F.interpolate(x, size=(11, 13), mode="bilinear", align_corners=True)),
        [(1, 2, 6, 7)],
    ),
    "upsample_nearest": ("upsample_nearest_neighbor", lambda: nn.Upsample(scale_factor=2), [IMAGE]),
    "pad": ("pad", lambda: nn.ConstantPad2d((1, 2, 3, 0), 0.5), [IMAGE]),
    "pad, reflect": ("pad", lambda: nn.ReflectionPad2d((1, 2, 3, 0)), [IMAGE]),
    "pad, replicate": ("pad", lambda: nn.ReplicationPad2d((1, 2, 3, 0)), [IMAGE]),
    "relu": ("relu", nn.ReLU, [IMAGE]),
    "relu6": ("clip", nn.ReLU6, [IMAGE]),
    "hard sigmoid": ("sigmoid_hard", nn.Hardsigmoid, [IMAGE]),
    "hard swish": ("thresholded_relu", nn.Hardswish, [IMAGE]),
    "silu": ("silu", nn.SiLU, [IMAGE]),
    "gelu": ("gelu", nn.GELU, [IMAGE]),
    "gelu, tanh": ("gelu", lambda: nn.GELU(approximate="tanh"), [IMAGE]),
    "tanh": ("tanh", nn.Tanh, [IMAGE]),
    "sigmoid": ("sigmoid", nn.Sigmoid, [IMAGE]),
    "softmax": ("softmax", lambda: nn.Softmax(dim=1), [IMAGE]),
    "softplus": ("softplus", nn.Softplus, [IMAGE]),
    "leaky_relu": ("leaky_relu", lambda: nn.LeakyReLU(0.2), [IMAGE]),
    "elu": ("elu", lambda: nn.ELU(0.7), [IMAGE]),
    "prelu": ("prelu", lambda: sloped(nn.PReLU(4)), [IMAGE]),
    "clip": ("clip", lambda: Function(lambda x: x.clamp(-0.5, 0.7)), [IMAGE]),
    "clip, one bound": ("clip", lambda: Function(lambda x: x.clamp(min=-0.5)), [IMAGE]),
    "add": ("add", lambda: Function(lambda a, b: a + 2 * b), [IMAGE, (4, 1, 1)]),
    "sub, abs": ("abs", lambda: Function(lambda a, b: (a - b).abs()), [IMAGE, IMAGE]),
    "real_div": ("real_div", lambda: Function(lambda a, b: a / (b.abs() + 1)), [IMAGE, IMAGE]),
    "maximum": ("maximum", lambda: Function(torch.maximum), [IMAGE, IMAGE]),
    "minimum": ("minimum", lambda: Function(torch.minimum), [IMAGE, IMAGE]),
    "exp, sqrt": ("sqrt", lambda: Function(lambda x: torch.sqrt(torch.exp(x))), [IMAGE]),
    "rsqrt": ("rsqrt", lambda: Function(lambda x: torch.rsqrt(x.abs() + 1)), [IMAGE]),
    "log": ("log", lambda: Function(lambda x: torch.log(x.abs() + 1)), [IMAGE]),
    "pow": ("pow", lambda: Function(lambda x: (x.abs() + 0.1) ** 1.5), [IMAGE]),
    "select": ("select", lambda: Function(lambda a, b: torch.where(a > b, a, 2 * b)), [IMAGE, IMAGE]),
    "reduce_mean": ("reduce_mean", lambda: Function(lambda x: x.mean(1, keepdim=True)), [IMAGE]),
    "reduce_sum": ("reduce_sum", lambda: Function(lambda x: x.sum((2, 3))), [IMAGE]),
    "reduce_max": ("reduce_max", lambda: Function(lambda x: x.amax((-1,))), [IMAGE]),
    "reduce_min": ("reduce_min", lambda: Function(lambda x: x.amin((2, 3), keepdim=True)), [IMAGE]),
    "reduce_argmax": ("reduce_argmax", lambda: Function(lambda x: x.argmax(1)), [IMAGE]),
    "reduce_argmax, last axis kept": (
        "reduce_argmax",
        lambda: Function(lambda x: x.argmax(-1, keepdim=True)),
        [IMAGE],
    ),
    "min-max scaling": ("reduce_max", lambda: Function(min_max), [IMAGE]),
    "mean and deviation": ("mul", lambda: Function(lambda x: (x - x.new_tensor(0.4)) / 0.2), [IMAGE]),
    "concat": ("concat", lambda: Function(lambda a, b: torch.cat([a, b, a], 1)), [IMAGE, IMAGE]),
    "stack": ("stack", lambda: Function(lambda a, b: torch.stack([a, b], 2)), [(1, 4, 6), (1, 4, 6)]),
    "split": ("split", lambda: Function(lambda x: torch.mul(*torch.split(x, [2, 2], 1))), [IMAGE]),
    "chunk": ("split", lambda: Function(lambda x: x.chunk(4, 3)[0] - x.chunk(4, 3)[3]), [IMAGE]),
    "reshape": ("reshape", lambda: Function(lambda x: x.reshape(1, 8, -1) * 2), [IMAGE]),
    "transpose": ("transpose", lambda: Function(lambda x: x.permute(0, 2, 3, 1)), [IMAGE]),
    "squeeze": ("squeeze", lambda: Function(lambda x: x.squeeze(0)), [IMAGE]),
    "expand_dims": ("expand_dims", lambda: Function(lambda x: x.unsqueeze(1)), [(2, 3, 4)]),
    "slice": ("slice_by_index", lambda: Function(lambda x: x[:, 1:3, ::2, -3:]), [IMAGE]),
    "slice, one index": ("slice_by_index", lambda: Function(lambda x: x[:, 2]), [IMAGE]),
    "reverse": ("reverse", lambda: Function(lambda x: x.flip((1, 3))), [IMAGE]),
    "tile": ("tile", lambda: Function(lambda x: x.repeat(1, 2, 1, 3)), [IMAGE]),
    "einsum": (
        "einsum",
        lambda: Function(lambda a, b: torch.einsum("bchw,bwhu->bchu", a, b)),
        [IMAGE, (1, 8, 6, 5)],
    ),
    "pixel_shuffle": ("pixel_shuffle", lambda: nn.PixelShuffle(2), [IMAGE]),
}


def shaken(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    with torch.no_grad():
        norm.running_mean.copy_(sample(4, seed=1))
        norm.running_var.copy_(sample(4, seed=2).square() + 0.5)
        norm.weight.copy_(sample(4, seed=3))
        norm.bias.copy_(sample(4, seed=4))
    return norm


def sloped(prelu: nn.PReLU) -> nn.PReLU:
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.1, -0.2, 0.3, 0.5]))
    return prelu


class AllCases(nn.Module):
    """Every case side by side in one program: one conversion costs as much as one case."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cases = nn.ModuleList(make() for _, make, _ in CASES.values())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        remaining = list(inputs)
        shapes = [shapes for _, _, shapes in CASES.values()]
        return tuple(
            case(*[remaining.pop(0) for _ in shape]) for case, shape in zip(self.cases, shapes, strict=True)
        )


@dataclass(frozen=True)
class Results:
    expected: dict[str, np.ndarray]
    found: dict[str, np.ndarray]
    op_types: frozenset[str]
    tolerance: float


@pytest.fixture(scope="module", params=["float32", "package"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    module = AllCases().eval()
    shapes = [shape for _, _, shapes in CASES.values() for shape in shapes]
    inputs = [sample(*shape, seed=i) for i, shape in enumerate(shapes)]
    path = tmp_path_factory.mktemp("ops") / f"{request.param}.mlpackage"
    convert_module(module, inputs, path, request.param, outputs=len(CASES))
    executor = PackageExecutor(path, request.param)
    outputs = executor.run({f"x{i}": x.numpy() for i, x in enumerate(inputs)})
    with torch.no_grad():
        expected = [output.numpy() for output in module(*inputs)]
    found = [outputs[f"y{i}"] for i in range(len(CASES))]
    assert executor.non_finite_ops == ()
    return Results(
        expected=dict(zip(CASES, expected, strict=True)),
        found=dict(zip(CASES, found, strict=True)),
        op_types=executor.op_types,
        tolerance=1e-5 if request.param == "float32" else 5e-3,
    )


@pytest.mark.parametrize("name", CASES)
def test_an_op_computes_what_torch_computes(name: str, results: Results) -> None:
    np.testing.assert_allclose(
        results.found[name], results.expected[name], rtol=results.tolerance, atol=results.tolerance
    )


def test_each_case_reaches_the_op_that_it_is_about(results: Results) -> None:
    assert {op_type for op_type, _, _ in CASES.values()} <= results.op_types


@pytest.mark.parametrize(
    ("pad_type", "before", "after"), [("same", (0, 1), (1, 1)), ("same_lower", (1, 1), (0, 1))]
)
def test_same_padding_of_a_strided_convolution_follows_its_side(
    pad_type: str, before: tuple[int, int], after: tuple[int, int], tmp_path: Path
) -> None:
    # kernel 3, stride 2: 6 rows need 1 of padding, 7 columns need 2
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    x, weight = sample(1, 2, 6, 7), sample(3, 2, 3, 3, seed=1)
    path = convert_mil(
        lambda x0: mb.conv(x=x0, weight=weight.numpy(), strides=[2, 2], pad_type=pad_type, name="y"),
        [(1, 2, 6, 7)],
        tmp_path / "same.mlpackage",
    )
    padded = F.pad(x, (before[1], after[1], before[0], after[0]))
    np.testing.assert_allclose(run(path, [x], "float32"), F.conv2d(padded, weight, stride=2), atol=1e-5)


def test_same_padding_of_a_transposed_convolution_multiplies_the_size(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    x, weight = sample(1, 2, 4, 5), sample(2, 3, 4, 4, seed=1)
    path = convert_mil(
        lambda x0: mb.conv_transpose(x=x0, weight=weight.numpy(), strides=[2, 2], pad_type="same", name="y"),
        [(1, 2, 4, 5)],
        tmp_path / "same.mlpackage",
    )
    expected = F.conv_transpose2d(x, weight, stride=2, padding=1)
    assert expected.shape == (1, 3, 8, 10)
    np.testing.assert_allclose(run(path, [x], "float32"), expected, atol=1e-5)


# The grids that MIL's reference gives for resizing [0, 1].
GRIDS = {
    ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
    ("STRICT_ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("ALIGN_CORNERS", 1): [0.5],
    ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("DEFAULT", 6): [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0],
    ("OFFSET_CORNERS", 6): [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12],
}


@pytest.mark.parametrize(("mode", "width"), GRIDS)
def test_resize_bilinear_samples_the_grid_of_its_mode(mode: str, width: int, tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    path = convert_mil(
        lambda x0: mb.resize_bilinear(
            x=x0, target_size_height=2, target_size_width=width, sampling_mode=mode, name="y"
        ),
        [(1, 1, 2, 2)],
        tmp_path / "resize.mlpackage",
    )
    found = run(path, [torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])], "float32")
    np.testing.assert_allclose(found[0, 0], [GRIDS[mode, width]] * 2, atol=1e-6)


@pytest.mark.parametrize("target", ["iOS15", "iOS16"])
def test_upsampling_by_a_fraction_uses_the_output_size(target: str, tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    path = convert_mil(
        lambda x0: mb.upsample_bilinear(
            x=x0, scale_factor_height=1.5, scale_factor_width=1.7, align_corners=False, name="y"
        ),
        [(1, 2, 5, 4)],
        tmp_path / "upsample.mlpackage",
        target,
    )
    x = sample(1, 2, 5, 4)
    expected = F.interpolate(x, size=(7, 6), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(run(path, [x], "float32"), expected, atol=1e-6)


@pytest.mark.parametrize(("axis", "keep_dims"), [(1, False), (-1, True)])
def test_argmax_gives_whole_numbers_and_of_equal_ones_the_first(
    axis: int, keep_dims: bool, tmp_path: Path
) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    path = convert_mil(
        lambda x0: mb.reduce_argmax(x=x0, axis=axis, keep_dims=keep_dims, name="y"),
        [(2, 3, 4)],
        tmp_path / "argmax.mlpackage",
    )
    x = torch.randint(0, 2, (2, 3, 4), generator=torch.Generator().manual_seed(0)).float()  # many ties
    found = run(path, [x], "float32")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, x.numpy().argmax(axis, keepdims=keep_dims))


def test_relu6_is_bounded_at_six(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    path = convert_mil(lambda x0: mb.relu6(x=x0, name="y"), [(1, 4)], tmp_path / "relu6.mlpackage")
    assert run(path, [torch.tensor([[-1.0, 0.5, 6.0, 9.0]])], "float32").tolist() == [[0.0, 0.5, 6.0, 6.0]]


def test_a_slice_can_run_backwards_and_a_concat_can_interleave(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    def build(x0: object) -> object:
        back = mb.slice_by_index(
            x=x0, begin=[0, 3], end=[2, 0], stride=[1, -1], end_mask=[False, True], name="back"
        )
        return mb.concat(values=[x0, back], axis=1, interleave=True, name="y")

    path = convert_mil(build, [(2, 4)], tmp_path / "slice.mlpackage")
    found = run(path, [torch.arange(8.0).reshape(2, 4)], "float32")
    assert found.tolist() == [[0, 3, 1, 2, 2, 1, 3, 0], [4, 7, 5, 6, 6, 5, 7, 4]]


def test_a_constexpr_weight_is_decompressed(tmp_path: Path) -> None:
    path = convert_module(nn.Linear(64, 64), [sample(1, 64)], tmp_path / "full.mlpackage", "package")
    mlmodel = ct.models.MLModel(str(path), skip_model_load=True)
    config = ct.optimize.coreml.OptimizationConfig(
        global_config=ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=16)
    )
    small = tmp_path / "small.mlpackage"
    ct.optimize.coreml.linear_quantize_weights(mlmodel, config).save(str(small))
    x = [sample(1, 64)]
    assert "constexpr" in str(ct.utils.load_spec(str(small)).mlProgram)
    np.testing.assert_allclose(run(small, x, "package"), run(path, x, "package"), atol=0.02)


def test_package_precision_rounds_each_op_to_float16_and_float32_does_not(tmp_path: Path) -> None:
    # 2048 + 1 has no float16; the sum is exact in float32.
    module = Function(lambda a, b: (a + b) - a)
    inputs = [torch.full((1, 2), 2048.0), torch.ones(1, 2)]
    path = convert_module(module, inputs, tmp_path / "sum.mlpackage", "package")
    assert run(path, inputs, "package").tolist() == [[0.0, 0.0]]
    assert run(path, inputs, "float32").tolist() == [[1.0, 1.0]]


def test_an_overflow_is_recorded_under_the_name_of_its_op(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    def build(x0: object) -> object:
        half = mb.cast(x=x0, dtype="fp16", name="half")
        squared = mb.mul(x=half, y=half, name="squared")
        bounded = mb.sigmoid(x=squared, name="bounded")
        return mb.cast(x=bounded, dtype="fp32", name="y")

    path = convert_mil(build, [(1, 2)], tmp_path / "square.mlpackage")
    rounded, wide = PackageExecutor(path, "package"), PackageExecutor(path, "float32")
    assert rounded.non_finite_ops == ()
    for executor in (rounded, wide):
        assert executor.run({"x0": np.full((1, 2), 300.0)})["y"].tolist() == [[1.0, 1.0]]
    assert (rounded.non_finite_ops, wide.non_finite_ops) == (("squared",), ())


def test_a_weight_that_is_not_finite_is_recorded_before_anything_runs(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    weight = np.array([[1.0, np.inf]], np.float32)
    path = convert_mil(
        lambda x0: mb.linear(x=x0, weight=mb.const(val=weight, name="heavy"), name="y"),
        [(1, 2)],
        tmp_path / "heavy.mlpackage",
    )
    assert PackageExecutor(path).non_finite_ops == ("heavy",)


def test_an_infinite_bound_of_a_clip_is_no_fault(tmp_path: Path) -> None:
    module = Function(lambda x: x.clamp(min=-0.5))
    path = convert_module(module, [sample(1, 4)], tmp_path / "clip.mlpackage", "package")
    executor = PackageExecutor(path)
    assert executor.run({"x0": np.array([[-2.0, -0.5, 0.0, 3.0]])})["y0"].tolist() == [[-0.5, -0.5, 0, 3]]
    assert executor.non_finite_ops == ()


def test_an_unknown_op_is_named(tmp_path: Path) -> None:
    module = Function(lambda x: torch.cumsum(x, 1))
    path = convert_module(module, [sample(1, 4)], tmp_path / "cumsum.mlpackage", "float32")
    assert "cumsum" not in OPS
    with pytest.raises(UnknownOpError, match=r"cumsum\.mlpackage: op 'cumsum' that gives 'y0'"):
        PackageExecutor(path)


def test_an_unknown_parameter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convert_module(nn.Softmax(dim=1), [sample(1, 4)], tmp_path / "softmax.mlpackage", "float32")
    monkeypatch.setitem(mil_ops.OPS, "softmax", lambda x: x)
    with pytest.raises(UnknownOpError, match=r"op 'softmax' named '.*': got an unexpected .* 'axis'"):
        PackageExecutor(path)


def test_a_result_of_another_shape_than_declared_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = convert_module(nn.ReLU(), [sample(1, 4)], tmp_path / "relu.mlpackage", "float32")
    monkeypatch.setitem(mil_ops.OPS, "relu", lambda x: x[:, :2])
    with pytest.raises(ValueError, match=r"computed shape \(1, 2\), the program declares \(1, 4\)"):
        PackageExecutor(path).run({"x0": np.zeros((1, 4), np.float32)})


@pytest.fixture(scope="module")
def image_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A package that scales an image by 1/2 and gives it back, for each color layout."""

    def convert(layout: str) -> Path:
        path = tmp_path_factory.mktemp("image") / f"{layout}.mlpackage"
        channels = 1 if layout == "GRAYSCALE" else 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            traced = torch.jit.trace(Function(lambda x: x + 0.0 * x.mean()), torch.rand(1, channels, 4, 5))
        image = ct.ImageType(
            name="x", shape=(1, channels, 4, 5), scale=0.5, color_layout=getattr(ct.colorlayout, layout)
        )
        ct.convert(
            traced,
            inputs=[image],
            outputs=[ct.TensorType(name="y")],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        ).save(str(path))
        return path

    return convert


def test_an_image_is_scaled_and_put_in_the_channel_order_of_the_package(
    image_package: Callable[[str], Path],
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    for layout, channels in (("RGB", photo), ("BGR", photo[..., ::-1])):
        executor = PackageExecutor(image_package(layout))
        assert executor.inputs == {"x": PackagePort("x", (1, 3, 4, 5), layout)}
        expected = channels.transpose(2, 0, 1)[None] / 2
        planes = photo.transpose(2, 0, 1)[None].astype(np.float32)
        np.testing.assert_allclose(executor.run({"x": photo})["y"], expected, atol=1e-6)
        np.testing.assert_allclose(executor.run({"x": planes})["y"], expected, atol=1e-6)
    grey = PackageExecutor(image_package("GRAYSCALE")).run({"x": photo[..., 0]})["y"]
    np.testing.assert_allclose(grey[0, 0], photo[..., 0] / 2, atol=1e-6)


def test_wrong_inputs_are_refused_with_what_was_expected(image_package: Callable[[str], Path]) -> None:
    executor = PackageExecutor(image_package("RGB"))
    with pytest.raises(ValueError, match=r"found \['photo'\], expected \['x'\]"):
        executor.run({"photo": np.zeros((4, 5, 3), np.uint8)})
    with pytest.raises(ValueError, match=r"input x: found shape \(1, 3, 5, 4\), expected \(1, 3, 4, 5\)"):
        executor.run({"x": np.zeros((5, 4, 3), np.uint8)})
    with pytest.raises(ValueError, match="values from 0 to 255"):
        executor.run({"x": np.full((1, 3, 4, 5), -1.0)})


def test_a_missing_package_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mlpackage: no Core ML package"):
        PackageExecutor(tmp_path / "none.mlpackage")
