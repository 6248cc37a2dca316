"""The published training epoch, written plainly from its description: the slow side of the ratios.

988,849-parameter network with its dead stride-32 blocks, three `cv2.imread` and an area resize an item,
no workers, batch 8, float32, default memory format, AdamW without foreach or fused, EMA by iterating the
state dict.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cd_pipeline.models.change_network import ENCODER
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet


class PublishedNet(TinyChangeUNet):
    """The published network: all six encoder blocks are built and run, the last two are not read."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder.backbone = timm.create_model(
            ENCODER, pretrained=False, features_only=True, out_indices=(0, 1, 2, 3, 4)
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        difference = (before - after).abs().mean(dim=1, keepdim=True)
        x = self.reduce(torch.cat([before, after, difference], dim=1))
        f1, f2, f3, f4, _ = self.encoder(x)
        x = self.decoder(self.skip1(f1), self.skip2(f2), self.skip3(f3), self.bott(f4))
        return F.interpolate(self.head(x), size=before.shape[-2:], mode="bilinear", align_corners=False)


class PublishedDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Before and after as JPEG, mask as PNG; decoded and resized for every item of every epoch."""

    def __init__(self, folder: Path, names: Sequence[str], size: int) -> None:
        self.folder, self.names, self.size = folder, names, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        name, side = self.names[index], (self.size, self.size)
        before, after = (self._photo(self.folder / kind / f"{name}.jpg") for kind in ("before", "after"))
        mask = cv2.imread(str(self.folder / "mask" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        mask = cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST)
        return before, after, torch.from_numpy((mask > 0).astype(np.float32))[None]

    def _photo(self, path: Path) -> Tensor:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)


class PublishedTrainer:
    """Network, optimiser and average of the published run."""

    def __init__(self) -> None:
        torch.manual_seed(42)
        self.model = PublishedNet().train()
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-4, weight_decay=1e-4, eps=1e-4, foreach=False, fused=False
        )

    def step(self, before: Tensor, after: Tensor, truth: Tensor) -> None:
        """Learn from a batch: pictures Nx3xHxW in [0, 1], truth Nx1xHxW of 0 and 1."""
        loss = published_loss(self.model(before, after), truth)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        loss.item()
        self.update_average()

    @torch.no_grad()
    def update_average(self) -> None:
        """Bring the average nearer to the weights."""
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].mul_(0.99).add_(value, alpha=0.01)
            else:
                self.average[name].copy_(value)

    def epoch_seconds(self, batches: Iterable[Sequence[Tensor]]) -> float:
        """Run one epoch and return its seconds."""
        started = time.perf_counter()
        for before, after, truth in batches:
            self.step(before, after, truth)
        return time.perf_counter() - started


def published_loader(dataset: PublishedDataset) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Return the batches of the published run."""
    return DataLoader(dataset, batch_size=8, shuffle=True, num_workers=0)


def published_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """0.6 * BCE (pos_weight 2) + 0.4 * (1 - Tversky per image), logits clamped to +-15."""
    logits = logits.clamp(-15, 15)
    bce = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=torch.tensor(2.0))
    p = logits.sigmoid()
    tp = (p * truth).sum((1, 2, 3))
    fp, fn = (p * (1 - truth)).sum((1, 2, 3)), ((1 - p) * truth).sum((1, 2, 3))
    return 0.6 * bce + 0.4 * (1 - tp / (tp + 0.7 * fp + 0.3 * fn + 1e-3)).mean()
