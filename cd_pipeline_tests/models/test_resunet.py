import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cd_pipeline.models.resunet import ResidualBlock, ResUNet
from cd_pipeline_tests.models.measuring import parameters
from cd_pipeline_tests.models.one_image import (
    Tensors,
    batch_norms,
    conv,
    images,
    settled,
    without_gradient,
    without_storage,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TINY = (16, 24, 32)


def block(inputs: int, outputs: int) -> int:
    return conv(inputs, outputs) + conv(outputs, outputs) + (inputs * outputs if inputs != outputs else 0)


def residual(tensors: Tensors, x: Tensor, *, projected: bool) -> Tensor:
    inner = tensors.conv_norm_relu(x)
    inner = tensors.norm(tensors.conv(inner, bias=False))
    return F.relu(inner + (tensors.conv(x, bias=False) if projected else x))


def described(tensors: Tensors, image: Tensor) -> Tensor:
    """The network for four levels of different widths, written from its description alone."""
    maps, x = [], image
    for level in range(4):
        x = F.max_pool2d(x, 2) if level else x
        x = residual(tensors, residual(tensors, x, projected=True), projected=False)
        maps.append(x)
    for skip in maps[-2::-1]:
        x = torch.cat([tensors.deconv(x), skip], 1)
        x = residual(tensors, x, projected=True)
    return tensors.conv(x, bias=True)


def test_the_parameters_are_those_of_the_hand_computation() -> None:
    w = (32, 64, 128, 256, 512)
    encoder = sum(block(i, o) + block(o, o) for i, o in itertools.pairwise((3, *w)))
    steps = list(itertools.pairwise(w[::-1]))
    decoder = sum(block(i + o, o) for i, o in steps)
    assert parameters(without_storage(ResUNet)) == encoder + decoder + 33 == 14_574_177
    transposed = sum(4 * i * o + o + block(o + o, o) for i, o in steps)
    net = without_storage(lambda: ResUNet(upsampling="deconv", norm="group"))
    assert parameters(net) == encoder + transposed + 33 == 14_400_577


def test_it_answers_as_the_network_of_the_description() -> None:
    torch.manual_seed(3)
    net, image = settled(ResUNet(classes=2, widths=(8, 16, 24, 32), upsampling="deconv")), images(48, 80)
    tensors = Tensors(net.state_dict())
    with torch.no_grad():
        ours, theirs = net(image), described(tensors, image)
    assert tensors.left == []
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_block_whose_last_norm_is_zero_lets_its_input_through() -> None:
    net, x = ResidualBlock(16, 16, norm="group"), torch.randn(2, 16, 9, 7)
    torch.nn.init.zeros_(net.convs[-1].weight)
    torch.testing.assert_close(net(x), x.clamp(min=0), rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47)])
@pytest.mark.parametrize("upsampling", ["bilinear", "bilinear_conv", "deconv"])
def test_the_output_has_the_size_of_the_input(upsampling: str, height: int, width: int) -> None:
    net = ResUNet(classes=3, widths=(8, 8, 8, 8, 8), upsampling=upsampling).eval()
    with torch.no_grad():
        logits = net(images(height, width))
    assert logits.shape == (2, 3, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_parameter_gets_a_gradient(norm: str) -> None:
    torch.manual_seed(0)
    assert without_gradient(ResUNet(widths=TINY, norm=norm)) == []


def test_group_norm_has_no_batch_norm() -> None:
    assert not batch_norms(ResUNet(widths=TINY, norm="group"))
