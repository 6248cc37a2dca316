from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.build import build_model
from cd_pipeline.models.network import Network
from cd_pipeline.models.scaling import RANGE_EPS, MeanStd, MinMax, ScaledNetwork, with_scaling
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline_tests.models.measuring import photos

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SCALINGS = ["min_max", "mean_std"]
SMALL = ModelSettings(name="unet", widths=(8, 16))


class Seen(Network):
    """Answers with what it is given, and remembers what it is asked to load."""

    loaded: Path | None = None

    def forward(self, *pictures: Tensor) -> Tensor:
        return torch.cat(pictures, dim=1)

    @property
    def pretrained_name(self) -> str:
        return "some_encoder"

    def load_encoder_weights(self, path: Path) -> None:
        self.loaded = path


def pictures(count: int = 3) -> Tensor:
    """Noise of another range for each picture, in [0, 1]."""
    noise = torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    low = torch.linspace(0, 0.4, count).reshape(-1, 1, 1, 1)
    return low + noise * 0.5


def test_min_max_stretches_each_picture_by_its_own_range() -> None:
    batch = pictures()
    found = MinMax()(batch).numpy()
    for one, original in zip(found, batch.numpy().astype(np.float64), strict=True):
        low, high = original.min(), original.max()
        np.testing.assert_allclose(one, (original - low) / (high - low + RANGE_EPS), atol=1e-6)
        assert one.min() == 0
        assert one.max() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_picture_of_one_value_becomes_0(value: float) -> None:
    assert not MinMax()(torch.full((2, 3, 8, 8), value)).any()


def test_mean_and_std_are_those_of_each_channel() -> None:
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    batch = pictures()
    expected = (batch.numpy() - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    np.testing.assert_allclose(MeanStd(mean, std)(batch), expected, atol=1e-6)


def test_imagenets_mean_and_std_are_the_default() -> None:
    settings = InputSettings(scaling="mean_std")
    assert settings.mean == (0.485, 0.456, 0.406)
    assert settings.std == (0.229, 0.224, 0.225)
    found = with_scaling(Seen(), settings)(torch.tensor(settings.mean).reshape(1, 3, 1, 1))
    assert found.abs().max() < 1e-6


def test_pictures_in_0_to_1_need_no_scaling() -> None:
    network = Seen()
    assert with_scaling(network, InputSettings()) is network


@pytest.mark.parametrize("scaling", SCALINGS)
def test_every_picture_of_a_sample_is_scaled_by_itself(scaling: str) -> None:
    network = with_scaling(Seen(), InputSettings.model_validate({"scaling": scaling}))
    assert isinstance(network, ScaledNetwork)
    before, after = pictures(2), pictures(3)[1:]
    found = network(before, after)
    assert torch.equal(found[:, :3], network.scaling(before))
    assert torch.equal(found[:, 3:], network.scaling(after))


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_weights_are_those_of_the_network_alone(scaling: str) -> None:
    torch.manual_seed(1)
    plain = build_model(SMALL)
    torch.manual_seed(1)
    scaled = build_model(SMALL, None, InputSettings.model_validate({"scaling": scaling}))
    assert isinstance(scaled, ScaledNetwork)
    state = plain.state_dict()
    assert list(scaled.state_dict()) == [f"network.{name}" for name in state]
    assert list(scaled.scaling.state_dict()) == []
    assert all(torch.equal(scaled.state_dict()[f"network.{name}"], value) for name, value in state.items())
    image = pictures()
    with torch.no_grad():
        assert torch.equal(scaled.eval()(image), plain.eval()(scaled.scaling(image)))


def test_buffers_of_the_scaling_follow_the_network() -> None:
    network = with_scaling(Seen(), InputSettings(scaling="mean_std")).double()
    assert network(pictures().double()).dtype == torch.float64


@pytest.mark.parametrize("scaling", SCALINGS)
def test_state_dicts_with_the_scaling_and_without_it_load(scaling: str) -> None:
    settings = InputSettings.model_validate({"scaling": scaling})
    task = Task(pictures=1, classes=3)
    sources = [build_model(SMALL, task), build_model(SMALL, task, settings)]
    image = pictures()
    for source in sources:
        network = build_model(SMALL, task, settings)
        assert network.load_published_state(source.state_dict()) == []
        inner = source.network if isinstance(source, ScaledNetwork) else source
        assert isinstance(network, ScaledNetwork)
        with torch.no_grad():
            assert torch.equal(network.network.eval()(image), inner.eval()(image))
    with pytest.raises(RuntimeError, match="size mismatch"):
        build_model(SMALL, None, settings).load_published_state(sources[0].state_dict())


def test_the_published_state_of_a_pair_network_loads_behind_a_scaling() -> None:
    published = TinyChangeUNet().eval()
    network = with_scaling(TinyChangeUNet(), InputSettings(scaling="min_max")).eval()
    dead = {"encoder.backbone.blocks.5.unused": torch.zeros(1)}
    dropped = network.load_published_state({**published.state_dict(), **dead})
    assert dropped == list(dead)
    before, after = photos(32, 32)
    with torch.no_grad():
        expected = published(MinMax()(before), MinMax()(after))
        assert torch.equal(network(before, after), expected)


def test_a_pretrained_encoder_is_that_of_the_network() -> None:
    seen = Seen()
    network = with_scaling(seen, InputSettings(scaling="min_max"))
    assert network.pretrained_name == "some_encoder"
    network.load_encoder_weights(Path("w.safetensors"))
    assert seen.loaded == Path("w.safetensors")
