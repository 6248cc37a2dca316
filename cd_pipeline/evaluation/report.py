"""What is reported of a test set, whatever its task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cd_pipeline.data.images import Image
from cd_pipeline.evaluation.image_sweep import ImageSweep


@dataclass(frozen=True)
class TestReport:
    """The figures of a test set.

    Attributes:
        metrics: plain values under constant names, also nested ones; written as JSON.
        headline: the figures that matter most, in one phrase.
        scores: a row an example; its column `file` names the example's picture.
        shown_columns: of `scores`, for the UI.
        tables: further tables for the UI by name, each a list of rows.
        sheet: a gallery, HWC uint8 RGB.
        sweep: of one class, the examples' confusions at every threshold, before masks are cleaned, in the order
            of `scores`.
    """

    __test__ = False  # not for pytest

    metrics: Mapping[str, Any]
    headline: str
    scores: pd.DataFrame
    shown_columns: tuple[str, ...]
    tables: Mapping[str, list[dict[str, Any]]]
    sheet: Image
    sweep: ImageSweep | None = None
