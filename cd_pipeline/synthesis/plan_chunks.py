"""A batch of packed plans as tensors for the device."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cd_pipeline.synthesis.device_kinds import LINEAR_UNIT
from cd_pipeline.synthesis.device_nuisance import CHUNK_PIXELS, Effects, Tones
from cd_pipeline.synthesis.packed_plans import Column, Content, PackedPlan
from cd_pipeline.synthesis.realistic_render import shrinks


class PlanChunk(NamedTuple):
    """N pairs of SxS px that are rendered together, those of more changes first; C changes, P pixels of them.

    Step k makes the k-th change of the first M pairs. Its changes are in the order of the pairs, its pixels in that of
    `Content` and then of the pairs.

    order: N int64, the place of each pair in its batch.
    photos: U int64, the numbers of the photos that are shown, each once.
    starts: N int32, the first pixel of a pair's photo, where the pixels of all follow each other.
    sizes: Nx2 int32, its height and width, px.
    rows, columns: NxS int32, the first pixel of the photo that each pixel of the scene is made of.
    row_weights, column_weights: NxSxT float32 of so many pixels from there.
    areal: N bool, whether a scene is averaged over areas (INTER_AREA) or interpolated (INTER_LINEAR).
    swapped: N bool.
    counts: steps x 11 int64: M, the longest reach of blur, and the pixels of each `Content`.
    changes: Cx12 int64, see `Column`.
    numbers: Cx6 float32, see `PackedChange`.
    owners: P int64, the pair of each pixel.
    edges: P int16.
    pixels: Qx3 uint8, of the contents from PIXEL on, see `PackedChange`.
    curves: Nx2x256 float32 and factors: Nx2x5 float32, see `Tones`.
    lights .. corners: Nx2x..., see `PackedNuisance`.
    """

    order: Tensor
    photos: Tensor
    starts: Tensor
    sizes: Tensor
    rows: Tensor
    columns: Tensor
    row_weights: Tensor
    column_weights: Tensor
    areal: Tensor
    swapped: Tensor
    counts: Tensor
    changes: Tensor
    numbers: Tensor
    owners: Tensor
    edges: Tensor
    pixels: Tensor
    curves: Tensor
    factors: Tensor
    lights: Tensor
    noise: Tensor
    place: Tensor
    blur: Tensor
    quality: Tensor
    corners: Tensor

    def on(self, device: str) -> "PlanChunk":
        """Return the chunk on a device; nobody waits for it to arrive."""
        return PlanChunk(*(values.to(device, non_blocking=True) for values in self))


def pack_chunks(plans: Sequence[PackedPlan], size: int) -> list[PlanChunk]:
    """Gather a batch of plans into chunks that a device renders one after the other, in bounded memory.

    Args:
        plans: of the batch.
        size: of the pictures, px.
    """
    step = max(1, CHUNK_PIXELS // size**2)
    return [_chunk(plans[start : start + step], start, size) for start in range(0, len(plans), step)]


def _chunk(plans: Sequence[PackedPlan], first: int, size: int) -> PlanChunk:
    order = sorted(range(len(plans)), key=lambda number: -len(plans[number].changes))
    plans = [plans[number] for number in order]
    photos = {plan.photo: plan.size for plan in plans}
    areas = [height * width for height, width in photos.values()]
    starts = dict(zip(photos, np.cumsum([0, *areas]), strict=False))
    arrays = (
        np.array(order) + first,
        np.array(list(photos)),
        np.array([starts[plan.photo] for plan in plans], np.int32),
        np.array([plan.size for plan in plans], np.int32),
        *_views(plans, size),
        np.array([plan.swapped for plan in plans]),
        *_changes(plans),
        *(_stacked([plan.tones for plan in plans], name) for name in Tones._fields),
        *(_stacked([plan.effects for plan in plans], name) for name in Effects._fields),
    )
    return PlanChunk(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def _stacked(pairs: Sequence[tuple[NamedTuple, NamedTuple]], name: str) -> NDArray[np.generic]:
    return np.stack([[getattr(picture, name) for picture in pair] for pair in pairs])


def _views(plans: Sequence[PackedPlan], size: int) -> tuple[NDArray[np.generic], ...]:
    areal = np.array([shrinks(plan.view, size) for plan in plans])
    left, top, width, height = np.array([plan.view for plan in plans]).T
    rows, row_weights = taps(top, height, areal, size)
    columns, column_weights = taps(left, width, areal, size)
    flipped = np.array([plan.flipped for plan in plans])
    columns[flipped] = columns[flipped, ::-1]
    column_weights[flipped] = column_weights[flipped, ::-1]
    return rows, columns, row_weights, column_weights, areal


def taps(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], areal: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Work out which pixels of a side are summed to each pixel of its resized form, as `cv2.resize` does.

    Args:
        starts: N, the first pixel of each part.
        lengths: N, its length in px.
        areal: N, whether it is averaged over areas (INTER_AREA) or interpolated (INTER_LINEAR).
        size: what it is resized to, px.

    Returns:
        NxS int32, the first of the pixels, and NxSxT, the weights of T pixels from there; those beyond the part are 0.
    """
    scale = lengths[:, None] / size
    areas = np.arange(size) * scale
    middles = np.clip((np.arange(size) + 0.5) * scale - 0.5, 0, lengths[:, None] - 1)
    first = np.floor(np.where(areal[:, None], areas, middles))
    count = 1 + int(np.ceil(scale[areal].max(initial=1)))
    pixels = first[..., None] + np.arange(count)
    covered = np.minimum(pixels + 1, (areas + scale)[..., None]) - np.maximum(pixels, areas[..., None])
    shares = np.rint((middles - first) * LINEAR_UNIT)[..., None] / LINEAR_UNIT
    linear = np.where(np.arange(count) == 0, 1 - shares, np.where(np.arange(count) == 1, shares, 0))
    weights = np.where(areal[:, None, None], covered.clip(0) / scale[..., None], linear)
    weights[pixels >= lengths[:, None, None]] = 0
    return (first + starts[:, None]).astype(np.int32), weights.astype(np.float32)


