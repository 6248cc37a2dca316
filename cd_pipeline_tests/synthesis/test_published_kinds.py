from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.plan import Change, label_rects
from cd_pipeline.synthesis.published_kinds import PUBLISHED_KINDS
from cd_pipeline.synthesis.settings import KINDS
from cd_pipeline_tests.drawn import Pixels, draw_photo

WIDTH, HEIGHT = 96, 72
PHOTO = draw_photo(np.random.default_rng(3), (WIDTH, HEIGHT))[0]
PLACES = [
    Rect(10, 12, 40, 30),
    Rect(0, 0, 25, 17),
    Rect(61, 50, 35, 22),
    Rect(90, 5, 6, 60),
    Rect(95, 71, 1, 1),
]


def applied(change: Change, photo: Pixels = PHOTO) -> Pixels:
    after = photo.copy()
    PUBLISHED_KINDS[change.kind](after, change)
    return after


def outside(rect: Rect) -> npt.NDArray[np.bool_]:
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[rect.slices] = False
    return mask


def test_the_kinds_are_the_published_six() -> None:
    assert tuple(PUBLISHED_KINDS) == KINDS


@pytest.mark.parametrize("place", PLACES)
def test_black_fills_the_inclusive_rectangle(place: Rect) -> None:
    expected = PHOTO.copy()
    for y in range(place.y, min(HEIGHT, place.y + place.height + 1)):
        for x in range(place.x, min(WIDTH, place.x + place.width + 1)):
            expected[y, x] = (0, 0, 0)
    np.testing.assert_array_equal(applied(Change("black", *place)), expected)


@pytest.mark.parametrize("place", PLACES)
def test_rect_is_noise_below_30_and_leaves_the_rest(place: Rect) -> None:
    after = applied(Change("rect", *place, noise_seed=5))
    assert after[place.slices].max() < 30
    np.testing.assert_array_equal(after[outside(place)], PHOTO[outside(place)])


def test_the_noise_of_rect_is_uniform_and_differs_between_pixels_and_channels() -> None:
    noise = applied(Change("rect", 0, 0, WIDTH, HEIGHT, noise_seed=5))
    assert stats.chisquare(np.bincount(noise.ravel(), minlength=30)).pvalue > 1e-3
    flat = noise.reshape(-1, 3).astype(float)
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.05
    assert abs(np.corrcoef(flat[:-1, 0], flat[1:, 0])[0, 1]) < 0.05


