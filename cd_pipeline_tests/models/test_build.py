import logging
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn, get_args

import huggingface_hub
import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from cd_pipeline.models.build import NETWORKS, build_model, start_model
from cd_pipeline.models.settings import NETWORK_OPTIONS, ModelSettings
from cd_pipeline.models.siamese_unet import SiameseUNet
from cd_pipeline.models.tiny_cd import TinyCD
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.models.tiny_siamese_unet import TinySiameseUNet
from cd_pipeline.training.checkpoint import weights_digest

pytestmark = pytest.mark.usefixtures("one_torch_thread")

LOGGER = logging.getLogger("test_build")
FROM_SCRATCH = ModelSettings(pretrained=False)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> NoReturn:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)


@pytest.fixture
def cached_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a whole timm network, saved where the hub's cache is said to hold it."""
    torch.manual_seed(99)
    state = timm.create_model("mobilenetv3_small_100", pretrained=False).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *args: str(tmp_path / "model.safetensors")
    )
    return state


def test_the_name_decides_the_network() -> None:
    assert isinstance(build_model(ModelSettings(name="tiny_change_unet")), TinyChangeUNet)
    assert isinstance(build_model(ModelSettings(name="tiny_siamese_unet")), TinySiameseUNet)
    assert isinstance(build_model(ModelSettings(name="siamese_unet")), SiameseUNet)
    assert isinstance(build_model(ModelSettings(name="tiny_cd")), TinyCD)


def test_every_name_of_the_settings_has_its_network() -> None:
    names = get_args(ModelSettings.model_fields["name"].annotation)
    assert set(NETWORKS) == set(NETWORK_OPTIONS) == set(names)
    assert all(isinstance(build_model(ModelSettings(name=name)), NETWORKS[name]) for name in names)


def test_the_siamese_network_starts_from_seed_cache_and_saved_weights(
    cached_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    settings = ModelSettings(name="tiny_siamese_unet")
    model, is_pretrained = start_model(settings, seed=5, logger=LOGGER)
    assert is_pretrained
    assert isinstance(model, TinySiameseUNet)
    encoder = model.encoder.backbone.state_dict()
    assert all(torch.equal(value, cached_weights[name]) for name, value in encoder.items())
    torch.save(model.state_dict(), tmp_path / "old.pt")
    going_on = settings.model_copy(update={"start_from": str(tmp_path / "old.pt")})
    again, is_pretrained = start_model(going_on, seed=6, logger=LOGGER)
    assert not is_pretrained
    assert weights_digest(again.state_dict()) == weights_digest(model.state_dict())


def test_the_options_reach_the_network_that_takes_them() -> None:
    plain = build_model(ModelSettings(name="siamese_unet"))
    narrow = build_model(ModelSettings(name="siamese_unet", width=16, fusion="difference", norm="group"))
    assert plain.head.in_channels == 32
    assert narrow.head.in_channels == 16
    assert narrow.bottleneck[0].in_channels == 8 * 16
    assert isinstance(narrow.bottleneck[1], nn.GroupNorm)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "siamese_unet"])
@pytest.mark.parametrize(("option", "value"), [("fusion", "difference"), ("width", 64), ("norm", "group")])
def test_an_option_that_the_network_would_ignore_is_refused_with_those_that_take_it(
    name: str, option: str, value: object
) -> None:
    message = f"{option} is {value!r}, which {name} does not take; leave it out, or use one of: siamese_unet"
    with pytest.raises(ValidationError, match=message):
        ModelSettings(name=name, **{option: value})


def test_settings_come_back_from_their_dump() -> None:
    chosen = [ModelSettings(name=name) for name in NETWORKS]
    chosen.append(ModelSettings(name="siamese_unet", width=8, fusion="difference", norm="group"))
    for settings in chosen:
        assert ModelSettings(**settings.model_dump()) == settings


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 12}, {"fusion": "sum"}, {"norm": "layer"}])
def test_an_option_out_of_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ModelSettings(name="siamese_unet", **wrong)


