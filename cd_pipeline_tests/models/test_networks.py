"""What holds for every network of the registry."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cd_pipeline.data.task import Task
from cd_pipeline.export.coreml import export_mlpackage
from cd_pipeline.models.build import NETWORKS, build_model
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline_tests.benchmarks.models import measure
from cd_pipeline_tests.export.checking import check_package
from cd_pipeline_tests.models.measuring import parameters, settled

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIZE = 64
SETTINGS = (
    {name: ModelSettings(name=name) for name in NETWORKS}
    | {
        f"{small} without hard-swish": ModelSettings(name=small, encoder="tf_mobilenetv3_small_minimal_100")
        for small in ("tiny_change_unet", "tiny_siamese_unet")
    }
    | {
        "siamese_unet of differences": ModelSettings(name="siamese_unet", fusion="difference"),
        "siamese_unet with group norm": ModelSettings(name="siamese_unet", norm="group"),
    }
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_every_network_exports_to_a_package_that_agrees_with_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    task = Task(pictures=SETTINGS[name].pictures)
    model = settled(build_model(SETTINGS[name]), 4, task.pictures)
    path = tmp_path / "a.mlpackage"
    export_mlpackage(
        model,
        path,
        task=task,
        size=SIZE,
        pixel_scale=1 / 255,
        metadata={},
        description="",
        precision="float32",
    )
    images = np.random.default_rng(0).integers(0, 256, (3, task.pictures, SIZE, SIZE, 3), dtype=np.uint8)
    samples = [tuple(pictures) for pictures in images]
    agreement = check_package(path, model, samples, task=task, threshold=0.5)
    assert agreement.samples == 3
    assert agreement.max_probability_difference < 1e-4
    assert agreement.non_finite_ops == ()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_benchmark_measures_every_network(name: str) -> None:
    row = measure(name, 32, timed=False)
    assert row["parameters"] == parameters(build_model(ModelSettings(name=name)))
    assert row["multiply_adds"] > 1e6
    assert row["step_seconds"] is None


def test_multiply_adds_are_those_of_a_hand_computation() -> None:
    # width 8, 8x8 pixels, photos at 8, 4, 2 and 1 px; encoder for both photos
    encoder = 2 * 9 * (64 * (3 * 8 + 8 * 8) + 16 * (8 * 16 + 16 * 16) + 4 * (16 * 32 + 32 * 32))
    encoder += 2 * 9 * (32 * 64 + 64 * 64)
    bottleneck = 9 * 3 * 64 * 64
    ups = sum(
        px * (2 * width * width + 9 * 4 * width * width + 9 * width * width)
        for px, width in [(4, 32), (16, 16), (64, 8)]
    )
    row = measure("siamese_unet", 8, timed=False, width=8)
    assert row["multiply_adds"] == encoder + bottleneck + ups + 64 * 8
