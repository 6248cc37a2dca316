import io
import math

import numpy as np
import pytest
from PIL import Image as Pillow

from cd_pipeline.data.samples import Sample
from cd_pipeline.evaluation.figures import (
    FALSE_ALARM,
    FOUND,
    MISSED,
    ROW_GAP,
    cell_size,
    class_row,
    compared,
    fitted,
    fitted_classes,
    fitted_mask,
    gallery,
    image_row,
    inline_jpeg,
    legend,
    outline,
    overlay,
    pair_row,
    sheet_with_legend,
    sweep_curve,
    training_curves,
)

HISTORY = [
    {
        **{"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "val_f1": 0.1 * e, "val_iou": 0.05 * e},
        **{"train_iou": 0.06 * e, "val_pixel_accuracy": 0.3 * e, "train_pixel_accuracy": 0.31 * e},
        "threshold": 0.5,
    }
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
    row = pair_row(Sample.of_pair(flat((200, 0, 0)), flat((0, 0, 200)), mask))
    assert row.shape == (40, 180, 3)
    assert row.dtype == np.uint8
    np.testing.assert_array_equal(row[:, :60], flat((200, 0, 0)))
    np.testing.assert_array_equal(row[:, 60:120], flat((0, 0, 200)))
    np.testing.assert_array_equal(row[:, 120:], np.dstack([mask] * 3))


def test_a_row_with_a_prediction_ends_with_the_after_image_tinted() -> None:
    prediction = np.zeros((40, 60), np.uint8)
    prediction[5:15, 5:15] = 255
    row = pair_row(
        Sample.of_pair(flat((200, 0, 0)), flat((0, 0, 200)), np.zeros((40, 60), np.uint8)), prediction
    )
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
    without = [{**row, "threshold": None} for row in HISTORY]
    assert decode(training_curves(without, 2)).size == (1080, 256)  # pixel accuracy of several classes
    assert sweep_curve(SWEEP, 0.5) != sweep_curve(SWEEP, 0.2)


def test_an_epoch_that_is_not_a_number_leaves_a_gap() -> None:
    broken = [*HISTORY, {**dict.fromkeys(HISTORY[0], math.nan), "epoch": 4}]
    assert decode(training_curves(broken, 2)).size == (720, 256)


def test_one_cell_serves_pictures_of_many_sizes_with_their_median_aspect() -> None:
    assert cell_size([(320, 480)], 240) == (160, 240)
    assert cell_size([(960, 720)], 240) == (240, 180)
    assert cell_size([(10, 10), (300, 400), (6000, 6000)], 256) == (256, 256)
    assert cell_size([(3, 6000)], 256) == (1, 256)
    with pytest.raises(ValueError, match="no picture"):
        cell_size([])


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (40, 40), (400, 100), (1, 300)])
def test_a_picture_is_fitted_whole_with_its_aspect_and_centred_on_white(height: int, width: int) -> None:
    cell = (40, 48)
    shown = fitted(flat((200, 10, 60), height, width), cell)
    inside = (shown == (200, 10, 60)).all(-1)
    assert (shown.shape, shown.dtype) == ((*cell, 3), np.uint8)
    assert (shown[~inside] == 255).all()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    scale = min(40 / height, 48 / width)
    assert len(rows) == pytest.approx(max(1, height * scale), abs=0.7)
    assert len(columns) == pytest.approx(max(1, width * scale), abs=0.7)
    assert abs(rows[0] - (39 - rows[-1])) <= 1
    assert abs(columns[0] - (47 - columns[-1])) <= 1
    # masks and classes lie where their picture does
    np.testing.assert_array_equal(fitted_mask(np.ones((height, width), np.uint8), cell), inside * 255)
    np.testing.assert_array_equal(fitted_classes(flat((200, 10, 60), height, width), cell), shown)


