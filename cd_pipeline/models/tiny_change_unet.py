"""TinyChangeUNet: a MobileNetV3-small U-Net on two photos and their difference; 252,361 parameters.

Module names are those of existing checkpoints, so that they load.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.change_network import ChangeNetwork, Decoder, Encoder

SKIP_CHANNELS = (24, 40, 64, 96)
"""Widths that the features at strides 2, 4, 8 and 16 are brought to (published)."""


class TinyChangeUNet(ChangeNetwork):
    """Two photos to a change logit a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(7, 3, 1)
        self.encoder = Encoder()
        widths, outs = self.encoder.channels, SKIP_CHANNELS
        self.skip1 = nn.Conv2d(widths[0], outs[0], 1)
        self.skip2 = nn.Conv2d(widths[1], outs[1], 1)
        self.skip3 = nn.Conv2d(widths[2], outs[2], 1)
        self.bott = nn.Conv2d(widths[3], outs[3], 1)
        self.decoder = Decoder(outs)
        self.head = nn.Conv2d(outs[0], 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Compare two photos.

        Args:
            before: Nx3xHxW float RGB in [0, 1]; H and W multiples of 16.
            after: the same shape.

        Returns:
            Nx1xHxW logits: above 0 means changed.
        """
        difference = (before - after).abs().mean(dim=1, keepdim=True)  # Nx1xHxW
        x = self.reduce(torch.cat([before, after, difference], dim=1))  # Nx7 -> Nx3xHxW
        f1, f2, f3, f4 = self.encoder(x)  # strides 2, 4, 8, 16
        x = self.decoder(self.skip1(f1), self.skip2(f2), self.skip3(f3), self.bott(f4))
        logits = self.head(x)  # Nx1xH/2xW/2
        return F.interpolate(logits, size=before.shape[-2:], mode="bilinear", align_corners=False)
