"""The chosen threshold: swept on val with the saved network, kept as a small JSON file."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import write_text
from cd_pipeline.data.samples import Sample
from cd_pipeline.evaluation.sweep import ThresholdSweep, linear_thresholds


@dataclass(frozen=True, slots=True)
class ChosenThreshold:
    """The threshold chosen on val, its scores there, pooled, the weights it belongs to, and the settings."""

    threshold: float
    f1: float
    iou: float
    precision: float
    recall: float
    checkpoint_version: str
    chosen_by: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "ChosenThreshold":
        """Read what `save` wrote.

        Raises:
            ValueError: naming the file and the remedy.
        """
        try:
            found = cls(**json.loads(path.read_text()))
            found._refuse_other_values()
        except (ValueError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"{path}: not a threshold file ({reason}); delete it and materialize threshold again"
            ) from None
        return found

    def _refuse_other_values(self) -> None:
        for name in ("threshold", "f1", "iou", "precision", "recall"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name}: found {value!r}, expected a number in [0, 1]")
        if not isinstance(self.checkpoint_version, str) or not isinstance(self.chosen_by, dict):
            raise ValueError("checkpoint_version must be text, chosen_by a mapping")


class ScoredSample(NamedTuple):
    """probability: HW float32 in [0, 1]; truth: HW bool; valid: HW bool, what counts."""

    probability: npt.NDArray[np.float32]
    truth: npt.NDArray[np.bool_]
    valid: npt.NDArray[np.bool_]


def sweep_predictions(
    predictions: Iterable[ScoredSample],
    *,
    low: float,
    high: float,
    steps: int,
    fixed: float | None = None,
) -> ThresholdSweep:
    """Pool (probability, truth, valid) over evenly spaced thresholds, and a fixed one among them."""
    tried = linear_thresholds(low, high, steps)
    sweep = ThresholdSweep(tried if fixed is None else np.union1d(tried, [fixed]))
    for probability, truth, valid in predictions:
        sweep.update(probability, truth, valid)
    return sweep


def predict_samples(
    predict: Callable[..., npt.NDArray[np.float32]], samples: Iterable[Sample]
) -> Iterator[ScoredSample]:
    """Yield what a network, given the pictures of each sample at its input size, says of them."""
    for sample in samples:
        valid = np.ones_like(sample.mask) if sample.valid is None else sample.valid
        yield ScoredSample(predict(*sample.pictures), sample.mask > 0, valid > 0)


def choose(
    sweep: ThresholdSweep, checkpoint_version: str, tolerance: float = 0.0, fixed: float | None = None
) -> ChosenThreshold:
    """Take the threshold of the best pooled F1, or the highest that comes close, or a fixed one.

    Args:
        sweep: pooled over val.
        checkpoint_version: of the weights that were swept.
        tolerance: F1 that may be given up for fewer false alarms; 0: the best F1, whatever it marks.
        fixed: one of the thresholds that were swept; None: chosen by F1.
    """
    if fixed is not None:
        index = int(np.flatnonzero(sweep.thresholds == fixed)[0])
    else:
        index = sweep.highest_within(tolerance) if tolerance else sweep.best()[1]
    confusion = sweep.confusions().at(index)
    return ChosenThreshold(
        threshold=float(sweep.thresholds[index]),
        f1=confusion.f1,
        iou=confusion.iou,
        precision=confusion.precision,
        recall=confusion.recall,
        checkpoint_version=checkpoint_version,
    )
