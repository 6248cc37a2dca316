"""ResUNet: a U-Net of residual blocks (He et al. 2016; Zhang et al. 2018, arXiv 1711.10684).

Two blocks a level in the encoder, one in the decoder, 2x2 max-pooling between levels; a block is
3x3-norm-ReLU-3x3-norm, plus its input, then ReLU. 14,574,177 parameters with the defaults.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.blocks import UpBlock, Upsample, UShape, conv_block, conv_norm
from cd_pipeline.models.settings import WIDTHS, Norm, Upsampling


class ResidualBlock(nn.Module):
    """3x3-norm-ReLU-3x3-norm plus the input, then ReLU; a 1x1 projection where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_block(in_channels, out_channels, norm=norm),
            *conv_norm(out_channels, out_channels, norm=norm),
        )
        self.skip: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map NxCxHxW to NxC'xHxW."""
        return F.relu(self.convs(x) + self.skip(x))


def two_blocks(in_channels: int, out_channels: int, *, norm: Norm) -> nn.Sequential:
    """Two `ResidualBlock`s, NxCxHxW to NxC'xHxW."""
    return nn.Sequential(
        ResidualBlock(in_channels, out_channels, norm=norm),
        ResidualBlock(out_channels, out_channels, norm=norm),
    )


class ResUNet(UShape):
    """One image to C logits a pixel.

    Args:
        classes: C; 1 for a binary mask.
        widths: channels a level, finest first.
        norm: batch norm, group norm with 8 groups (every width a multiple of 8), or none.
        upsampling: see `Upsample`.
        align_corners: see `Upsample`.
    """

    def __init__(
        self,
        *,
        classes: int = 1,
        widths: Sequence[int] = WIDTHS,
        norm: Norm = "batch",
        upsampling: Upsampling = "bilinear",
        align_corners: bool = True,
    ) -> None:
        block = partial(ResidualBlock, norm=norm)
        up = partial(Upsample, upsampling=upsampling, align_corners=align_corners)
        super().__init__(
            classes=classes,
            widths=widths,
            block=partial(two_blocks, norm=norm),
            step=lambda c, to: UpBlock(c, to, to, block=block, up=up),
        )
