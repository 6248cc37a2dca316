import itertools

import pytest
import torch
import torch.nn.functional as F

from cd_pipeline.models.attention_unet import AttentionGate, AttentionUNet
from cd_pipeline.models.unet import UNet
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

TINY = (16, 24, 32)


def with_gates(bias: float) -> AttentionUNet:
    """A network whose gates all give sigmoid(bias)."""
    torch.manual_seed(3)
    net = AttentionUNet(widths=TINY)
    with torch.no_grad():
        for up in net.ups:
            up.gate.psi.weight.zero_()
            up.gate.psi.bias.fill_(bias)
    settled(net)
    return net


def test_the_parameters_are_those_of_the_hand_computation() -> None:
    w = (32, 64, 128, 256, 512)
    encoder = sum(conv(i, o) + conv(o, o) for i, o in itertools.pairwise((3, *w)))
    steps = list(itertools.pairwise(w[::-1]))
    decoder = sum(conv(i + o, o) + conv(o, o) for i, o in steps)
    gates = sum(4 * o * (o // 2) + i * (o // 2) + o // 2 + o // 2 + 1 for i, o in steps)
    assert parameters(without_storage(AttentionUNet)) == encoder + decoder + gates + 33 == 8_111_205


def test_the_gate_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    gate, skip, coarse = AttentionGate(6, 8), torch.randn(2, 6, 10, 12), torch.randn(2, 8, 5, 6)
    patches = skip.reshape(2, 6, 5, 2, 6, 2)  # each 2x2 square of the skip meets one coarse place
    theta = torch.einsum("nciajb,ocab->noij", patches, gate.theta.weight)
    phi = torch.einsum("ncij,oc->noij", coarse, gate.phi.weight[..., 0, 0]) + gate.phi.bias[:, None, None]
    score = (
        torch.einsum("noij,o->nij", (theta + phi).clamp(min=0), gate.psi.weight[0, :, 0, 0]) + gate.psi.bias
    )
    weights = 1 / (1 + torch.exp(-score))[:, None]
    expected = F.interpolate(weights, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(gate(skip, coarse), expected, rtol=0, atol=1e-5)


def test_with_open_gates_it_is_a_unet() -> None:
    net, plain = with_gates(50.0), UNet(widths=TINY, bias=False).eval()
    kept = [value for name, value in net.state_dict().items() if ".gate." not in name]
    plain.load_state_dict(dict(zip(plain.state_dict(), kept, strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(net(images(37, 32)), plain(images(37, 32)), rtol=0, atol=1e-6)


def test_with_closed_gates_nothing_of_the_skips_comes_through() -> None:
    net = with_gates(-200.0)
    skips = [[torch.rand(1, c, 32 // s, 32 // s) for s, c in ((1, 16), (2, 24))] for _ in range(2)]
    deepest, logits = torch.rand(1, 32, 8, 8), []
    with torch.no_grad():
        for fine, coarse in skips:
            x = net.ups[0](deepest, coarse)
            logits.append(net.head(net.ups[1](x, fine)))
    assert logits[0].std() > 1e-4
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47)])
@pytest.mark.parametrize("upsampling", ["bilinear", "bilinear_conv", "deconv"])
def test_the_output_has_the_size_of_the_input(upsampling: str, height: int, width: int) -> None:
    net = AttentionUNet(classes=3, widths=(8, 8, 8, 8, 8), upsampling=upsampling).eval()
    with torch.no_grad():
        logits = net(images(height, width))
    assert logits.shape == (2, 3, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_parameter_gets_a_gradient(norm: str) -> None:
    torch.manual_seed(0)
    assert without_gradient(AttentionUNet(widths=TINY, norm=norm)) == []


def test_group_norm_has_no_batch_norm() -> None:
    assert not batch_norms(AttentionUNet(widths=TINY, norm="group"))
