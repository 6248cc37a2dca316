import logging
from pathlib import Path

import pytest
from pydantic import ValidationError
from torch import Tensor

from cd_pipeline.data.manifest import read_pairs, write_pairs
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import InputSettings, SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation import predict
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.device_nuisance import UndisturbedPair, disturbed
from cd_pipeline.synthesis.device_render import DevicePhotos, render_items
from cd_pipeline.synthesis.pairs import plan_pairs
from cd_pipeline.synthesis.plan_chunks import PlanChunk
from cd_pipeline.synthesis.rendered_pairs import render_pairs
from cd_pipeline.synthesis.settings import RealisticSynthesis
from cd_pipeline.training.checkpoint import weights_digest
from cd_pipeline.training.job import TrainingJob, run_job
from cd_pipeline.training.loop import TrainingResult
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.drawn import draw_photo_tree

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIZE = 32
SYNTHESIS = RealisticSynthesis(preset="realistic", epoch_pairs=8, frozen_pairs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, the manifest of their pairs, and the pictures of those of val."""
    folder = tmp_path_factory.mktemp("job")
    draw_photo_tree(folder / "photos", {"trainval": {"A": 7}, "test": {"A": 1}})
    pairs = plan_pairs(assign_splits(scan_photos(folder / "photos").photos, SplitSettings()), SYNTHESIS, SIZE)
    write_pairs(folder / "pairs.parquet", pairs)
    render_pairs(pairs, Roots(folder / "photos", folder), threads=1)
    return folder


def job(folder: Path, **training: object) -> TrainingJob:
    settings = {"preset": "siamese", "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    return TrainingJob(
        manifest=folder / "pairs.parquet",
        source=folder / "photos",
        workspace=folder,
        input=InputSettings(size=SIZE),
        task=Task(),
        synthesis=SYNTHESIS,
        augmentation=None,
        model=ModelSettings(name="siamese_unet", width=8, norm="group"),
        training=TrainingSettings.model_validate({**settings, **training}),
        runtime=Runtime(threads=1, workers=0),
    )


def trained(folder: Path, **training: object) -> TrainingResult:
    return run_job(job(folder, **training), logging.getLogger("test")).training


def test_where_the_nuisance_is_applied_and_pairs_are_rendered_changes_the_identity_of_a_training(
    folder: Path,
) -> None:
    asked: list[dict[str, object]] = [
        {},
        {"nuisance_on": "cpu", "rendering_on": "cpu"},
        {"nuisance_on": "device"},
        {"nuisance_on": "device", "rendering_on": "device"},
    ]
    named = [job(folder, **training).identity for training in asked]
    assert named[0] == named[1]
    assert len(set(named)) == 3


@pytest.mark.parametrize("asked", [{}, {"nuisance_on": "cpu"}])
def test_rendering_on_the_device_needs_the_nuisance_there(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as error:
        TrainingSettings.model_validate({**asked, "rendering_on": "device"})
    (found,) = error.value.errors()
    assert found["msg"] == (
        "Value error, rendering_on is device, and nuisance_on is cpu: rendering on the device needs the nuisance there; "
        "set nuisance_on to device, or rendering_on to cpu"
    )


def test_rendering_on_another_place_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match=r"rendering_on\n.*'cpu' or 'device'"):
        TrainingSettings.model_validate({"nuisance_on": "device", "rendering_on": "gpu"})


def test_nuisance_on_the_device_trains_to_the_same_weights_twice_and_nearly_to_those_of_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noted(pairs: UndisturbedPair, device: str) -> Tensor:
        sizes.append(len(pairs.mask))
        return disturbed(pairs, device)

    monkeypatch.setattr(predict, "disturbed", noted)
    first = trained(folder, nuisance_on="device")
    assert sum(sizes) == len(read_pairs(folder / "pairs.parquet", "train"))
    assert weights_digest(trained(folder, nuisance_on="device").weights) == weights_digest(first.weights)
    sizes.clear()
    cpu = trained(folder)
    assert not sizes
    assert first.best.train_loss == pytest.approx(cpu.best.train_loss, rel=1e-3)


def test_rendering_on_the_device_learns_the_same_weights_twice_and_nearly_those_of_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noted(chunks: list[PlanChunk], photos: DevicePhotos, device: str) -> Tensor:
        items = render_items(chunks, photos, device)
        sizes.append(len(items))
        return items

    monkeypatch.setattr(predict, "render_items", noted)
    there: dict[str, object] = {"nuisance_on": "device", "rendering_on": "device", "epochs": 3}
    first = trained(folder, **there)
    assert sum(sizes) == 3 * len(read_pairs(folder / "pairs.parquet", "train"))
    assert weights_digest(trained(folder, **there).weights) == weights_digest(first.weights)
    losses = [record.train_loss for record in first.history]
    assert losses[-1] < losses[0]
    sizes.clear()
    cpu = trained(folder, epochs=3)
    assert not sizes
    assert losses == pytest.approx([record.train_loss for record in cpu.history], rel=1e-2)
