"""Varied training pairs: what is drawn, what becomes of it, and the data set of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageEnhance
from pydantic import ValidationError

from cd_pipeline.data.augmentation import AugmentationPlan, Colours, augment, plan_augmentation
from cd_pipeline.data.augmented_samples import AugmentedSamples
from cd_pipeline.data.datasets import SampleDataset, to_item
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import Image
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, Sample, at_input_size, load_whole
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.data.task import MaskForm, Task
from cd_pipeline.data.tiles import Window
from cd_pipeline_tests.tiny_images import draw_scene, write_labelled
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pairs_to

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIZE = 32
PLAIN = Colours(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, blurred=False)
AS_IT_IS = AugmentationPlan(
    window=Window(0, 0, SIZE, SIZE),
    side=SIZE,
    flipped=False,
    flipped_down=False,
    turns=0,
    swapped=False,
    colours=(PLAIN, PLAIN),
)
COLOURED = (
    Colours(brightness=1.1, contrast=0.9, saturation=1.2, hue=0.03, blurred=True),
    Colours(brightness=0.9, contrast=1.2, saturation=0.8, hue=-0.02, blurred=False),
)
NO_COLOUR = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "blur": 0}


def settings_of(**values: object) -> AugmentationSettings:
    return AugmentationSettings.model_validate(values)


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def coordinates(width: int, height: int) -> Sample:
    """A pair whose pixels say where they are: red the column, green the row, blue which date it is."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    before = np.dstack([columns, rows, np.full_like(rows, 50)])
    after = np.dstack([columns, rows, np.full_like(rows, 200)])
    mask = np.where((columns * 7 + rows * 13) % 5 == 0, np.uint8(255), np.uint8(0))
    valid = np.where((columns * 3 + rows * 5) % 7 > 0, np.uint8(255), np.uint8(0))
    return Sample.of_pair(before, after, mask, valid)


def parts(item: torch.Tensor) -> tuple[Image, Image, Image, Image]:
    """Before, after HWC, mask and valid HW of an item."""
    planes = item.permute(1, 2, 0).numpy()
    return planes[..., :3], planes[..., 3:6], planes[..., 6], planes[..., 7]


def by_hand(image: Image, plan: AugmentationPlan, *, mirrored: bool) -> Image:
    """The geometry of a plan that is not resized, in numpy."""
    window = plan.window
    cut = image[window.top : window.top + window.height, window.left : window.left + window.width]
    missing = [(0, max(0, plan.side - cut.shape[0])), (0, max(0, plan.side - cut.shape[1])), (0, 0)]
    cut = np.pad(cut, missing[: cut.ndim], mode="symmetric" if mirrored else "constant")
    cut = cut[:, ::-1] if plan.flipped else cut
    cut = cut[::-1] if plan.flipped_down else cut
    return np.rot90(cut, plan.turns)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, int, AugmentationPlan]:
    """Draw a picture's width and height, from smaller to larger than the input, and a plan without colour."""
    width, height = draw(st.integers(16, 80)), draw(st.integers(16, 80))
    wide, high = min(width, SIZE), min(height, SIZE)
    window = Window(
        draw(st.integers(0, width - wide)), draw(st.integers(0, height - high)), width=wide, height=high
    )
    plan = replace(
        AS_IT_IS,
        window=window,
        flipped=draw(st.booleans()),
        flipped_down=draw(st.booleans()),
        turns=draw(st.integers(0, 3)),
        swapped=draw(st.booleans()),
    )
    return width, height, plan


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_pixel_goes_where_numpy_puts_it_in_both_dates_mask_and_valid(
    case: tuple[int, int, AugmentationPlan],
) -> None:
    width, height, plan = case
    arrays = coordinates(width, height)
    item = augment(arrays, plan, SIZE)
    assert (item.dtype, item.shape) == (torch.uint8, (8, SIZE, SIZE))
    first, second, mask, valid = parts(item)
    dates = (arrays.after, arrays.before) if plan.swapped else (arrays.before, arrays.after)
    for found, original in zip((first, second), dates, strict=True):
        np.testing.assert_array_equal(found, by_hand(original, plan, mirrored=True))
    assert arrays.valid is not None
    for found, original in zip((mask, valid), (arrays.mask, arrays.valid), strict=True):
        np.testing.assert_array_equal(found, by_hand(original, plan, mirrored=False))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_mask_and_pictures_still_agree_at_every_pixel_that_counts(
    case: tuple[int, int, AugmentationPlan],
) -> None:
    width, height, plan = case
    arrays = coordinates(width, height)
    first, second, mask, valid = parts(augment(arrays, plan, SIZE))
    assert arrays.valid is not None
    counted = valid > 0
    np.testing.assert_array_equal(first[..., :2], second[..., :2])
    columns, rows = first[counted][:, 0], first[counted][:, 1]
    np.testing.assert_array_equal(mask[counted], arrays.mask[rows, columns])
    assert (arrays.valid[rows, columns] > 0).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(16, 31),
    st.integers(16, 40),
    st.integers(0, 3),
    st.booleans(),
)
def test_what_is_padded_does_not_count(width: int, height: int, turns: int, flipped: bool) -> None:
    arrays = coordinates(width, height)._replace(valid=None)
    window = Window(0, 0, width, min(height, SIZE))
    item = augment(arrays, replace(AS_IT_IS, window=window, turns=turns, flipped=flipped), SIZE)
    _, _, mask, valid = parts(item)
    assert np.count_nonzero(valid) == window.width * window.height
    assert not mask[valid == 0].any()


