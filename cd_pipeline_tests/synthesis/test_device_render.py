"""What the device makes of a plan, against `render_realistic`, which OpenCV does on the CPU.

Values of a scene differ by a grey level where the exact one is within the error of float32 from a half. What is made
of a scene follows it; only the hue of a nearly grey pixel turns far for a level.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cd_pipeline.data.files import file_digest
from cd_pipeline.data.samples import Roots
from cd_pipeline.synthesis import plan_chunks
from cd_pipeline.synthesis.device_nuisance import tables_for, tones_of
from cd_pipeline.synthesis.device_render import DevicePhotos, render_chunk, render_items
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.nuisance import draw_nuisance, tone_tables
from cd_pipeline.synthesis.packed_plans import PackedPlan, Shown, pack_plan
from cd_pipeline.synthesis.photo_store import WORKING_SIDE, PhotoStore
from cd_pipeline.synthesis.plan_chunks import pack_chunks
from cd_pipeline.synthesis.published_kinds import INPAINT_MARGIN
from cd_pipeline.synthesis.realistic_plan import PhotoSource, RealisticPlan, View
from cd_pipeline.synthesis.realistic_render import render_realistic, scene_around, scene_of
from cd_pipeline.synthesis.settings import NuisanceSettings
from cd_pipeline_tests.drawn import Pixels
from cd_pipeline_tests.synthesis.test_realistic_render import (
    CHANGE,
    KINDS,
    NOTHING,
    SHAPES,
    SIZE,
    drawn,
    with_outline,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FAR = 2
"""Levels; a value that differs by more is not explained by rounding."""


class Rendered:
    """Pairs as the device renders them, in the order of their plans: before, after NxSxSx3 and mask NxSxS, as arrays."""

    def __init__(self, packed: Sequence[PackedPlan], photos: DevicePhotos) -> None:
        chunks = pack_chunks(packed, SIZE)
        parts = [render_chunk(chunk, chunk, photos) for chunk in chunks]
        order = torch.cat([chunk.order for chunk in chunks]).argsort()
        before, after, mask = (torch.cat(images)[order].numpy() for images in zip(*parts, strict=True))
        self.before, self.after, self.mask = before, after, mask[:, 0]

    def pair(self, number: int) -> list[Pixels]:
        return [self.before[number], self.after[number], self.mask[number]]


@pytest.fixture(scope="module")
def photos(room_roots: Roots) -> PhotoStore:
    return PhotoStore(room_roots)


@pytest.fixture(scope="module")
def shown(pool: list[PhotoSource]) -> list[Shown]:
    return [Shown(number, source.photo, source.sha256) for number, source in enumerate(pool)]


@pytest.fixture(scope="module")
def on_device(shown: list[Shown], photos: PhotoStore) -> DevicePhotos:
    return DevicePhotos(shown, photos, WORKING_SIDE * SIZE, "cpu")


@pytest.fixture(scope="module")
def plans(pool: list[PhotoSource]) -> list[RealisticPlan]:
    return [drawn(seed, pool) for seed in range(60)]


@pytest.fixture(scope="module")
def packed(plans: list[RealisticPlan], shown: list[Shown], photos: PhotoStore) -> list[PackedPlan]:
    return [pack_plan(plan, shown[seed % len(shown)], photos, SIZE) for seed, plan in enumerate(plans)]


def apart(found: Sequence[Pixels], expected: Sequence[Pixels]) -> Pixels:
    """Return by how many levels the pictures of a pair differ."""
    return np.stack([cv2.absdiff(a, b) for a, b in zip(found, expected, strict=True)])


def on_cpu(plan: RealisticPlan, photo: Shown, photos: PhotoStore) -> tuple[Sequence[Pixels], Pixels]:
    """Return the pictures and the mask of the CPU's renderer, without nuisance."""
    pair, _ = render_realistic(plan, photo.reference, photo.sha256, photos, SIZE, nuisance=False)
    return pair.pictures, pair.mask


VIEWS = {
    "all of the photo, by areas": (View(0.0, 0.0, 1.0, 1.0, False), 0.02),
    "mirrored, by areas": (View(0.1, 0.2, 0.83, 0.71, True), 0.005),
    "enlarged in one direction, linear": (View(0.3, 0.1, 0.8, 0.4, False), 0.01),
    "enlarged and mirrored, linear": (View(0.3, 0.1, 0.25, 0.35, True), 0.01),
}
"""A view, and the largest share of values that may differ by a level. Means of 2x3 px are often exactly between two
levels."""