@pytest.mark.parametrize("shape", [(2000, 3000), (700, 1001), (128, 192), (90, 130), (20, 30)])
def test_a_line_one_pixel_wide_stays_unbroken(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[np.arange(shape[0]), np.arange(shape[0])] = 1
    cell = cell_size([shape], 96)
    shown = fitted_mask(mask, cell)
    assert set(np.unique(shown)) == {0, 255}
    assert shown.any(1).all()
    assert (shown > 0).sum() < 4 * cell[0] * max(1, 96 / shape[1])
    assert not fitted_mask(np.zeros(shape, np.uint8), cell).any()


def test_exactly_the_pixels_that_stand_for_a_marked_one_are_marked() -> None:
    mask = np.random.default_rng(0).random((60, 90)) < 0.01
    blocks = mask.reshape(20, 3, 30, 3).any((1, 3))
    np.testing.assert_array_equal(fitted_mask(mask.astype(np.uint8), (20, 30)), blocks * 255)


def test_enlarged_masks_and_classes_repeat_their_pixels() -> None:
    mask = (np.random.default_rng(0).random((10, 15)) < 0.4).astype(np.uint8) * 255
    painted = np.random.default_rng(1).integers(0, 256, (10, 15, 3), np.uint8)
    np.testing.assert_array_equal(fitted_mask(mask, (40, 60)), mask.repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(fitted_classes(painted, (40, 60)), painted.repeat(4, 0).repeat(4, 1))


def test_what_is_found_missed_and_wrongly_marked_has_a_colour_each() -> None:
    truth, prediction = np.zeros((2, 2, 2), np.uint8)
    truth[0], prediction[:, 0] = 255, 255
    shown = compared(flat((100, 100, 100), 2, 2), truth, prediction)
    assert [tuple(pixel) for pixel in shown[:, :].reshape(4, 3).tolist()] == [
        FOUND,
        MISSED,
        FALSE_ALARM,
        (60, 60, 60),
    ]


def test_an_image_row_shows_image_truth_and_comparison_with_white_around_them() -> None:
    truth, prediction = np.zeros((20, 60), np.uint8), np.zeros((20, 60), np.uint8)
    truth[5:15, 5:15] = prediction[5:15, 10:20] = 255
    row = image_row(flat((200, 0, 0), 20, 60), truth, prediction, (40, 60))
    step = 60 + ROW_GAP
    assert row.shape == (40, 3 * 60 + 2 * ROW_GAP, 3)
    assert (row[:10] == 255).all()
    assert (row[30:] == 255).all()
    assert (row[:, 60:step] == 255).all()
    assert row[20, 30].tolist() == [200, 0, 0]
    assert [row[20, step + x].tolist() for x in (2, 7, 30)] == [[0] * 3, [255] * 3, [0] * 3]
    third = [tuple(row[20, 2 * step + x].tolist()) for x in (2, 7, 12, 17)]
    assert third == [(120, 0, 0), MISSED, FOUND, FALSE_ALARM]


def test_a_class_row_shows_image_classes_and_prediction() -> None:
    row = class_row(flat((1, 2, 3)), flat((128, 0, 0)), flat((0, 128, 0)), (40, 60))
    step = 60 + ROW_GAP
    assert row.shape == (40, 3 * 60 + 2 * ROW_GAP, 3)
    assert [row[9, x].tolist() for x in (9, step + 9, 2 * step + 9)] == [[1, 2, 3], [128, 0, 0], [0, 128, 0]]


def test_a_legend_takes_the_lines_it_needs_and_shows_every_colour() -> None:
    colours = {f"class {n}": (10 * n, 255 - 10 * n, 77) for n in range(20)}
    wide, narrow = legend("seen:", colours, 1600), legend("seen:", colours, 300)
    assert wide.shape[1:] == (1600, 3)
    assert narrow.shape[1:] == (300, 3)
    assert len(narrow) > 3 * len(wide)
    for strip in (wide, narrow):
        for colour in colours.values():
            assert (strip == colour).all(-1).sum() >= 15 * 15
        assert (strip == 0).all(-1).any(), "the names are black"


def test_names_in_any_script_are_written() -> None:
    written = [legend(name, {}, 200) for name in ("방", "裂", "ß", "?", "")]
    assert len({strip.tobytes() for strip in written}) == 5
    assert (written[-1] == 255).all()
    assert len(legend("far too long for a line", {}, 30)) == len(written[0]), "it is cut off"


def test_a_sheet_has_its_legend_above_the_rows() -> None:
    rows = [flat((n, 0, 0)) for n in (1, 2, 3)]
    sheet, alone = sheet_with_legend(rows, "rows", {"a": (9, 9, 9)}), gallery(rows)
    np.testing.assert_array_equal(sheet[-len(alone) :], alone)
    assert (sheet[: -len(alone)] == (9, 9, 9)).all(-1).any()
    assert sheet_with_legend(rows[:1], "rows", {}).shape[1] == gallery(rows[:1], columns=1).shape[1]
    with pytest.raises(ValueError, match="no picture"):
        sheet_with_legend([], "rows", {})