def _changes(plans: Sequence[PackedPlan]) -> tuple[NDArray[np.generic], ...]:
    # plans of more changes come first: those that have a k-th one are the first ones
    counts: list[list[int]] = []
    table, numbers = [], []
    owners: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    edges: list[NDArray[np.int16]] = [np.empty(0, np.int16)]
    pixels: list[NDArray[np.uint8]] = [np.empty((0, 3), np.uint8)]
    for step in range(len(plans[0].changes)):
        made = [plan.changes[step] for plan in plans if len(plan.changes) > step]
        start, of_content, starts = 0, [0] * len(Content), [0] * len(made)
        for pair in sorted(range(len(made)), key=lambda pair: made[pair].row[Column.CONTENT]):
            change = made[pair]
            starts[pair] = start
            start += len(change.edge)
            of_content[change.row[Column.CONTENT]] += len(change.edge)
            owners.append(np.full(len(change.edge), pair))
            edges.append(change.edge)
            if change.pixels is not None:
                pixels.append(change.pixels)
        reaches = [change.row[Column.FIRST] for change in made if change.row[Column.CONTENT] == Content.BLUR]
        counts.append([len(made), max(reaches, default=0), *of_content])
        table += [(first, *change.row[1:]) for first, change in zip(starts, made, strict=True)]
        numbers += [change.numbers for change in made]
    return (
        np.array(counts, np.int64).reshape(-1, 2 + len(Content)),
        np.array(table, np.int64).reshape(-1, len(Column)),
        np.array(numbers, np.float32).reshape(-1, 6),
        *(np.concatenate(parts) for parts in (owners, edges, pixels)),
    )