@pytest.mark.parametrize("name", VIEWS)
def test_a_scene_is_that_of_opencv_to_a_level(
    name: str, shown: list[Shown], photos: PhotoStore, on_device: DevicePhotos
) -> None:
    view, rounded = VIEWS[name]
    plan = replace(NOTHING, view=view)
    found = Rendered([pack_plan(plan, photo, photos, SIZE) for photo in shown], on_device)
    for number, photo in enumerate(shown):
        (before, _), _ = on_cpu(plan, photo, photos)
        differences = apart([found.before[number]], [before])
        assert differences.max() <= 1
        assert (differences > 0).mean() < rounded
    np.testing.assert_array_equal(found.before, found.after)
    assert not found.mask.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 150), st.integers(2, 150), st.integers(2, 40), st.integers(0, 2**31))
def test_any_part_is_resized_as_by_opencv(height: int, width: int, size: int, seed: int) -> None:
    part = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    areal = np.array([min(height, width) > size])
    (rows, row_weights), (columns, column_weights) = (
        plan_chunks.taps(np.array([0]), np.array([side]), areal, size) for side in (height, width)
    )
    padded = np.pad(part.astype(np.float64), ((0, row_weights.shape[2]), (0, column_weights.shape[2])))
    down, across = (
        first[0][:, None] + np.arange(weights.shape[2])
        for first, weights in ((rows, row_weights), (columns, column_weights))
    )
    taken = padded[down[:, None, :, None], across[None, :, None, :]]  # size x size x T x T
    found = np.einsum("ijkl,ik,jl->ij", taken, row_weights[0], column_weights[0])
    method = cv2.INTER_AREA if areal[0] else cv2.INTER_LINEAR
    expected = cv2.resize(part, (size, size), interpolation=method)
    # half a level of rounding; OpenCV leaves out of an area what is less than a thousandth of a pixel
    assert np.abs(found - expected).max() < (0.8 if areal[0] else 1.01)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_and_shape_alone_is_as_on_the_cpu_to_a_level_and_has_its_mask(
    kind: str, pool: list[PhotoSource], shown: list[Shown], photos: PhotoStore, on_device: DevicePhotos
) -> None:
    view = View(0.1, 0.2, 0.83, 0.71, True)
    changes = [
        with_outline(replace(CHANGE, kind=kind, shape=shape, feather=feather, seed=seed), pool)
        for shape in SHAPES
        for feather in (0.0, 0.03)
        for seed in range(4)
    ]
    plans = [replace(NOTHING, view=view, changes=(change,), min_visible=0.0) for change in changes]
    found = Rendered([pack_plan(plan, shown[0], photos, SIZE) for plan in plans], on_device)
    for number, plan in enumerate(plans):
        pictures, mask = on_cpu(plan, shown[0], photos)
        differences = apart(found.pair(number)[:2], pictures)
        assert (differences > 0).mean() < (0.02 if kind in ("remove", "move") else 0.005)
        # hues of greys turn far; the surroundings of a hole are reduced apart
        assert (differences > FAR).mean() <= {"recolour": 5e-4, "remove": 2e-3, "move": 2e-3}.get(kind, 0)
        np.testing.assert_array_equal(found.mask[number], mask)
        assert (found.before[number] != found.after[number]).any()


@pytest.mark.parametrize(
    "view",
    [
        View(0.0, 0.0, 1.0, 1.0, False),
        View(0.1, 0.2, 0.83, 0.71, True),
        View(0.2, 0.05, 0.71, 0.9, False),
        View(0.3, 0.1, 0.4, 0.35, True),  # enlarged
    ],
)
def test_the_surroundings_of_a_hole_are_those_of_the_scene_nearly(
    view: View, shown: list[Shown], photos: PhotoStore
) -> None:
    sizes, apart_by = [], []
    for seed in range(30):
        source = shown[seed % len(shown)]
        photo = photos.reduced(source.reference, source.sha256, WORKING_SIDE * SIZE)
        rng = np.random.default_rng(seed)
        left, top, width, height = rng.integers((0, 0, 4, 4), (SIZE - 16, SIZE - 16, 16, 16)).tolist()
        part, place = scene_around(photo, view, SIZE, Rect(left, top, width, height))
        expected = scene_of(photo, view, SIZE)[place.slices]
        assert part.shape == expected.shape
        assert place.x <= max(0, left - INPAINT_MARGIN)
        assert place.y <= max(0, top - INPAINT_MARGIN)
        assert place.x + place.width >= min(SIZE, left + width + INPAINT_MARGIN)
        assert place.y + place.height >= min(SIZE, top + height + INPAINT_MARGIN)
        sizes.append(place.width * place.height)
        apart_by.append(float(cv2.absdiff(part, expected).mean()))
    assert max(sizes) < SIZE**2
    # a shift by a 20th of a pixel, of pixels whose neighbours differ by some 20 levels
    assert max(apart_by) < 1.0


