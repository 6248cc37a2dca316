"""Prediction in overlapping tiles: the blending, and a network run through it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cd_pipeline.data.tiles import Window, starts
from cd_pipeline.evaluation import tiled
from cd_pipeline.evaluation.predict import network_probabilities, predict_probability
from cd_pipeline.evaluation.tiled import PredictRow, Probability, blended_strips, predict_tiled, ramp
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import Upsampling
from cd_pipeline.models.unet import UNet
from cd_pipeline_tests.models.one_image import settled
from cd_pipeline_tests.tiny_pairs import BrightnessChange, draw_pair

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Draw a picture's width and height, the side of its tiles and their overlap."""
    side = draw(st.integers(1, 24))
    return draw(st.integers(1, 70)), draw(st.integers(1, 70)), side, draw(st.integers(0, side - 1))


def picture(width: int, height: int) -> Probability:
    return np.random.default_rng([width, height]).random((height, width)).astype(np.float32)


def cut_from(whole: Probability) -> PredictRow:
    """A network whose answer for a tile is that part of a whole picture."""
    return lambda windows: [whole[window.rows, window.columns] for window in windows]


@settings(max_examples=80, deadline=None)
@given(layouts())
def test_what_is_true_everywhere_comes_out_as_it_is(layout: tuple[int, int, int, int]) -> None:
    width, height, side, overlap = layout
    whole = picture(width, height)
    strips = list(blended_strips(cut_from(whole), width, height, side, overlap))
    found = np.concatenate(strips)
    assert (found.dtype, found.shape) == (np.float32, (height, width))
    np.testing.assert_allclose(found, whole, rtol=1e-5)  # the rounding of float32


