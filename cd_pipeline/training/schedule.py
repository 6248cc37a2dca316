"""Learning rates as small functions of how far training is."""

import math

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


def epoch_rates(epoch: int, steps: int, settings: TrainingSettings) -> list[float]:
    """Return the learning rate of each step of an epoch.

    Args:
        epoch: from 0.
        steps: of one epoch.
        settings: by `schedule` the rate changes with each epoch (published), with each step or never.
    """
    if settings.schedule == "constant":
        return [settings.learning_rate] * steps
    unit = 1 if settings.schedule == "epoch" else steps
    positions = [epoch] * steps if unit == 1 else range(epoch * steps, (epoch + 1) * steps)
    return [
        warmup_cosine(
            position,
            total=settings.epochs * unit,
            warmup=settings.warmup_epochs * unit,
            peak=settings.learning_rate,
            low=settings.min_learning_rate,
        )
        for position in positions
    ]
