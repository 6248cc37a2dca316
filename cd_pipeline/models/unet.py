"""UNet: two convolutions a level, after Ronneberger et al. 2015; 7,852,545 parameters.

With the defaults it is the one for cracks; with widths 64 to 1024 and 22 classes the one for Pascal VOC,
31,392,086 parameters. Both have biases before their batch norms, which the norms cancel; and neither reduces
the upsampled channels before the concat, so that the widest decoder block takes 768 (or 1536) channels.
"""

from collections.abc import Sequence
from functools import partial

from cd_pipeline.models.blocks import UpBlock, Upsample, UShape, double_conv
from cd_pipeline.models.settings import WIDTHS, Norm, Upsampling


class UNet(UShape):
    """One image to C logits a pixel.

    Args:
        classes: C; 1 for a binary mask.
        widths: channels a level, finest first.
        norm: batch norm, group norm with 8 groups (every width a multiple of 8), or none.
        bias: of the 3x3 convolutions; the published counts need it, batch norm makes it useless.
        upsampling: bilinear, as published; bilinear and a 1x1 convolution, or a transposed one, to the width
            of the level.
        align_corners: of the bilinear ones; see `Upsample`.
    """

    def __init__(
        self,
        *,
        classes: int = 1,
        widths: Sequence[int] = WIDTHS,
        norm: Norm = "batch",
        bias: bool = True,
        upsampling: Upsampling = "bilinear",
        align_corners: bool = True,
    ) -> None:
        block = partial(double_conv, norm=norm, bias=bias)
        up = partial(Upsample, upsampling=upsampling, align_corners=align_corners)
        super().__init__(
            classes=classes,
            widths=widths,
            block=block,
            step=lambda c, to: UpBlock(c, to, to, block=block, up=up),
        )
