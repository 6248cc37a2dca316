"""The precision that is exported."""

from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreeing import PackageExport, export_agreeing
from cd_pipeline.export.agreement import AgreementLimits, Pictures, Reference
from cd_pipeline.export.coreml import read_package_metadata

SIZE = 16
STRICT = AgreementLimits(max_probability_difference=1e-5)


class Gain(nn.Module):
    """Amplifies the difference of two photos at a stride, so that float16 rounding is visible."""

    def __init__(self, gain: float, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.mix = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.mix.weight, gain)
        nn.init.constant_(self.mix.bias, -gain)  # of random photos, about half is then changed

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        difference = F.avg_pool2d((before - after).abs(), self.stride)
        return F.interpolate(self.mix(difference), scale_factor=self.stride, mode="bilinear")


pytestmark = pytest.mark.slow


def pairs() -> list[Pictures]:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    return [(before, after)]


def export(path: Path, limits: AgreementLimits, stride: int = 1) -> PackageExport:
    return export_agreeing(
        Reference.of(Gain(30.0, stride), Task(), 0.5),
        path,
        pairs,
        precision="float16",
        limits=limits,
        size=SIZE,
        metadata={"recipe": "rooms"},
        description="test",
    )


def test_a_package_that_agrees_in_float16_stays_float16(tmp_path: Path) -> None:
    done = export(tmp_path / "a.mlpackage", AgreementLimits())
    assert (done.precision, done.given_up) == ("float16", ())
    assert read_package_metadata(tmp_path / "a.mlpackage")["precision"] == "float16"


def test_where_float16_breaks_a_limit_the_full_size_layers_become_float32(tmp_path: Path) -> None:
    done = export(tmp_path / "a.mlpackage", STRICT, stride=1)
    assert done.precision == "mixed"
    assert any("float16: The largest probability difference" in sentence for sentence in done.given_up)
    assert done.agreements["package"].max_probability_difference == pytest.approx(0, abs=1e-5)
    assert read_package_metadata(tmp_path / "a.mlpackage")["precision"] == "mixed"


def test_where_that_is_not_enough_the_package_is_float32(tmp_path: Path) -> None:
    done = export(tmp_path / "a.mlpackage", STRICT, stride=2)
    assert done.precision == "float32"
    assert any("mixed: The largest probability difference" in sentence for sentence in done.given_up)
    assert done.agreements["package"].max_probability_difference == pytest.approx(0, abs=1e-5)


def test_a_package_that_agrees_in_no_precision_is_left_to_its_check(tmp_path: Path) -> None:
    done = export(tmp_path / "a.mlpackage", AgreementLimits(min_mask_iou=1.1))
    assert done.precision == "float32"
    assert AgreementLimits(min_mask_iou=1.1).violations(done.agreements["package"])


class Steep(nn.Module):
    """Three classes of one image by steep functions of its color, so that float16 rounding is visible."""

    def forward(self, image: Tensor) -> Tensor:
        return 200 * (image - image.flip(1))


def test_several_classes_have_no_threshold_and_agree_once_the_image_is_read_in_float32(
    tmp_path: Path,
) -> None:
    done = export_agreeing(
        Reference.of(Steep(), Task(pictures=1, classes=3), None),
        tmp_path / "a.mlpackage",
        lambda: [(image,) for pair in pairs() for image in pair],
        precision="float16",
        limits=STRICT,
        size=SIZE,
        metadata={"class_names": "red, green, blue"},
        description="test",
    )
    assert done.precision == "mixed"
    assert any("float16: The largest probability difference" in sentence for sentence in done.given_up)
    assert (done.agreements["package"].samples, done.agreements["package"].decision_faults) == (2, 0)
    assert done.agreements["package"].max_probability_difference == pytest.approx(0, abs=1e-5)
