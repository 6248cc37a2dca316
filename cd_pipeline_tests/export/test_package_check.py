"""The check passes a faithful package and catches each fault that is otherwise found on a phone."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import (
    Agreement,
    AgreementLimits,
    AgreementSums,
    Answer,
    Reference,
    measure_agreement,
)
from cd_pipeline.export.coreml import export_mlpackage, import_coremltools, load_spec
from cd_pipeline.export.mil_executor import PackageExecutor
from cd_pipeline.export.package_check import CoreMLPackage, mask_faults, package_forms
from cd_pipeline_tests.export.checking import check_package

SIZE = 64
THRESHOLD = 0.5
SCALE = 1 / 255
ImagePair = tuple[np.ndarray, np.ndarray]


pytestmark = [pytest.mark.usefixtures("one_torch_thread"), pytest.mark.slow]


class UpBlock(nn.Module):
    """Transposed 2x2 convolution, skip, depthwise 3x3 and pointwise convolution."""

    def __init__(self, deep: int, skip: int, out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(deep, out, 2, stride=2)
        width = out + skip
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        return self.refine(torch.cat([self.up(deep), skip], 1))


class SmallChangeUnet(nn.Module):
    """Encoder with hard-swish and squeeze-excite, light decoder, bilinear upsampling to the input size."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = timm.create_model(
            "mobilenetv3_small_100",
            pretrained=False,
            features_only=True,
            out_indices=(0, 1, 2, 3),
            in_chans=7,
        )
        widths = self.encoder.feature_info.channels()
        self.ups = nn.ModuleList(
            UpBlock(deep, skip, out)
            for deep, skip, out in zip(
                (widths[3], 32, 24), (widths[2], widths[1], widths[0]), (32, 24, 16), strict=True
            )
        )
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        difference = (before - after).abs().mean(1, keepdim=True)
        *skips, x = self.encoder(torch.cat([before, after, difference], 1))
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        return F.interpolate(self.head(x), size=before.shape[-2:], mode="bilinear", align_corners=False)


