"""Pictures for people: galleries, curves, and small copies of them for the event log."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.data.pairs import PairArrays

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

CYAN = (0, 255, 255)
OVERLAY_ALPHA = 0.35
"""Colour and strength of the overlaid prediction (published)."""
INLINE_BYTES = 70_000
"""A picture of this size stays under 96 kB as base64."""


def overlay(photo: Image, mask: Image) -> Image:
    """Tint the masked pixels of HWC uint8 RGB cyan, alpha 0.35; mask HW, nonzero = tinted."""
    tinted = photo.copy()
    region = mask > 0
    tinted[region] = (photo[region] * (1 - OVERLAY_ALPHA) + np.array(CYAN) * OVERLAY_ALPHA).astype(np.uint8)
    return tinted


def outline(photo: Image, mask: Image, colour: tuple[int, int, int] = (255, 220, 0)) -> Image:
    """Draw the border of the masked regions on HWC uint8 RGB."""
    contours, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    drawn = np.ascontiguousarray(photo.copy())
    cv2.drawContours(drawn, contours, -1, colour, 2)
    return drawn


def pair_row(pair: PairArrays, prediction: Image | None = None) -> Image:
    """Set before, after and a third picture side by side, all of the same size.

    The third is the mask, or with a prediction the after image with the prediction in cyan and the border
    of the truth in yellow.
    """
    if prediction is None:
        third = cv2.cvtColor(pair.mask, cv2.COLOR_GRAY2RGB)
    else:
        third = outline(overlay(pair.after, prediction), pair.mask)
    return np.hstack([pair.before, pair.after, third]).astype(np.uint8)


def gallery(rows: Sequence[Image], columns: int = 2, gap: int = 6) -> Image:
    """Lay out pictures of one size in a grid on white: HWC uint8 RGB.

    Raises:
        ValueError: there is no picture.
    """
    if not rows:
        raise ValueError("gallery: no picture to show")
    height, width = rows[0].shape[:2]
    lines = -(-len(rows) // columns)
    sheet = np.full((lines * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, row in enumerate(rows):
        y, x = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        sheet[y : y + height, x : x + width] = row
    return sheet


def inline_jpeg(image: Image) -> bytes:
    """Encode HWC uint8 RGB as a JPEG of at most 70 kB, smaller and coarser until it fits."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    while True:
        for quality in (85, 70, 55):
            content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(content) <= INLINE_BYTES:
                return content
        bgr = cv2.resize(bgr, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def training_curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Plot losses, and val F1 and IoU, over the epochs: PNG."""
    epochs = [row["epoch"] for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for axis, names in ((left, ("train_loss", "val_loss")), (right, ("val_f1", "val_iou"))):
        for name in names:
            axis.plot(epochs, [row[name] for row in history], label=name.replace("_", " "))
        axis.axvline(best_epoch, color="grey", linewidth=0.8, linestyle=":", label=f"best epoch {best_epoch}")
        axis.set_xlabel("epoch")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return _png(figure)


def sweep_curve(table: Mapping[str, npt.NDArray[Any]], threshold: float) -> bytes:
    """Plot F1, IoU, precision and recall over the threshold: PNG."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2))
    for name in ("f1", "iou", "precision", "recall"):
        axis.plot(table["threshold"], table[name], label=name)
    axis.axvline(threshold, color="grey", linestyle=":", label=f"chosen {threshold:.3f}")
    axis.set_xlabel("threshold")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()
