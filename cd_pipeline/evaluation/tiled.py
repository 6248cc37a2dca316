"""Prediction of pictures larger than the network's input, in overlapping tiles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.data.tiles import Window, padded, starts

Probability: TypeAlias = npt.NDArray[np.float32]
"""HW, or CHW of several classes."""
Probabilities: TypeAlias = Callable[[Sequence[npt.NDArray[np.uint8]]], Sequence[Probability]]
"""A network: of each picture of its task N of them, NxHxWx3 RGB at its input size -> N probabilities."""
PIXELS_AT_ONCE = 8 * 256 * 256
"""Of the tiles in one batch: memory grows with them, not with the picture."""
PredictRow: TypeAlias = Callable[[list[Window]], Iterable[Probability]]
"""The tiles of one row -> the probability of each, of its window's size."""


def predict_strips(
    network: Probabilities, pictures: Sequence[Image], *, side: int, overlap: int
) -> Iterator[Probability]:
    """Predict pictures of any size at their own scale, in tiles, from top to bottom.

    Memory grows with the width alone where each strip is used and left.

    Args:
        network: its probabilities.
        pictures: HWC uint8 RGB, of one size.
        side: of the tiles, the network's input size; smaller pictures are mirrored to it.
        overlap: of neighbouring tiles, px; there their predictions are blended.

    Yields:
        Probabilities in [0, 1], h x W float32, or C x h x W of C classes; the heights add up to H.
    """

    def tiles(picture: Image, windows: list[Window]) -> npt.NDArray[np.uint8]:
        return np.stack([padded(picture[window.rows, window.columns], side) for window in windows])

    def predict_row(windows: list[Window]) -> Iterator[Probability]:
        at_once = max(1, PIXELS_AT_ONCE // side**2)
        for first in range(0, len(windows), at_once):
            some = windows[first : first + at_once]
            found = network([tiles(picture, some) for picture in pictures])
            for tile, window in zip(found, some, strict=True):
                yield tile[..., : window.height, : window.width]

    height, width = pictures[0].shape[:2]
    return blended_strips(predict_row, width, height, side, overlap)


def predict_tiled(network: Probabilities, *pictures: Image, side: int, overlap: int) -> Probability:
    """Predict as `predict_strips` does: the whole probability, HxW float32 in [0, 1], or CxHxW."""
    strips = list(predict_strips(network, pictures, side=side, overlap=overlap))
    probability: Probability = np.concatenate(strips, axis=-2)
    return probability


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
