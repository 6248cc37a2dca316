"""Nuisance of a whole batch as tensor operations, so that the device of a network does it, not the loader.

What is drawn, and everything small that follows from it, comes from `cd_pipeline.synthesis.nuisance` on the CPU. The
device does what is done to each pixel, in the same order and with the same noise. Light, blur and movement differ from
`apply_nuisance` by one grey level in about one value of 10,000, where OpenCV adds in another order; JPEG after such a
difference can turn a coefficient, and then values of its block differ by a few. All else is equal.

A photo's result does not depend on the others of its batch. Only operations with one correct rounding are used
(whole numbers; +, -, *, / and square root of float32, each on its own), so that it does not depend on the device.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample
from cd_pipeline.synthesis.device_jpeg import batch_through_jpeg
from cd_pipeline.synthesis.nuisance import (
    FIELD_SIDE,
    Nuisance,
    light_field,
    noise_field,
    noise_place,
    tone_curve,
    tone_tables,
    warp_matrix,
)

CHUNK_PIXELS = 1 << 22
"""Pixels disturbed at a time, 64 photos of 256x256: about 450 MB whatever the batch."""


class PackedNuisance(NamedTuple):
    """Draws for photos, as tensors that stack.

    tables: ...x3x256 float32: what each stored value becomes, [0, 255].
    lights: ...x32x32 float32: factors on a grid over the photo.
    noise: ...x2 float32: sigma; variance for a unit of brightness.
    place: ...x2 int64: row and column of the noise in `noise_field`.
    blur: ... float32: sigma in px, 0: none.
    quality: ... int64: of JPEG, 0: none.
    corners: ...x8 float32: movement in px.
    """

    tables: Tensor
    lights: Tensor
    noise: Tensor
    place: Tensor
    blur: Tensor
    quality: Tensor
    corners: Tensor


class Effects(NamedTuple):
    """What a draw does to a photo but for its tones: the fields of `PackedNuisance` of those names, as arrays."""

    lights: NDArray[np.float32]
    noise: NDArray[np.float32]
    place: NDArray[np.int64]
    blur: NDArray[np.float32]
    quality: NDArray[np.int64]
    corners: NDArray[np.float32]


class Tones(NamedTuple):
    """What a draw does to the tones of a photo that is not rendered yet.

    curve: 256 float32, what gamma makes of each stored value, [0, 255].
    factors: 5 float32: contrast about the photo's mean, the gains of red, green and blue, what is added.
    """

    curve: NDArray[np.float32]
    factors: NDArray[np.float32]


class UndisturbedPair(NamedTuple):
    """A pair before its nuisance, or a stack of such pairs.

    pictures: 2xHxWx3 uint8 RGB: before and after.
    mask: HxW uint8, 0 or 255.
    nuisance: of both pictures.
    """

    pictures: Tensor
    mask: Tensor
    nuisance: PackedNuisance


def undisturbed(pair: Sample, before: Nuisance | None, after: Nuisance | None) -> UndisturbedPair:
    """Pack a pair that was rendered without nuisance.

    Args:
        pair: before and after at most 1024 px a side, and what changed.
        before: the nuisance of the first picture; None: it is left as it is.
        after: the same of the second.
    """
    packed = [
        pack_nuisance(photo, drawn) for photo, drawn in zip(pair.pictures, (before, after), strict=True)
    ]
    return UndisturbedPair(
        torch.from_numpy(np.stack(pair.pictures)),
        torch.from_numpy(pair.mask),
        PackedNuisance(*(torch.stack(parts) for parts in zip(*packed, strict=True))),
    )


def pack_nuisance(photo: Image, nuisance: Nuisance | None) -> PackedNuisance:
    """Work out what a draw does to a photo's values, and pack it.

    Args:
        photo: HWC uint8 RGB, at most 1024 px a side.
        nuisance: the draw; None: the photo is left as it is.
    """
    tables = tone_tables(photo, nuisance).T if nuisance else np.tile(np.arange(256, dtype=np.float32), (3, 1))
    parts = (np.ascontiguousarray(tables), *effects_of(nuisance, *photo.shape[:2]))
    return PackedNuisance(*map(torch.from_numpy, parts))


def effects_of(nuisance: Nuisance | None, height: int, width: int) -> Effects:
    """Work out what a draw does to a photo of that size, at most 1024 px a side, but for its tones; None: nothing."""
    if nuisance is None:
        return _nothing()
    return Effects(
        light_field(nuisance) if nuisance.lights else _nothing().lights,
        np.array([nuisance.noise, nuisance.shot_noise], np.float32),
        np.array(noise_place(nuisance.noise_seed, height, width)),
        np.array(nuisance.blur, np.float32),
        np.array(nuisance.jpeg_quality or 0),
        np.array(nuisance.corners, np.float32),
    )


def tones_of(nuisance: Nuisance | None) -> Tones:
    """Work out all of what a draw does to the tones of a photo that is known before the photo; None: nothing."""
    if nuisance is None:
        return Tones(np.arange(256, dtype=np.float32), np.array([1, 1, 1, 1, 0], np.float32))
    factors = np.array([nuisance.contrast, *nuisance.gains, nuisance.offset], np.float32)
    return Tones(tone_curve(nuisance).astype(np.float32), factors)


def tables_for(photos: Tensor, curves: Tensor, factors: Tensor) -> Tensor:
    """Return what `tone_tables` does, but for rounding in float32.

    Args:
        photos: Nx3xHxW uint8 RGB on any device.
        curves: Nx256 float32 of N `Tones`, on that device.
        factors: Nx5 float32 of them, on that device.

    Returns:
        Nx3x256 float32.
    """
    mean = photos.flatten(1).sum(1).float() / photos[0].numel()
    contrast, gains, offset = factors[:, :1], factors[:, 1:4, None], factors[:, 4:, None]
    values = (curves - mean[:, None]) * contrast + mean[:, None]
    return (values[:, None] * gains + offset).clamp_(0, 255)


def disturbed(pairs: UndisturbedPair, device: str) -> Tensor:
    """Give a batch of pairs its nuisance.

    Args:
        pairs: a stack of N, on the CPU.
        device: where it is done.

    Returns:
        Nx8xHxW uint8 on the device, as `to_item` gives them.
    """
    pictures = pairs.pictures.to(device, non_blocking=True).flatten(0, 1)  # 2NxHxWx3
    mask = pairs.mask.to(device, non_blocking=True)[:, None]
    nuisance = PackedNuisance(*(part.flatten(0, 1) for part in pairs.nuisance))
    return disturbed_items(pictures.permute(0, 3, 1, 2), mask, nuisance)


def disturbed_items(pictures: Tensor, mask: Tensor, nuisance: PackedNuisance) -> Tensor:
    """Give pairs on a device their nuisance.

    Args:
        pictures: 2Nx3xHxW uint8 RGB: before and after of each pair.
        mask: Nx1xHxW uint8, 0 or 255.
        nuisance: of 2N photos, as `disturb` takes it.

    Returns:
        Nx8xHxW uint8 on the device, as `to_item` gives them.
    """
    photos, shown = disturb(pictures, nuisance)
    valid = shown[::2] & shown[1::2]
    return torch.cat([photos[::2], photos[1::2], mask, valid], dim=1)


def disturb(photos: Tensor, nuisance: PackedNuisance) -> tuple[Tensor, Tensor]:
    """Apply draws to a batch of photos.

    Args:
        photos: Nx3xHxW uint8 RGB on any device, at most 1024 px a side.
        nuisance: of N photos, packed for photos of this size, on the CPU; the tables can be on the photos' device.

    Returns:
        Nx3xHxW uint8 RGB, and Nx1xHxW uint8: 255 where the result shows the photo, 0 in the border that its
        movement uncovered; both on the photos' device.
    """
    step = max(1, CHUNK_PIXELS // (photos.shape[2] * photos.shape[3]))
    parts = [slice(start, start + step) for start in range(0, len(photos), step)]
    chunks = [
        _disturbed(photos[part], PackedNuisance(*(values[part] for values in nuisance))) for part in parts
    ]
    pictures, shown = zip(*chunks, strict=True)
    return torch.cat(pictures), torch.cat(shown)


def _disturbed(photos: Tensor, nuisance: PackedNuisance) -> tuple[Tensor, Tensor]:
    # which photos an effect is for is decided on the CPU: asking the device would wait for all it has to do
    lit = _blurred(_relit(photos.contiguous(), nuisance), nuisance.blur.numpy())
    noisy = _with_noise(lit, nuisance)
    qualities = nuisance.quality.numpy()
    chosen = np.flatnonzero(qualities)
    if chosen.size:
        stored = batch_through_jpeg(_taken(noisy, chosen), qualities[chosen])
        noisy = _replaced(noisy, chosen, stored)
    return _warped(noisy, nuisance.corners.numpy())


def _relit(photos: Tensor, nuisance: PackedNuisance) -> Tensor:
    tables, lights = (part.to(photos.device, non_blocking=True) for part in nuisance[:2])
    lit = tables.gather(2, photos.flatten(2).long()).reshape(photos.shape)  # Nx3xHxW
    height, width = photos.shape[2:]
    field = _enlarged(_enlarged(lights, width, 2), height, 1)  # NxHxW
    return lit.mul_(field[:, None])


def _enlarged(field: Tensor, size: int, axis: int) -> Tensor:
    # linear between the middles of cells, constant beyond the outer ones
    place = (np.arange(size) + 0.5) * (FIELD_SIDE / size) - 0.5
    first = np.clip(np.floor(place), 0, FIELD_SIDE - 2)
    share = np.clip(place - first, 0, 1).astype(np.float32)
    shares = _on(share, field).reshape([-1 if side == axis else 1 for side in range(3)])
    start = _on(first.astype(np.int64), field)
    near, far = field.index_select(axis, start), field.index_select(axis, start + 1)
    return near * (1 - shares) + far * shares


def _blurred(lit: Tensor, sigmas: NDArray[np.float32]) -> Tensor:
    chosen = np.flatnonzero(sigmas)
    if not chosen.size:
        return lit
    kernels = [_half_kernel(float(sigma)) for sigma in sigmas[chosen]]
    reach = max(map(len, kernels)) - 1
    weights = np.stack([np.pad(kernel, (0, reach + 1 - len(kernel))) for kernel in kernels])
    part = _taken(lit, chosen)
    for axis in (3, 2):
        part = _smoothed(part, _on(weights, lit), axis)
    return _replaced(lit, chosen, part)


def _half_kernel(sigma: float) -> NDArray[np.float32]:
    # as cv2.GaussianBlur takes it for float32, from the middle outwards
    side = round(sigma * 8 + 1) | 1
    return np.asarray(cv2.getGaussianKernel(side, sigma, cv2.CV_32F), np.float32)[side // 2 :, 0]


def _smoothed(photos: Tensor, weights: Tensor, axis: int) -> Tensor:
    # weights: Nx(reach + 1), from the middle outwards; photos go on mirrored about their outer pixels
    size, reach = photos.shape[axis], weights.shape[1] - 1
    places = reflected(torch.arange(-reach, size + reach, device=photos.device), _period(size))
    padded = photos.index_select(axis, places)
    factors = weights[:, :, None, None, None]
    total = photos * factors[:, 0]
    for step in range(1, reach + 1):
        sides = padded.narrow(axis, reach - step, size) + padded.narrow(axis, reach + step, size)
        total += sides.mul_(factors[:, step])
    return total


def reflected(places: Tensor, period: Tensor | int) -> Tensor:
    """Return the pixels that stand for places on a side, as cv2.BORDER_REFLECT_101, however far outside.

    Args:
        places: int64, px.
        period: twice the side less one, at least 1, of all places or of each.
    """
    turned = places.abs() % period
    return torch.minimum(turned, period - turned)


def _period(size: int) -> int:
    return max(1, 2 * (size - 1))


def _with_noise(lit: Tensor, nuisance: PackedNuisance) -> Tensor:
    strength = nuisance.noise.numpy()
    if not strength.any():
        return rounded(lit)
    height, width = lit.shape[2:]
    windows = _noise_on(lit.device).unfold(0, height, 1).unfold(1, width, 1)
    rows, columns = nuisance.place.to(lit.device, non_blocking=True).unbind(1)
    noise = windows[rows, columns]  # Nx3xHxW
    strengths = nuisance.noise.to(lit.device, non_blocking=True)
    sigma, variance = strengths[:, :, None, None, None].unbind(1)
    scaled = noise * sigma
    chosen = np.flatnonzero(strength[:, 1])
    if chosen.size:
        level = _taken(lit, chosen).round_().clamp_(0, 255)
        sigma, variance = _taken(sigma, chosen), _taken(variance, chosen)
        by_level = level.mul_(variance).add_(sigma * sigma).sqrt_()
        scaled = _replaced(scaled, chosen, by_level.mul_(_taken(noise, chosen)))
    return rounded(scaled.add_(lit))


@lru_cache(maxsize=8)
def _noise_on(device: torch.device) -> Tensor:
    return torch.from_numpy(noise_field()).to(device)


def rounded(photos: Tensor) -> Tensor:
    """Round float32 to uint8, half to even as OpenCV; what is given is overwritten."""
    return photos.round_().clamp_(0, 255).to(torch.uint8)


def _warped(photos: Tensor, corners: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    shown = torch.full_like(photos[:, :1], 255)
    chosen = np.flatnonzero(corners.any(axis=1))
    if not chosen.size:
        return photos, shown
    height, width = photos.shape[2:]
    matrices = [np.linalg.inv(warp_matrix(tuple(moved), width, height)) for moved in corners[chosen].tolist()]
    x, y = _sources(_on(np.stack(matrices).astype(np.float32), photos), height, width)
    moved = _sampled(_taken(photos, chosen), x, y)
    x, y = x.round_(), y.round_()
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    covered = inside.to(torch.uint8).mul_(255)[:, None]
    return _replaced(photos, chosen, moved), _replaced(shown, chosen, covered)


def _sources(matrices: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    # where each pixel of the result lies in the photo: NxHxW each
    x = torch.arange(width, device=matrices.device, dtype=torch.float32)
    y = torch.arange(height, device=matrices.device, dtype=torch.float32)[:, None]
    terms = matrices[..., None, None]  # Nx3x3x1x1
    across, down, depth = (
        (terms[:, row, 0] * x + terms[:, row, 1] * y) + terms[:, row, 2] for row in range(3)
    )
    return across.div_(depth), down.div_(depth)


def _sampled(photos: Tensor, x: Tensor, y: Tensor) -> Tensor:
    # bilinear; beyond the border the photo is mirrored about its outer pixels
    height, width = photos.shape[2:]
    left, top = x.floor(), y.floor()
    right_share, lower_share = (x - left)[:, None], (y - top)[:, None]
    columns = [reflected(left.long() + step, _period(width)) for step in (0, 1)]
    rows = [reflected(top.long() + step, _period(height)) * width for step in (0, 1)]
    flat = photos.flatten(2)  # Nx3xHW

    def pixels(row: Tensor, column: Tensor) -> Tensor:
        places = (row + column).flatten(1)[:, None].expand(-1, 3, -1)
        return flat.gather(2, places).float().reshape(photos.shape)

    upper, lower = (
        pixels(row, columns[0]) * (1 - right_share) + pixels(row, columns[1]) * right_share for row in rows
    )
    return rounded(upper * (1 - lower_share) + lower * lower_share)


def _on(values: NDArray[np.float32] | NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, non_blocking=True)


def _taken(photos: Tensor, chosen: NDArray[np.int64]) -> Tensor:
    return photos.index_select(0, _on(chosen, photos))


def _replaced(photos: Tensor, chosen: NDArray[np.int64], part: Tensor) -> Tensor:
    # a selection, not an assignment, which takes a GPU long where it must be deterministic
    places = np.arange(len(photos))
    places[chosen] = len(photos) + np.arange(len(chosen))
    return torch.cat([photos, part]).index_select(0, _on(places, photos))


@lru_cache(maxsize=1)
def _nothing() -> Effects:
    lights = np.ones((FIELD_SIDE, FIELD_SIDE), np.float32)
    still, corners = np.zeros(2, np.float32), np.zeros(8, np.float32)
    return Effects(lights, still, np.zeros(2, np.int64), np.array(0, np.float32), np.array(0), corners)
