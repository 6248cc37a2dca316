"""From pictures to masks, of one class and of several, in memory that does not grow with their height."""

import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor, nn

from cd_pipeline.data.samples import Sample
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor, enlarged, most_probable
from cd_pipeline.evaluation.sample_prediction import predict_sample
from cd_pipeline.models.runtime import Runtime

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()
SIDE = 32


class Classes(nn.Module):
    """A 1x1 convolution to C classes: each pixel's answer is its own."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.head = nn.Conv2d(3, classes, 1)
        nn.init.normal_(self.head.weight, std=8)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(image - 0.5)
        return logits


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Draw a smooth picture of many colours, HWC uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def logits(model: Classes, image: np.ndarray) -> np.ndarray:
    """What `Classes` answers, in float64: CxHxW."""
    weight = model.head.weight.detach().numpy()[..., 0, 0].astype(np.float64)
    answer: np.ndarray = np.einsum("cp,hwp->chw", weight, image / 255 - 0.5)
    return answer + model.head.bias.detach().numpy()[:, None, None]


def clear(values: np.ndarray) -> np.ndarray:
    """Where the best class leads by more than float32 rounds."""
    ordered = np.sort(values, axis=0)
    return np.asarray(ordered[-1] - ordered[-2] > 1e-4)


sizes = st.tuples(st.integers(1, 80), st.integers(1, 80))


@settings(max_examples=20, deadline=None)
@given(sizes, st.integers(2, 22), st.integers(0, SIDE - 1))
def test_the_mask_of_several_classes_is_the_most_probable_one_at_any_size(
    size: tuple[int, int], classes: int, overlap: int
) -> None:
    model, image = Classes(classes), picture(classes, *size)
    predictor = Predictor(network_probabilities(model, RUNTIME), SIDE, None, overlap=overlap)
    mask = predictor.mask_at_own_size(image)
    expected = logits(model, image)
    sure = clear(expected)
    assert (mask.shape, mask.dtype) == (size, np.uint8)
    assert sure.mean() > 0.5 or sure.size < 10
    np.testing.assert_array_equal(mask[sure], expected.argmax(0)[sure])


@settings(max_examples=25, deadline=None)
@given(
    sizes, st.sampled_from([None, 0.4]), st.booleans(), st.integers(0, 3), st.integers(0, 9), st.booleans()
)
def test_rows_decided_as_they_are_finished_make_the_mask_of_the_whole_probability(
    size: tuple[int, int], threshold: float | None, smooth: bool, opening: int, min_area: int, tiled: bool
) -> None:
    predictor = Predictor(
        network_probabilities(Classes(1 if threshold else 5), RUNTIME),
        SIDE,
        threshold,
        smooth=smooth,
        overlap=10,
        opening=opening,
        min_area=min_area,
    )
    image = picture(4, *size)
    whole = predictor.probability_at_own_size(image, tiled=tiled)
    assert whole.shape == (size if threshold else (5, *size))
    np.testing.assert_array_equal(predictor.mask_at_own_size(image, tiled=tiled), predictor.mask_of(whole))


def test_a_pixel_is_marked_above_the_threshold_and_not_at_it() -> None:
    predictor = Predictor(network_probabilities(Classes(1), RUNTIME), SIDE, 0.5)
    values = np.array([[0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.2, 1.0]], np.float32)
    assert predictor.mask_of(values).tolist() == [[0, 255, 0, 255]]


def test_masks_are_smoothed_then_cleaned() -> None:
    marked = np.zeros((20, 24), bool)
    marked[2:9, 2:9] = True
    marked[4, 4] = False  # a hole that smoothing closes
    marked[12:15, 3:18] = marked[16, 2] = True
    predictor = Predictor(
        network_probabilities(Classes(1), RUNTIME), SIDE, 0.5, smooth=True, opening=3, min_area=40
    )
    smooth = ndimage.uniform_filter(marked.astype(np.float64), 3, mode="constant") > 0.5
    opened = ndimage.binary_opening(smooth, np.ones((3, 3)))
    labels, count = ndimage.label(opened, np.ones((3, 3)))
    kept = [label for label in range(1, count + 1) if (labels == label).sum() >= 40]
    expected = np.isin(labels, kept)
    assert smooth.sum() > opened.sum() > expected.sum() > 0  # each step does something
    np.testing.assert_array_equal(predictor.mask_of(marked.astype(np.float32)), expected * 255)


def test_classes_are_not_cleaned() -> None:
    probability = np.random.default_rng(0).random((4, 12, 12)).astype(np.float32)
    bare, cleaning = (
        Predictor(
            network_probabilities(Classes(4), RUNTIME),
            SIDE,
            None,
            smooth=extra > 0,
            opening=extra,
            min_area=9 * extra,
        )
        for extra in (0, 3)
    )
    np.testing.assert_array_equal(cleaning.mask_of(probability), bare.mask_of(probability))
    np.testing.assert_array_equal(bare.mask_of(probability), probability.argmax(0))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([(), (1,), (3,)]))
def test_a_probability_is_enlarged_class_by_class(height: int, width: int, classes: tuple[int, ...]) -> None:
    small = np.random.default_rng(height).random((*classes, 9, 7)).astype(np.float32)
    found = enlarged(small, height, width)
    planes = torch.from_numpy(small).reshape(1, -1, 9, 7)
    expected = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)
    assert (found.dtype, found.shape) == (np.float32, (*classes, height, width))
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-5)


def test_one_image_that_is_not_tiled_gives_masks_at_both_sizes() -> None:
    image = picture(2, 64, 96)
    sample = Sample((image,), np.zeros((64, 96), np.uint8))
    predictor = Predictor(network_probabilities(Classes(3), RUNTIME), SIDE, None)
    sized, probability, mask, own = predict_sample(predictor, sample)
    np.testing.assert_array_equal(probability, predictor.probability(*sized.pictures))
    np.testing.assert_array_equal(mask, probability.argmax(0))
    assert (mask.shape, own.shape) == ((SIDE, SIDE), (64, 96))
    both = predict_sample(predictor, sample, own_size=True)
    np.testing.assert_array_equal(both.mask, own)
    np.testing.assert_array_equal(both.own_size, own)


def test_the_memory_of_a_prediction_of_many_classes_does_not_grow_with_the_height() -> None:
    predictor = Predictor(network_probabilities(Classes(22), RUNTIME), SIDE, None, overlap=8)
    peaks = []
    for height in (128, 2048):
        image = picture(0, height, 256)
        predictor.mask_at_own_size(image[:64])  # what is made once
        tracemalloc.start()
        mask = predictor.mask_at_own_size(image)
        peaks.append(tracemalloc.get_traced_memory()[1] - 2 * mask.size)  # the mask and its pieces
        tracemalloc.stop()
    probability = 22 * 4 * 2048 * 256
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < probability / 4


LARGE = """
import resource
import cv2, numpy as np, torch
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.models.runtime import Runtime

torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Conv2d(3, 22, 1)
torch.nn.init.normal_(model.weight, std=8)
predictor = Predictor(network_probabilities(model, Runtime()), 512, None, overlap=64)
coarse = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
image = cv2.resize(coarse, (6000, 6000), interpolation=cv2.INTER_NEAREST)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mask = predictor.mask_at_own_size(image)
with torch.inference_mode():
    blocks = model(torch.from_numpy(coarse).permute(2, 0, 1)[None] / 255).argmax(1)[0].numpy()
agree = (mask == blocks.repeat(100, 0).repeat(100, 1)).mean()
print(mask.shape == (6000, 6000), agree, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
"""`ru_maxrss` is the highest memory of a whole process, in KiB on Linux: it needs one of its own."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_an_image_of_6000_pixels_a_side_with_22_classes_takes_less_than_two_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    whole, agree, grown = done.stdout.split()
    assert whole == "True"
    assert float(agree) > 0.999  # two classes may be equally probable
    assert int(grown) * 1024 < 2e9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 40), st.integers(1, 40))
def test_the_most_probable_class_is_that_of_the_whole_enlarged_probability(
    seed: int, classes: int, height: int, width: int
) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (classes, 8, 8))
    probability = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    whole = enlarged(probability, height, width)
    np.testing.assert_array_equal(most_probable(probability, height, width), whole.argmax(axis=0))
