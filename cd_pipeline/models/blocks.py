"""What the one-image networks share: convolutions, upsampling, the encoder, a step of the decoder.

A network picks a `Block` for its levels and an `Upsampler` for its steps; the parts below only compose them.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.network import Network
from cd_pipeline.models.settings import GROUPS, Norm, Upsampling

Block = Callable[[int, int], nn.Module]
"""From channels in and out to the layers of a level: NxCxHxW to NxC'xHxW."""


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Return batch norm, group norm with 8 groups, or nothing, for NxCxHxW."""
    if norm == "group":
        return nn.GroupNorm(GROUPS, channels)
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()


def conv_norm(
    in_channels: int, out_channels: int, *, norm: Norm, bias: bool | None = None
) -> list[nn.Module]:
    """3x3 convolution and norm, NxCxHxW to NxC'xHxW; bias None: only where no norm adds one."""
    with_bias = norm == "none" if bias is None else bias
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=with_bias),
        norm_layer(norm, out_channels),
    ]


def conv_block(in_channels: int, out_channels: int, *, norm: Norm, bias: bool | None = None) -> nn.Sequential:
    """3x3 convolution + norm + ReLU, NxCxHxW to NxC'xHxW."""
    layers = conv_norm(in_channels, out_channels, norm=norm, bias=bias)
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def double_conv(
    in_channels: int, out_channels: int, *, norm: Norm, bias: bool | None = None
) -> nn.Sequential:
    """Two `conv_block`s, NxCxHxW to NxC'xHxW."""
    return nn.Sequential(
        conv_block(in_channels, out_channels, norm=norm, bias=bias),
        conv_block(out_channels, out_channels, norm=norm, bias=bias),
    )


class Upsample(nn.Module):
    """A step up of two, to the size that is asked for.

    Args:
        in_channels: C of the input.
        out_channels: C of the output, where the way of upsampling changes it.
        upsampling: `bilinear` keeps the channels; `bilinear_conv` changes them by a 1x1 convolution;
            `deconv` is a transposed 2x2 convolution with stride 2.
        align_corners: of the bilinear ones. True, as published, makes the result at a place depend on the
            size of the image, so that a tile and the whole image differ; False does not.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, upsampling: Upsampling, align_corners: bool = True
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = in_channels if upsampling == "bilinear" else out_channels
        self.conv: nn.Module | None = None
        self.deconv: nn.Module | None = None
        if upsampling == "bilinear_conv":
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
        elif upsampling == "deconv":
            self.deconv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map NxCxhxw to NxC'xHxW, where `size` is (H, W) and h, w are their halves, rounded up."""
        height, width = size
        if self.deconv is not None:
            x = self.deconv(x)
            # compared first: the exporter cannot read a crop to the input's own size
            return x if x.shape[-2:] == size else x[..., :height, :width]
        if self.conv is not None:
            x = self.conv(x)  # exchanging it with the interpolation changes nothing but the cost
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=self.align_corners)


Upsampler = Callable[[int, int], Upsample]
"""From channels in and out to a step up."""


class PlainEncoder(nn.Module):
    """A block a level, 2x2 max-pooling between levels; an odd last row or column is pooled by itself."""

    def __init__(self, widths: Sequence[int], block: Block) -> None:
        super().__init__()
        self.levels = nn.ModuleList(block(c, to) for c, to in itertools.pairwise((3, *widths)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map Nx3xHxW to one feature map a level, at strides 1, 2, 4, ..., finest first."""
        features: list[Tensor] = []
        for level in self.levels:
            x = F.max_pool2d(features[-1], 2, ceil_mode=True) if features else image
            features.append(level(x))
        return features


class UpBlock(nn.Module):
    """A step up, concat with the skip, a block."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, *, block: Block, up: Upsampler
    ) -> None:
        super().__init__()
        self.up = up(in_channels, out_channels)
        self.block = block(self.up.out_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map NxCxhxw and a skip of twice that size, NxC'xHxW, to NxC''xHxW."""
        out: Tensor = self.block(torch.cat([self.up(x, skip.shape[-2:]), skip], dim=1))
        return out


class UShape(Network):
    """A plain encoder, a step up for each of its skips, and a head.

    Args:
        classes: C of the logits.
        widths: channels a level, finest first.
        block: the layers of a level of the encoder.
        step: from the channels of a level and those of the next finer one to a step up: (x, skip) to features
            of the skip's size.
    """

    def __init__(
        self, *, classes: int, widths: Sequence[int], block: Block, step: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.encoder = PlainEncoder(widths, block)
        self.ups = nn.ModuleList(step(c, to) for c, to in itertools.pairwise(reversed(widths)))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Segment an image.

        Args:
            image: Nx3xHxW float; any H, W >= 32.

        Returns:
            NxCxHxW logits: with one class above 0 means positive, with more the largest is the class.
        """
        *skips, x = self.encoder(image)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        logits: Tensor = self.head(x)
        return logits
