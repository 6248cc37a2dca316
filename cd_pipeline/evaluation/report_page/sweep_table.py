"""The sweep of a test set as the page needs it: counts an example, and what is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cd_pipeline.data.frames import read_frame
from cd_pipeline.evaluation.image_sweep import STEPS
from cd_pipeline.evaluation.report_page.curves import Chart, Series
from cd_pipeline.evaluation.sweep import ConfusionCurve

COLUMNS = ("file", "positives", "negatives", "tp", "fp")


@dataclass(frozen=True)
class SweepTable:
    """Confusions of N examples at the thresholds 0.00, 0.01 … 1.00, before masks are cleaned.

    Attributes:
        counts: each Nx101.
        threshold: the chosen one, in [0, 1].
    """

    counts: ConfusionCurve
    threshold: float

    @property
    def start(self) -> int:
        """Index of the step that is nearest to the chosen threshold."""
        return round(self.threshold * STEPS)

    @property
    def on_a_step(self) -> bool:
        """Whether the chosen threshold is one of the steps, to float32."""
        return bool(np.float32(self.threshold) == np.float32(self.start / STEPS))

    @property
    def pooled(self) -> ConfusionCurve:
        """Counts of all examples together, each 1-D of 101."""
        return _summed(self.counts, np.arange(len(self.counts.tp)))

    def data(self, shown: Sequence[int]) -> dict[str, Any]:
        """Return plain values for the page's script.

        Args:
            shown: numbers of the examples that have a card, in the order of the cards. The others are summed.
        """
        others = np.setdiff1d(np.arange(len(self.counts.tp)), np.array(shown, int))
        rest = _summed(self.counts, others)
        return {
            "start": self.start,
            "cards": [
                {
                    "positives": int(self.counts.tp[i, 0] + self.counts.fn[i, 0]),
                    "tp": self.counts.tp[i].tolist(),
                    "fp": self.counts.fp[i].tolist(),
                }
                for i in shown
            ],
            "others": {
                "count": len(others),
                "positives": int(rest.tp[0] + rest.fn[0]),
                "tp": rest.tp.tolist(),
                "fp": rest.fp.tolist(),
                "f1_sum": self.counts.f1()[others].sum(axis=0).tolist(),
            },
        }

    def chart(self) -> Chart:
        """Return pooled F1 and the mean of the images' F1 over the threshold."""
        return Chart(
            title=f"F1 over the threshold, from 0 to 1; {self.threshold:.3g} was chosen",
            x_label="threshold",
            x=[step / STEPS for step in range(STEPS + 1)],
            series=[
                Series("F1 of all pixels", self.pooled.f1().tolist()),
                Series("mean F1 of the images", self.counts.f1().mean(axis=0).tolist()),
            ],
            mark=self.start / STEPS,
            mark_label=f"chosen {self.threshold:.3g}",
            moves=True,
        )


def read_sweep(path: Path, scores: pd.DataFrame, threshold: float) -> SweepTable:
    """Read the sweep of a test set.

    Args:
        path: of `sweep.parquet`.
        scores: the set's scores, a row an example, with `file`, `tp` and `fn`.
        threshold: the chosen one.

    Raises:
        ValueError: it is not a sweep, or not that of these scores; the message names the remedy.
    """
    frame = read_frame(path)
    if problem := _problem(frame, scores):
        raise ValueError(f"{path}: {problem}; materialize test_predictions again")
    tp, fp = (np.stack([np.asarray(row, np.int64) for row in frame[name]]) for name in ("tp", "fp"))
    positives, negatives = (frame[name].to_numpy(np.int64)[:, None] for name in ("positives", "negatives"))
    return SweepTable(ConfusionCurve(tp=tp, fp=fp, fn=positives - tp, tn=negatives - fp), threshold)


def _problem(frame: pd.DataFrame, scores: pd.DataFrame) -> str:
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        return f"found columns {list(frame.columns)}, expected also {', '.join(missing)}"
    if len(frame) == 0:
        return "found no example, expected one at least"
    if frame["file"].tolist() != scores["file"].tolist():
        return "its examples are not those of predictions.parquet"
    if {len(row) for name in ("tp", "fp") for row in frame[name]} != {STEPS + 1}:
        return f"tp and fp must each hold {STEPS + 1} counts"
    if (frame["positives"].to_numpy() != (scores["tp"] + scores["fn"]).to_numpy()).any():
        return "its truth is not that of predictions.parquet (positives differ)"
    return ""


def _summed(counts: ConfusionCurve, rows: npt.NDArray[np.int64]) -> ConfusionCurve:
    return ConfusionCurve(*(part[rows].sum(axis=0) for part in (counts.tp, counts.fp, counts.fn, counts.tn)))
