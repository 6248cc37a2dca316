"""UNet++: nested U-Nets with deep supervision, after Zhou et al. 2018, arXiv 1807.10165.

Node (i, 0) is the encoder's at level i. Node (i, j) takes the concat of the nodes (i, 0) to (i, j - 1) and
the upsampled node (i + 1, j - 1). The nodes (0, 1), (0, 2), ... are the ends of U-Nets of growing depth; each
has a head of its own. The last is the answer; in training the loss is the mean over all.

9,159,780 parameters with the defaults: the paper's widths, but bilinear upsampling without reduction, as in
`UNet`; with `deconv`, the paper's transposed convolutions, 9,045,924.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from cd_pipeline.models.blocks import PlainEncoder, UpBlock, Upsample, double_conv
from cd_pipeline.models.network import Network
from cd_pipeline.models.settings import WIDTHS, Norm, Upsampling


class UNetPlusPlus(Network):
    """One image to C logits a pixel; in training to those of every head.

    Args:
        classes: C; 1 for a binary mask.
        widths: channels a level, finest first.
        norm: batch norm, group norm with 8 groups (every width a multiple of 8), or none.
        upsampling: see `Upsample`.
        align_corners: see `Upsample`.
        deep_supervision: a head for each depth; without it for the deepest alone.
    """

    def __init__(
        self,
        *,
        classes: int = 1,
        widths: Sequence[int] = WIDTHS,
        norm: Norm = "batch",
        upsampling: Upsampling = "bilinear",
        align_corners: bool = True,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        block = partial(double_conv, norm=norm)
        up = partial(Upsample, upsampling=upsampling, align_corners=align_corners)
        depth = len(widths) - 1
        self.order = [(i, j) for j in range(1, depth + 1) for i in range(depth - j + 1)]
        self.encoder = PlainEncoder(widths, block)
        self.nodes = nn.ModuleDict()
        for i, j in self.order:
            self.nodes[f"{i}_{j}"] = UpBlock(widths[i + 1], j * widths[i], widths[i], block=block, up=up)
        heads = depth if deep_supervision else 1
        self.outputs = nn.ModuleList(nn.Conv2d(widths[0], classes, 1) for _ in range(heads))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment an image.

        Args:
            image: Nx3xHxW float; any H, W >= 32.

        Returns:
            NxCxHxW logits of the last head; in training with deep supervision the list of all heads.
        """
        heads = self.heads(image)
        return heads if self.training and len(heads) > 1 else heads[-1]

    def heads(self, image: Tensor) -> list[Tensor]:
        """Map Nx3xHxW to the NxCxHxW logits of each head, the deepest, which is the answer, last."""
        rows = [[features] for features in self.encoder(image)]  # rows[i][j] becomes node (i, j)
        for i, j in self.order:
            rows[i].append(self.nodes[f"{i}_{j}"](rows[i + 1][j - 1], torch.cat(rows[i], dim=1)))
        ends = rows[0][-len(self.outputs) :]
        return [output(x) for output, x in zip(self.outputs, ends, strict=True)]