class Rewired(nn.Module):
    """The model behind a faulty preprocessing of its two inputs."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self.change = change

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.model(*self.change(before, after))


def draw_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth scene, and the same scene with an object of warm color that has appeared; its mask."""
    coarse = rng.integers(30, 220, (4, 4, 3)).astype(np.uint8)
    before = np.kron(coarse, np.ones((SIZE // 4, SIZE // 4, 1))) + rng.normal(0, 6, (SIZE, SIZE, 3))
    after = before + rng.normal(0, 6, before.shape)
    top, left = rng.integers(0, SIZE - 24, 2)
    height, width = rng.integers(12, 24, 2)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + height, left : left + width] = True
    after[mask] = rng.normal((220, 120, 20), 10, (mask.sum(), 3))
    before, after = (np.clip(image, 0, 255).astype(np.uint8) for image in (before, after))
    return before, after, mask


def to_batch(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() * SCALE


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """The network after a few steps on drawn pairs: its probabilities are those of a trained one."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = SmallChangeUnet().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(40):
        before, after, mask = zip(*(draw_pair(rng) for _ in range(8)), strict=True)
        logits = network(to_batch(list(before)), to_batch(list(after)))
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], torch.from_numpy(np.stack(mask)).float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


@pytest.fixture(scope="module")
def pairs() -> list[ImagePair]:
    rng = np.random.default_rng(1)
    return [draw_pair(rng)[:2] for _ in range(6)]


def export(model: nn.Module, path: Path, pixel_scale: float = SCALE, precision: str = "float16") -> Path:
    export_mlpackage(
        model, path, size=SIZE, pixel_scale=pixel_scale, metadata={}, description="", precision=precision
    )
    return path


@pytest.fixture(scope="module")
def package(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("good") / "detector.mlpackage")


def check(path: Path, model: nn.Module, pairs: list[ImagePair], **options: str) -> Agreement:
    return check_package(path, model, iter(pairs), threshold=THRESHOLD, **options)


def test_a_faithful_package_agrees_with_its_checkpoint(
    package: Path, model: nn.Module, pairs: list[ImagePair]
) -> None:
    agreement = check(package, model, pairs)
    assert AgreementLimits().violations(agreement) == []
    assert (agreement.samples, agreement.non_empty_samples) == (6, 6)
    assert 0 < agreement.mean_probability_difference < agreement.max_probability_difference < 0.02


def test_without_rounding_only_the_rounded_weights_are_left_as_a_difference(
    package: Path, model: nn.Module, pairs: list[ImagePair]
) -> None:
    rounded, wide = check(package, model, pairs), check(package, model, pairs, precision="float32")
    assert AgreementLimits().violations(wide) == []
    assert wide.mean_probability_difference < rounded.mean_probability_difference


def test_a_float32_package_agrees_to_rounding(
    model: nn.Module, pairs: list[ImagePair], tmp_path: Path
) -> None:
    agreement = check(export(model, tmp_path / "full.mlpackage", precision="float32"), model, pairs)
    assert agreement.max_probability_difference < 1e-4
    assert AgreementLimits().violations(agreement) == []


MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


def normalised(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    return (before - MEAN) / DEVIATION, (after - MEAN) / DEVIATION


FAULTS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "ImageNet mean and standard deviation": normalised,
    "before and after swapped": lambda before, after: (after, before),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_preprocessing_in_the_package_is_caught(
    fault: str, model: nn.Module, pairs: list[ImagePair], tmp_path: Path
) -> None:
    path = export(Rewired(model, FAULTS[fault]), tmp_path / "faulty.mlpackage")
    violations = AgreementLimits().violations(check(path, model, pairs))
    assert any("probability difference" in sentence for sentence in violations)


def test_a_forgotten_pixel_scale_is_caught(model: nn.Module, pairs: list[ImagePair], tmp_path: Path) -> None:
    path = export(model, tmp_path / "faulty.mlpackage", pixel_scale=1.0)
    assert AgreementLimits().violations(check(path, model, pairs))


def test_an_image_input_declared_as_bgr_is_caught(
    package: Path, model: nn.Module, pairs: list[ImagePair], tmp_path: Path
) -> None:
    spec = load_spec(package)
    for feature in spec.description.input:
        feature.type.imageType.colorSpace = feature.type.imageType.BGR
    path = save_with_weights(spec, package, tmp_path / "bgr.mlpackage")
    assert [port.color for port in PackageExecutor(path).inputs.values()] == ["BGR", "BGR"]
    assert AgreementLimits().violations(check(path, model, pairs))


def save_with_weights(spec: object, source: Path, path: Path) -> Path:
    weights = source / "Data/com.apple.CoreML/weights"
    import_coremltools().models.MLModel(spec, weights_dir=str(weights), skip_model_load=True).save(str(path))
    return path


def test_one_changed_weight_is_caught(model: nn.Module, pairs: list[ImagePair], tmp_path: Path) -> None:
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.head.weight[0, int(changed.head.weight.abs().argmax())] *= -1
    agreement = check(export(changed, tmp_path / "changed.mlpackage"), model, pairs)
    assert AgreementLimits().violations(agreement)


class Overflowing(nn.Module):
    """A detector with one value on its way that float16 cannot hold."""

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return torch.relu((after - before) * 60_000 * 60_000).mean(1, keepdim=True)


def test_an_overflow_of_float16_is_caught_and_its_op_named(pairs: list[ImagePair], tmp_path: Path) -> None:
    agreement = check(export(Overflowing(), tmp_path / "heavy.mlpackage"), Overflowing(), pairs[:2])
    assert agreement.non_finite_ops
    assert any(
        f"NaN or infinity: {agreement.non_finite_ops[0]}" in text
        for text in AgreementLimits().violations(agreement)
    )


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_weight_set_to_70_000_is_caught(
    precision: str, model: nn.Module, pairs: list[ImagePair], tmp_path: Path
) -> None:
    heavy = copy.deepcopy(model)
    with torch.no_grad():
        heavy.head.weight[0, int(heavy.head.weight.abs().argmax())] = 70_000  # float16 ends at 65,504
    agreement = check(export(heavy, tmp_path / "heavy.mlpackage", precision=precision), model, pairs)
    assert any("probability difference" in text for text in AgreementLimits().violations(agreement))


def test_the_package_s_own_mask_is_judged(model: nn.Module, pairs: list[ImagePair], tmp_path: Path) -> None:
    path = tmp_path / "mask.mlpackage"
    for asked, faults in ((THRESHOLD, False), (0.9, True)):
        export_mlpackage(
            model, path, size=SIZE, pixel_scale=SCALE, metadata={}, description="", mask_threshold=asked
        )
        agreement = check(path, model, pairs)
        assert bool(agreement.decision_faults) is faults
        assert bool(AgreementLimits().violations(agreement)) is faults
    executor = PackageExecutor(path)
    assert executor.outputs["mask"].color == "GRAYSCALE"
    outputs = executor.run({"before": pairs[0][0], "after": pairs[0][1]})
    assert set(np.unique(outputs["mask"])) == {0, 255}
    clear = np.abs(outputs["probability"] - 0.9) > 1e-3
    np.testing.assert_array_equal((outputs["mask"] == 255)[clear], (outputs["probability"] > 0.9)[clear])


def test_a_mask_may_be_either_only_where_the_probability_is_the_threshold() -> None:
    probability = np.array([[[0.2, 0.5, 0.5004, 0.8]]])
    for mask, faults in (
        ([0, 0, 255, 255], 0),
        ([0, 255, 0, 255], 0),
        ([255, 0, 0, 0], 2),
        ([0, 7, 1, 255], 2),
    ):
        assert mask_faults(probability, np.array([[mask]]), 0.5) == faults


class MacModel:
    """Stands in for coremltools' model of macOS: runs the package op by op."""

    def __init__(self, path: str, compute_units: object) -> None:
        assert compute_units is import_coremltools().ComputeUnit.ALL
        self.executor = PackageExecutor(Path(path))

    def predict(self, images: dict[str, object]) -> dict[str, np.ndarray]:
        return self.executor.run({name: np.asarray(image) for name, image in images.items()})


def test_on_macos_core_ml_is_given_images_and_its_answers_are_compared(
    package: Path, model: nn.Module, pairs: list[ImagePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_coremltools().models, "MLModel", MacModel)
    monkeypatch.setattr("sys.platform", "darwin")
    reference = Reference.of(model, Task(), THRESHOLD)
    forms = package_forms(package, reference)
    assert isinstance(forms["core_ml"], CoreMLPackage)
    found = measure_agreement(reference, forms, pairs)
    assert found["core_ml"] == found["package"]
    assert set(found) == {"package", "float32", "core_ml"}


def test_the_figures_are_those_of_a_direct_computation(
    package: Path, model: nn.Module, pairs: list[ImagePair]
) -> None:
    executor = PackageExecutor(package)
    found = np.stack([executor.run({"before": b, "after": a})["probability"][0, 0] for b, a in pairs])
    before, after = (to_batch([pair[i] for pair in pairs]) for i in (0, 1))
    with torch.no_grad():
        expected = torch.cat([torch.sigmoid(model(b[None], a[None])) for b, a in zip(before, after)])[:, 0]  # noqa: B905
    expected = expected.numpy()
    threshold = float(np.median(expected))  # where pixels flip
    agreement = check_package(package, model, pairs, threshold=threshold)
    masks = expected > threshold, found > threshold
    assert agreement.max_probability_difference == pytest.approx(np.abs(expected - found).max(), abs=1e-6)
    assert agreement.mean_probability_difference == pytest.approx(np.abs(expected - found).mean(), abs=1e-6)
    assert agreement.flipped_share == pytest.approx((masks[0] != masks[1]).mean(), abs=1e-4)
    assert agreement.mask_iou == pytest.approx(
        (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum(), abs=1e-3
    )


def test_the_iou_is_pooled_over_pairs_whose_expected_mask_is_not_empty() -> None:
    sums = AgreementSums()
    half = np.zeros((1, 1, 2, 2), np.float32)
    half[..., 0] = 1
    empty, full = np.zeros_like(half), np.ones_like(half)
    for expected, found in ((half, full), (full, full), (empty, full)):
        sums.add(Answer.of(expected, 0.5), Answer.of(found, 0.5))
    # 2 of 4, 4 of 4; the last is left out of the IoU and counted as flipped
    assert (sums.samples, sums.non_empty_samples) == (3, 2)
    assert (sums.intersection, sums.union) == (6, 8)
    assert (sums.flipped, sums.pixels) == (6, 12)


def test_a_probability_at_the_threshold_is_not_a_change() -> None:
    sums = AgreementSums()
    answer = Answer.of(np.full((1, 1, 1, 2), 0.5, np.float32), 0.5)
    sums.add(answer, answer)
    assert (sums.non_empty_samples, sums.flipped) == (0, 0)


def test_a_probability_that_is_not_a_number_breaks_the_limits() -> None:
    sums = AgreementSums()
    expected, found = np.zeros((1, 1, 1, 2), np.float32), np.array([[[[0.0, math.nan]]]], np.float32)
    sums.add(Answer.of(expected, 0.5), Answer.of(found, 0.5))
    assert sums.largest == math.inf


def test_the_iou_is_none_where_every_prediction_is_empty(
    package: Path, model: nn.Module, pairs: list[ImagePair]
) -> None:
    agreement = check_package(package, model, pairs[:1], threshold=1.0)
    assert (agreement.non_empty_samples, agreement.mask_iou) == (0, None)
    assert AgreementLimits().violations(agreement) == []


def test_violations_name_each_broken_limit_with_its_figure() -> None:
    agreement = Agreement(
        samples=3,
        non_empty_samples=2,
        max_probability_difference=0.03,
        mean_probability_difference=0.001,
        flipped_share=0.002,
        mask_iou=0.98,
        non_finite_ops=("conv_1",),
        decision_faults=7,
    )
    assert AgreementLimits().violations(agreement) == [
        "The largest probability difference is 0.0300, allowed is 0.02.",
        "The IoU of the masks over 2 non-empty samples is 0.9800, required is 0.99.",
        "0.200% of the pixels change class, allowed is 0.100%.",
        "These ops gave NaN or infinity: conv_1.",
        "At 7 pixels the mask or class_map is not what its own probability says.",
    ]
    assert len(AgreementLimits(0.05, 0.9, 0.01).violations(agreement)) == 2


def test_a_check_without_pairs_is_an_error(package: Path, model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no samples to check the export on"):
        check(package, model, [])
