from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from cd_pipeline.models.resnet50_unet import ResNet50UNet
from cd_pipeline_tests.models.measuring import parameters
from cd_pipeline_tests.models.one_image import (
    Tensors,
    conv,
    images,
    settled,
    without_gradient,
    without_storage,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def net() -> ResNet50UNet:
    """With batch statistics that are not the initial ones, in evaluation mode."""
    torch.manual_seed(3)
    net = ResNet50UNet(classes=2)
    settled(net, 2)
    return net


def bottleneck(inputs: int, between: int) -> int:
    outputs = 4 * between
    norms = 2 * (between + between + outputs)
    shortcut = inputs * outputs + 2 * outputs if inputs != outputs else 0
    return inputs * between + 9 * between * between + between * outputs + norms + shortcut


def test_the_parameters_are_those_of_the_hand_computation() -> None:
    stem = 7 * 7 * 3 * 64 + 2 * 64
    stages = sum(bottleneck(i, 64) for i in (64, 256, 256)) + sum(
        bottleneck(i, 128) for i in (256, 512, 512, 512)
    )
    convs = conv(512, 512) + conv(512, 256) + conv(512, 256) + conv(256, 64) + conv(128, 64)
    ups = 2 * (4 * 256 * 256 + 256) + 4 * 128 * 128 + 128
    rest = stem + stages + convs + ups
    assert parameters(without_storage(ResNet50UNet)) == rest + 65 == 6_977_537
    assert parameters(without_storage(lambda: ResNet50UNet(classes=22))) == rest + 22 * 65 == 6_978_902


def test_the_encoder_is_the_librarys_up_to_stride_8(net: ResNet50UNet, tmp_path: Path) -> None:
    torch.manual_seed(99)
    whole = timm.create_model("resnet50", pretrained=False).eval()
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    fresh = ResNet50UNet(classes=2).eval()
    rest = {name: value.clone() for name, value in fresh.state_dict().items() if "encoder" not in name}
    fresh.load_encoder_weights(tmp_path / "model.safetensors")
    x = images(64, 64)
    with torch.no_grad():
        found = fresh.encoder(x)
        stem = whole.act1(whole.bn1(whole.conv1(x)))
        first = whole.layer1(whole.maxpool(stem))
        expected = [stem, first, whole.layer2(first)]
    assert [tuple(features.shape[1:]) for features in found] == [(64, 32, 32), (256, 16, 16), (512, 8, 8)]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in rest.items())


def test_the_decoder_is_that_of_the_description(net: ResNet50UNet) -> None:
    tensors = Tensors({name: value for name, value in net.state_dict().items() if "encoder" not in name})
    with torch.no_grad():
        skip2, skip4, x = net.encoder(images(32, 48))
        x = tensors.conv_norm_relu(tensors.conv_norm_relu(x))
        x = tensors.conv_norm_relu(torch.cat([tensors.deconv(x), skip4], 1))
        x = tensors.conv_norm_relu(tensors.deconv(x))
        x = tensors.conv_norm_relu(tensors.deconv(torch.cat([x, skip2], 1)))
        expected, found = tensors.conv(x, bias=True), net(images(32, 48))
    assert tensors.left == []
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (37, 50)])
def test_the_output_has_the_size_of_the_input(net: ResNet50UNet, height: int, width: int) -> None:
    with torch.no_grad():
        logits = net.eval()(images(height, width))
    assert logits.shape == (2, 2, height, width)
    assert torch.isfinite(logits).all()


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    net = ResNet50UNet()
    for name, module in net.encoder.named_modules():
        if name.endswith("bn3"):  # timm starts each residual branch at zero
            nn.init.ones_(module.weight)
    assert without_gradient(net) == []
