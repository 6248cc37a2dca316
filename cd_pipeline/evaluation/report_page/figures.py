"""The figures of a test set by name: what people call them, and which way is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any


@dataclass(frozen=True, slots=True)
class FigureName:
    """How a figure is shown.

    Attributes:
        label: for people.
        note: what it is, in a few words.
        better: 1 where more is better, -1 where less is, 0 where it is no merit of the network.
        unit: "" for a share in [0, 1], "%" for one shown as such, or "px".
    """

    label: str
    note: str = ""
    better: int = 1
    unit: str = ""

    def text(self, value: float | None) -> str:
        """Return a value as it is shown; "-" where there is none."""
        if value is None or not isfinite(value):
            return "-"
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.1f} px" if self.unit == "px" else f"{value:.3f}"

    def difference(self, value: float | None, before: float | None) -> str:
        """Return by how much a value is above an earlier one; "" where one of them is missing."""
        if value is None or before is None:
            return ""
        step = value - before
        if self.unit == "%":
            return f"{100 * step:+.1f}"
        return f"{step:+.1f}" if self.unit == "px" else f"{step:+.3f}"

    def verdict(self, value: float | None, before: float | None) -> str:
        """Return better, worse, the same, or "" where nothing can be said."""
        if value is None or before is None or not self.better:
            return ""
        if (shown := self.difference(value, before)).strip("+-0.") == "":
            return "the same"
        return "better" if (shown[0] == "+") == (self.better > 0) else "worse"


FIGURES: Mapping[str, FigureName] = {
    "f1": FigureName("F1", "pooled over all pixels"),
    "iou": FigureName("IoU", "pooled over all pixels"),
    "precision": FigureName("Precision", "pooled over all pixels"),
    "recall": FigureName("Recall", "pooled over all pixels"),
    "miou": FigureName("mIoU", "mean of the classes"),
    "pixel_accuracy": FigureName("Pixel accuracy"),
    "mean_dice": FigureName("Mean Dice", "mean of the classes"),
    "miou_without_void": FigureName("mIoU without void"),
    "pixel_accuracy_without_void": FigureName("Pixel accuracy without void"),
    "differencing_oracle_f1": FigureName("F1 of plain differencing", "at its best on this very set", 0),
    "everything_marked_f1": FigureName("F1 of marking every pixel", "the floor", 0),
    "baseline_miou": FigureName("mIoU of the most frequent class everywhere", "the floor", 0),
    "baseline_pixel_accuracy": FigureName(
        "Pixel accuracy of the most frequent class everywhere", "the floor", 0
    ),
    "mean_image_f1": FigureName("Mean F1 of the images", "empty on empty is 1"),
    "mean_image_iou": FigureName("Mean IoU of the images", "empty on empty is 1"),
    "own_size_f1": FigureName("F1 at the pictures' own size", "pooled over all pixels"),
    "exchanged_f1": FigureName("F1 with the pictures exchanged", "second picture given as the first"),
    "no_change_alarm_rate": FigureName("False alarms on unchanged pairs", "share of the pairs", -1, "%"),
    "ods": FigureName("ODS", "best mean F1 with one threshold for all, chosen on this very set"),
    "ois": FigureName("OIS", "mean of each image's best F1, chosen on this very set"),
    "best_f1": FigureName("F1 at the set's best threshold", "chosen on this very set"),
    "hausdorff": FigureName("Hausdorff distance", "mean of the images", -1, "px"),
    "hausdorff_95": FigureName("Hausdorff distance, 95 %", "mean of the images", -1, "px"),
}
"""All that a run is compared by, in the order they are shown in."""


def headline_figures(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Return those of a test set's metrics that are in `FIGURES`, None for one that is not finite."""
    found: dict[str, float | None] = {}
    for name in FIGURES:
        if name in metrics:
            value = metrics[name]
            found[name] = float(value) if value is not None and isfinite(value) else None
    return found


COLUMNS: Mapping[str, FigureName] = {
    **FIGURES,
    "dice": FigureName("Dice"),
    "iou_without_void": FigureName("IoU without void"),
    "half_found": FigureName("At least half found"),
    "best_f1_threshold": FigureName("Best threshold", better=0),
    "ods_threshold": FigureName("ODS threshold", better=0),
    "oracle_f1": FigureName("F1 of plain differencing", better=0),
}
"""Names of the columns of tables that hold figures."""