def test_the_noise_of_rect_depends_on_its_seed_alone() -> None:
    first, again, other = (applied(Change("rect", *PLACES[0], noise_seed=seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    on_black = applied(Change("rect", *PLACES[0], noise_seed=5), np.zeros_like(PHOTO))
    np.testing.assert_array_equal(on_black[PLACES[0].slices], first[PLACES[0].slices])


def inpainted_whole(place: Rect) -> Pixels:
    hole = np.zeros((HEIGHT, WIDTH), np.uint8)
    hole[place.y : place.y + place.height + 1, place.x : place.x + place.width + 1] = 255
    return np.asarray(cv2.inpaint(PHOTO, hole, 3, cv2.INPAINT_TELEA), np.uint8)


@pytest.mark.parametrize("place", PLACES)
def test_inpaint_equals_telea_over_the_whole_photo(place: Rect) -> None:
    np.testing.assert_array_equal(applied(Change("inpaint", *place)), inpainted_whole(place))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 80), st.integers(0, 60), st.integers(1, 96), st.integers(1, 72))
def test_inpaint_anywhere_equals_telea_over_the_whole_photo(x: int, y: int, width: int, height: int) -> None:
    place = Rect(x, y, width, height).clipped(WIDTH, HEIGHT)
    np.testing.assert_array_equal(applied(Change("inpaint", *place)), inpainted_whole(place))


@pytest.mark.parametrize(
    ("sides", "kernel"),
    [((12, 40), 3), ((19, 19), 3), ((20, 50), 5), ((40, 39), 7), ((60, 55), 11), ((5, 5), 3), ((1, 30), 3)],
)
def test_blur_is_a_gaussian_of_the_published_kernel_within_the_region(
    sides: tuple[int, int], kernel: int
) -> None:
    place = Rect(7, 9, *sides)
    after = applied(Change("blur", *place))
    taps = cv2.getGaussianKernel(kernel, 0).ravel()
    patch = PHOTO[place.slices].astype(float)
    for axis in (0, 1):
        # the pixels around the region play no part: its own are mirrored at its edges
        mode = "mirror" if patch.shape[axis] > 1 else "nearest"
        patch = ndimage.correlate1d(patch, taps, axis=axis, mode=mode)
    np.testing.assert_allclose(after[place.slices].astype(float), patch, atol=1.01)
    np.testing.assert_array_equal(after[outside(place)], PHOTO[outside(place)])


def bilinear(patch: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.float64]:
    rows, columns = (
        np.clip((np.arange(count) + 0.5) * length / count - 0.5, 0, length - 1)
        for count, length in ((height, patch.shape[0]), (width, patch.shape[1]))
    )
    channels = [
        ndimage.map_coordinates(patch[..., c], np.meshgrid(rows, columns, indexing="ij"), order=1)
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)


@pytest.mark.parametrize("sides", [(40, 30), (20, 20), (33, 57), (6, 60), (2, 2), (1, 1)])
def test_pixel_shrinks_to_15_percent_and_enlarges_by_nearest(sides: tuple[int, int]) -> None:
    width, height = sides
    place = Rect(5, 7, width, height)
    after = applied(Change("pixel", *place))
    small_width, small_height = max(1, int(width * 0.15)), max(1, int(height * 0.15))
    small = bilinear(PHOTO[place.slices].astype(float), small_width, small_height)
    rows, columns = np.arange(height) * small_height // height, np.arange(width) * small_width // width
    np.testing.assert_allclose(after[place.slices].astype(float), small[rows][:, columns], atol=1.01)
    np.testing.assert_array_equal(after[outside(place)], PHOTO[outside(place)])


@pytest.mark.parametrize(("to_x", "to_y"), [(50, 40), (10, 12), (15, 20), (0, 0), (56, 42), (5, 30)])
def test_move_pastes_and_then_blacks_out_the_old_place_even_where_they_overlap(to_x: int, to_y: int) -> None:
    expected = PHOTO.copy()
    for j in range(30):
        for i in range(40):
            expected[to_y + j, to_x + i] = PHOTO[12 + j, 10 + i]
    for j in range(30):
        for i in range(40):
            expected[12 + j, 10 + i] = 0
    after = applied(Change("move", 10, 12, 40, 30, to_x=to_x, to_y=to_y))
    np.testing.assert_array_equal(after, expected)


def test_a_move_without_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="without a target"):
        applied(Change("move", 0, 0, 5, 5))


def places(draw: Callable[[st.SearchStrategy[int]], int]) -> Rect:
    width, height = draw(st.integers(1, WIDTH)), draw(st.integers(1, HEIGHT))
    return Rect(draw(st.integers(0, WIDTH - width)), draw(st.integers(0, HEIGHT - height)), width, height)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_no_kind_alters_a_pixel_outside_its_truthful_label(kind: str, data: st.DataObject) -> None:
    place = places(data.draw)
    to_x = data.draw(st.integers(0, WIDTH - place.width)) if kind == "move" else None
    to_y = data.draw(st.integers(0, HEIGHT - place.height)) if kind == "move" else None
    change = Change(kind, *place, to_x=to_x, to_y=to_y, noise_seed=1 if kind == "rect" else None)
    allowed = np.zeros((HEIGHT, WIDTH), bool)
    for labelled in label_rects(change, WIDTH, HEIGHT, truthful=True):
        allowed[labelled.slices] = True
    differs = (applied(change) != PHOTO).any(axis=2)
    assert not (differs & ~allowed).any()
