import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.unet import UNet
from cd_pipeline_tests.models.measuring import parameters
from cd_pipeline_tests.models.one_image import (
    Tensors,
    batch_norms,
    conv,
    images,
    multiply_adds,
    settled,
    without_gradient,
    without_storage,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

NARROW = (32, 64, 128, 256, 512)
WIDE = (64, 128, 256, 512, 1024)
TINY = (16, 24, 32)
UPSAMPLINGS = ("bilinear", "bilinear_conv", "deconv")


def by_hand(w: tuple[int, ...], upsampling: str = "bilinear", classes: int = 1) -> int:
    """With batch or group norm, and biases."""
    encoder = sum(conv(i, o, bias=True) + conv(o, o, bias=True) for i, o in itertools.pairwise((3, *w)))
    steps = list(itertools.pairwise(w[::-1]))
    taps = {"bilinear": 0, "bilinear_conv": 1, "deconv": 4}[upsampling]
    ups = sum(taps * i * o + (o if taps else 0) for i, o in steps)
    joined = [(o if taps else i) + o for i, o in steps]
    decoder = sum(
        conv(i, o, bias=True) + conv(o, o, bias=True) for i, o in zip(joined, w[-2::-1], strict=True)
    )
    return encoder + ups + decoder + w[0] * classes + classes


def described(tensors: Tensors, image: Tensor) -> Tensor:
    """The U-Net for cracks, written from its description alone."""
    skips, x = [], image
    for level in range(5):
        if level:
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = tensors.conv_norm_relu(tensors.conv_norm_relu(x, bias=True), bias=True)
    for skip in skips[::-1]:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = torch.cat([x, skip], 1)
        x = tensors.conv_norm_relu(tensors.conv_norm_relu(x, bias=True), bias=True)
    return tensors.conv(x, bias=True)


def test_the_network_for_cracks_has_7852545_parameters() -> None:
    assert parameters(without_storage(UNet)) == by_hand(NARROW) == 7_852_545


def test_the_network_for_pascal_voc_has_31392086_parameters() -> None:
    net = without_storage(lambda: UNet(classes=22, widths=WIDE))
    assert parameters(net) == by_hand(WIDE, classes=22) == 31_392_086
    assert [up.block[0][0].in_channels for up in net.ups] == [1536, 768, 384, 192]


def test_norms_without_biases_or_biases_without_norms_have_fewer_parameters() -> None:
    outputs = 4 * sum(WIDE) - 2 * WIDE[-1]  # channels that 3x3 convolutions put out
    for options, per_output in [
        ({"bias": False}, 2),
        ({"norm": "none"}, 1),
        ({"norm": "none", "bias": False}, 0),
    ]:
        net = without_storage(lambda options=options: UNet(classes=22, widths=WIDE, **options))
        assert parameters(net) == 31_392_086 - (3 - per_output) * outputs


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_base_64_and_32_have_the_parameters_of_the_hand_computation(norm: str, upsampling: str) -> None:
    for widths in (NARROW, WIDE):
        net = without_storage(lambda widths=widths: UNet(widths=widths, norm=norm, upsampling=upsampling))
        assert parameters(net) == by_hand(widths, upsampling)


def test_it_needs_the_published_multiply_adds() -> None:
    # 9 x inputs x outputs a pixel at strides 1 to 16, twice an encoder level and twice a decoder level
    encoder = [(3 + 32) * 32, (32 + 64) * 64, (64 + 128) * 128, (128 + 256) * 256, (256 + 512) * 512]
    decoder = [(96 + 32) * 32, (192 + 64) * 64, (384 + 128) * 128, (768 + 256) * 256, 0]
    pixels = [512 * 512 >> 2 * level for level in range(5)]
    by_level = [9 * (e + d) * n for e, d, n in zip(encoder, decoder, pixels, strict=True)]
    expected = sum(by_level) + 32 * pixels[0]
    found = multiply_adds(without_storage(UNet), 512)
    assert found == expected == 55_801_020_416
    # the published 55.87 G count a bias as one more
    biases = (
        sum(count * w * n for count, w, n in zip((4, 4, 4, 4, 2), NARROW, pixels, strict=True)) + pixels[0]
    )
    assert round((found + biases) / 1e9, 2) == 55.87


def test_it_answers_as_the_network_of_the_description() -> None:
    torch.manual_seed(3)
    net, image = settled(UNet(widths=(8, 8, 16, 16, 16))), images(48, 80)
    tensors = Tensors(net.state_dict())
    with torch.no_grad():
        ours, theirs = net(image), described(tensors, image)
    assert tensors.left == []
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (37, 50)])
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_the_output_has_the_size_of_the_input(upsampling: str, height: int, width: int) -> None:
    net = UNet(classes=5, widths=(8, 8, 8, 8, 8), upsampling=upsampling).eval()
    with torch.no_grad():
        logits = net(images(height, width))
    assert logits.shape == (2, 5, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize(("norm", "bias"), [("batch", False), ("group", True), ("none", True)])
def test_every_parameter_gets_a_gradient(norm: str, bias: bool, upsampling: str) -> None:
    torch.manual_seed(0)
    assert without_gradient(UNet(widths=TINY, norm=norm, bias=bias, upsampling=upsampling)) == []


def test_biases_before_batch_norm_change_nothing_in_training() -> None:
    torch.manual_seed(0)
    net, image = UNet(widths=TINY).train(), images(32, 32)
    with torch.no_grad():
        before = net(image)
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module is not net.head:
                module.bias += torch.randn_like(module.bias)
        torch.testing.assert_close(net(image), before, rtol=0, atol=1e-4)


def test_group_norm_takes_the_place_of_every_batch_norm() -> None:
    group = UNet(widths=TINY, norm="group")
    norms = [module for module in group.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == len(batch_norms(UNet(widths=TINY))) == 10
    assert {norm.num_groups for norm in norms} == {8}
    assert not batch_norms(group)
    assert not list(group.buffers())


def test_with_group_norm_an_image_is_judged_alone_even_in_training() -> None:
    net, batch = UNet(widths=TINY, norm="group").train(), images(32, 32, 3)
    with torch.no_grad():
        torch.testing.assert_close(net(batch)[1:2], net(batch[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "same"), [({"align_corners": False}, True), ({"upsampling": "deconv"}, True), ({}, False)]
)
def test_a_tile_is_judged_as_in_the_whole_image_unless_corners_are_aligned(
    options: dict[str, object], same: bool
) -> None:
    torch.manual_seed(3)
    net, image = settled(UNet(widths=(8, 16), **options)), images(64, 64)
    with torch.no_grad():
        whole, tile = net(image), net(image[..., :32, :32])
    difference = (whole[..., :20, :20] - tile[..., :20, :20]).abs().max()  # 12 from the cut
    assert bool(difference <= 1e-5) is same
