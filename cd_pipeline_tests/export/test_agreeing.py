"""The precision that is exported."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from cd_pipeline.export.agreeing import AgreementLimits, Export, export_agreeing
from cd_pipeline.export.coreml import read_package_metadata
from cd_pipeline.export.package_check import ImagePair

SIZE = 16


class Gain(nn.Module):
    """Amplifies the difference of two photos, so that float16 rounding is visible."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.mix.weight, gain)
        nn.init.constant_(self.mix.bias, -gain / 10)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        logits: Tensor = self.mix((before - after).abs())
        return logits


def pairs() -> list[ImagePair]:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    return [(before, after)]


def export(path: Path, limits: AgreementLimits) -> Export:
    return export_agreeing(
        Gain(30.0).eval(),
        path,
        pairs,
        precision="float16",
        limits=limits,
        size=SIZE,
        threshold=0.5,
        pixel_scale=1 / 255,
        metadata={"recipe": "rooms"},
        description="test",
    )


def test_a_package_that_agrees_in_float16_stays_float16(tmp_path: Path) -> None:
    done = export(tmp_path / "a.mlpackage", AgreementLimits())
    assert (done.precision, done.given_up) == ("float16", ())
    assert read_package_metadata(tmp_path / "a.mlpackage")["precision"] == "float16"


def test_a_package_that_disagrees_in_float16_becomes_float32_and_says_why(tmp_path: Path) -> None:
    strict = AgreementLimits(max_probability_difference=1e-5)
    done = export(tmp_path / "a.mlpackage", strict)
    assert done.precision == "float32"
    assert any("probability difference" in sentence for sentence in done.given_up)
    assert done.agreement.max_probability_difference == pytest.approx(0, abs=1e-5)
    assert read_package_metadata(tmp_path / "a.mlpackage")["precision"] == "float32"
