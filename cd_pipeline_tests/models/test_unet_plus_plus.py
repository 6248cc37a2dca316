import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cd_pipeline.models.unet import UNet
from cd_pipeline.models.unet_plus_plus import UNetPlusPlus
from cd_pipeline_tests.models.measuring import parameters
from cd_pipeline_tests.models.one_image import (
    batch_norms,
    conv,
    images,
    settled,
    without_gradient,
    without_storage,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TINY = (16, 24, 32, 16)


def by_hand(w: tuple[int, ...], *, deconv: bool = False) -> int:
    encoder = sum(conv(i, o) + conv(o, o) for i, o in zip((3, *w), w, strict=False))
    depth, nodes = len(w) - 1, 0
    for i in range(depth):
        for j in range(1, depth - i + 1):
            nodes += 4 * w[i + 1] * w[i] + w[i] if deconv else 0
            nodes += conv(j * w[i] + (w[i] if deconv else w[i + 1]), w[i]) + conv(w[i], w[i])
    return encoder + nodes + depth * (w[0] + 1)


def described(net: UNetPlusPlus, image: Tensor) -> list[Tensor]:
    """The figure of the paper, node by node; the layers are the network's own."""

    def node(name: str, *inputs: Tensor) -> Tensor:
        return net.nodes[name].block(torch.cat(inputs, dim=1))

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    x00, x10, x20, x30, x40 = net.encoder(image)
    x01 = node("0_1", up(x10), x00)
    x11 = node("1_1", up(x20), x10)
    x02 = node("0_2", up(x11), x00, x01)
    x21 = node("2_1", up(x30), x20)
    x12 = node("1_2", up(x21), x10, x11)
    x03 = node("0_3", up(x12), x00, x01, x02)
    x31 = node("3_1", up(x40), x30)
    x22 = node("2_2", up(x31), x20, x21)
    x13 = node("1_3", up(x22), x10, x11, x12)
    x04 = node("0_4", up(x13), x00, x01, x02, x03)
    return [output(x) for output, x in zip(net.outputs, (x01, x02, x03, x04), strict=True)]


def test_the_parameters_are_those_of_the_hand_computation() -> None:
    widths = (32, 64, 128, 256, 512)
    assert parameters(without_storage(UNetPlusPlus)) == by_hand(widths) == 9_159_780
    transposed = without_storage(lambda: UNetPlusPlus(upsampling="deconv"))
    assert parameters(transposed) == by_hand(widths, deconv=True) == 9_045_924


def test_every_head_answers_as_in_the_figure() -> None:
    torch.manual_seed(3)
    net, image = settled(UNetPlusPlus(classes=2, widths=(8, 8, 16, 8, 16))), images(48, 32)
    with torch.no_grad():
        ours, theirs = net.heads(image), described(net, image)
    assert len(ours) == 4
    assert all(head.std() > 1e-3 for head in ours)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_with_two_levels_it_is_a_unet() -> None:
    torch.manual_seed(3)
    nested, plain = settled(UNetPlusPlus(widths=(8, 16))), UNet(widths=(8, 16), bias=False).eval()
    values = nested.state_dict().values()
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(nested(images(32, 32)), plain(images(32, 32)), rtol=0, atol=1e-6)


def test_training_gets_every_head_and_evaluation_the_last() -> None:
    net, image = UNetPlusPlus(widths=TINY), images(32, 32)
    with torch.no_grad():
        heads = net.train()(image)
        assert isinstance(heads, list)
        assert [head.shape for head in heads] == 3 * [(2, 1, 32, 32)]
        answer = net.eval()(image)
        torch.testing.assert_close(answer, net.heads(image)[-1], rtol=0, atol=0)


def test_without_deep_supervision_there_is_one_head_in_training_too() -> None:
    net = UNetPlusPlus(widths=TINY, deep_supervision=False)
    assert len(net.outputs) == 1
    assert net.train()(images(32, 32)).shape == (2, 1, 32, 32)
    assert without_gradient(net) == []


def test_the_mean_over_heads_trains_each_of_them() -> None:
    torch.manual_seed(0)
    net = UNetPlusPlus(widths=TINY)
    F.mse_loss(net.heads(images(32, 32))[0], torch.zeros(2, 1, 32, 32)).backward()
    reached = {
        name.split(".")[1] for name, p in net.nodes.named_parameters(prefix="nodes") if p.grad is not None
    }
    assert reached == {"0_1"}  # the first head alone trains the shallowest U-Net alone
    net.zero_grad()
    assert without_gradient(net) == []


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47)])
@pytest.mark.parametrize("upsampling", ["bilinear", "bilinear_conv", "deconv"])
def test_the_output_has_the_size_of_the_input(upsampling: str, height: int, width: int) -> None:
    net = UNetPlusPlus(classes=3, widths=(8, 8, 8, 8, 8), upsampling=upsampling).eval()
    with torch.no_grad():
        logits = net(images(height, width))
    assert logits.shape == (2, 3, height, width)
    assert torch.isfinite(logits).all()


def test_group_norm_has_no_batch_norm() -> None:
    net = UNetPlusPlus(widths=TINY, norm="group")
    assert not batch_norms(net)
    assert without_gradient(net) == []