def sees_an_earlier_change(plan: RealisticPlan) -> bool:
    """Whether a hole may be filled from what an earlier change shows."""
    return any(change.kind in ("remove", "move") for change in plan.changes[1:])


def test_whole_plans_are_as_on_the_cpu_but_for_holes_beside_earlier_changes(
    plans: list[RealisticPlan],
    packed: list[PackedPlan],
    shown: list[Shown],
    photos: PhotoStore,
    on_device: DevicePhotos,
) -> None:
    found = Rendered(packed, on_device)
    seen, filled = set(), []
    for number, plan in enumerate(plans):
        pictures, mask = on_cpu(plan, shown[number % len(shown)], photos)
        differences = apart(found.pair(number)[:2], pictures)
        if sees_an_earlier_change(plan):
            filled.append((differences > FAR).mean())
        else:
            assert (differences > FAR).mean() <= 5e-3
        np.testing.assert_array_equal(found.mask[number], mask)
        seen.update((change.kind, plan.swapped) for change in plan.changes)
    assert seen == {(kind, swapped) for kind in KINDS for swapped in (False, True)}
    assert len(filled) > 5
    assert np.mean(filled) < 0.02
    assert max(filled) < 0.12


def test_whatever_differs_is_in_the_mask(packed: list[PackedPlan], on_device: DevicePhotos) -> None:
    found = Rendered(packed, on_device)
    differs = (found.before != found.after).any(axis=3)
    assert differs.any()
    assert not (differs & (found.mask == 0)).any()
    assert set(np.unique(found.mask)) == {0, 255}


def test_a_change_too_faint_to_see_is_undone_and_not_labelled(
    shown: list[Shown], photos: PhotoStore, on_device: DevicePhotos
) -> None:
    scene = on_cpu(NOTHING, shown[0], photos)[0][0]
    black = scene[8:24, 16:40]  # where the change lies; black differs by what is there
    other = replace(CHANGE, kind="rect", left=0.7, top=0.6, width=0.2, height=0.2)
    for least, stays in ((float(black.mean()) - 0.02, True), (float(black.mean()) + 0.02, False)):
        plan = replace(NOTHING, changes=(CHANGE, other), min_visible=least)
        found = Rendered([pack_plan(plan, shown[0], photos, SIZE)], on_device)
        assert bool((found.mask[0, 8:24, 16:40] == 255).all()) is stays
        assert bool((found.after[0, 8:24, 16:40] == 0).all()) is stays
        if not stays:
            assert not found.mask[0, 8:24, 16:40].any()
            np.testing.assert_array_equal(found.before[0, 8:24, 16:40], found.after[0, 8:24, 16:40])


def test_the_pixels_of_a_move_onto_itself_count_once(
    shown: list[Shown], photos: PhotoStore, on_device: DevicePhotos
) -> None:
    onto = replace(CHANGE, kind="move", to_left=CHANGE.left + 0.1, to_top=CHANGE.top + 0.05)
    plan = replace(NOTHING, changes=(onto,), min_visible=0.0)
    found = Rendered([pack_plan(plan, shown[0], photos, SIZE)], on_device)
    marked = found.mask[0] == 255
    mean = float(cv2.absdiff(found.before[0], found.after[0])[marked].mean())
    for least, stays in ((mean - 0.01, True), (mean + 0.01, False)):
        packed = pack_plan(replace(plan, min_visible=least), shown[0], photos, SIZE)
        assert bool(Rendered([packed], on_device).mask.any()) is stays


