"""Recall by kind and size of change: which changes a network finds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image

SIZES = (("below 1 %", 0.01), ("1 to 5 %", 0.05), ("above 5 %", 1.0))
"""Names of the size buckets and their upper limits: the share of the picture that a change covers."""


@dataclass(frozen=True, slots=True)
class FoundChange:
    """One change of a pair.

    Attributes:
        kind: of change.
        size: name of its bucket in `SIZES`.
        pixels: px of it that count and that no later change covers.
        found: those that are predicted.
    """

    kind: str
    size: str
    pixels: int
    found: int


def found_changes(
    owners: npt.NDArray[np.int16], kinds: Sequence[str], prediction: Image, valid: Image | None = None
) -> list[FoundChange]:
    """Count the predicted pixels of each change of a pair.

    Args:
        owners: HW, the number of the change that a pixel belongs to, -1: none; any size.
        kinds: of all changes, by number.
        prediction: HW uint8, nonzero = predicted.
        valid: HW uint8 of the prediction's size, nonzero = counts; None: every pixel counts.

    Returns:
        An entry for each change of which a pixel counts.
    """
    height, width = prediction.shape
    sized = cv2.resize(owners, (width, height), interpolation=cv2.INTER_NEAREST)
    counted = np.full(prediction.shape, True) if valid is None else valid > 0
    result = []
    for number, kind in enumerate(kinds):
        region = sized == number
        pixels = int(np.count_nonzero(region & counted))
        if pixels:
            share = np.count_nonzero(region) / region.size
            size = next(name for name, limit in SIZES if share <= limit)
            hits = int(np.count_nonzero(region & counted & (prediction > 0)))
            result.append(FoundChange(kind, size, pixels, hits))
    return result


def recall_by(changes: Iterable[FoundChange], attribute: str) -> list[dict[str, object]]:
    """Pool changes by `kind` or `size`.

    Returns:
        Rows of the attribute, the number of changes, the share of their pixels that was found (recall), and
        the share of changes of which at least half was found.
    """
    groups: dict[str, list[FoundChange]] = {}
    for change in changes:
        groups.setdefault(getattr(change, attribute), []).append(change)
    order = [name for name, _ in SIZES] if attribute == "size" else sorted(groups)
    return [
        {
            attribute: name,
            "changes": len(groups[name]),
            "recall": sum(c.found for c in groups[name]) / sum(c.pixels for c in groups[name]),
            "half_found": sum(2 * c.found >= c.pixels for c in groups[name]) / len(groups[name]),
        }
        for name in order
        if name in groups
    ]
