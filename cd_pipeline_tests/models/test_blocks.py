import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cd_pipeline.models.blocks import PlainEncoder, Upsample, conv_block, double_conv, norm_layer

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize(("upsampling", "channels"), [("bilinear", 16), ("bilinear_conv", 8), ("deconv", 8)])
@pytest.mark.parametrize("size", [(14, 10), (13, 9), (14, 9)])
def test_a_step_up_has_the_size_asked_for(upsampling: str, channels: int, size: tuple[int, int]) -> None:
    up = Upsample(16, 8, upsampling=upsampling)
    assert up(torch.rand(2, 16, 7, 5), size).shape == (2, channels, *size)
    assert up.out_channels == channels


def test_bilinear_upsampling_interpolates_between_corners() -> None:
    up = Upsample(1, 1, upsampling="bilinear")
    found = up(torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]]), (4, 4))
    steps = torch.arange(4.0)
    torch.testing.assert_close(found[0, 0], steps[None] + 2 * steps[:, None])


def test_the_1x1_convolution_may_as_well_come_after_the_interpolation() -> None:
    torch.manual_seed(0)
    up, x = Upsample(16, 8, upsampling="bilinear_conv"), torch.randn(2, 16, 7, 5)
    after = up.conv(F.interpolate(x, size=(14, 10), mode="bilinear", align_corners=True))
    torch.testing.assert_close(up(x, (14, 10)), after, rtol=0, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_place_is_upsampled_whatever_the_size_of_the_image_only_without_aligned_corners(
    align_corners: bool,
) -> None:
    up, x = Upsample(1, 1, upsampling="bilinear", align_corners=align_corners), torch.rand(1, 1, 8, 16)
    whole, part = up(x, (16, 32)), up(x[..., :8], (16, 16))
    assert torch.allclose(whole[..., :14], part[..., :14], rtol=0, atol=1e-6) is not align_corners


def test_pooling_keeps_an_odd_last_row_and_column() -> None:
    keep = PlainEncoder((3, 3), lambda _in, _out: nn.Identity())
    image = torch.zeros(1, 3, 5, 7)
    image[..., 4, 6] = 1
    full, half = keep(image)
    assert full.shape[-2:] == (5, 7)
    assert half.shape[-2:] == (3, 4)
    assert half[..., 2, 3].eq(1).all()


def test_a_convolution_has_a_bias_only_where_no_norm_adds_one() -> None:
    assert [conv_block(8, 8, norm=norm)[0].bias is None for norm in ("batch", "group", "none")] == [
        True,
        True,
        False,
    ]
    assert conv_block(8, 8, norm="batch", bias=True)[0].bias is not None
    assert all(block[0].bias is None for block in double_conv(8, 16, norm="none", bias=False))


def test_a_width_that_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="divisible"):
        norm_layer("group", 12)
