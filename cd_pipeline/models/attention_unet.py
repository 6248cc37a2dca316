"""AttentionUNet: a U-Net that weighs its skips, after Oktay et al. 2018, arXiv 1804.03999.

The gate is the paper's additive one: the skip is brought to the coarser grid of the decoder's features,
added to them, and one weight a place in (0, 1) is made of both, upsampled and multiplied with the skip.
Two things differ: the finest skip, which the paper leaves alone, is gated too, since thin structures live
there; and the gated skip goes into the concat as it is, where the authors' code adds a 1x1 convolution.
8,111,205 parameters with the defaults.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.blocks import Block, UpBlock, Upsample, Upsampler, UShape, double_conv
from cd_pipeline.models.settings import WIDTHS, Norm, Upsampling


class AttentionGate(nn.Module):
    """A weight in (0, 1) for each place of a skip: sigmoid(psi(ReLU(theta(skip) + phi(gate)))).

    Args:
        skip_channels: C of the skip; between the layers there are half as many.
        gate_channels: C of the features one level deeper.
    """

    def __init__(self, skip_channels: int, gate_channels: int) -> None:
        super().__init__()
        between = skip_channels // 2
        self.theta = nn.Conv2d(skip_channels, between, 2, stride=2, bias=False)
        self.phi = nn.Conv2d(gate_channels, between, 1)
        self.psi = nn.Conv2d(between, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Map a skip NxCxHxW and features at half its size, NxC'xhxw, to Nx1xHxW weights."""
        theta, phi = self.theta(skip), self.phi(gate)
        if phi.shape[-2:] != theta.shape[-2:]:  # theta drops an odd last row or column of the skip
            phi = F.interpolate(phi, size=theta.shape[-2:], mode="bilinear", align_corners=False)
        weights = torch.sigmoid(self.psi(F.relu(theta + phi)))  # Nx1xhxw
        return F.interpolate(weights, size=skip.shape[-2:], mode="bilinear", align_corners=False)


class GatedUpBlock(nn.Module):
    """An `UpBlock` whose skip is weighed by the features that come up."""

    def __init__(self, in_channels: int, out_channels: int, *, block: Block, up: Upsampler) -> None:
        super().__init__()
        self.gate = AttentionGate(out_channels, in_channels)
        self.up_block = UpBlock(in_channels, out_channels, out_channels, block=block, up=up)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map NxCxhxw and a skip of twice that size, NxC'xHxW, to NxC'xHxW."""
        out: Tensor = self.up_block(x, skip * self.gate(skip, x))
        return out


class AttentionUNet(UShape):
    """One image to C logits a pixel.

    Args:
        classes: C; 1 for a binary mask.
        widths: channels a level, finest first.
        norm: batch norm, group norm with 8 groups (every width a multiple of 8), or none; gates have none.
        upsampling: of the features; see `Upsample`.
        align_corners: of the features; see `Upsample`.
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
        block = partial(double_conv, norm=norm)
        up = partial(Upsample, upsampling=upsampling, align_corners=align_corners)
        super().__init__(
            classes=classes,
            widths=widths,
            block=block,
            step=partial(GatedUpBlock, block=block, up=up),
        )
