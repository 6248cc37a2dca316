"""Prediction of pictures larger than the network's input, in overlapping tiles."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.tiles import Window, starts

Probability: TypeAlias = npt.NDArray[np.float32]
"""HW, or CHW of several classes."""
PredictRow: TypeAlias = Callable[[list[Window]], Iterable[Probability]]
"""The tiles of one row -> the probability of each, of its window's size."""


def ramp(length: int, start: int, side: int, overlap: int) -> npt.NDArray[np.float32]:
    """Return the weights of a tile along one axis: 1 inside, falling linearly towards a neighbour.

    Args:
        length: of the picture, px.
        start: of the tile.
        side: of the tile.
        overlap: over this many px the weight falls; at the picture's own border it does not.
    """
    extent = min(side, length)
    position = np.arange(extent, dtype=np.float32)
    rising = (position + 1) / (overlap + 1) if start > 0 else np.ones_like(position)
    falling = (extent - position) / (overlap + 1) if start + extent < length else np.ones_like(position)
    weights: npt.NDArray[np.float32] = np.minimum(1, np.minimum(rising, falling)).astype(np.float32)
    return weights


def blended_strips(
    predict_row: PredictRow, width: int, height: int, side: int, overlap: int
) -> Iterator[Probability]:
    """Predict a picture row of tiles by row of tiles, and blend where tiles overlap.

    Only the rows that a later tile can still change are kept: memory grows with the picture's width alone.

    Args:
        predict_row: runs the network.
        width: of the picture, px.
        height: of the picture, px.
        side: of the square tiles.
        overlap: of neighbouring tiles, px, below `side`.

    Yields:
        The finished rows from top to bottom, each h x width float32, or C x h x width where tiles have
        classes; their heights add up to `height`.
    """
    lefts, tops = starts(width, side, overlap), starts(height, side, overlap)
    columns = [ramp(width, left, side, overlap) for left in lefts]
    extent = min(side, height)
    total: Probability | None = None
    weight = np.zeros((extent, width), np.float32)
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        windows = [Window(left, top, min(side, width), extent) for left in lefts]
        rows = ramp(height, top, side, overlap)
        for window, across, found in zip(windows, columns, predict_row(windows), strict=True):
            if total is None:
                total = np.zeros((*found.shape[:-2], extent, width), np.float32)
            mix = rows[:, None] * across
            total[..., window.columns] += found * mix
            weight[:, window.columns] += mix
        assert total is not None
        done = min(following - top, extent)
        yield total[..., :done, :] / weight[:done]
        _shift(total, done)
        _shift(weight, done)


def _shift(rows: Probability, done: int) -> None:
    kept = rows.shape[-2] - done
    rows[..., :kept, :] = rows[..., done:, :].copy()
    rows[..., kept:, :] = 0