@pytest.mark.parametrize("wrong", [{"name": "resnet"}, {"weights": "imagenet"}, {"pretrained": "perhaps"}])
def test_a_wrong_setting_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ModelSettings(**wrong)  # type: ignore[arg-type]


def test_pretrained_weights_are_wanted_by_default() -> None:
    assert ModelSettings().pretrained


def test_a_seed_gives_the_same_weights_each_time_and_another_seed_others() -> None:
    digests = []
    for seed in (5, 5, 6):
        torch.rand(3)  # what was drawn before must not matter
        model, _ = start_model(FROM_SCRATCH, seed=seed, logger=LOGGER)
        digests.append(weights_digest(model.state_dict()))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_training_starts_from_scratch_after_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started = time.monotonic()
    model, is_pretrained = start_model(ModelSettings(), seed=5, logger=LOGGER)
    assert time.monotonic() - started < 5
    assert not is_pretrained
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "from scratch" in record.getMessage()
    assert "Name or service not known" in record.getMessage()
    scratch, _ = start_model(FROM_SCRATCH, seed=5, logger=LOGGER)
    assert weights_digest(model.state_dict()) == weights_digest(scratch.state_dict())


@pytest.mark.usefixtures("no_hub")
def test_the_hub_is_not_asked_where_pretrained_weights_are_not_wanted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, is_pretrained = start_model(FROM_SCRATCH, seed=5, logger=LOGGER)
    assert not is_pretrained
    assert caplog.records == []


def test_cached_weights_become_the_encoder(
    cached_weights: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model, is_pretrained = start_model(ModelSettings(), seed=5, logger=LOGGER)
    assert is_pretrained
    assert [record for record in caplog.records if record.name == LOGGER.name] == []
    encoder = model.encoder.backbone.state_dict()
    assert len(encoder) > 100
    for name, value in encoder.items():
        torch.testing.assert_close(value, cached_weights[name], rtol=0, atol=0, msg=name)


def test_pretrained_weights_leave_the_rest_of_the_network_to_the_seed(
    cached_weights: dict[str, torch.Tensor],
) -> None:
    assert cached_weights
    model, _ = start_model(ModelSettings(), seed=5, logger=LOGGER)
    scratch, _ = start_model(FROM_SCRATCH, seed=5, logger=LOGGER)
    reference = scratch.state_dict()
    rest = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    assert rest
    assert all(torch.equal(value, reference[name]) for name, value in rest.items())


def test_the_network_without_a_pretrained_encoder_asks_no_hub_and_warns_of_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    model, is_pretrained = start_model(ModelSettings(name="siamese_unet"), seed=5, logger=LOGGER)
    assert isinstance(model, SiameseUNet)
    assert not is_pretrained
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    with pytest.raises(ValueError, match=r"w\.safetensors: the encoder of SiameseUNet is not one of timm's"):
        model.load_encoder_weights(Path("w.safetensors"))


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_starts_without_the_hub(name: str) -> None:
    model, is_pretrained = start_model(ModelSettings(name=name), seed=5, logger=LOGGER)
    assert isinstance(model, NETWORKS[name])
    assert not is_pretrained


@pytest.mark.parametrize("name", NETWORKS)
def test_training_can_go_on_from_a_saved_state_dict(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = build_model(ModelSettings(name=name))
    torch.save(source.state_dict(), tmp_path / "old.pt")
    settings = ModelSettings(name=name, start_from=str(tmp_path / "old.pt"))
    model, pretrained = start_model(settings, seed=1, logger=logging.getLogger("test"))
    assert not pretrained
    assert weights_digest(model.state_dict()) == weights_digest(source.state_dict())


def test_a_start_file_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    settings = ModelSettings(start_from=str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"other\.pt: model\.start_from is not a state dict of this network"):
        start_model(settings, seed=1, logger=logging.getLogger("test"))
    gone = ModelSettings(start_from=str(tmp_path / "gone.pt"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such file; set model\.start_from"):
        start_model(gone, seed=1, logger=logging.getLogger("test"))
