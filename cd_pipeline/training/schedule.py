"""Learning rates as small functions of the epoch."""

import math


def warmup_cosine(epoch: int, *, epochs: int, warmup: int, peak: float, low: float) -> float:
    """Return the learning rate of an epoch: linear warm-up, then cosine from `peak` to `low`.

    Args:
        epoch: counted from 0.
        epochs: their number; the last one runs at `low`.
        warmup: epochs of warm-up; the first runs at peak / warmup, the last at `peak`.
        peak: highest rate.
        low: lowest rate.
    """
    if epoch < warmup:
        return peak * (epoch + 1) / warmup
    progress = (epoch - warmup) / max(1, epochs - 1 - warmup)
    return low + (peak - low) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
