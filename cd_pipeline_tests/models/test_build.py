import logging
import re
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

from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.build import NETWORKS, build_model, start_model
from cd_pipeline.models.settings import NETWORK_OPTIONS, ONE_IMAGE_NETWORKS, ModelSettings
from cd_pipeline.models.siamese_unet import SiameseUNet
from cd_pipeline.models.tiny_cd import TinyCD
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.models.tiny_siamese_unet import TinySiameseUNet
from cd_pipeline.training.checkpoint import weights_digest
from cd_pipeline_tests.models.measuring import photos

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


OPTIONS: dict[str, object] = {
    "fusion": "difference",
    "encoder": "tf_mobilenetv3_small_minimal_100",
    "width": 64,
    "widths": (8, 16),
    "norm": "group",
    "upsampling": "deconv",
    "align_corners": False,
    "bias": False,
    "deep_supervision": False,
}
"""A value of each that is not the default."""
TAKERS = {option: [name for name, taken in NETWORK_OPTIONS.items() if option in taken] for option in OPTIONS}


def test_the_options_are_all_there_are() -> None:
    assert {option for taken in NETWORK_OPTIONS.values() for option in taken} == set(OPTIONS)
    assert TAKERS["fusion"] == TAKERS["width"] == ["siamese_unet"]
    assert TAKERS["norm"] == ["siamese_unet", "unet", "unet_plus_plus", "attention_unet", "resunet"]
    assert (TAKERS["bias"], TAKERS["deep_supervision"]) == (["unet"], ["unet_plus_plus"])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, o, value) for name in NETWORKS for o, value in OPTIONS.items() if name not in TAKERS[o]],
)
def test_an_option_that_the_network_would_ignore_is_refused_with_those_that_take_it(
    name: str, option: str, value: object
) -> None:
    takers = ", ".join(TAKERS[option])
    message = f"{option} is {value!r}, which {name} does not take; leave it out, or use one of: {takers}"
    with pytest.raises(ValidationError, match=re.escape(message)):
        ModelSettings(name=name, **{option: value})


def test_settings_come_back_from_their_dump() -> None:
    chosen = [ModelSettings(name=name) for name in NETWORKS]
    chosen.append(ModelSettings(name="siamese_unet", width=8, fusion="difference", norm="group"))
    chosen.append(ModelSettings(name="unet", widths=(8, 16), norm="none", upsampling="deconv", bias=False))
    for settings in chosen:
        assert ModelSettings(**settings.model_dump()) == settings


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 12}, {"fusion": "sum"}, {"norm": "layer"}])
def test_an_option_out_of_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ModelSettings(name="siamese_unet", **wrong)


@pytest.mark.parametrize(
    "wrong", [{"widths": (8,)}, {"widths": (8, 12)}, {"widths": (0, 8)}, {"upsampling": "nearest"}]
)
def test_an_option_of_one_image_networks_out_of_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ModelSettings(name="unet", **wrong)


def test_widths_norm_and_upsampling_reach_a_one_image_network() -> None:
    network = build_model(ModelSettings(name="unet", widths=(8, 16), norm="group", upsampling="deconv"))
    kinds = {type(module) for module in network.modules()}
    assert {nn.GroupNorm, nn.ConvTranspose2d} <= kinds
    assert nn.BatchNorm2d not in kinds
    assert [level[0][0].out_channels for level in network.encoder.levels] == [8, 16]


SMALL = {
    name: {"widths": (8, 16)} if "widths" in NETWORK_OPTIONS[name] else dict[str, object]()
    for name in ONE_IMAGE_NETWORKS
}


@pytest.mark.parametrize("name", ONE_IMAGE_NETWORKS)
def test_a_one_image_network_has_a_logit_a_class(name: str) -> None:
    network = build_model(ModelSettings(name=name, **SMALL[name]), Task(pictures=1, classes=5)).eval()
    with torch.no_grad():
        assert network(photos(32, 32)[0]).shape == (2, 5, 32, 32)


def test_without_a_task_a_network_has_one_class_and_its_own_pictures() -> None:
    with torch.no_grad():
        one = build_model(ModelSettings(name="unet", widths=(8, 16))).eval()
        assert one(photos(32, 32)[0]).shape == (2, 1, 32, 32)
        two = build_model(ModelSettings(name="siamese_unet", width=8)).eval()
        assert two(*photos(32, 32)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("name", "task"),
    [(name, Task(pictures=2)) for name in ONE_IMAGE_NETWORKS]
    + [(name, Task(pictures=1)) for name in NETWORKS if name not in ONE_IMAGE_NETWORKS]
    + [(name, Task(pictures=2, classes=3)) for name in NETWORKS if name not in ONE_IMAGE_NETWORKS]
    + [("unet", Task(pictures=2, classes=3)), ("siamese_unet", Task(pictures=1, classes=3))],
)
def test_a_network_that_is_not_for_the_task_is_refused_with_those_of_one_image(name: str, task: Task) -> None:
    takes = 1 if name in ONE_IMAGE_NETWORKS else 2
    message = (
        f"model.name is {name}, which takes {takes} pictures and is not for {task.pictures} pictures and "
        f"{task.classes} classes; one image: {', '.join(ONE_IMAGE_NETWORKS)}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(ModelSettings(name=name), task)
    with pytest.raises(ValueError, match=re.escape(message)):
        start_model(ModelSettings(name=name), task, seed=1, logger=LOGGER)


@pytest.mark.parametrize("scaling", ["min_max", "mean_std"])
def test_a_scaled_network_starts_from_the_seed_of_the_plain_one_and_goes_on_from_its_state(
    scaling: str, tmp_path: Path
) -> None:
    settings = ModelSettings(name="unet", widths=(8, 16))
    plain, _ = start_model(settings, seed=5, logger=LOGGER)
    torch.save(plain.state_dict(), tmp_path / "old.pt")
    scaled_input = InputSettings.model_validate({"scaling": scaling})
    going_on = settings.model_copy(update={"start_from": str(tmp_path / "old.pt")})
    for chosen, seed in ((settings, 5), (going_on, 6)):
        scaled, pretrained = start_model(chosen, None, scaled_input, seed=seed, logger=LOGGER)
        assert not pretrained
        assert list(scaled.state_dict()) == [f"network.{name}" for name in plain.state_dict()]
        for name, value in plain.state_dict().items():
            assert torch.equal(scaled.state_dict()[f"network.{name}"], value)


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
