"""What the device makes of a draw, against `apply_nuisance`, which OpenCV does on the CPU.

Values that are computed in float32 and then rounded differ by a grey level where the exact value is within the
error of the sums from a half. That error is a few units in the last place of values up to 255, 3e-5 each: the
share of such values is at most about 1e-4.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cd_pipeline.data.samples import Sample
from cd_pipeline.synthesis import device_nuisance
from cd_pipeline.synthesis.device_nuisance import (
    PackedNuisance,
    UndisturbedPair,
    disturb,
    disturbed,
    pack_nuisance,
    undisturbed,
)
from cd_pipeline.synthesis.nuisance import Nuisance, apply_nuisance, draw_nuisance
from cd_pipeline.synthesis.settings import NuisanceSettings
from cd_pipeline_tests.drawn import Pixels, draw_photo
from cd_pipeline_tests.synthesis.test_nuisance import NOTHING, noise_photo

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIDE, COUNT = 96, 16
LIGHT = ("gradient", "vignette", "shadow", "shadow_outline")
EVERYTHING = NuisanceSettings(
    gradient_probability=0.8,
    vignette_probability=0.6,
    shadow_probability=0.6,
    shot_noise_probability=0.5,
    blur_probability=0.6,
    shift_probability=0.8,
    warp_probability=0.6,
)
ROUNDED = 2e-4
"""Largest share of values that may differ by a grey level for rounding."""


def draw_photos(count: int = COUNT, side: int = SIDE) -> Pixels:
    """Draw rooms and, as every third photo, noise of all values."""
    return np.stack(
        [
            noise_photo(i, side) if i % 3 == 2 else draw_photo(np.random.default_rng(i), (side, side))[0]
            for i in range(count)
        ]
    )


@pytest.fixture(scope="module")
def photos() -> Pixels:
    return draw_photos()


@pytest.fixture(scope="module")
def draws() -> list[Nuisance]:
    return [
        draw_nuisance(np.random.default_rng(100 + i), EVERYTHING, strength=1.3, warped=i % 2 == 0)
        for i in range(COUNT)
    ]


def keep(draws: Sequence[Nuisance], *names: str) -> list[Nuisance]:
    """Return draws of these effects alone."""
    return [replace(NOTHING, **{name: getattr(draw, name) for name in names}) for draw in draws]


def pack(photos: Pixels, draws: Sequence[Nuisance | None]) -> PackedNuisance:
    packed = [pack_nuisance(photo, draw) for photo, draw in zip(photos, draws, strict=True)]
    return PackedNuisance(*(torch.stack(parts) for parts in zip(*packed, strict=True)))


def on_device(photos: Pixels, draws: Sequence[Nuisance | None]) -> tuple[Pixels, Pixels]:
    """Apply draws to NHWC photos as a batch: NHWC and NHW."""
    pictures, shown = disturb(torch.from_numpy(photos).permute(0, 3, 1, 2), pack(photos, draws))
    assert pictures.dtype == shown.dtype == torch.uint8
    return pictures.permute(0, 2, 3, 1).numpy(), shown[:, 0].numpy()


def on_cpu(photos: Pixels, draws: Sequence[Nuisance]) -> tuple[Pixels, Pixels]:
    pairs = [apply_nuisance(photo, draw) for photo, draw in zip(photos, draws, strict=True)]
    return np.stack([picture for picture, _ in pairs]), np.stack([shown for _, shown in pairs])


def assert_rounded_alike(found: Pixels, expected: Pixels) -> None:
    apart = np.abs(found.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= ROUNDED


def test_tones_are_the_same(photos: Pixels, draws: list[Nuisance]) -> None:
    kept = keep(draws, "gamma", "contrast", "gains", "offset")
    np.testing.assert_array_equal(on_device(photos, kept)[0], on_cpu(photos, kept)[0])


@pytest.mark.parametrize(
    "effect", [LIGHT, ("blur",), ("noise", "noise_seed")], ids=["light", "blur", "noise"]
)
def test_an_effect_differs_by_rounding_alone(
    photos: Pixels, draws: list[Nuisance], effect: tuple[str, ...]
) -> None:
    kept = keep(draws, *effect)
    found, shown = on_device(photos, kept)
    expected, _ = on_cpu(photos, kept)
    assert (expected != photos).mean() > 0.2
    assert (shown == 255).all()
    assert_rounded_alike(found, expected)


@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_shot_noise_is_that_of_the_cpu_with_and_without_other_noise(
    photos: Pixels, draws: list[Nuisance], noise: float
) -> None:
    kept = [replace(NOTHING, noise=noise, shot_noise=0.3, noise_seed=draw.noise_seed) for draw in draws]
    assert_rounded_alike(on_device(photos, kept)[0], on_cpu(photos, kept)[0])


@pytest.mark.parametrize("sigma", [0.05, 3.0, 40.0])
def test_a_blur_may_reach_beyond_the_photo(photos: Pixels, sigma: float) -> None:
    kept = [replace(NOTHING, blur=sigma)] * COUNT
    assert_rounded_alike(on_device(photos, kept)[0], on_cpu(photos, kept)[0])


def test_jpeg_is_the_same(photos: Pixels, draws: list[Nuisance]) -> None:
    kept = keep(draws, "jpeg_quality")
    np.testing.assert_array_equal(on_device(photos, kept)[0], on_cpu(photos, kept)[0])


@pytest.mark.parametrize(("dx", "dy"), [(2, 1), (-2, 0), (0, -3), (1, -1)])
def test_a_shift_by_whole_pixels_is_the_same(photos: Pixels, dx: int, dy: int) -> None:
    kept = [replace(NOTHING, corners=(float(dx), float(dy)) * 4)] * COUNT
    for found, expected in zip(on_device(photos, kept), on_cpu(photos, kept), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_movement_shows_the_same_area_and_differs_by_rounding_alone(
    photos: Pixels, draws: list[Nuisance]
) -> None:
    kept = keep(draws, "corners")
    (found, shown), (expected, covered) = on_device(photos, kept), on_cpu(photos, kept)
    assert (covered == 0).any(axis=(1, 2)).sum() > COUNT // 2
    np.testing.assert_array_equal(shown, covered)
    assert_rounded_alike(found, expected)


def test_all_without_jpeg_differs_by_rounding_alone(photos: Pixels, draws: list[Nuisance]) -> None:
    kept = [replace(draw, jpeg_quality=None, corners=(0.0,) * 8) for draw in draws]
    assert_rounded_alike(on_device(photos, kept)[0], on_cpu(photos, kept)[0])


def test_all_together_is_nearly_the_same(photos: Pixels, draws: list[Nuisance]) -> None:
    # rounded apart before JPEG, a value can turn a coefficient: then its block, 64 of 27,648 values, differs
    (found, shown), (expected, covered) = on_device(photos, draws), on_cpu(photos, draws)
    np.testing.assert_array_equal(shown, covered)
    apart = np.abs(found.astype(int) - expected)
    assert (apart > 0).mean() < 5e-3
    assert apart.mean() < 0.01


def test_a_photo_without_a_draw_stays_as_it_is(photos: Pixels, draws: list[Nuisance]) -> None:
    some = [draw if i % 2 else None for i, draw in enumerate(draws)]
    found, shown = on_device(photos, some)
    np.testing.assert_array_equal(found[::2], photos[::2])
    assert (shown[::2] == 255).all()
    everyone, _ = on_device(photos, [None] * COUNT)
    np.testing.assert_array_equal(everyone, photos)


def test_a_photo_does_not_depend_on_the_others_of_its_batch(photos: Pixels, draws: list[Nuisance]) -> None:
    found, shown = on_device(photos, draws)
    order = np.random.default_rng(0).permutation(COUNT)
    mixed, mixed_shown = on_device(photos[order], [draws[i] for i in order])
    np.testing.assert_array_equal(mixed, found[order])
    np.testing.assert_array_equal(mixed_shown, shown[order])
    for i in range(COUNT):
        alone, alone_shown = on_device(photos[i : i + 1], draws[i : i + 1])
        np.testing.assert_array_equal(alone[0], found[i])
        np.testing.assert_array_equal(alone_shown[0], shown[i])


@pytest.mark.parametrize("pixels", [1, 5 * SIDE * SIDE])
def test_a_batch_that_is_done_in_parts_is_the_same(
    photos: Pixels, draws: list[Nuisance], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = on_device(photos, draws)
    monkeypatch.setattr(device_nuisance, "CHUNK_PIXELS", pixels)
    for found, expected in zip(on_device(photos, draws), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_photos_as_large_as_the_noise_and_wide_ones_work() -> None:
    for shape in ((1024, 32, 3), (40, 1024, 3)):
        photo = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
        drawn = [replace(NOTHING, noise=5.0, blur=0.7, gradient=(0.2, 0.1), corners=(1.5, -1.0) * 4)]
        for found, expected in zip(on_device(photo, drawn), on_cpu(photo, drawn), strict=True):
            assert_rounded_alike(found, expected)


class OneDevice(TorchDispatchMode):
    """Refuses calls that are given tensors of several devices; a copy is given one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN204
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in given}
        assert len(devices) <= 1, f"{func} on {devices}"
        return func(*args, **(kwargs or {}))


