"""Pictures for people: galleries, curves, and small copies of them for the event log."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import cv2
import matplotlib
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

CYAN = (0, 255, 255)
OVERLAY_ALPHA = 0.35
"""Colour and strength of the overlaid prediction (published)."""
INLINE_BYTES = 70_000
"""A picture of this size stays under 96 kB as base64."""
CELL = 256
"""Longer side of an image in a gallery, px."""
FOUND, FALSE_ALARM, MISSED = (90, 225, 70), CYAN, (255, 60, 190)
"""Colours of marked pixels by what the truth says; no two are alike to people who confuse red and green."""
COMPARISON_COLOURS = {"found": FOUND, "false alarm": FALSE_ALARM, "missed": MISSED}
"""The legend of `image_row`."""
FADED = 0.6
"""How much of the brightness is left of a photo below these colours."""
ROW_GAP = 3
"""Between the pictures of a row, px."""
LEGEND_LINE, LEGEND_TEXT, LEGEND_GAP = 32, 20, 24
"""Height of a line of a legend and of its letters, and the space around an entry, px."""

Colour: TypeAlias = Sequence[int]
"""Red, green and blue, 0 to 255."""
Cell: TypeAlias = tuple[int, int]
"""Height and width of a place in a gallery, px."""


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


def pair_row(pair: Sample, prediction: Image | None = None) -> Image:
    """Set before, after and a third picture side by side, all of the same size.

    The third is the mask, or with a prediction the after image with the prediction in cyan and the border
    of the truth in yellow.
    """
    if prediction is None:
        third = cv2.cvtColor(pair.mask, cv2.COLOR_GRAY2RGB)
    else:
        third = outline(overlay(pair.after, prediction), pair.mask)
    return np.hstack([pair.before, pair.after, third]).astype(np.uint8)


def cell_size(shapes: Sequence[tuple[int, int]], side: int = CELL) -> Cell:
    """Choose one size to show pictures of many sizes at: their median aspect, the longer side `side` px.

    Args:
        shapes: height and width of each, px.
        side: px.

    Raises:
        ValueError: there is no picture.
    """
    if not shapes:
        raise ValueError("cell_size: no picture to show")
    aspect = float(np.median([height / width for height, width in shapes]))
    return max(1, round(side * min(1, aspect))), max(1, round(side * min(1, 1 / aspect)))


def fitted(photo: Image, cell: Cell) -> Image:
    """Resize HWC uint8 RGB with its aspect, centred on white: a picture of the cell's size."""
    height, width = _inside(photo, cell)
    way = cv2.INTER_AREA if height <= photo.shape[0] else cv2.INTER_LINEAR
    return _centred(cv2.resize(photo, (width, height), interpolation=way).astype(np.uint8), cell, 255)


def fitted_mask(mask: Image, cell: Cell) -> Image:
    """Resize a mask as `fitted` does its photo: HW uint8, 0 or 255.

    A pixel is marked where any pixel that it stands for is, so that a crack one pixel wide stays a line.

    Args:
        mask: HW, nonzero = marked.
        cell: the size wanted.
    """
    height, width = _inside(mask, cell)
    shrinks = height <= mask.shape[0]
    # in float32, because means of bytes round thin lines away
    mean = cv2.resize(
        (mask > 0).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST,
    )
    return _centred(np.where(mean > 0, 255, 0).astype(np.uint8), cell, 0)


def fitted_classes(painted: Image, cell: Cell) -> Image:
    """Resize classes in their colours as `fitted` does their photo, by nearest: no colour is mixed."""
    height, width = _inside(painted, cell)
    resized = cv2.resize(painted, (width, height), interpolation=cv2.INTER_NEAREST)
    return _centred(resized.astype(np.uint8), cell, 255)


def compared(photo: Image, truth: Image, prediction: Image) -> Image:
    """Colour what is marked on a darker photo: found green, false alarms cyan, missed magenta.

    Args:
        photo: HWC uint8 RGB.
        truth: HW, nonzero = marked.
        prediction: HW, nonzero = marked.
    """
    shown = (photo * FADED).astype(np.uint8)
    shown[(truth > 0) & (prediction > 0)] = FOUND
    shown[(truth == 0) & (prediction > 0)] = FALSE_ALARM
    shown[(truth > 0) & (prediction == 0)] = MISSED
    return shown