@pytest.mark.parametrize("pairs_a_chunk", [1, 7, 60])
def test_a_pair_depends_neither_on_its_batch_nor_on_the_order_nor_on_the_chunks(
    packed: list[PackedPlan],
    on_device: DevicePhotos,
    pairs_a_chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Rendered(packed, on_device)
    monkeypatch.setattr(plan_chunks, "CHUNK_PIXELS", pairs_a_chunk * SIZE**2)
    order = np.random.default_rng(pairs_a_chunk).permutation(len(packed))
    again = Rendered([packed[number] for number in order], on_device)
    for place, number in enumerate(order):
        for one, other in zip(again.pair(place), whole.pair(number), strict=True):
            np.testing.assert_array_equal(one, other)


def test_nobody_waits_for_the_device(
    packed: list[PackedPlan], photos: PhotoStore, shown: list[Shown]
) -> None:
    # the device meta has no values: asking it for one is an error
    elsewhere = DevicePhotos(shown, photos, WORKING_SIDE * SIZE, "meta")
    items = render_items(pack_chunks(packed[:12], SIZE), elsewhere, "meta")
    assert (items.device.type, items.dtype, items.shape) == ("meta", torch.uint8, (12, 8, SIZE, SIZE))


class NotedStore(PhotoStore):
    """A store that notes what it is asked for."""

    def __init__(self, roots: Roots) -> None:
        super().__init__(roots)
        self.read: list[str] = []

    def reduced(self, reference: str, sha256: str, side: int) -> Pixels:
        self.read.append(reference)
        return super().reduced(reference, sha256, side)


def test_a_photo_travels_to_the_device_once_while_there_is_room(
    room_roots: Roots, shown: list[Shown]
) -> None:
    store = NotedStore(room_roots)
    kept = DevicePhotos(shown, store, 64, "cpu")
    for _ in range(3):
        for number in (2, 0, 1):
            photo = store.reduced(shown[number].reference, shown[number].sha256, 64)
            store.read.pop()
            np.testing.assert_array_equal(kept.pixels(number).numpy(), photo.reshape(-1, 3))
    assert store.read == [shown[number].reference for number in (2, 0, 1)]


def test_the_least_recently_used_photo_gives_way_and_comes_again(
    room_roots: Roots, shown: list[Shown]
) -> None:
    store = NotedStore(room_roots)
    one = 64 * 96 * 3  # of 240x160 px
    kept = DevicePhotos(shown, store, 64, "cpu", capacity=2 * one)
    for number in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1, and 1 that of 2
        assert kept.pixels(number).shape == (64 * 96, 3)
        assert kept.kept_bytes <= 2 * one
    assert store.read == [shown[number].reference for number in (0, 1, 2, 1)]


def test_a_batch_of_more_photos_than_there_is_room_for_is_rendered_all_the_same(
    packed: list[PackedPlan], on_device: DevicePhotos, photos: PhotoStore, shown: list[Shown]
) -> None:
    small = DevicePhotos(shown, photos, WORKING_SIDE * SIZE, "cpu", capacity=1)
    chunks = pack_chunks(packed[:12], SIZE)
    assert torch.equal(render_items(chunks, small, "cpu"), render_items(chunks, on_device, "cpu"))
    assert small.kept_bytes == 0


def test_a_photo_that_has_changed_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 50, 3), 9, np.uint8)).save(path)
    photo = Shown(0, "source:a.png", file_digest(path))
    store = PhotoStore(Roots(tmp_path, tmp_path), cache_bytes=0)
    assert DevicePhotos([photo], store, 20, "cpu").pixels(0).shape == (20 * 25, 3)
    Image.fromarray(np.full((40, 50, 3), 8, np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"a\.png: the file has changed; materialize all assets again"):
        DevicePhotos([photo], store, 20, "cpu").pixels(0)
    with pytest.raises(ValueError, match=r"a\.png: the file has changed; materialize all assets again"):
        pack_plan(NOTHING, photo, store, 10)


def test_tones_worked_out_on_the_device_are_those_of_the_cpu(photos: PhotoStore, shown: list[Shown]) -> None:
    draws = [draw_nuisance(np.random.default_rng(seed), NuisanceSettings()) for seed in range(8)]
    pictures = [photos.reduced(photo.reference, photo.sha256, SIZE) for photo in shown[:8]]
    tones = [tones_of(draw) for draw in draws]
    curves, factors = (torch.from_numpy(np.stack(parts)) for parts in zip(*tones, strict=True))
    stacked: Tensor = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    found = tables_for(stacked, curves, factors).numpy()
    expected = [tone_tables(photo, draw).T for photo, draw in zip(pictures, draws, strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=2e-4)


def test_a_rendered_item_without_nuisance_is_the_pair_itself(
    plans: list[RealisticPlan], shown: list[Shown], photos: PhotoStore, on_device: DevicePhotos
) -> None:
    still: list[Any] = [replace(plan, before_nuisance=None, after_nuisance=None) for plan in plans[:10]]
    packed = [pack_plan(plan, shown[seed % len(shown)], photos, SIZE) for seed, plan in enumerate(still)]
    found = Rendered(packed, on_device)
    items = render_items(pack_chunks(packed, SIZE), on_device, "cpu")
    assert (items.dtype, items.shape) == (torch.uint8, (10, 8, SIZE, SIZE))
    np.testing.assert_array_equal(items[:, :3].permute(0, 2, 3, 1), found.before)
    np.testing.assert_array_equal(items[:, 3:6].permute(0, 2, 3, 1), found.after)
    np.testing.assert_array_equal(items[:, 6], found.mask)
    assert (items[:, 7] == 255).all()
