"""Learning rates as small functions of how far training is."""

import math

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cd_pipeline.training.settings import TrainingSettings


def warmup_cosine(position: int, *, total: int, warmup: int, peak: float, low: float) -> float:
    """Return the learning rate of an epoch or step: linear warm-up, then cosine from `peak` to `low`.

    Args:
        position: number of the epoch or step, from 0.
        total: how many there are; the last one runs at `low`.
        warmup: how many of them warm up; the first runs at peak / warmup, the last at `peak`.
        peak: highest rate.
        low: lowest rate.
    """
    if position < warmup:
        return peak * (position + 1) / warmup
    progress = (position - warmup) / max(1, total - 1 - warmup)
    return low + (peak - low) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


class RateSchedule:
    """The learning rate of each step, epoch by epoch.

    Every schedule but `plateau` is a function of the epoch alone.

    >>> settings = TrainingSettings(schedule="steps", learning_rate=1.0, step_epochs=2, step_gamma=0.5)
    >>> schedule = RateSchedule(settings, steps=3)
    >>> schedule.epoch(1), schedule.epoch(2)
    ([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    """

    def __init__(self, settings: TrainingSettings, steps: int) -> None:
        self._settings = settings
        self._steps = steps
        # torch's plateau changes an optimiser; this stand-in holds the rate that training reads
        self._rate_holder = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
        self._plateau = ReduceLROnPlateau(
            self._rate_holder,
            factor=settings.plateau_factor,
            patience=settings.plateau_patience,
            min_lr=settings.min_learning_rate,
        )

    def epoch(self, epoch: int) -> list[float]:
        """Return the rate of each step of an epoch, which counts from 0; of a plateau: as judged so far."""
        match self._settings.schedule:
            case "constant":
                return [self._settings.learning_rate] * self._steps
            case "plateau":
                return [float(self._rate_holder.param_groups[0]["lr"])] * self._steps
            case "steps":
                return [self._after_steps(epoch)] * self._steps
            case "epoch":
                return [self._cosine(epoch, unit=1)] * self._steps
            case "step":
                first = epoch * self._steps
                return [self._cosine(step, unit=self._steps) for step in range(first, first + self._steps)]

    def judged(self, val_loss: float) -> None:
        """Take note of an epoch's val loss; a plateau lowers the rate after too many without a lower one."""
        self._plateau.step(val_loss)

    def _after_steps(self, epoch: int) -> float:
        settings = self._settings
        rate = settings.learning_rate * settings.step_gamma ** (epoch // settings.step_epochs)
        return max(settings.min_learning_rate, rate)

    def _cosine(self, position: int, *, unit: int) -> float:
        return warmup_cosine(
            position,
            total=self._settings.epochs * unit,
            warmup=self._settings.warmup_epochs * unit,
            peak=self._settings.learning_rate,
            low=self._settings.min_learning_rate,
        )