def image_row(photo: Image, truth: Image, prediction: Image, cell: Cell) -> Image:
    """Set an image, its truth, and the image with what was found and missed side by side.

    Args:
        photo: HWC uint8 RGB.
        truth: HW, nonzero = marked.
        prediction: HW, nonzero = marked.
        cell: size of each of the three.

    Returns:
        HWC uint8 RGB; the colours of the third are `COMPARISON_COLOURS`.
    """
    shown, wanted, found = fitted(photo, cell), fitted_mask(truth, cell), fitted_mask(prediction, cell)
    third = compared(shown, wanted, found)
    third[fitted_mask(np.ones_like(truth), cell) == 0] = 255  # beside the image
    white_on_black = fitted(np.dstack([np.zeros_like(truth)] * 3), cell)
    white_on_black[wanted > 0] = 255
    return _side_by_side([shown, white_on_black, third])


def class_row(photo: Image, truth: Image, prediction: Image, cell: Cell) -> Image:
    """Set an image, its classes and the predicted ones side by side.

    Args:
        photo: HWC uint8 RGB.
        truth: HWC uint8 RGB, the classes in their colours.
        prediction: the same of the prediction.
        cell: size of each of the three.
    """
    return _side_by_side([fitted(photo, cell), fitted_classes(truth, cell), fitted_classes(prediction, cell)])


def legend(caption: str, entries: Mapping[str, Colour], width: int) -> Image:
    """Write a caption, and names beside squares of their colours: HWC uint8 RGB on white.

    Args:
        caption: what is to be seen.
        entries: colours by name, in any script; they take as many lines as they need.
        width: of the legend, px; what is longer is cut off.
    """
    font, indent = cv2.FontFace("sans"), LEGEND_TEXT * 3 // 2
    line = np.full((LEGEND_LINE, width, 3), 255, np.uint8)
    strips, margin, x = [line.copy()], LEGEND_GAP // 4, LEGEND_GAP // 4
    for name, colour in ((caption, None), *entries.items()):
        start = 0 if colour is None else indent
        left, _, text_width, _ = cv2.getTextSize((0, 0), name, (0, 0), font, LEGEND_TEXT)
        extent = start + left + text_width
        if x > margin and x + extent > width:
            strips.append(line.copy())
            x = margin
        strip, top = strips[-1], (LEGEND_LINE - LEGEND_TEXT) // 2
        if colour is not None:
            corners = (x, top), (x + LEGEND_TEXT, top + LEGEND_TEXT)
            cv2.rectangle(strip, *corners, tuple(int(value) for value in colour), cv2.FILLED)
            cv2.rectangle(strip, *corners, (120, 120, 120), 1)  # white ones show too
        baseline = (x + start, top + LEGEND_TEXT - LEGEND_TEXT // 6)
        cv2.putText(strip, name, baseline, (0, 0, 0), font, LEGEND_TEXT)
        x += extent + LEGEND_GAP
    return np.vstack(strips)


def sheet_with_legend(rows: Sequence[Image], caption: str, entries: Mapping[str, Colour]) -> Image:
    """Lay out pictures of one size as `gallery` does, below a `legend`: HWC uint8 RGB.

    Raises:
        ValueError: there is no picture.
    """
    sheet = gallery(rows, columns=min(2, len(rows)))
    return np.vstack([legend(caption, entries, sheet.shape[1]), sheet])


def _side_by_side(pictures: Sequence[Image]) -> Image:
    # HWC uint8 RGB of one height, with white between them
    gap = np.full((len(pictures[0]), ROW_GAP, 3), 255, np.uint8)
    first, *others = pictures
    return np.hstack([first, *(part for picture in others for part in (gap, picture))])


def _inside(picture: Image, cell: Cell) -> tuple[int, int]:
    # height and width of the largest copy with the same aspect that the cell holds
    scale = min(cell[0] / picture.shape[0], cell[1] / picture.shape[1])
    return max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))


def _centred(picture: Image, cell: Cell, value: int) -> Image:
    sheet = np.full((*cell, *picture.shape[2:]), value, np.uint8)
    top, left = (cell[0] - picture.shape[0]) // 2, (cell[1] - picture.shape[1]) // 2
    sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


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


def inline_jpeg(image: Image, limit: int = INLINE_BYTES) -> bytes:
    """Encode HWC uint8 RGB as a JPEG of at most `limit` bytes (1,000 at least), smaller and coarser until it fits."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    while True:
        for quality in (85, 70, 55):
            content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(content) <= limit:
                return content
        bgr = cv2.resize(bgr, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def training_curves(history: Sequence[Mapping[str, float | None]], best_epoch: int) -> bytes:
    """Plot losses and scores over the epochs, of several classes pixel accuracy too: PNG."""
    epochs = [row["epoch"] for row in history]
    panels = [("train_loss", "val_loss"), ("val_f1", "val_iou", "train_iou")]
    if history[0]["threshold"] is None:
        panels.append(("val_pixel_accuracy", "train_pixel_accuracy"))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.2))
    for axis, names in zip(axes, panels, strict=True):
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
