"""Packages of the one-image networks: each exports, and op by op it gives what torch gives."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import Agreement, AgreementLimits
from cd_pipeline.export.coreml import Precision, export_mlpackage, load_spec
from cd_pipeline.models.attention_unet import AttentionUNet
from cd_pipeline.models.resnet50_unet import ResNet50UNet
from cd_pipeline.models.resunet import ResUNet
from cd_pipeline.models.unet import UNet
from cd_pipeline.models.unet_plus_plus import UNetPlusPlus
from cd_pipeline_tests.export.checking import check_package
from cd_pipeline_tests.models.one_image import settled

SIZE = 32
WIDTHS = (8, 16, 24)
OPTIONS = {
    "batch norm, bilinear with aligned corners": {},
    "group norm": {"norm": "group"},
    "no norm": {"norm": "none"},
    "bilinear without aligned corners": {"align_corners": False},
    "bilinear and a convolution": {"upsampling": "bilinear_conv"},
    "transposed convolution": {"upsampling": "deconv"},
}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    f"{network.__name__}, {name}": partial(network, widths=WIDTHS, **options)
    for network in (UNet, UNetPlusPlus, AttentionUNet, ResUNet)
    for name, options in OPTIONS.items()
}
NETWORKS["ResNet50UNet"] = ResNet50UNet

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class MinMax(nn.Module):
    """Stretches the values of each image to [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        return (x - low) / (high - low + 1e-6)


class MeanStd(nn.Module):
    """(x - mean) / std, each a value a channel."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        return (x - mean) / std


def build(make: Callable[..., nn.Module], classes: int) -> nn.Module:
    """The network with logits that have mean 0 and deviation 2 for noise, so that no class is everywhere."""
    torch.manual_seed(0)
    network = settled(make(classes=classes), 2)
    head = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        for _ in range(2):
            logits = network(torch.rand(1, 3, SIZE, SIZE))
            head.weight *= 2 / logits.std((0, 2, 3)).reshape(-1, 1, 1, 1)
            head.bias -= logits.mean((0, 2, 3))
    return network


def images(size: int) -> list[tuple[np.ndarray]]:
    """Noise of full contrast, and of little."""
    rng = np.random.default_rng(0)
    ranges = ((0, 256), (90, 131))
    return [(rng.integers(*limits, (size, size, 3), dtype=np.uint8),) for limits in ranges]


def agreement(
    network: nn.Module,
    path: Path,
    classes: int,
    precision: Precision,
    size: int = SIZE,
    samples: list[tuple[np.ndarray]] | None = None,
) -> Agreement:
    task = Task(pictures=1, classes=classes)
    metadata = {"class_names": ""}
    export_mlpackage(
        network,
        path,
        task=task,
        size=size,
        pixel_scale=1 / 255,
        metadata=metadata,
        description="",
        precision=precision,
    )
    threshold = None if task.multi_class else 0.5
    samples = samples or images(size)
    return check_package(path, network, samples, task=task, threshold=threshold)


def assert_equal_to_torch(found: Agreement) -> None:
    assert found.max_probability_difference < 1e-4
    assert found.flipped_share < 0.002
    assert found.decision_faults == 0
    assert found.non_finite_ops == ()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_exports_and_gives_what_torch_gives(name: str, classes: int, tmp_path: Path) -> None:
    found = agreement(build(NETWORKS[name], classes), tmp_path / "a.mlpackage", classes, "float32")
    assert_equal_to_torch(found)
    assert found.non_empty_samples > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if name.startswith(("AttentionUNet", "ResNet50"))]
)
def test_an_odd_size_is_rounded_as_in_torch(name: str, tmp_path: Path) -> None:
    assert_equal_to_torch(agreement(build(NETWORKS[name], 3), tmp_path / "a.mlpackage", 3, "float32", 37))


@pytest.mark.parametrize("classes", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_unet_behind_the_scaling_of_its_images_gives_what_torch_gives(classes: int, tmp_path: Path) -> None:
    network = nn.Sequential(MeanStd(), MinMax(), build(partial(UNet, widths=WIDTHS), classes))
    assert_equal_to_torch(agreement(network, tmp_path / "a.mlpackage", classes, "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("scaling", [nn.Identity, MinMax, MeanStd])
def test_mixed_precision_reads_and_scales_images_in_float32(
    scaling: Callable[[], nn.Module], classes: int, tmp_path: Path
) -> None:
    network = nn.Sequential(scaling(), build(partial(UNet, widths=WIDTHS), classes))
    half, mixed = (agreement(network, tmp_path / "a.mlpackage", classes, p) for p in ("float16", "mixed"))
    assert half.max_probability_difference < 0.02
    assert half.flipped_share < 0.01
    assert AgreementLimits().violations(mixed) == []
    assert mixed.mean_probability_difference < half.mean_probability_difference / 4
    assert mixed.decision_faults == half.decision_faults == 0


def results_of(path: Path) -> dict[str, list[int]]:
    """Shape of what each op of a package gives, by name; a name with fp16 in it is of a float16 op."""
    (block,) = load_spec(path).mlProgram.functions["main"].block_specializations.values()
    outputs = [op.outputs[0] for op in block.operations if op.type not in ("const", "cast")]
    return {out.name: [d.constant.size for d in out.type.tensorType.dimensions] for out in outputs}


@pytest.mark.slow
def test_in_mixed_precision_the_range_of_an_image_and_norms_at_full_size_are_float32(tmp_path: Path) -> None:
    network = nn.Sequential(MinMax(), build(partial(UNet, widths=WIDTHS, norm="group"), 1))
    agreement(network, tmp_path / "a.mlpackage", 1, "mixed")
    shapes = results_of(tmp_path / "a.mlpackage")
    numbers = [name for name, shape in shapes.items() if shape == [1, 1, 1, 1]]
    grouped = [name for name, shape in shapes.items() if len(shape) == 5 and shape[-1] == SIZE]
    assert len(numbers) == 4  # least, greatest, their difference, and with eps
    assert len(grouped) > 4
    assert not any("fp16" in name for name in (*numbers, *grouped))
    assert any("fp16" in name for name in shapes)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "mixed"])
def test_an_image_of_one_color_has_no_range_and_is_still_finite(precision: Precision, tmp_path: Path) -> None:
    network = nn.Sequential(MinMax(), build(partial(UNet, widths=WIDTHS), 3))
    flat = [(np.full((SIZE, SIZE, 3), 77, np.uint8),)]
    found = agreement(network, tmp_path / "a.mlpackage", 3, precision, samples=flat)
    assert found.non_finite_ops == ()
    assert found.max_probability_difference < 0.02
