from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.models.tiny_siamese_unet import TinySiameseUNet, standardised
from cd_pipeline_tests.models.measuring import (
    multiply_adds,
    parameters,
    photos,
    settled,
    without_gradient,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def trained() -> TinySiameseUNet:
    """A network whose batch statistics are not the initial ones, in evaluation mode."""
    torch.manual_seed(3)
    net = TinySiameseUNet()
    settled(net)
    return net


def test_the_network_has_247297_parameters() -> None:
    encoder = timm.create_model("mobilenetv3_small_100", features_only=True, out_indices=(0, 1, 2, 3))
    del encoder.blocks[4:]
    # 1x1 convolutions without bias and batch norms; at strides 2 and 4 three maps meet, then two
    fusions = [(3 * 16, 16), (3 * 16, 32), (2 * 24, 56), (2 * 48, 96)]
    fused = sum(inputs * outputs + 2 * outputs for inputs, outputs in fusions)
    # 2x2 transposed convolutions, then depthwise 3x3, norm, pointwise, norm
    steps = [(96, 56), (56, 32), (32, 16)]
    ups = sum(4 * c * to + to for c, to in steps)
    convs = sum(9 * 2 * to + 2 * 2 * to + 2 * to * to + 2 * to for _, to in steps)
    expected = sum(p.numel() for p in encoder.parameters()) + fused + ups + convs + 16 + 1
    assert parameters(TinySiameseUNet()) == expected == 247_297


def test_it_needs_at_most_a_fifth_more_multiply_adds_than_the_published_network() -> None:
    assert multiply_adds(TinySiameseUNet()) <= 1.2 * multiply_adds(TinyChangeUNet())


def test_exchanging_the_photos_gives_the_same_logits(trained: TinySiameseUNet) -> None:
    before, after = photos(64, 96)
    with torch.no_grad():
        forward, backward = trained(before, after), trained(after, before)
    assert forward.std() > 1e-4
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 80), (64, 16), (256, 256)])
def test_the_output_has_the_size_of_the_input(trained: TinySiameseUNet, height: int, width: int) -> None:
    with torch.no_grad():
        logits = trained(*photos(height, width, 1))
    assert logits.shape == (1, 1, height, width)
    assert torch.isfinite(logits).all()


def test_a_pair_is_judged_alone_whatever_else_is_in_the_batch(trained: TinySiameseUNet) -> None:
    before, after = photos(64, 64, 3)
    with torch.no_grad():
        together, alone = trained(before, after), trained(before[1:2], after[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    assert without_gradient(TinySiameseUNet()) == []


def test_a_photo_is_standardised_channel_by_channel() -> None:
    # values 0.2 and 0.6: mean 0.4, variance 0.04; the second channel is blank
    photo = torch.tensor([[[[0.2, 0.6], [0.6, 0.2]], [[0.5, 0.5], [0.5, 0.5]]]])
    expected = 0.2 / (0.04 + 1e-3) ** 0.5
    found = standardised(photo)
    signs = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    torch.testing.assert_close(found[0, 0], signs * expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(found[0, 1], torch.zeros(2, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gain", [0.7, 1.3])
def test_gain_and_offset_of_a_photo_are_almost_gone_after_standardising(gain: float) -> None:
    photo, _ = photos(32, 32)
    offsets = torch.tensor([0.1, -0.05, 0.2])[None, :, None, None]
    variance = photo.var(dim=(2, 3), correction=0, keepdim=True)
    # only the floor of the variance tells the two apart
    ratio = gain * ((variance + 1e-3) / (gain**2 * variance + 1e-3)).sqrt()
    found, plain = standardised(gain * photo + offsets), standardised(photo)
    torch.testing.assert_close(found, plain * ratio, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() < 0.03


def test_each_photo_is_standardised_alone(trained: TinySiameseUNet) -> None:
    before, after = photos(64, 64)
    brighter = torch.cat([after[:1] * 0.6 + 0.3, after[1:]])
    with torch.no_grad():
        plain, lit = trained(before, after), trained(before, brighter)
        moved = trained(before, after.flip(3))
    assert (lit - plain).abs().max() < 0.2 * (moved - plain).abs().max()
    assert torch.equal(lit[1], plain[1])


def test_pretrained_weights_become_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(99)
    state = timm.create_model("mobilenetv3_small_100", pretrained=False).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    net = TinySiameseUNet()
    rest = {name: value.clone() for name, value in net.state_dict().items() if "encoder" not in name}
    net.load_encoder_weights(tmp_path / "model.safetensors")
    encoder = net.encoder.backbone.state_dict()
    assert len(encoder) > 100
    assert all(torch.equal(value, state[name]) for name, value in encoder.items())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in rest.items())


def test_our_own_state_dict_loads_with_nothing_dropped(trained: TinySiameseUNet) -> None:
    target = TinySiameseUNet()
    assert target.load_published_state(trained.state_dict()) == []
    with torch.no_grad():
        assert torch.equal(target.eval()(*photos(32, 32)), trained(*photos(32, 32)))


def test_a_state_dict_of_the_other_network_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"fusions\.0\.mix\.weight"):
        TinySiameseUNet().load_published_state(TinyChangeUNet().state_dict())


def test_dead_blocks_are_those_of_the_published_network_alone() -> None:
    state = {**TinySiameseUNet().state_dict(), "encoder.backbone.blocks.4.0.conv.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"blocks\.4\.0\.conv\.weight"):
        TinySiameseUNet().load_published_state(state)
