"""The chosen threshold: swept on val with the saved network, kept as a small JSON file."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import write_text
from cd_pipeline.evaluation.sweep import ThresholdSweep, linear_thresholds


@dataclass(frozen=True, slots=True)
class ChosenThreshold:
    """The threshold of the best pooled F1 on val, its scores there, and the weights it belongs to."""

    threshold: float
    f1: float
    iou: float
    precision: float
    recall: float
    checkpoint_version: str

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
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}: not a threshold file ({error}); delete it and materialize threshold again"
            ) from None


def sweep_predictions(
    predictions: Iterable[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]],
    *,
    low: float,
    high: float,
    steps: int,
) -> ThresholdSweep:
    """Pool (probability, truth) pairs of HxW over evenly spaced thresholds."""
    sweep = ThresholdSweep(linear_thresholds(low, high, steps))
    for probability, truth in predictions:
        sweep.update(probability, truth)
    return sweep


def choose(sweep: ThresholdSweep, checkpoint_version: str) -> ChosenThreshold:
    """Take the threshold of the best pooled F1."""
    threshold, index = sweep.best()
    confusion = sweep.confusions().at(index)
    return ChosenThreshold(
        threshold=threshold,
        f1=confusion.f1,
        iou=confusion.iou,
        precision=confusion.precision,
        recall=confusion.recall,
        checkpoint_version=checkpoint_version,
    )
