"""TinySiameseUNet: one MobileNetV3-small encoder for both photos, fused by difference; 247,297 parameters.

The encoder and the decoder's form are those of `TinyChangeUNet`; what differs is where the photos meet.
There they are mixed before the first layer; here each is standardised and encoded alone, so that exposure
and colour are gone before anything is compared. Fusing features by their difference follows Daudt et al.
2018 (FC-Siam-diff) and Codegoni et al. 2022 (TinyCD).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.change_network import ChangeNetwork, Decoder, Encoder
from cd_pipeline.models.settings import ENCODER

FUSED_CHANNELS = (16, 32, 56, 96)
"""Widths of the fused features at strides 2, 4, 8 and 16; with them the network needs 1.18 times the
multiply-adds of `TinyChangeUNet`."""
AVERAGED = (True, True, False, False)
"""Where features are also compared as local averages: at fine strides a shift of a pixel moves them apart."""
AVERAGE_SIDE = 5
VARIANCE_FLOOR = 1e-3
"""Added to the variance of a photo's channel (values in [0, 1]): a blank photo stays blank."""


class Fusion(nn.Module):
    """What two feature maps differ in and what they share, to one map; the same for either order.

    `averaged` adds the difference of local averages, which a small shift between the photos leaves alone.
    """

    def __init__(self, in_channels: int, out_channels: int, *, averaged: bool) -> None:
        super().__init__()
        self.averaged = averaged
        self.mix = nn.Conv2d((3 if averaged else 2) * in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Map two NxCxHxW to NxC'xHxW."""
        difference = before - after
        parts = [difference.abs(), before + after]
        if self.averaged:
            padding = AVERAGE_SIDE // 2
            local = F.avg_pool2d(difference, AVERAGE_SIDE, 1, padding, count_include_pad=False)
            parts.append(local.abs())
        return F.relu(self.bn(self.mix(torch.cat(parts, dim=1))))


class TinySiameseUNet(ChangeNetwork):
    """Two photos to a change logit a pixel; exchanging the photos gives the same logits.

    Args:
        encoder: timm's name of it, see `ModelSettings.encoder`.
    """

    def __init__(self, encoder: str = ENCODER) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        stages = zip(self.encoder.channels, FUSED_CHANNELS, AVERAGED, strict=True)
        self.fusions = nn.ModuleList(Fusion(c, out, averaged=local) for c, out, local in stages)
        self.decoder = Decoder(FUSED_CHANNELS)
        self.head = nn.Conv2d(FUSED_CHANNELS[0], 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Compare two photos.

        Args:
            before: Nx3xHxW float RGB in [0, 1]; H and W multiples of 16.
            after: the same shape.

        Returns:
            Nx1xHxW logits: above 0 means changed.
        """
        both = standardised(torch.cat([before, after], dim=0))  # 2N: one pass through the encoder
        fused = []
        for features, fusion in zip(self.encoder(both), self.fusions, strict=True):
            first, second = features.chunk(2, dim=0)
            fused.append(fusion(first, second))  # strides 2, 4, 8, 16
        logits = self.head(self.decoder(*fused))  # Nx1xH/2xW/2
        return F.interpolate(logits, size=before.shape[-2:], mode="bilinear", align_corners=False)


def standardised(photos: Tensor) -> Tensor:
    """Give each channel of each photo mean 0 and variance 1: NxCxHxW of any float type."""
    centred = photos - photos.mean(dim=(2, 3), keepdim=True)
    variance = (centred * centred).mean(dim=(2, 3), keepdim=True)
    return centred * (variance + VARIANCE_FLOOR).rsqrt()