@settings(max_examples=60, deadline=None)
@given(layouts(), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_constant_comes_out_exactly(layout: tuple[int, int, int, int], value: float) -> None:
    width, height, side, overlap = layout
    whole = np.full((height, width), value, np.float32)
    found = np.concatenate(list(blended_strips(cut_from(whole), width, height, side, overlap)))
    np.testing.assert_array_equal(found, whole)


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_strips_are_at_most_a_tile_high_and_add_up_to_the_picture(layout: tuple[int, int, int, int]) -> None:
    width, height, side, overlap = layout
    asked: list[int] = []

    def predict_row(windows: list[Window]) -> list[Probability]:
        asked.append(len(windows))
        assert len({window.top for window in windows}) == 1
        return [np.zeros((window.height, window.width), np.float32) for window in windows]

    heights = []
    for number, strip in enumerate(blended_strips(predict_row, width, height, side, overlap), start=1):
        assert len(asked) == number  # a row of tiles is predicted only when its strip is due
        assert strip.shape[1] == width
        heights.append(len(strip))
    assert sum(heights) == height
    assert 1 <= min(heights) <= max(heights) <= side
    assert sum(asked) == len(starts(width, side, overlap)) * len(starts(height, side, overlap))


@given(layouts())
def test_weights_are_positive_and_full_at_the_border_of_the_picture(
    layout: tuple[int, int, int, int],
) -> None:
    length, _, side, overlap = layout
    found = starts(length, side, overlap)
    for start in found:
        weights = ramp(length, start, side, overlap)
        assert weights.shape == (min(side, length),)
        assert 0 < weights.min() <= weights.max() <= 1
    assert ramp(length, 0, side, overlap)[0] == 1
    assert ramp(length, found[-1], side, overlap)[-1] == 1


def test_between_two_tiles_the_weight_goes_over_linearly() -> None:
    assert starts(11, 7, 3) == [0, 4]
    first, second = ramp(11, 0, 7, 3), ramp(11, 4, 7, 3)
    np.testing.assert_allclose(first, [1, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(second, [0.25, 0.5, 0.75, 1, 1, 1, 1])


def hand_weight(position: int, start: int, length: int, side: int, overlap: int) -> float:
    """How much a tile counts at a pixel, along one axis."""
    end = min(start + side, length)
    if not start <= position < end:
        return 0.0
    steps = []
    if start > 0:
        steps.append(position - start + 1)
    if end < length:
        steps.append(end - position)
    return min([1.0, *(step / (overlap + 1) for step in steps)])


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 26), st.integers(1, 26), st.integers(2, 12), st.data())
def test_each_pixel_is_the_weighted_mean_of_the_tiles_over_it(
    width: int, height: int, side: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    lefts, tops = starts(width, side, overlap), starts(height, side, overlap)
    answers = {(top, left): 0.1 + ((7 * top + 3 * left) % 11) / 20 for top in tops for left in lefts}

    def predict_row(windows: list[Window]) -> list[Probability]:
        return [np.full((w.height, w.width), answers[w.top, w.left], np.float32) for w in windows]

    found = np.concatenate(list(blended_strips(predict_row, width, height, side, overlap)))
    for y in range(height):
        for x in range(width):
            weights = {
                (top, left): hand_weight(y, top, height, side, overlap)
                * hand_weight(x, left, width, side, overlap)
                for top, left in answers
            }
            total = sum(weight * answers[tile] for tile, weight in weights.items())
            assert found[y, x] == pytest.approx(total / sum(weights.values()), rel=1e-5)


class Nearby(nn.Module):
    """A network whose answer at a pixel depends on those up to 2 px away."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(torch.cat([before, after], 1)).tanh())
        return 4 * logits


HEIGHT, WIDTH, SIDE = 100, 90, 32


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return tuple(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(2))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def seam_error(pictures: tuple[np.ndarray, np.ndarray]) -> dict[int, np.ndarray]:
    """How far the prediction in tiles is from that of the whole picture, by overlap."""
    model = Nearby()
    whole = predict_probability(model, *pictures, runtime=RUNTIME)
    assert np.ptp(whole) > 0.3
    return {
        overlap: np.abs(
            predict_tiled(network_probabilities(model, RUNTIME), *pictures, side=SIDE, overlap=overlap)
            - whole
        )
        for overlap in (0, 8, 16)
    }


def near_seams(length: int, overlap: int) -> np.ndarray:
    """Which positions are within 2 px of the edge of a tile, inside the picture."""
    near = np.zeros(length, bool)
    for start in starts(length, SIDE, overlap):
        if start > 0:
            near[start : start + 2] = True
        if start + SIDE < length:
            near[start + SIDE - 2 : start + SIDE] = True
    return near


@pytest.mark.parametrize("overlap", [0, 8, 16])
def test_away_from_the_edges_of_tiles_the_answer_is_that_of_the_whole_picture(
    seam_error: dict[int, np.ndarray], overlap: int
) -> None:
    near = near_seams(HEIGHT, overlap)[:, None] | near_seams(WIDTH, overlap)[None]
    assert 0.1 < near.mean() < 0.7
    assert seam_error[overlap][~near].max() < 1e-5
    assert seam_error[0].max() > 0.1  # where tiles end, the network sees nothing beyond


@pytest.mark.parametrize("overlap", [8, 16])
def test_blending_keeps_little_of_the_error_at_the_edges(
    seam_error: dict[int, np.ndarray], overlap: int
) -> None:
    # Within 2 px of its edge a tile counts at most 2 / (overlap + 1), along each of two axes.
    assert seam_error[overlap].max() < 2 * 2 / (overlap + 1) * seam_error[0].max()


@pytest.mark.parametrize(("height", "width"), [(20, 12), (20, 80), (70, 12), (32, 32), (33, 31)])
def test_a_picture_smaller_than_a_tile_is_mirrored_to_it_and_answered_at_its_own_size(
    height: int, width: int
) -> None:
    model = Nearby()
    before, after = (np.ascontiguousarray(image[:height, :width]) for image in draw_pair(3, 80).pictures)
    found = predict_tiled(network_probabilities(model, RUNTIME), before, after, side=SIDE, overlap=8)
    assert (found.dtype, found.shape) == (np.float32, (height, width))
    if max(height, width) <= SIDE:
        missing = ((0, SIDE - height), (0, SIDE - width), (0, 0))
        enlarged = [np.pad(image, missing, mode="symmetric") for image in (before, after)]
        expected = predict_probability(model, *enlarged, runtime=RUNTIME)[:height, :width]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 31))
def test_an_answer_of_each_pixel_alone_does_not_depend_on_size_and_overlap(
    width: int, height: int, overlap: int
) -> None:
    before, after = (np.ascontiguousarray(image[:height, :width]) for image in draw_pair(8, 90).pictures)
    found = predict_tiled(
        network_probabilities(BrightnessChange(), RUNTIME), before, after, side=SIDE, overlap=overlap
    )
    levels = np.abs(before.astype(np.float64) - after).mean(-1) / 255
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-40 * (levels - 0.1))), atol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "batches"), [(8 * SIDE**2, [8, 4]), (5 * SIDE**2 - 1, [4, 4, 4]), (9, [1] * 12)]
)
def test_no_batch_holds_more_pixels_than_are_run_at_once(
    monkeypatch: pytest.MonkeyPatch, pixels: int, batches: list[int]
) -> None:
    sizes: list[tuple[int, ...]] = []

    class Watched(BrightnessChange):
        def forward(self, before: Tensor, after: Tensor) -> Tensor:
            sizes.append(tuple(before.shape))
            return super().forward(before, after)

    monkeypatch.setattr(tiled, "PIXELS_AT_ONCE", pixels)
    before, after = (np.tile(image, (1, 12, 1)) for image in draw_pair(1, 32).pictures)
    predict_tiled(network_probabilities(Watched(), RUNTIME), before, after, side=SIDE, overlap=0)
    assert sizes == [(count, 3, SIDE, SIDE) for count in batches]


def test_an_overlap_of_a_whole_tile_is_refused() -> None:
    before, after = draw_pair(1, 64).pictures
    with pytest.raises(ValueError, match=r"overlap 32 must be in \[0, 32\)"):
        predict_tiled(
            network_probabilities(BrightnessChange(), RUNTIME), before, after, side=SIDE, overlap=32
        )


@settings(max_examples=20, deadline=None)
@given(layouts(), st.integers(2, 4))
def test_classes_are_blended_each_as_if_it_were_alone(
    layout: tuple[int, int, int, int], classes: int
) -> None:
    width, height, side, overlap = layout
    # tiles disagree, so that the blending shows
    answers = np.random.default_rng(classes).random((classes, 24, 24)).astype(np.float32)

    def predict_row(windows: list[Window], some: slice | int = slice(None)) -> list[Probability]:
        return [answers[some, : window.height, : window.width] for window in windows]

    found = np.concatenate(list(blended_strips(predict_row, width, height, side, overlap)), axis=1)
    assert (found.dtype, found.shape) == (np.float32, (classes, height, width))
    for index, plane in enumerate(found):
        alone = blended_strips(lambda w, i=index: predict_row(w, i), width, height, side, overlap)
        np.testing.assert_array_equal(plane, np.concatenate(list(alone)))


def test_a_strip_that_is_kept_is_not_written_to_later() -> None:
    whole = np.stack([picture(30, 50), picture(30, 50) / 2])
    strips, copies = [], []
    cut = lambda windows: [whole[:, window.rows, window.columns] for window in windows]
    for strip in blended_strips(cut, 30, 50, 16, 6):
        strips.append(strip)
        copies.append(strip.copy())
    assert len(strips) > 3
    for strip, copied in zip(strips, copies, strict=True):
        np.testing.assert_array_equal(strip, copied)


CONTEXT = 12
"""Px beyond which a UNet of two levels sees nothing; found by `reach`."""


def two_levels(classes: int, upsampling: Upsampling, *, align_corners: bool = False) -> nn.Module:
    torch.manual_seed(11)
    net = UNet(classes=classes, widths=(8, 16), upsampling=upsampling, align_corners=align_corners)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)  # answers that differ from place to place
    return settled(net)


def reach(net: nn.Module) -> int:
    """How far from a pixel, in px, others change its answer, at either place of the 2x2 pooling."""
    image = torch.rand(1, 3, 96, 96, requires_grad=True)
    farthest = 0
    for middle in (48, 49):
        (gradient,) = torch.autograd.grad(net(image)[0, :, middle, middle].sum(), image)
        rows = gradient.abs().sum((0, 1, 3)).nonzero()
        farthest = max(farthest, int((rows - middle).abs().max()))
    return farthest


def inside_every_tile(length: int, side: int, overlap: int, context: int) -> np.ndarray:
    """Which positions have `context` px around them, as far as the picture goes, in every tile over them."""
    whole = np.ones(length, bool)
    for start in starts(length, side, overlap):
        position = np.arange(start, min(start + side, length))
        left = (position - context >= start) | (start == 0)
        right = (position + context < start + side) | (start + side >= length)
        whole[position] &= left & right
    return whole


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("upsampling", ["bilinear", "bilinear_conv", "deconv"])
def test_a_unet_answers_in_tiles_as_on_the_whole_picture_where_tiles_hold_its_context(
    upsampling: Upsampling, classes: int
) -> None:
    net, side, overlap = two_levels(classes, upsampling), 64, 2 * CONTEXT + 4
    assert reach(net) <= CONTEXT
    # tiles start at even pixels, as the pooling needs: 0, 36, 72 and so on, the last one at height - side
    image = np.random.default_rng(5).integers(0, 256, (140, 154, 3), np.uint8)
    whole = predict_probability(net, image, runtime=RUNTIME)
    tiled = predict_tiled(network_probabilities(net, RUNTIME), image, side=side, overlap=overlap)
    inside = inside_every_tile(140, side, overlap, CONTEXT)[:, None]
    inside = inside & inside_every_tile(154, side, overlap, CONTEXT)
    assert inside.mean() > 0.1
    assert np.ptp(whole) > 0.2
    error = np.abs(tiled - whole).reshape(-1, 140, 154).max(0)
    assert error[inside].max() < 1e-4
    # elsewhere the tile that sees too little counts least: the error stays a fraction of that without overlap
    bare = np.abs(predict_tiled(network_probabilities(net, RUNTIME), image, side=side, overlap=0) - whole)
    assert error.max() < 0.5 * bare.max()


def test_corner_aligned_upsampling_answers_differently_in_tiles() -> None:
    image = np.random.default_rng(5).integers(0, 256, (140, 154, 3), np.uint8)
    errors = []
    for align_corners in (False, True):
        net = two_levels(1, "bilinear", align_corners=align_corners)
        whole = predict_probability(net, image, runtime=RUNTIME)
        tiled = predict_tiled(network_probabilities(net, RUNTIME), image, side=64, overlap=28)
        inside = inside_every_tile(140, 64, 28, CONTEXT)[:, None] & inside_every_tile(154, 64, 28, CONTEXT)
        errors.append(np.abs(tiled - whole)[inside].max())
    assert errors[0] < 1e-4 < errors[1]