def test_all_is_done_where_the_photos_are_and_no_value_is_asked_for(
    photos: Pixels, draws: list[Nuisance]
) -> None:
    # tensors of the device meta have no values: whoever reads one fails, where a GPU would only wait
    packed = pack(photos, draws)
    with OneDevice():
        pictures, shown = disturb(torch.from_numpy(photos).to("meta").permute(0, 3, 1, 2), packed)
    assert (pictures.device.type, shown.device.type) == ("meta", "meta")
    assert (pictures.shape, shown.shape) == ((COUNT, 3, SIDE, SIDE), (COUNT, 1, SIDE, SIDE))


def test_a_stack_of_pairs_becomes_items_with_each_pictures_own_nuisance(
    photos: Pixels, draws: list[Nuisance]
) -> None:
    mask = (photos[0, ..., 0] > 128).astype(np.uint8) * 255
    pairs = [
        undisturbed(Sample.of_pair(photos[0], photos[1], mask), draws[0], draws[1]),
        undisturbed(Sample.of_pair(photos[3], photos[4], mask.T), None, draws[4]),
        undisturbed(Sample.of_pair(photos[6], photos[7], mask * 0), draws[6], None),
    ]
    stacked: UndisturbedPair = torch.utils.data.default_collate(pairs)
    items = disturbed(stacked, "cpu")
    assert (items.shape, items.dtype) == ((3, 8, SIDE, SIDE), torch.uint8)
    used = [draws[0], draws[1], None, draws[4], draws[6], None]
    pictures, shown = on_device(photos[[0, 1, 3, 4, 6, 7]], used)
    for number, item in enumerate(items):
        before, after = 2 * number, 2 * number + 1
        np.testing.assert_array_equal(item[:3].permute(1, 2, 0), pictures[before])
        np.testing.assert_array_equal(item[3:6].permute(1, 2, 0), pictures[after])
        np.testing.assert_array_equal(item[6], (mask, mask.T, mask * 0)[number])
        np.testing.assert_array_equal(item[7], np.minimum(shown[before], shown[after]))
