"""SiameseUNet: a plain U-Net with one encoder for both photos; 4,084,065 parameters at width 32.

The encoder is shared, features meet at every level. `concat` fusion keeps the features of both photos beside
their difference; `difference` keeps the difference alone, as FC-Siam-diff does (Daudt et al. 2018), and is
then the same for either order of the photos. There is no pretrained encoder.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.change_network import ChangeNetwork
from cd_pipeline.models.settings import Fusion, Norm

GROUPS = 8
"""Of group norm: every width is a multiple of it."""


def conv_block(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    """3x3 convolution without bias + norm + ReLU, NxCxHxW to NxC'xHxW."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(GROUPS, out_channels) if norm == "group" else nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def double_conv(in_channels: int, out_channels: int, norm: Norm) -> nn.Sequential:
    """Two `conv_block`s, NxCxHxW to NxC'xHxW."""
    return nn.Sequential(
        conv_block(in_channels, out_channels, norm), conv_block(out_channels, out_channels, norm)
    )


class PlainEncoder(nn.Module):
    """Two convolutions a level, 2x2 max-pooling between levels."""

    def __init__(self, widths: tuple[int, ...], norm: Norm) -> None:
        super().__init__()
        self.levels = nn.ModuleList(double_conv(c, to, norm) for c, to in itertools.pairwise((3, *widths)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Nx3xHxW to one feature map a level, at strides 1, 2, 4, ..., finest first."""
        features: list[Tensor] = []
        for level in self.levels:
            features.append(level(F.max_pool2d(features[-1], 2) if features else x))
        return features


class UpBlock(nn.Module):
    """Transposed 2x2 convolution with stride 2, concat with the skip, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = double_conv(out_channels + skip_channels, out_channels, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map NxCxhxw and a skip of about twice that size, NxC'xHxW, to NxC''xHxW."""
        x = self.up(x)
        if x.shape[-2:] != skip.shape[-2:]:  # pooling dropped an odd row or column
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.convs(torch.cat([x, skip], dim=1))
        return out


class SiameseUNet(ChangeNetwork):
    """Two photos to a change logit a pixel.

    Args:
        width: channels of the first level, doubled at each of the next three.
        fusion: what of two feature maps is kept: both and |FA - FB|, or |FA - FB| alone.
        norm: batch norm, or group norm with 8 groups.
    """

    def __init__(self, *, width: int = 32, fusion: Fusion = "concat", norm: Norm = "batch") -> None:
        super().__init__()
        self.fusion = fusion
        w1, w2, w3, w4 = widths = (width, 2 * width, 4 * width, 8 * width)
        parts = 3 if fusion == "concat" else 1
        self.encoder = PlainEncoder(widths, norm)
        self.bottleneck = conv_block(parts * w4, w4, norm)
        self.up3 = UpBlock(w4, parts * w3, w3, norm)
        self.up2 = UpBlock(w3, parts * w2, w2, norm)
        self.up1 = UpBlock(w2, parts * w1, w1, norm)
        self.head = nn.Conv2d(w1, 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Compare two photos.

        Args:
            before: Nx3xHxW float RGB in [0, 1]; any H, W >= 8.
            after: the same shape.

        Returns:
            Nx1xHxW logits: above 0 means changed.
        """
        # One pass: in training both photos share the batch statistics. Statistics of each photo's own batch
        # would take from the features what sets the dates apart, and would be gone in evaluation.
        both = self.encoder(torch.cat([before, after], dim=0))
        fused = [fuse(features, self.fusion) for features in both]  # strides 1, 2, 4, 8
        x = self.bottleneck(fused[3])
        x = self.up3(x, fused[2])
        x = self.up2(x, fused[1])
        logits: Tensor = self.head(self.up1(x, fused[0]))
        return logits


def fuse(both: Tensor, fusion: Fusion) -> Tensor:
    """Compare the halves of 2NxCxHxW: to Nx3CxHxW with `concat`, to NxCxHxW with `difference`."""
    before, after = both.chunk(2, dim=0)
    difference = (before - after).abs()
    return torch.cat([before, after, difference], dim=1) if fusion == "concat" else difference
