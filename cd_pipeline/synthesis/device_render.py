"""Rendering of a whole batch of realistic pairs, so that the device of a network does it, not the loader.

`packed_plans` says what the loader does. The pictures are those of `render_realistic`, but for these:

- a value of a scene differs by a level where float32 is within its error of what is rounded the other way;
- a hole of `remove` or `move` is filled as if the picture had no change before it, and from surroundings that are
  reduced apart: shifted by a small part of a pixel, see `scene_around`;
- `recolour`, `retexture`, `pixel` and soft edges differ by a level where float32 is within its error of a half, and
  what a later change shows of an earlier one accordingly.

What differs by about `min_visible` on average can be a change there and none here. A pair's result does not depend on
the others of its batch, and only operations with one correct rounding are used, as in `device_nuisance`.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cd_pipeline.synthesis.device_kinds import Places, blurred, hue_turned, painted, pixelated, textured
from cd_pipeline.synthesis.device_nuisance import PackedNuisance, disturbed_items, tables_for
from cd_pipeline.synthesis.packed_plans import Column, Content, Shown
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.plan_chunks import PlanChunk

PHOTO_BYTES = 1 << 30
"""Of photos kept on a device, reduced: about 1,000 of those for inputs of 256 px."""


class DevicePhotos:
    """Photos on a device, reduced, so that each travels once; the least recently used give way.

    Args:
        photos: that pairs show, by their numbers.
        store: where they are read and their hashes checked.
        side: what their shorter side is reduced to, px.
        device: where they are kept.
        capacity: bytes; those of one chunk are there in any case while it is rendered.
    """

    def __init__(
        self,
        photos: Sequence[Shown],
        store: PhotoStore,
        side: int,
        device: str,
        capacity: int = PHOTO_BYTES,
    ) -> None:
        self._photos, self._store, self._side, self._device = photos, store, side, device
        self._capacity = capacity
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self.kept_bytes = 0

    def pixels(self, number: int) -> Tensor:
        """Return a photo's pixels one after the other: Px3 uint8 RGB.

        Raises:
            PhotoError: it is no longer the photo with its hash.
        """
        found = self._kept.get(number)
        if found is not None:
            self._kept.move_to_end(number)
            return found
        shown = self._photos[number]
        photo = self._store.reduced(shown.reference, shown.sha256, self._side)
        found = torch.from_numpy(np.array(photo)).to(self._device, non_blocking=True).flatten(0, 1)
        self._kept[number] = found
        self.kept_bytes += found.nbytes
        while self.kept_bytes > self._capacity:
            self.kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return found


def render_items(chunks: Sequence[PlanChunk], photos: DevicePhotos, device: str) -> Tensor:
    """Render a batch of pairs, with their nuisance.

    Args:
        chunks: of the batch, on the CPU.
        photos: that the pairs show.
        device: where it is done.

    Returns:
        Nx8xSxS uint8 on the device, as `to_item` gives them.
    """
    items = torch.cat([_items(chunk, photos, device) for chunk in chunks])
    order = torch.cat([chunk.order for chunk in chunks])
    return items.index_select(0, order.argsort().to(device, non_blocking=True))


def _items(chunk: PlanChunk, photos: DevicePhotos, device: str) -> Tensor:
    placed = chunk.on(device)
    before, after, mask = render_chunk(chunk, placed, photos)
    pictures = torch.stack([before, after], dim=1).flatten(0, 1).permute(0, 3, 1, 2)  # 2Nx3xSxS
    tables = tables_for(pictures, placed.curves.flatten(0, 1), placed.factors.flatten(0, 1))
    effects = (getattr(chunk, name).flatten(0, 1) for name in PackedNuisance._fields[1:])
    return disturbed_items(pictures, mask, PackedNuisance(tables, *effects))


def render_chunk(chunk: PlanChunk, placed: PlanChunk, photos: DevicePhotos) -> tuple[Tensor, Tensor, Tensor]:
    """Render pairs without their nuisance, in the order of the chunk.

    Args:
        chunk: on the CPU, which alone is asked how much there is of what: asking the device would wait for all that it
            has to do.
        placed: the same on the device.
        photos: that the pairs show.

    Returns:
        before, after: NxSxSx3 uint8 RGB; mask: Nx1xSxS uint8, 255 where changed.
    """
    scenes = _scenes(chunk, placed, photos)
    changed = scenes.clone()
    marked = torch.zeros(scenes.shape[:3], dtype=torch.bool, device=scenes.device)
    change, pixel, shown = 0, 0, 0
    for pairs, longest, *counts in chunk.counts.tolist():
        step = _Step(placed, counts, longest, slice(change, change + pairs), pixel, shown)
        previous = changed[:pairs]
        made, region = step.make(previous)
        apart = (made.short() - scenes[:pairs]).abs_().sum(3)  # MxSxS
        visible = (apart * region).flatten(1).sum(1) >= step.column(Column.LIMIT)
        changed[:pairs] = torch.where(visible[:, None, None, None], made, previous)
        marked[:pairs] |= region & visible[:, None, None]
        change, pixel, shown = change + pairs, pixel + sum(counts), shown + sum(counts[Content.PIXEL :])
    swapped = placed.swapped[:, None, None, None]
    before, after = torch.where(swapped, changed, scenes), torch.where(swapped, scenes, changed)
    return before, after, marked[:, None].to(torch.uint8).mul_(255)


def _scenes(chunk: PlanChunk, placed: PlanChunk, photos: DevicePhotos) -> Tensor:
    # summed over the pixels of a row first, then over rows, as OpenCV
    pixels = torch.cat([photos.pixels(number) for number in chunk.photos.tolist()])
    starts, (heights, widths) = placed.starts[:, None, None], placed.sizes[:, :, None].unbind(1)
    count, size = chunk.rows.shape
    areal = placed.areal[:, None, None, None]
    total = torch.zeros(count, size, size, 3, device=pixels.device)
    for down in range(chunk.row_weights.shape[2]):
        # what lies beyond the part weighs 0
        rows = starts + (torch.minimum(placed.rows + down, heights - 1) * widths)[:, :, None]
        line = torch.zeros_like(total)
        for across in range(chunk.column_weights.shape[2]):
            at = rows + torch.minimum(placed.columns + across, widths - 1)[:, None]
            weights = placed.column_weights[:, None, :, across, None]
            line += pixels.index_select(0, at.flatten()).view(total.shape) * weights
        weights = placed.row_weights[:, :, None, down, None]
        # INTER_LINEAR keeps 7 bits of a row's fraction and then 2 of their sum's
        cut = (line * 128).floor_().mul_(weights).div_(32).floor_()
        total += torch.where(areal, line * weights, cut)
    return torch.where(areal, total.round(), ((total + 2) / 4).floor_()).clamp_(0, 255).to(torch.uint8)


class _Step:
    """One change of each of M pairs.

    Args:
        placed: of their chunk, on the device.
        counts: pixels of each `Content`.
        longest: reach of blur.
        changes: theirs in the table.
        pixel: the first of their pixels.
        shown: the first of those that the loader made.
    """

    def __init__(
        self,
        placed: PlanChunk,
        counts: Sequence[int],
        longest: int,
        changes: slice,
        pixel: int,
        shown: int,
    ) -> None:
        self._counts, self._longest = counts, longest
        ends = np.cumsum([0, *counts]).tolist()
        self._parts = [slice(start, end) for start, end in pairwise(ends)]
        self._table, self._numbers = placed.changes[changes], placed.numbers[changes]
        self._owners = placed.owners[pixel : pixel + ends[-1]]
        self._edges = placed.edges[pixel : pixel + ends[-1]]
        self._pixels = placed.pixels[shown : shown + sum(counts[Content.PIXEL :])]
        self._of_pixels = self._table.index_select(0, self._owners)  # Px12

    def column(self, column: Column) -> Tensor:
        """Return a column of the changes."""
        return self._table[:, column]

    def make(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Make the changes in MxSxSx3 uint8; returns what comes of it, and the changed region, MxSxS bool."""
        size = pictures.shape[1]
        flat = pictures.reshape(-1, 3)
        places = self._places(size, Column.LEFT, Column.TOP)
        old = flat.index_select(0, places.at(places.rows, places.columns))
        weights = (self._edges.float() / self._of_pixels[:, Column.FULL])[:, None]
        starts, widths = self.column(Column.START), self.column(Column.WIDTH)
        mixed = _mixed(old, self._content(flat, old, places), weights)
        made, region = self._laid(pictures, mixed, self._edges, starts, widths, Column.LEFT, Column.TOP)
        if not self._counts[Content.MOVED]:
            return made, region
        moved = self._parts[Content.MOVED]
        target = self._places(size, Column.TO_LEFT, Column.TO_TOP).part(moved)
        under = made.reshape(-1, 3).index_select(0, target.at(target.rows, target.columns))
        mixed = _mixed(under, old[moved], weights[moved])
        moves = self.column(Column.CONTENT) == Content.MOVED
        widths = torch.where(moves, widths, 0)
        made, there = self._laid(
            made, mixed, self._edges[moved], starts - moved.start, widths, Column.TO_LEFT, Column.TO_TOP
        )
        return made, region | there

    def _places(self, size: int, left: Column, top: Column) -> Places:
        of = self._of_pixels
        widths = of[:, Column.WIDTH]
        number = torch.arange(len(of), device=of.device) - of[:, Column.START]
        rows = number // widths
        corners = (self._owners * size + of[:, top]) * size + of[:, left]
        return Places(rows, number - rows * widths, of[:, Column.HEIGHT], widths, corners, size)

    def _content(self, flat: Tensor, old: Tensor, places: Places) -> Tensor:
        # Px3 uint8
        def of(content: Content, column: Column) -> Tensor:
            return self._of_pixels[self._parts[content], column]

        def numbers(content: Content) -> Tensor:
            return self._numbers.index_select(0, self._owners[self._parts[content]])

        part, count, made = self._parts, self._counts, self._pixels
        cells, other, shown = made.tensor_split(
            (count[Content.PIXEL], count[Content.PIXEL] + count[Content.TEXTURE])
        )
        contents = [torch.zeros_like(old[part[Content.BLACK]]), old[part[Content.KEPT]]]
        if count[Content.PAINT]:
            contents.append(painted(old[part[Content.PAINT]], numbers(Content.PAINT)))
        if count[Content.HUE]:
            turns, gains = (of(Content.HUE, column) for column in (Column.FIRST, Column.SECOND))
            contents.append(hue_turned(old[part[Content.HUE]], turns, gains))
        if count[Content.BLUR]:
            reaches = of(Content.BLUR, Column.FIRST)
            contents.append(blurred(flat, places.part(part[Content.BLUR]), reaches, self._longest))
        if count[Content.PIXEL]:
            rows, columns = (of(Content.PIXEL, column) for column in (Column.FIRST, Column.SECOND))
            contents.append(pixelated(flat, places.part(part[Content.PIXEL]), cells, rows, columns))
        if count[Content.TEXTURE]:
            shares = numbers(Content.TEXTURE)[:, 0]
            contents.append(textured(old[part[Content.TEXTURE]], other, shares))
        return torch.cat([*contents, shown])

    def _laid(
        self,
        pictures: Tensor,
        pixels: Tensor,
        edges: Tensor,
        starts: Tensor,
        widths: Tensor,
        left: Column,
        top: Column,
    ) -> tuple[Tensor, Tensor]:
        # a selection of what each pixel of the pictures shows, not an assignment, see `device_nuisance`
        size = pictures.shape[1]
        along = torch.arange(size, device=pictures.device)
        across = along - self.column(left)[:, None]
        down = along - self.column(top)[:, None]
        inside_across = (across >= 0) & (across < widths[:, None])
        inside_down = (down >= 0) & (down < self.column(Column.HEIGHT)[:, None])
        inside = inside_down[:, :, None] & inside_across[:, None]  # MxSxS
        first = starts[:, None] + down * widths[:, None]
        place = torch.where(inside, first[:, :, None] + across[:, None], 0).flatten()
        region = inside & (edges.index_select(0, place) > 0).view(inside.shape)
        shown = pixels.index_select(0, place).view(pictures.shape)
        return torch.where(region[..., None], shown, pictures), region


def _mixed(old: Tensor, content: Tensor, weights: Tensor) -> Tensor:
    # Px3 uint8 each, weights Px1 float32
    start = old.float()
    return (start + (content - start) * weights).round_().to(torch.uint8)
