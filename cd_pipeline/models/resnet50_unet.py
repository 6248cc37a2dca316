"""ResNet50UNet: timm's ResNet-50 up to stride 8 (He et al. 2016) and a light decoder.

The encoder ends at 512 channels: a 7x7 convolution with stride 2 to 64, a 3x3 max-pool with stride 2, and
the stages with 256 and 512. The decoder is a bridge 512 -> 512, a convolution to 256, the 256-channel skip,
a convolution 512 -> 256, one to 64, the 64-channel skip, and a last one to 64 at full size, with transposed
convolutions for the steps up.

The design it follows lowers the resolution one block earlier, so that its two skips sit at strides 8 and 4
and the last transposed convolution is applied twice. Pretrained weights belong to the library's strides:
here the skips sit at strides 4 and 2, each step up has its own weights and comes before its concat.
"""

from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from cd_pipeline.models.blocks import Upsample, conv_block
from cd_pipeline.models.network import Network

ENCODER = "resnet50"


class ResNet50Encoder(nn.Module):
    """64, 256 and 512 channels at strides 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = self._backbone(pretrained=False)

    def _backbone(self, **weights: Any) -> Any:  # noqa: ANN401 - timm's own types
        return timm.create_model(ENCODER, features_only=True, out_indices=(0, 1, 2), **weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map Nx3xHxW to one feature map a level, finest first; odd sizes are rounded up."""
        features: list[Tensor] = self.backbone(image)
        return features

    def load_weights(self, path: Path) -> None:
        """Load the weights file of timm's whole ResNet-50."""
        source = self._backbone(pretrained=True, pretrained_cfg_overlay={"file": str(path)})
        self.backbone.load_state_dict(source.state_dict())


class ResNet50UNet(Network):
    """One image to C logits a pixel; 6,978,902 parameters at 22 classes.

    Pretrained weights expect images with ImageNet's mean and std taken out; the network leaves that to the
    recipe's preprocessing.

    Args:
        classes: C; 1 for a binary mask.
    """

    def __init__(self, *, classes: int = 1) -> None:
        super().__init__()
        conv = partial(conv_block, norm="batch")
        up = partial(Upsample, upsampling="deconv")
        self.encoder = ResNet50Encoder()
        self.bridge = nn.Sequential(conv(512, 512), conv(512, 256))
        self.up3, self.conv3 = up(256, 256), conv(256 + 256, 256)
        self.up2, self.conv2 = up(256, 256), conv(256, 64)
        self.up1, self.conv1 = up(64 + 64, 128), conv(128, 64)
        self.head = nn.Conv2d(64, classes, 1)

    @property
    def pretrained_name(self) -> str:
        """Timm's ResNet-50."""
        return ENCODER

    def load_encoder_weights(self, path: Path) -> None:
        """Load the weights file of timm's whole ResNet-50 into the encoder."""
        self.encoder.load_weights(path)

    def forward(self, image: Tensor) -> Tensor:
        """Segment an image.

        Args:
            image: Nx3xHxW float, normalised; any H, W >= 32.

        Returns:
            NxCxHxW logits: with one class above 0 means positive, with more the largest is the class.
        """
        skip2, skip4, x = self.encoder(image)  # strides 2, 4, 8
        x = self.up3(self.bridge(x), skip4.shape[-2:])
        x = self.conv3(torch.cat([x, skip4], dim=1))  # Nx256, stride 4
        x = self.conv2(self.up2(x, skip2.shape[-2:]))
        x = torch.cat([x, skip2], dim=1)  # Nx128, stride 2
        logits: Tensor = self.head(self.conv1(self.up1(x, image.shape[-2:])))
        return logits
