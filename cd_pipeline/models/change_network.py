"""What change networks share: loading of weights, timm's encoders, and the decoder of the small U-Nets."""

from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.network import Network
from cd_pipeline.models.settings import ENCODER


class ChangeNetwork(Network):
    """Two photos to a change logit a pixel: `network(before, after)`.

    Both are Nx3xHxW float RGB in [0, 1]; the logits are Nx1xHxW, above 0 where the pixel changed.
    """

    encoder: nn.Module

    @property
    def pretrained_name(self) -> str | None:
        """The timm network of the encoder, where it is one of timm's."""
        return self.encoder.name if isinstance(self.encoder, Encoder) else None

    def load_encoder_weights(self, path: Path) -> None:
        """Load timm's weights into the encoder, where it is one of timm's."""
        if not isinstance(self.encoder, Encoder):
            super().load_encoder_weights(path)
            return
        self.encoder.load_weights(path)


class Encoder(nn.Module):
    """The first levels of a timm network; what lies behind them never touches the output and is deleted.

    Without arguments mobilenetv3_small_100 up to stride 16: 16, 16, 24 and 48 channels at strides 2, 4, 8
    and 16. Its blocks 4 and 5 (stride 32) are left out.
    """

    def __init__(self, name: str = ENCODER, levels: int = 4) -> None:
        super().__init__()
        self.name = name
        self.backbone = self._backbone(levels, pretrained=False)
        self.channels: tuple[int, ...] = tuple(self.backbone.feature_info.channels())

    def _backbone(self, levels: int, **weights: Any) -> Any:  # noqa: ANN401 - timm's own types
        # TensorFlow's padding depends on the input's size, which Core ML's converter does not take
        padding = {"pad_type": ""} if self.name.startswith("tf_") else {}
        backbone = timm.create_model(
            self.name, features_only=True, out_indices=tuple(range(levels)), **padding, **weights
        )
        last_block = int(backbone.feature_info.module_name()[-1].removeprefix("blocks."))
        del backbone.blocks[last_block + 1 :]
        for module in backbone.modules():
            if isinstance(module, nn.Hardswish):
                module.inplace = False  # in place, its input would be copied first, for the gradient
        return backbone

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map Nx3xHxW to one feature map a level, finest first."""
        features: list[Tensor] = self.backbone(x)
        return features

    def load_weights(self, path: Path) -> None:
        """Load the weights file of timm's whole network of this name."""
        source = self._backbone(
            len(self.channels), pretrained=True, pretrained_cfg_overlay={"file": str(path)}
        )
        self.backbone.load_state_dict(source.state_dict())


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
        x = F.relu(self.bn1(self.dw(x)), inplace=True)
        return F.relu(self.bn2(self.pw(x)), inplace=True)


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
