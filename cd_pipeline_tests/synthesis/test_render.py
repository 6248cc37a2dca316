import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cd_pipeline.data.images import read_photo
from cd_pipeline.data.labels import Box
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Sample
from cd_pipeline.synthesis.plan import Change, ChangePlan, fill_polygons, plan_changes
from cd_pipeline.synthesis.render import render, untruthful_pixels
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline_tests.drawn import Pixels, draw_photo

PHOTO, BOXES = draw_photo(np.random.default_rng(8), (160, 120))
OFTEN_ERASED = {"change_probability": 1, "partial_keep_probability": 0.9, "partial_keep_min_area": 50}
ERASED = ((20, 20, 59, 20, 59, 49, 20, 49),)
"""The outline of a 40x30 region at (20, 20)."""

shares = st.floats(0, 1)
widths = st.floats(0.05, 1)
boxes_of_a_photo = st.lists(
    st.builds(Box, st.just(0), shares, shares, widths, widths), min_size=1, max_size=5
)


def noise(width: int, height: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=200, deadline=None)
@given(boxes_of_a_photo, st.integers(16, 130), st.integers(16, 130), st.integers(0, 2**32 - 1))
def test_where_before_and_after_differ_the_mask_is_255(
    boxes: list[Box], width: int, height: int, seed: int
) -> None:
    options = PublishedSynthesis.model_validate(OFTEN_ERASED)
    plan = plan_changes(np.random.default_rng(seed), boxes, (width, height), options)
    photo = noise(width, height, seed)
    kept = photo.copy()
    pair = render(photo, plan)
    np.testing.assert_array_equal(photo, kept)
    np.testing.assert_array_equal(pair.before, photo)
    assert pair.after.shape == photo.shape
    assert pair.after.dtype == pair.mask.dtype == np.uint8
    assert set(np.unique(pair.mask)) <= {0, 255}
    differs = (pair.before.astype(int) != pair.after.astype(int)).any(axis=2)
    assert not (differs & (pair.mask != 255)).any()
    assert untruthful_pixels(pair) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_plan_renders_to_the_same_pixels_after_its_row(seed: int) -> None:
    options = PublishedSynthesis.model_validate(OFTEN_ERASED)
    plan = plan_changes(np.random.default_rng(seed), BOXES, (160, 120), options)
    for first, second in zip(
        render(PHOTO, plan), render(PHOTO, ChangePlan.from_row(plan.to_row())), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_a_plan_without_changes_gives_the_photo_and_an_empty_mask() -> None:
    pair = render(PHOTO, ChangePlan())
    np.testing.assert_array_equal(pair.after, PHOTO)
    assert not pair.mask.any()


def test_the_mask_of_a_change_is_its_rectangle() -> None:
    pair = render(PHOTO, ChangePlan((Change("rect", 20, 20, 40, 30, noise_seed=1),)))
    expected = np.zeros((120, 160), np.uint8)
    expected[20:50, 20:60] = 255
    np.testing.assert_array_equal(pair.mask, expected)


def test_the_mask_of_a_move_covers_both_places() -> None:
    pair = render(PHOTO, ChangePlan((Change("move", 20, 20, 40, 30, to_x=100, to_y=60),)))
    expected = np.zeros((120, 160), np.uint8)
    expected[20:50, 20:60] = 255
    expected[60:90, 100:140] = 255
    np.testing.assert_array_equal(pair.mask, expected)


def test_changes_are_applied_in_order() -> None:
    black, moved = Change("black", 20, 20, 40, 30), Change("move", 20, 20, 40, 30, to_x=100, to_y=60)
    first, second = (render(PHOTO, ChangePlan(order)).after for order in ((black, moved), (moved, black)))
    assert not first[60:90, 100:140].any()
    np.testing.assert_array_equal(second[60:90, 100:140], PHOTO[20:50, 20:60])


def test_an_erased_region_is_restored_in_the_picture() -> None:
    change = Change("rect", 20, 20, 40, 30, noise_seed=1, erased=ERASED)
    pair = render(PHOTO, ChangePlan((change, Change("black", 90, 10, 20, 20))))
    np.testing.assert_array_equal(pair.after[20:50, 20:60], PHOTO[20:50, 20:60])
    assert not pair.mask[20:50, 20:60].any()
    assert (pair.mask[10:31, 90:111] == 255).all()


def test_a_region_changed_again_after_it_was_erased_is_changed() -> None:
    change = Change("rect", 20, 20, 40, 30, noise_seed=1, erased=ERASED)
    pair = render(PHOTO, ChangePlan((change, Change("black", 30, 30, 10, 10))))
    assert not pair.after[30:41, 30:41].any()
    assert int((pair.mask > 0).sum()) == 11 * 11


def test_untruthful_plans_leave_erased_regions_changed() -> None:
    change = Change("rect", 20, 20, 40, 30, noise_seed=1, erased=ERASED)
    pair = render(PHOTO, ChangePlan((change,), truthful=False))
    assert not pair.mask[20:50, 20:60].any()
    assert pair.after[20:50, 20:60].max() < 30
    assert untruthful_pixels(pair) == int((PHOTO[20:50, 20:60] != pair.after[20:50, 20:60]).any(axis=2).sum())


@pytest.mark.parametrize("kind", ["rect", "blur", "pixel", "move", "black", "inpaint"])
def test_untruthful_masks_are_one_pixel_larger_right_and_below(kind: str) -> None:
    target = {"to_x": 120, "to_y": 90} if kind == "move" else {}
    change = Change(kind, 20, 20, 40, 30, noise_seed=1, **target)
    true, false = (render(PHOTO, ChangePlan((change,), truthful=flag)) for flag in (True, False))
    np.testing.assert_array_equal(true.after, false.after)
    expected = np.zeros((120, 160), np.uint8)
    expected[20:51, 20:61] = 255
    if kind == "move":
        expected[90:120, 120:160] = 255  # ends at the photo's edge
    np.testing.assert_array_equal(false.mask, expected)
    more = int((false.mask > 0).sum()) - int((true.mask > 0).sum())
    assert more == (0 if kind in ("black", "inpaint") else 31 + 41 - 1)


def test_reencoding_passes_both_photos_through_jpeg_and_leaves_the_mask() -> None:
    change = Change("black", 20, 20, 40, 30)
    plain, jpeg = (render(PHOTO, ChangePlan((change,), jpeg_quality=quality)) for quality in (None, 95))
    np.testing.assert_array_equal(plain.mask, jpeg.mask)
    for before, after in ((plain.before, jpeg.before), (plain.after, jpeg.after)):
        reference = cv2.imdecode(cv2.imencode(".jpg", before[..., ::-1])[1], cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(after, reference)  # OpenCV's default quality
    assert untruthful_pixels(jpeg) > 0


def test_reencoding_is_close_to_pillows() -> None:
    jpeg = render(PHOTO, ChangePlan(jpeg_quality=95)).before
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "JPEG", quality=95, subsampling=2)
    assert np.abs(np.asarray(Image.open(stream)).astype(int) - jpeg).mean() < 1


def test_untruthful_pixels_counts_pixels_not_channels() -> None:
    before, after = np.zeros((2, 20, 20, 3), np.uint8)
    mask = np.zeros((20, 20), np.uint8)
    after[0, :5] = 9
    after[1, :3, 1] = 1
    mask[0, :2] = 255
    assert untruthful_pixels(Sample.of_pair(before, after, mask)) == 3 + 3


def test_an_erased_region_is_exactly_its_contour() -> None:
    options = PublishedSynthesis.model_validate(
        OFTEN_ERASED | {"partial_keep_drop_probability": 1, "partial_keep_min_area": 0}
    )
    erased = 0
    for seed in range(60):
        plan = plan_changes(np.random.default_rng(seed), BOXES, (160, 120), options)
        if plan.changes and plan.changes[-1].erased:
            erased += 1
            pair = render(PHOTO, plan)
            assert not pair.mask.any()
            np.testing.assert_array_equal(pair.after, PHOTO)
            assert fill_polygons(pair.mask.shape, plan.changes[-1].erased).any()
    assert erased > 20


def test_real_photos_keep_the_truth(real_data: Path) -> None:
    root: Path = real_data / "rooms" / "test"
    options = PublishedSynthesis.model_validate(OFTEN_ERASED)
    changed = 0
    for seed, photo in enumerate(scan_photos(root, threads=2).usable[:12]):
        plan = plan_changes(np.random.default_rng(seed), photo.boxes, (photo.width, photo.height), options)
        changed += bool(plan.changes)
        assert untruthful_pixels(render(read_photo(root / photo.path), plan)) == 0
    assert changed >= 6
