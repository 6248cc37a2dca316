"""What the small change networks share: the encoder, the decoder, and loading of weights."""

from collections.abc import Mapping
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER = "mobilenetv3_small_100"
LAST_BLOCK = 3
"""The stride-16 features come from block 3; blocks 4 and 5 (stride 32) never touch the output."""
DEAD_PREFIXES = ("encoder.backbone.blocks.4.", "encoder.backbone.blocks.5.")


class Encoder(nn.Module):
    """timm's mobilenetv3_small_100 up to stride 16: 16, 16, 24 and 48 channels at strides 2, 4, 8, 16."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            ENCODER, pretrained=False, features_only=True, out_indices=(0, 1, 2, 3)
        )
        self.channels: tuple[int, ...] = tuple(self.backbone.feature_info.channels())
        del self.backbone.blocks[LAST_BLOCK + 1 :]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Nx3xHxW to four feature maps, finest first."""
        features: list[Tensor] = self.backbone(x)
        return features


class SeparableConv(nn.Module):
    """Depthwise 3x3 + BN + ReLU + pointwise 1x1 + BN + ReLU, convolutions without bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map NxCxHxW to NxC'xHxW."""
        x = F.relu(self.bn1(self.dw(x)))
        return F.relu(self.bn2(self.pw(x)))


class Decoder(nn.Module):
    """Three steps from stride 16 to stride 2: transposed conv x2, concat with the skip, separable conv."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.up3 = nn.ConvTranspose2d(c4, c3, 2, stride=2)
        self.c3 = SeparableConv(2 * c3, c3)
        self.up2 = nn.ConvTranspose2d(c3, c2, 2, stride=2)
        self.c2 = SeparableConv(2 * c2, c2)
        self.up1 = nn.ConvTranspose2d(c2, c1, 2, stride=2)
        self.c1 = SeparableConv(2 * c1, c1)

    def forward(self, skip1: Tensor, skip2: Tensor, skip3: Tensor, x: Tensor) -> Tensor:
        """Map skips at strides 2, 4, 8 and the bottleneck at stride 16 to features at stride 2."""
        x = self.c3(torch.cat([self.up3(x), skip3], dim=1))  # stride 8
        x = self.c2(torch.cat([self.up2(x), skip2], dim=1))  # stride 4
        x = self.c1(torch.cat([self.up1(x), skip1], dim=1))  # stride 2
        return x


class ChangeNetwork(nn.Module):
    """Two photos to a change logit a pixel, with a MobileNetV3-small encoder."""

    encoder: Encoder

    def load_encoder_weights(self, path: Path) -> None:
        """Load the weights file of timm's whole mobilenetv3_small_100 into the encoder."""
        source = timm.create_model(
            ENCODER,
            pretrained=True,
            pretrained_cfg_overlay={"file": str(path)},
            features_only=True,
            out_indices=(0, 1, 2, 3),
        )
        del source.blocks[LAST_BLOCK + 1 :]
        self.encoder.backbone.load_state_dict(source.state_dict())

    def load_published_state(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load a state dict of this network; `TinyChangeUNet` takes the published one, of 988,849 parameters, too.

        Returns:
            The keys that were dropped: those of the dead blocks 4 and 5, and no others.

        Raises:
            RuntimeError: any other key is missing or unexpected, or a shape differs.
        """
        dropped = [key for key in state if key.startswith(DEAD_PREFIXES)]
        self.load_state_dict({key: value for key, value in state.items() if key not in set(dropped)})
        return dropped
