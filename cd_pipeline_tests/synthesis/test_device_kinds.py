"""What the device shows in a region, against OpenCV on the same pixels."""

import colorsys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cd_pipeline.synthesis.device_kinds import Places, blurred, hue_turned, painted, pixelated, textured
from cd_pipeline.synthesis.published_kinds import (
    blur_kernel,
    coarse_cells,
    coarse_size,
)
from cd_pipeline.synthesis.published_kinds import blurred as blurred_by_opencv
from cd_pipeline.synthesis.published_kinds import pixelated as pixelated_by_opencv
from cd_pipeline.synthesis.realistic_kinds import FILLS, Paint, draw_colour, draw_share
from cd_pipeline_tests.drawn import Pixels

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIDE = 70
sides, seeds = st.integers(2, 60), st.integers(0, 2**31)


def noise(seed: int, height: int, width: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def two_pictures(patches: list[Pixels]) -> tuple[Tensor, Places]:
    """Lay a patch into each of two pictures, which noise surrounds: all pixels, and where those of the patches lie."""
    pictures = np.stack([noise(number, SIDE, SIDE) for number in range(2)])
    parts = []
    for number, patch in enumerate(patches):
        height, width = patch.shape[:2]
        top, left = 3 + number, 7 - number
        pictures[number, top : top + height, left : left + width] = patch
        row, column = np.indices((height, width)).reshape(2, -1)
        corner = (number * SIDE + top) * SIDE + left
        whole = np.broadcast_to([[height], [width], [corner]], (3, height * width))
        parts.append(np.concatenate([[row, column], whole]))
    columns = torch.from_numpy(np.concatenate(parts, axis=1)).unbind(0)
    row_, column_, heights, widths, corners = columns
    return torch.from_numpy(pictures.reshape(-1, 3)), Places(row_, column_, heights, widths, corners, SIDE)


def of_each(values: list[int], patches: list[Pixels]) -> Tensor:
    """Repeat a number for each pixel of its patch."""
    counts = [patch.shape[0] * patch.shape[1] for patch in patches]
    return torch.from_numpy(np.repeat(values, counts))


@settings(max_examples=40, deadline=None)
@given(sides, sides, sides, sides, seeds)
def test_blur_is_that_of_opencv_to_the_last_bit(a: int, b: int, c: int, d: int, seed: int) -> None:
    patches = [noise(seed, a, b), noise(seed + 1, c, d)]
    pictures, places = two_pictures(patches)
    reaches = [blur_kernel(*patch.shape[:2]) // 2 for patch in patches]
    found = blurred(pictures, places, of_each(reaches, patches), max(reaches))
    expected = [blurred_by_opencv(patch).reshape(-1, 3) for patch in patches]
    np.testing.assert_array_equal(found, np.concatenate(expected))


@settings(max_examples=40, deadline=None)
@given(sides, sides, sides, sides, seeds)
def test_pixelated_patches_are_those_of_opencv_to_a_level_with_the_same_cells(
    a: int, b: int, c: int, d: int, seed: int
) -> None:
    patches = [noise(seed, a, b), noise(seed + 1, c, d)]
    pictures, places = two_pictures(patches)
    sizes = [coarse_size(*patch.shape[:2]) for patch in patches]
    rows, columns = (of_each([size[axis] for size in sizes], patches) for axis in range(2))
    cells = [coarse_cells(*patch.shape[:2]).reshape(-1, 2) for patch in patches]
    padded = torch.from_numpy(np.pad(np.concatenate(cells), ((0, 0), (0, 1))))
    found = pixelated(pictures, places, padded, rows, columns)
    expected = np.concatenate([pixelated_by_opencv(patch).reshape(-1, 3) for patch in patches])
    assert np.abs(found.numpy().astype(int) - expected).max() <= 1


GRID = np.stack(np.meshgrid(*[np.arange(0, 256, 17, np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
"""4096 colours, greys among them."""


@pytest.mark.parametrize(("turn", "gain"), [(20, 40), (77, 100), (160, 120), (90, 60)])
def test_every_colour_is_turned_as_colorsys_does_it_and_as_opencv_to_a_level(turn: int, gain: int) -> None:
    turns, gains = (torch.full((GRID.shape[1],), value) for value in (turn, gain))
    found = hue_turned(torch.from_numpy(GRID[0]), turns, gains).numpy()
    hsv = cv2.cvtColor(GRID, cv2.COLOR_RGB2HSV)[0].astype(int)  # whole numbers, which both start from
    hsv = np.stack([(hsv[:, 0] + turn) % 180, np.minimum(hsv[:, 1] + gain, 255), hsv[:, 2]], axis=1)
    exact = [colorsys.hsv_to_rgb(h / 180, s / 255, v / 255) for h, s, v in hsv.tolist()]
    assert np.abs(found - 255 * np.array(exact)).max() < 0.5001
    # OpenCV rounds some pixels of a row down and some to the nearest level
    opencv = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]
    assert cv2.absdiff(found, opencv).max() <= 1


def test_paint_is_that_of_the_cpu_to_a_level() -> None:
    seeds = [s for s in range(12) if isinstance(draw_colour(np.random.default_rng(s)), Paint)]
    assert len(seeds) > 2
    for seed in seeds:
        factors, floor = draw_colour(np.random.default_rng(seed))
        numbers = torch.tensor([*factors, *floor], dtype=torch.float32).expand(GRID.shape[1], 6)
        expected = FILLS["recolour"](GRID, None, np.random.default_rng(seed))[0]
        differences = cv2.absdiff(painted(torch.from_numpy(GRID[0]), numbers).numpy(), expected)
        assert differences.max() <= 1
        assert (differences > 0).mean() < 1e-3


@settings(max_examples=20, deadline=None)
@given(sides, sides, seeds)
def test_texture_is_mixed_as_by_opencv_to_a_level(height: int, width: int, seed: int) -> None:
    patch, other = noise(seed, height, width), noise(seed + 1, height, width)
    expected = FILLS["retexture"](patch, other, np.random.default_rng(seed)).reshape(-1, 3)
    share = torch.full((height * width,), draw_share(np.random.default_rng(seed)), dtype=torch.float32)
    found = textured(*(torch.from_numpy(part.reshape(-1, 3)) for part in (patch, other)), share)
    assert np.abs(found.numpy().astype(int) - expected).max() <= 1


def test_cells_are_at_most_256_a_side() -> None:
    assert coarse_cells(1024, 4).shape == (1024, 4, 2)
    with pytest.raises(ValueError, match=r"a patch of 2000x30 px pixelated to 300x4 cells; at most 256"):
        coarse_cells(30, 2000)
