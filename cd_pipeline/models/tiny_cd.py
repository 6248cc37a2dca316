"""TinyCD: EfficientNet-B4 features of both photos, compared by attention masks; 285,128 parameters.

Written from the description in Codegoni, Lombardi and Ferrari 2022, "TinyCD: A (Not So) Deep Learning Model
For Change Detection". From the paper: EfficientNet-B4 up to its third level; mixing of both photos' channels
pairwise by a grouped 3x3 convolution, PReLU and instance norm; a per-pixel MLP that makes of the mixed
features a mask of one channel (Mix and Attention Mask Block), one of them on the photos themselves; the mixed
third level brought up in three steps, each multiplied by the mask of its size; a per-pixel MLP as classifier.

What differs: the network gives logits where the paper's ends in a sigmoid; it normalises the photos itself;
both are encoded in one pass, so that batch norm sees them together; upsampling does not align corners and
goes to the mask's own size, so that any size of photo will do. The paper's network has 285,803 parameters.
"""

import itertools
from collections.abc import Sequence

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cd_pipeline.models.change_network import ChangeNetwork, Encoder

ENCODER = "efficientnet_b4"
LEVELS = 3
"""Of the encoder: strides 2, 4 and 8, with 24, 32 and 56 channels."""
UP_CHANNELS = (64, 64, 32)
"""Widths after each step up, at strides 4, 2 and 1 (published)."""
CLASSIFIER = (32, 16, 8, 1)
"""Widths of the last MLP (published)."""
MASKS = ((3, 10, 5, 1), (24, 12, 6, 1), (32, 16, 8, 1))
"""Widths of the MLPs that make the masks of the photos and of the features at strides 2 and 4 (published)."""


def pixel_mlp(widths: Sequence[int]) -> nn.Sequential:
    """1x1 convolutions with PReLU between them, Nx(widths[0])xHxW to Nx(widths[-1])xHxW."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 1), nn.PReLU()]
    return nn.Sequential(*layers[:-1])


class Mixing(nn.Module):
    """Each channel of one photo mixed with the same channel of the other: 3x3 + PReLU + instance norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels)
        self.act = nn.PReLU()
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Map two NxCxHxW to NxCxHxW."""
        pairs = torch.stack([before, after], dim=2).flatten(
            1, 2
        )  # Nx2CxHxW: before 0, after 0, before 1, ...
        mixed: Tensor = self.norm(self.act(self.conv(pairs)))
        return mixed


class MixMask(nn.Module):
    """The Mix and Attention Mask Block: mixing, then an MLP and PReLU to one channel."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.mixing = Mixing(widths[0])
        self.mlp = pixel_mlp(widths)
        self.act = nn.PReLU()

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Map two NxCxHxW to an Nx1xHxW mask, of any value."""
        mask: Tensor = self.act(self.mlp(self.mixing(before, after)))
        return mask


class UpMask(nn.Module):
    """Upsampling, multiplication by the mask, then a depthwise 3x3 and a pointwise convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels),
            nn.PReLU(),
            nn.InstanceNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 1),
            nn.PReLU(),
            nn.InstanceNorm2d(out_channels),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map NxCxhxw and an Nx1xHxW mask to NxC'xHxW."""
        x = F.interpolate(x, size=mask.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.convs(x * mask)
        return out


class TinyCD(ChangeNetwork):
    """Two photos to a change logit a pixel."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        config = timm.get_pretrained_cfg(ENCODER)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config, name)).reshape(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.encoder = Encoder(ENCODER, LEVELS)
        deepest = self.encoder.channels[-1]
        self.masks = nn.ModuleList(MixMask(widths) for widths in MASKS)
        self.mixing = Mixing(deepest)
        self.ups = nn.ModuleList(UpMask(c, to) for c, to in itertools.pairwise((deepest, *UP_CHANNELS)))
        self.classifier = pixel_mlp(CLASSIFIER)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Compare two photos.

        Args:
            before: Nx3xHxW float RGB in [0, 1]; any H, W >= 16.
            after: the same shape.

        Returns:
            Nx1xHxW logits: above 0 means changed.
        """
        both = (torch.cat([before, after], dim=0) - self.mean) / self.std  # 2N: one pass through the encoder
        *fine, deepest = (features.chunk(2, dim=0) for features in (both, *self.encoder(both)))
        masks = [mask(*pair) for mask, pair in zip(self.masks, fine, strict=True)]  # strides 1, 2, 4
        x = self.mixing(*deepest)  # stride 8
        for up, mask in zip(self.ups, reversed(masks), strict=True):
            x = up(x, mask)
        logits: Tensor = self.classifier(x)
        return logits
