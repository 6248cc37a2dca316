"""SiameseUNet: a plain U-Net with one encoder for both photos; 4,084,065 parameters at width 32.

The encoder is shared, features meet at every level. `concat` fusion keeps the features of both photos beside
their difference; `difference` keeps the difference alone, as FC-Siam-diff does (Daudt et al. 2018), and is
then the same for either order of the photos. There is no pretrained encoder.
"""

from functools import partial

import torch
from torch import Tensor, nn

from cd_pipeline.models.blocks import PlainEncoder, UpBlock, Upsample, conv_block, double_conv
from cd_pipeline.models.change_network import ChangeNetwork
from cd_pipeline.models.settings import Fusion, Norm


class SiameseUNet(ChangeNetwork):
    """Two photos to a change logit a pixel.

    Args:
        width: channels of the first level, doubled at each of the next three.
        fusion: what of two feature maps is kept: both and |FA - FB|, or |FA - FB| alone.
        norm: batch norm, group norm with 8 groups, or none.
    """

    def __init__(self, *, width: int = 32, fusion: Fusion = "concat", norm: Norm = "batch") -> None:
        super().__init__()
        self.fusion = fusion
        w1, w2, w3, w4 = widths = (width, 2 * width, 4 * width, 8 * width)
        parts = 3 if fusion == "concat" else 1
        block = partial(double_conv, norm=norm)
        step = partial(UpBlock, block=block, up=partial(Upsample, upsampling="deconv"))
        self.encoder = PlainEncoder(widths, block)
        self.bottleneck = conv_block(parts * w4, w4, norm=norm)
        self.up3 = step(w4, parts * w3, w3)
        self.up2 = step(w3, parts * w2, w2)
        self.up1 = step(w2, parts * w1, w1)
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
