import io
import math

import numpy as np
import pytest
from PIL import Image as Pillow

from cd_pipeline.data.pairs import PairArrays
from cd_pipeline.evaluation.figures import (
    gallery,
    inline_jpeg,
    outline,
    overlay,
    pair_row,
    sweep_curve,
    training_curves,
)

HISTORY = [
    {"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_f1": 0.1 * e, "val_iou": 0.05 * e}
    for e in (1, 2, 3)
]
SWEEP = {name: [0.1, 0.5, 0.3] for name in ("threshold", "f1", "iou", "precision", "recall")}


def flat(colour: tuple[int, int, int], height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def decode(content: bytes) -> Pillow.Image:
    picture = Pillow.open(io.BytesIO(content))
    picture.load()
    return picture


@pytest.mark.parametrize(
    ("colour", "tinted"),
    [
        ((100, 200, 40), (65, 219.25, 115.25)),
        ((0, 0, 0), (0, 89.25, 89.25)),
        ((255, 255, 255), (165.75, 255, 255)),
    ],
)
def test_the_overlay_is_35_percent_cyan_inside_the_mask_and_nothing_outside(
    colour: tuple[int, int, int], tinted: tuple[float, float, float]
) -> None:
    photo, mask = flat(colour), np.zeros((40, 60), np.uint8)
    mask[10:20, 5:30] = 255
    result = overlay(photo, mask)
    np.testing.assert_allclose(result[15, 10], tinted, atol=1)
    np.testing.assert_array_equal(result[mask == 0], photo[mask == 0])
    assert (result[mask > 0] == result[15, 10]).all()
    assert (photo == colour).all(), "the photo itself must not change"


def test_an_outline_runs_along_the_border_alone() -> None:
    photo, mask = flat((10, 10, 10)), np.zeros((40, 60), np.uint8)
    mask[10:30, 10:50] = 255
    drawn = (outline(photo, mask, (255, 0, 0)) == (255, 0, 0)).all(-1)
    assert drawn[10, 10:50].all()
    assert drawn[10:30, 49].all()
    assert not drawn[14:26, 14:46].any()
    assert not drawn[:7].any()
    assert (photo == 10).all(), "the photo itself must not change"


def test_a_row_shows_before_after_and_mask_in_this_order() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = 255
    row = pair_row(PairArrays(flat((200, 0, 0)), flat((0, 0, 200)), mask))
    assert row.shape == (40, 180, 3)
    assert row.dtype == np.uint8
    np.testing.assert_array_equal(row[:, :60], flat((200, 0, 0)))
    np.testing.assert_array_equal(row[:, 60:120], flat((0, 0, 200)))
    np.testing.assert_array_equal(row[:, 120:], np.dstack([mask] * 3))


def test_a_row_with_a_prediction_ends_with_the_after_image_tinted() -> None:
    prediction = np.zeros((40, 60), np.uint8)
    prediction[5:15, 5:15] = 255
    row = pair_row(PairArrays(flat((200, 0, 0)), flat((0, 0, 200)), np.zeros((40, 60), np.uint8)), prediction)
    np.testing.assert_allclose(row[10, 130], (0, 89.25, 219.25), atol=1)
    assert row[30, 130].tolist() == [0, 0, 200]


def test_a_gallery_sets_rows_in_a_grid_on_white() -> None:
    rows = [flat((n, 0, 0)) for n in (1, 2, 3)]
    sheet = gallery(rows, columns=2, gap=6)
    assert sheet.shape == (2 * 40 + 3 * 6, 2 * 60 + 3 * 6, 3)
    assert [sheet[y, x, 0] for y, x in ((20, 20), (20, 100), (60, 20))] == [1, 2, 3]
    assert (sheet[60, 100] == 255).all(), "an unused place stays white"
    assert (sheet[:6] == 255).all()
    assert (sheet[:, -6:] == 255).all()


def test_a_gallery_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no picture"):
        gallery([])


def test_a_large_noisy_picture_is_inlined_within_70_kilobytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    content = inline_jpeg(noise)
    picture = decode(content)
    assert len(content) <= 70_000
    assert len(content) * 4 / 3 < 100_000, "the limit of an inline picture, as base64"
    assert picture.format == "JPEG"
    assert picture.width / picture.height == pytest.approx(4 / 3, rel=0.02)


def test_a_small_picture_is_inlined_at_its_own_size_and_colour() -> None:
    picture = decode(inline_jpeg(flat((200, 30, 90))))
    assert picture.size == (60, 40)
    np.testing.assert_allclose(np.asarray(picture.convert("RGB"))[20, 30], (200, 30, 90), atol=6)


def test_curves_are_pngs_of_a_fixed_size_and_the_same_each_time() -> None:
    curves, sweep = training_curves(HISTORY, 2), sweep_curve(SWEEP, 0.5)
    assert (decode(curves).format, decode(curves).size) == ("PNG", (720, 256))
    assert (decode(sweep).format, decode(sweep).size) == ("PNG", (440, 256))
    assert len(curves) < 70_000
    assert (training_curves(HISTORY, 2), sweep_curve(SWEEP, 0.5)) == (curves, sweep)


def test_curves_show_what_they_are_given() -> None:
    assert training_curves(HISTORY, 2) != training_curves(HISTORY, 3)
    assert sweep_curve(SWEEP, 0.5) != sweep_curve(SWEEP, 0.2)


def test_an_epoch_that_is_not_a_number_leaves_a_gap() -> None:
    broken = [*HISTORY, {**dict.fromkeys(HISTORY[0], math.nan), "epoch": 4}]
    assert decode(training_curves(broken, 2)).size == (720, 256)
