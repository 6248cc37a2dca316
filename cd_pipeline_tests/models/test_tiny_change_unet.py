from collections.abc import Mapping

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline_tests.models.measuring import parameters, photos, without_gradient

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class PublishedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("mobilenetv3_small_100", pretrained=False, features_only=True)


class PublishedSeparable(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.pw(self.bn1(self.dw(x)).relu())).relu()


class PublishedNet(nn.Module):
    """The published network with its dead blocks, written from its description alone."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(7, 3, 1)
        self.encoder = PublishedEncoder()
        self.skip1, self.skip2 = nn.Conv2d(16, 24, 1), nn.Conv2d(16, 40, 1)
        self.skip3, self.bott = nn.Conv2d(24, 64, 1), nn.Conv2d(48, 96, 1)
        self.decoder = nn.ModuleDict(
            {
                "up3": nn.ConvTranspose2d(96, 64, 2, stride=2),
                "c3": PublishedSeparable(128, 64),
                "up2": nn.ConvTranspose2d(64, 40, 2, stride=2),
                "c2": PublishedSeparable(80, 40),
                "up1": nn.ConvTranspose2d(40, 24, 2, stride=2),
                "c1": PublishedSeparable(48, 24),
            }
        )
        self.head = nn.Conv2d(24, 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        difference = torch.abs(before - after).mean(1, keepdim=True)
        f1, f2, f3, f4, _ = self.encoder.backbone(self.reduce(torch.cat([before, after, difference], 1)))
        d = self.decoder
        x = d["c3"](torch.cat([d["up3"](self.bott(f4)), self.skip3(f3)], 1))
        x = d["c2"](torch.cat([d["up2"](x), self.skip2(f2)], 1))
        x = d["c1"](torch.cat([d["up1"](x), self.skip1(f1)], 1))
        return F.interpolate(self.head(x), size=before.shape[2:], mode="bilinear", align_corners=False)


def is_dead(key: str) -> bool:
    return key.split(".")[:4] in (
        ["encoder", "backbone", "blocks", "4"],
        ["encoder", "backbone", "blocks", "5"],
    )


@pytest.fixture(scope="module")
def published() -> PublishedNet:
    """A published network whose batch statistics are not the initial ones."""
    torch.manual_seed(3)
    net = PublishedNet().train()
    with torch.no_grad():
        net(*photos(64, 64, 4))
    return net.eval()


def test_the_network_has_252361_parameters() -> None:
    assert parameters(TinyChangeUNet()) == 252_361


def test_the_published_network_has_988849_parameters_of_which_736488_are_dead(
    published: PublishedNet,
) -> None:
    dead = sum(p.numel() for name, p in published.named_parameters() if is_dead(name))
    assert (parameters(published), dead) == (988_849, 736_488)


def test_an_old_state_dict_loads_and_drops_exactly_the_dead_keys(published: PublishedNet) -> None:
    state = published.state_dict()
    net = TinyChangeUNet()
    dropped = net.load_published_state(state)
    assert sorted(dropped) == sorted(key for key in state if is_dead(key))
    assert set(net.state_dict()) == set(state) - set(dropped)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_loaded_network_answers_as_the_published_one(published: PublishedNet) -> None:
    net = TinyChangeUNet().eval()
    net.load_published_state(published.state_dict())
    with torch.no_grad():
        ours, reference = net(*photos(96, 64)), published(*photos(96, 64))
    assert reference.std() > 1e-3
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-6)


def test_loading_an_old_state_dict_leaves_it_as_it_was(published: PublishedNet) -> None:
    state = published.state_dict()
    keys = list(state)
    TinyChangeUNet().load_published_state(state)
    assert list(state) == keys


def test_our_own_state_dict_loads_with_nothing_dropped() -> None:
    source, target = TinyChangeUNet(), TinyChangeUNet()
    assert target.load_published_state(source.state_dict()) == []
    assert torch.equal(target.head.weight, source.head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": None}, "head.bias"),
        ({"encoder.backbone.blocks.3.0.conv_pw.weight": None}, "blocks.3.0.conv_pw.weight"),
        ({"encoder.backbone.blocks.6.0.conv.weight": torch.zeros(1)}, "blocks.6.0.conv.weight"),
        ({"encoder.backbone.blocks.40.weight": torch.zeros(1)}, "blocks.40.weight"),
        ({"module.head.bias": torch.zeros(1)}, "module.head.bias"),
        ({"reduce.weight": torch.zeros(3, 6, 1, 1)}, "reduce.weight"),
    ],
)
def test_any_other_missing_or_unexpected_key_or_shape_is_refused(
    published: PublishedNet, change: Mapping[str, Tensor | None], message: str
) -> None:
    state = {**published.state_dict(), **change}
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(RuntimeError, match=message):
        TinyChangeUNet().load_published_state(state)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (256, 256), (384, 384)])
def test_the_output_has_the_size_of_the_input(height: int, width: int) -> None:
    with torch.no_grad():
        logits = TinyChangeUNet().eval()(*photos(height, width, 1))
    assert logits.shape == (1, 1, height, width)
    assert torch.isfinite(logits).all()


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    assert without_gradient(TinyChangeUNet()) == []


def test_a_pair_is_judged_alone_whatever_else_is_in_the_batch() -> None:
    net = TinyChangeUNet().eval()
    before, after = photos(64, 64, 3)
    with torch.no_grad():
        together, alone = net(before, after), net(before[1:2], after[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_in_training_the_first_convolution_gets_its_channels_last_and_the_same_values() -> None:
    net = TinyChangeUNet().eval()
    both = torch.rand(2, 6, 64, 64).to(memory_format=torch.channels_last)
    given: list[Tensor] = []
    net.reduce.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    with torch.no_grad():
        expected = net(*both.split(3, dim=1))
        net.training = True  # of this module alone: batch norms go on as they were
        torch.testing.assert_close(net(*both.split(3, dim=1)), expected, rtol=0, atol=1e-5)
    assert given[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given[0], given[1])
