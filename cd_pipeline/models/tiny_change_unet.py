"""TinyChangeUNet: a MobileNetV3-small U-Net on two photos and their difference; 252,361 parameters.

Module names are those of existing checkpoints, so that they load.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.change_network import ChangeNetwork, Decoder, Encoder
from cd_pipeline.models.settings import ENCODER

SKIP_CHANNELS = (24, 40, 64, 96)
"""Widths that the features at strides 2, 4, 8 and 16 are brought to (published)."""
DEAD_PREFIXES = ("encoder.backbone.blocks.4.", "encoder.backbone.blocks.5.")
"""Blocks of the published network, of 988,849 parameters, whose features it never read."""


class TinyChangeUNet(ChangeNetwork):
    """Two photos to a change logit a pixel.

    Args:
        encoder: timm's name of it, see `ModelSettings.encoder`.
    """

    def __init__(self, encoder: str = ENCODER) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(7, 3, 1)
        self.encoder = Encoder(encoder)
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
        if self.training:  # strides of channels-last, else all 7 channels would be reordered twice a step
            difference = difference[:, 0, :, :, None].permute(0, 3, 1, 2)
        x = self.reduce(torch.cat([before, after, difference], dim=1))  # Nx7 -> Nx3xHxW
        f1, f2, f3, f4 = self.encoder(x)  # strides 2, 4, 8, 16
        x = self.decoder(self.skip1(f1), self.skip2(f2), self.skip3(f3), self.bott(f4))
        logits = self.head(x)  # Nx1xH/2xW/2
        return F.interpolate(logits, size=before.shape[-2:], mode="bilinear", align_corners=False)

    def load_published_state(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load a state dict of this network or of the published one.

        Returns:
            The keys that were dropped: those of the dead blocks 4 and 5, and no others.

        Raises:
            RuntimeError: any other key is missing or unexpected, or a shape differs.
        """
        dropped = [key for key in state if key.startswith(DEAD_PREFIXES)]
        self.load_state_dict({key: value for key, value in state.items() if key not in set(dropped)})
        return dropped