def drawn_mask(side: int, window: tuple[int, int, int, int]) -> Sample:
    """A pair in which the mask is drawn as white on black, in both dates."""
    left, top, width, height = window
    mask = np.zeros((side, side), np.uint8)
    mask[top : top + height, left : left + width] = 255
    picture = np.repeat(mask[..., None], 3, axis=2)
    return Sample.of_pair(picture, picture, mask)


@pytest.mark.parametrize("side", [26, 27, 29, 31, 35, 37, 40])
def test_an_enlarged_or_reduced_mask_still_lies_on_what_it_marks(side: int) -> None:
    rng = np.random.default_rng(side)
    for _ in range(20):
        left, top = (int(value) for value in rng.integers(1, side // 2, 2))
        width, height = (int(value) for value in rng.integers(6, side // 2 - 1, 2))
        arrays = drawn_mask(side, (left, top, width, height))
        plan = replace(
            AS_IT_IS,
            window=Window(0, 0, side, side),
            side=side,
            flipped=bool(rng.random() < 0.5),
            turns=int(rng.integers(4)),
        )
        first, _, mask, valid = parts(augment(arrays, plan, SIZE))
        assert set(np.unique(mask)) == {0, 255}
        assert (valid == 255).all()
        marked = first[..., 0] > 127
        # the four corners of the block, rounded by the interpolation, may be either
        assert np.count_nonzero(marked != (mask > 0)) <= 4


def test_a_resized_crop_has_the_scale_that_was_asked_for() -> None:
    arrays = coordinates(64, 64)
    plan = replace(AS_IT_IS, window=Window(10, 20, 16, 16), side=16)
    first, *_ = parts(augment(arrays, plan, SIZE))
    inside = first[4:-4, 4:-4].astype(float)
    assert np.abs(np.diff(inside[..., 0], axis=1).mean() - 0.5) < 0.05
    assert first[..., 0].min() == 10 and first[..., 0].max() == 25
    assert first[..., 1].min() == 20 and first[..., 1].max() == 35


def test_exchanging_exchanges_the_dates_with_their_colours() -> None:
    arrays = draw_pair(4, SIZE)
    plan = replace(AS_IT_IS, colours=COLOURED)
    before, after, mask, valid = parts(augment(arrays, plan, SIZE))
    first, second, same_mask, same_valid = parts(augment(arrays, replace(plan, swapped=True), SIZE))
    np.testing.assert_array_equal(first, after)
    np.testing.assert_array_equal(second, before)
    np.testing.assert_array_equal(same_mask, mask)
    np.testing.assert_array_equal(same_valid, valid)


def test_colour_never_touches_mask_and_valid_and_each_date_has_its_own() -> None:
    arrays = coordinates(SIZE, SIZE)
    plain = parts(augment(arrays, replace(AS_IT_IS, turns=1), SIZE))
    coloured = parts(augment(arrays, replace(AS_IT_IS, turns=1, colours=COLOURED), SIZE))
    for found, expected in zip(coloured[2:], plain[2:], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (coloured[0] != plain[0]).any()
    assert (coloured[1] != plain[1]).any()
    one = replace(AS_IT_IS, turns=1, colours=(PLAIN, COLOURED[1]))
    half = parts(augment(arrays, one, SIZE))
    np.testing.assert_array_equal(half[0], plain[0])
    np.testing.assert_array_equal(half[1], coloured[1])


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.0, 1.2, 1.5])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_light_and_colour_change_as_in_pillow(kind: str, factor: float) -> None:
    arrays = draw_pair(5, SIZE)
    enhancer = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}[kind]
    plan = replace(AS_IT_IS, colours=(PLAIN, replace(PLAIN, **{kind: factor})))
    first, second, *_ = parts(augment(arrays, plan, SIZE))
    expected = np.asarray(getattr(ImageEnhance, enhancer)(Pillow.fromarray(arrays.after)).enhance(factor))
    np.testing.assert_allclose(second.astype(int), expected, atol=2)
    np.testing.assert_array_equal(first, arrays.before)


@pytest.mark.parametrize("turn", [-0.25, -0.03, 0.1, 0.5])
def test_a_turn_of_the_colour_circle_is_that_of_opencv(turn: float) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    plan = replace(AS_IT_IS, colours=(replace(PLAIN, hue=turn), PLAIN))
    first, *_ = parts(augment(Sample.of_pair(picture, picture, picture[..., 0] // 255 * 255), plan, SIZE))
    circle = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    circle[..., 0] = (circle[..., 0] + 360 * turn) % 360
    expected = cv2.cvtColor(circle, cv2.COLOR_HSV2RGB) * 255
    np.testing.assert_allclose(first, expected, atol=2)


def test_blur_is_a_gaussian_of_three_pixels() -> None:
    arrays = draw_pair(6, SIZE)
    plan = replace(AS_IT_IS, colours=(replace(PLAIN, blurred=True), PLAIN))
    first, second, *_ = parts(augment(arrays, plan, SIZE))
    np.testing.assert_allclose(
        first.astype(int), cv2.GaussianBlur(arrays.before, (3, 3), 0).astype(int), atol=1
    )
    np.testing.assert_array_equal(second, arrays.after)


def test_a_pair_is_not_changed_by_being_varied() -> None:
    arrays = coordinates(40, 40)
    copies = [part.copy() for part in arrays.arrays]
    augment(arrays, replace(AS_IT_IS, turns=2, flipped=True, colours=COLOURED), SIZE)
    for part, copied in zip(arrays.arrays, copies, strict=True):
        np.testing.assert_array_equal(part, copied)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(16, 90),
    st.integers(16, 90),
    st.floats(0.3, 1),
    st.floats(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_a_random_window_lies_inside_and_has_the_drawn_scale(
    width: int, height: int, low: float, high: float, seed: int
) -> None:
    mask = np.zeros((height, width), np.uint8)
    plan = plan_augmentation(generator(seed), mask, SIZE, settings_of(scale=(low, high)), None)
    left, top, wide, tall = plan.window
    assert 0 <= left <= left + wide <= width
    assert 0 <= top <= top + tall <= height
    assert (wide, tall) == (min(plan.side, width), min(plan.side, height))
    assert round(SIZE / high) <= plan.side <= max(SIZE, min(width, height))
    assert plan.side <= round(SIZE / low)


def test_windows_reach_every_corner_of_the_picture() -> None:
    mask = np.zeros((40, 48), np.uint8)
    plans = [
        plan_augmentation(generator(seed), mask, SIZE, settings_of(scale=(1, 1)), None) for seed in range(600)
    ]
    corners = {(plan.window.left, plan.window.top) for plan in plans}
    assert {(0, 0), (16, 0), (0, 8), (16, 8)} <= corners
    assert {plan.turns for plan in plans} == {0, 1, 2, 3}
    assert {plan.side for plan in plans} == {SIZE}


def share(mask: Image, plan: AugmentationPlan) -> float:
    """What the more frequent of changed and unchanged takes of a window."""
    changed = float((mask[plan.window.rows, plan.window.columns] > 0).mean())
    return max(changed, 1 - changed)


def test_the_limit_of_the_dominant_share_is_kept_where_it_can_be() -> None:
    mask = np.zeros((SIZE, 3 * SIZE), np.uint8)
    mask[:, : SIZE + SIZE // 2] = 255  # of the 65 places 17 have at most three quarters of one kind
    crops = settings_of(scale=(1, 1), max_dominant_share=0.75)
    free = settings_of(scale=(1, 1), max_dominant_share=1)
    plans = [plan_augmentation(generator(seed), mask, SIZE, crops, None) for seed in range(400)]
    kept = np.mean([share(mask, plan) <= 0.75 for plan in plans])
    assert kept == pytest.approx(1 - (1 - 17 / 65) ** 10, abs=0.03)
    plans = [plan_augmentation(generator(seed), mask, SIZE, free, None) for seed in range(400)]
    assert np.mean([share(mask, plan) <= 0.75 for plan in plans]) == pytest.approx(17 / 65, abs=0.08)


def test_a_picture_without_change_still_gives_a_window() -> None:
    mask = np.zeros((64, 64), np.uint8)
    plan = plan_augmentation(generator(1), mask, SIZE, settings_of(max_dominant_share=0.5), None)
    assert share(mask, plan) == 1


def test_plans_stay_within_the_ranges_and_frequencies_of_the_settings() -> None:
    chosen = settings_of(horizontal_flip=0.2, vertical_flip=0.7, swap=0.4, blur=0.3)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    plans = [plan_augmentation(generator(seed), mask, SIZE, chosen, None) for seed in range(800)]
    assert np.mean([plan.flipped for plan in plans]) == pytest.approx(0.2, abs=0.06)
    assert np.mean([plan.flipped_down for plan in plans]) == pytest.approx(0.7, abs=0.06)
    assert np.mean([plan.swapped for plan in plans]) == pytest.approx(0.4, abs=0.06)
    dates = [colours for plan in plans for colours in plan.colours]
    assert np.mean([colours.blurred for colours in dates]) == pytest.approx(0.3, abs=0.06)
    for name, middle in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
        limit = getattr(chosen, name)
        values = np.array([getattr(colours, name) for colours in dates]) - middle
        assert np.abs(values).max() <= limit
        assert values.min() < -0.9 * limit and values.max() > 0.9 * limit
        before, after = values[::2], values[1::2]
        assert abs(np.corrcoef(before, after)[0, 1]) < 0.15  # drawn for each date


def test_the_published_preset_flips_horizontally_and_does_nothing_else() -> None:
    published = settings_of(preset="published")
    crop = Window(5, 6, SIZE, SIZE)
    arrays = coordinates(60, 60)
    flips = []
    for seed in range(40):
        plan = plan_augmentation(generator(seed), arrays.mask, SIZE, published, crop)
        flips.append(plan.flipped)
        for found, part in zip(parts(augment(arrays, plan, SIZE)), arrays.arrays, strict=True):
            expected = part[6 : 6 + SIZE, 5 : 5 + SIZE]
            np.testing.assert_array_equal(found, expected[:, ::-1] if plan.flipped else expected)
    assert set(flips) == {False, True}
    assert (published.crop, published.horizontal_flip) == ("manifest", 0.5)


def test_what_is_set_beside_the_published_preset_goes_first() -> None:
    assert settings_of(preset="published", swap=0.5).swap == 0.5
    plain = settings_of(preset="published").model_dump()
    assert settings_of(preset="published", blur=0.2).model_dump() == {**plain, "blur": 0.2}
    assert settings_of(**plain).model_dump() == plain
    assert settings_of().preset == "varied"


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": [1.2, 0.8]},
        {"scale": [0, 1]},
        {"scale": [1]},
        {"swap": 1.5},
        {"hue": 0.6},
        {"max_dominant_share": 0},
        {"positive_crops": 1.5},
        {"crop": "centre"},
        {"preset": "heavy"},
        {"rotation": 10},
    ],
)
def test_an_unknown_field_or_a_value_out_of_range_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentationSettings.model_validate(wrong)


CROPS = [Window(0, 0, SIZE, SIZE), Window(32, 0, SIZE, SIZE), Window(20, 30, SIZE, SIZE)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Pair], Roots]:
    """Rows of two pairs of 64 px: three tiles of the first, the second one whole."""
    folder = tmp_path_factory.mktemp("augmented")
    (first, second), roots = write_pairs_to(folder, [draw_pair(1), draw_pair(2)])
    tiles = [
        replace(first, pair_id=f"p0_{i}", seed=i, crop=w._asdict(), tiled=True) for i, w in enumerate(CROPS)
    ]
    return [*tiles, replace(second, seed=9)], roots


def items(pairs: Sequence[Pair], roots: Roots, **values: object) -> AugmentedSamples:
    return AugmentedSamples(pairs, roots, SIZE, settings_of(**{"epoch_pairs": 1, **values}))


def test_an_item_depends_on_epoch_and_index_alone(written: tuple[list[Pair], Roots]) -> None:
    first, second = items(*written), items(*written)
    assert len(first) == 4
    keys = [(epoch, index) for epoch in range(3) for index in range(4)]
    forwards = {key: first[key] for key in keys}
    np.random.default_rng().random()
    torch.rand(3)
    for key in reversed(keys):
        assert torch.equal(second[key], forwards[key])
    assert len({item.numpy().tobytes() for item in forwards.values()}) == len(keys)


def test_few_pairs_are_repeated_within_an_epoch_each_time_varied_anew(
    written: tuple[list[Pair], Roots],
) -> None:
    dataset, once = items(*written, epoch_pairs=12, crop="manifest", swap=0), items(*written)
    assert (len(dataset), len(once)) == (12, 4)
    found = [dataset[0, index] for index in range(12)]
    assert len({item.numpy().tobytes() for item in found}) > 9
    # turning and flipping keeps how much of a tile is changed: every repeat is of the same rows in order
    changed = [int((item[6] > 0).sum()) for item in found]
    assert changed[:4] == changed[4:8] == changed[8:]
    assert torch.equal(items(*written, epoch_pairs=12, crop="manifest", swap=0)[0, 9], found[9])


@pytest.mark.parametrize(("epoch_pairs", "length"), [(1, 4), (4, 4), (5, 4), (7, 8), (100, 100), (101, 100)])
def test_an_epoch_has_about_as_many_pairs_as_asked_for_and_never_fewer_than_there_are(
    written: tuple[list[Pair], Roots], epoch_pairs: int, length: int
) -> None:
    assert len(items(*written, epoch_pairs=epoch_pairs)) == length


def test_published_training_takes_each_pair_once_an_epoch(written: tuple[list[Pair], Roots]) -> None:
    assert len(AugmentedSamples(*written, SIZE, settings_of(preset="published"))) == 4


@pytest.mark.parametrize("cache_bytes", [0, 64 * 64 * 7, 1 << 30])
def test_items_are_the_same_with_a_small_cache_or_none(
    written: tuple[list[Pair], Roots], cache_bytes: int
) -> None:
    dataset, reference = AugmentedSamples(*written, SIZE, settings_of(), cache_bytes), items(*written)
    for key in [(epoch, index) for epoch in range(2) for index in range(4)]:
        assert torch.equal(dataset[key], reference[key])


def test_rows_of_the_same_pictures_share_what_is_decoded(
    written: tuple[list[Pair], Roots], tmp_path: Path
) -> None:
    pairs, roots = written
    dataset = items(pairs, roots)
    expected = items(pairs, roots)[5, 2]
    dataset[0, 0]
    dataset._roots = Roots(tmp_path, tmp_path)  # nothing can be read from here
    assert torch.equal(dataset[5, 2], expected)
    with pytest.raises(FileNotFoundError):
        dataset[0, 3]


def test_the_crop_of_the_manifest_is_kept_when_asked_for(written: tuple[list[Pair], Roots]) -> None:
    still = {"crop": "manifest", "horizontal_flip": 0, "vertical_flip": 0, "quarter_turns": False, "swap": 0}
    dataset = items(*written, **still, **NO_COLOUR)
    plain = SampleDataset(written[0], written[1], SIZE)
    for index in range(4):
        assert torch.equal(dataset[3, index], plain[3, index])


def test_a_random_crop_comes_from_anywhere_in_the_rows_pictures(written: tuple[list[Pair], Roots]) -> None:
    still = {"horizontal_flip": 0, "vertical_flip": 0, "quarter_turns": False, "swap": 0, "scale": (1, 1)}
    dataset = items(*written, **still, **NO_COLOUR)
    whole = to_item(draw_pair(1))
    windows = {whole[:, y : y + SIZE, x : x + SIZE].numpy().tobytes() for y in range(33) for x in range(33)}
    found = {dataset[epoch, 0].numpy().tobytes() for epoch in range(20)}
    assert len(found) > 10
    assert found <= windows


def test_a_resized_pair_is_varied_whole(written: tuple[list[Pair], Roots]) -> None:
    pairs, roots = written
    dataset = items(pairs[3:], roots, **NO_COLOUR)
    sized = to_item(at_input_size(draw_pair(2), SIZE))
    exchanged = sized[[3, 4, 5, 0, 1, 2, 6, 7]]
    possible = {
        torch.rot90(turned, turns, (1, 2)).contiguous().numpy().tobytes()
        for turned in (sized, sized.flip(2), exchanged, exchanged.flip(2))
        for turns in range(4)
    }
    found = {dataset[epoch, 0].numpy().tobytes() for epoch in range(60)}
    assert len(possible) == 16
    assert len(found) > 12
    assert found <= possible


def test_a_picture_smaller_than_the_input_is_padded_and_the_padding_does_not_count(tmp_path: Path) -> None:
    pairs, roots = write_pairs_to(tmp_path, [draw_pair(3, 24)])
    dataset = items([replace(pairs[0], tiled=True, crop=None)], roots, scale=(0.5, 1))
    for epoch in range(6):
        item = dataset[epoch, 0]
        assert item.shape == (8, SIZE, SIZE)
        assert np.count_nonzero(item[7]) == 24 * 24
        assert not item[6][item[7] == 0].any()


def single(width: int, height: int) -> Sample:
    """An image whose pixels say where they are, of four classes."""
    pair = coordinates(width, height)
    rows, columns = np.mgrid[:height, :width]
    return Sample(pair.pictures[:1], ((columns // 3 + rows // 5) % 4).astype(np.uint8), pair.valid)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_every_pixel_of_a_single_image_goes_where_numpy_puts_it(
    case: tuple[int, int, AugmentationPlan],
) -> None:
    width, height, plan = case
    sample = single(width, height)
    item = augment(sample, plan, SIZE)
    assert (item.dtype, item.shape) == (torch.uint8, (5, SIZE, SIZE))
    assert sample.valid is not None
    np.testing.assert_array_equal(item[:3].permute(1, 2, 0), by_hand(sample.pictures[0], plan, mirrored=True))
    np.testing.assert_array_equal(item[3], by_hand(sample.mask, plan, mirrored=False))
    np.testing.assert_array_equal(item[4], by_hand(sample.valid, plan, mirrored=False))


def test_a_single_image_has_the_first_colours_and_is_never_swapped() -> None:
    sample = single(SIZE, SIZE)
    pair = Sample.of_pair(sample.pictures[0], sample.pictures[0], sample.mask, sample.valid)
    plan = replace(AS_IT_IS, turns=1, colours=COLOURED)
    found = augment(sample, plan, SIZE)
    assert torch.equal(found, augment(sample, replace(plan, swapped=True), SIZE))
    assert torch.equal(found, augment(pair, plan, SIZE)[[0, 1, 2, 6, 7]])


@pytest.mark.parametrize("side", [26, 29, 40])
def test_class_indices_are_never_blended(side: int) -> None:
    sample = single(side, side)
    sample = sample._replace(mask=np.where(sample.mask > 1, np.uint8(21), np.uint8(0)))
    item = augment(sample, replace(AS_IT_IS, window=Window(0, 0, side, side), side=side), SIZE)
    assert set(item[3].unique().tolist()) == {0, 21}
    assert set(item[4].unique().tolist()) == {0, 255}


@pytest.fixture
def images(tmp_path: Path) -> tuple[list[LabelledImage], Roots]:
    """Rows of a tiled image and a resized one, of three classes and void."""
    form = MaskForm(classes=3, void=255)
    rows = []
    for number, tiled in enumerate((True, False)):
        (image,), mask, _ = draw_scene(number, 48)
        mask[:, :5] = 255
        row = write_labelled(tmp_path, f"i{number}", image, mask, form)
        rows.append(replace(row, tiled=tiled, seed=number))
    return rows, Roots(tmp_path, tmp_path)


def test_single_images_are_varied_anew_each_epoch_and_keep_their_classes(
    images: tuple[list[LabelledImage], Roots],
) -> None:
    rows, roots = images
    dataset = AugmentedSamples(rows, roots, SIZE, settings_of(epoch_pairs=4))
    assert (len(dataset), dataset.task) == (4, Task(pictures=1, classes=3))
    found = {key: dataset[key] for key in [(epoch, index) for epoch in range(3) for index in range(4)]}
    assert len({item.numpy().tobytes() for item in found.values()}) == 12
    again = AugmentedSamples(rows, roots, SIZE, settings_of(epoch_pairs=4))
    for key, item in found.items():
        assert item.shape == (5, SIZE, SIZE)
        assert set(item[3].unique().tolist()) <= {0, 1, 2}
        assert not item[3][item[4] == 0].any()
        assert torch.equal(again[key], item)


def test_clahe_goes_before_everything_else(images: tuple[list[LabelledImage], Roots]) -> None:
    rows, roots = images
    row = replace(rows[0], clahe=3.0)
    still = {"horizontal_flip": 0, "vertical_flip": 0, "quarter_turns": False, "scale": (1, 1), **NO_COLOUR}
    item = AugmentedSamples([row], roots, SIZE, settings_of(epoch_pairs=1, **still))[0, 0]
    whole = to_item(load_whole(row, roots))
    windows = [whole[:, y : y + SIZE, x : x + SIZE] for y in range(17) for x in range(17)]
    assert any(torch.equal(item, window) for window in windows)


@settings(max_examples=150, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.floats(0.5, 1), st.floats(1, 2), st.data())
def test_a_positive_crop_holds_a_marked_pixel(
    width: int, height: int, low: float, high: float, data: st.DataObject
) -> None:
    mask = np.zeros((height, width), np.uint8)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    mask[y, x] = data.draw(st.sampled_from([1, 21, 255]))
    chosen = settings_of(scale=(low, high), positive_crops=1)
    plan = plan_augmentation(generator(data.draw(st.integers(0, 2**32 - 1))), mask, SIZE, chosen, None)
    window = plan.window
    assert mask[window.rows, window.columns].any()
    assert 0 <= window.left <= window.left + window.width <= width
    assert 0 <= window.top <= window.top + window.height <= height
    assert (window.width, window.height) == (min(plan.side, width), min(plan.side, height))


def test_the_chosen_pixel_is_anywhere_in_the_crop_and_any_marked_one() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[100, 100] = mask[60, 140] = 255
    crops = settings_of(scale=(1, 1), positive_crops=1)
    windows = [plan_augmentation(generator(seed), mask, SIZE, crops, None).window for seed in range(600)]
    first = [w for w in windows if w.top > 60]
    second = [w for w in windows if w.top <= 60]
    assert all(mask[w.rows, w.columns].any() for w in windows)
    assert len(first) / 600 == pytest.approx(0.5, abs=0.08)
    for own, (x, y) in ((first, (100, 100)), (second, (140, 60))):
        assert {x - w.left for w in own} == {y - w.top for w in own} == set(range(SIZE))


def test_positive_crops_come_as_often_as_asked_for_and_never_without_a_marked_pixel() -> None:
    mask = np.zeros((320, 320), np.uint8)
    mask[200, 200] = 255
    rare = settings_of(scale=(1, 1), max_dominant_share=1, positive_crops=0.3)

    def share_marked(chosen: AugmentationSettings) -> float:
        plans = [plan_augmentation(generator(seed), mask, SIZE, chosen, None) for seed in range(800)]
        return float(np.mean([mask[plan.window.rows, plan.window.columns].any() for plan in plans]))

    by_chance = SIZE**2 / 289**2
    assert share_marked(rare) == pytest.approx(0.3 + 0.7 * by_chance, abs=0.05)
    assert share_marked(settings_of(scale=(1, 1), max_dominant_share=1)) == pytest.approx(by_chance, abs=0.02)
    mask[:] = 0
    always = settings_of(scale=(1, 1), positive_crops=1)
    windows = {plan_augmentation(generator(seed), mask, SIZE, always, None).window for seed in range(50)}
    assert len(windows) == 50  # of an image without one, any crop will do
