"""The class map of a large image in overlapping tiles."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.models.build import build_model
from cd_pipeline.models.network import Network
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

TILE, OVERLAP, CLASSES = 256, 64, 22
DIFFERING = 1e-3
"""Share of pixels whose two best classes may be so close that rounding decides."""
Pixels = npt.NDArray[np.uint8]


def prepare(folder: Path, sizes: Sizes) -> None:
    """Both sides draw the same image."""


def ours(folder: Path, sizes: Sizes) -> Side:
    image, runtime = drawn(sizes["side"]), resolve_runtime(device="cpu").exact()
    runtime.prepare()
    probabilities = network_probabilities(runtime.place(network()), runtime)
    predictor = Predictor(probabilities, TILE, None, overlap=OVERLAP)
    answers: list[Pixels] = []

    def run() -> None:
        answers[:] = [predictor.mask_at_own_size(image)]

    return Side(run, lambda: answers[0])


def reference(folder: Path, sizes: Sizes) -> Side:
    image, model = drawn(sizes["side"]), network().eval()
    answers: list[Pixels] = []

    def run() -> None:
        answers[:] = [accumulated(model, image)]

    return Side(run, lambda: answers[0])


@torch.no_grad()
def accumulated(model: Network, image: Pixels) -> Pixels:
    """Add up the weighted probabilities of all tiles in one array, and take the largest at the end."""
    side = image.shape[0]
    corners = [*range(0, side - TILE, TILE - OVERLAP), side - TILE]
    total = np.zeros((CLASSES, side, side), np.float32)
    weight = np.zeros((side, side), np.float32)
    for top in corners:
        for left in corners:
            place = slice(top, top + TILE), slice(left, left + TILE)
            tile = torch.from_numpy(np.ascontiguousarray(image[place].transpose(2, 0, 1)))[None].float() / 255
            mix = weights(top, side)[:, None] * weights(left, side)
            total[:, *place] += model(tile).softmax(1)[0].numpy() * mix
            weight[place] += mix
    return (total / weight).argmax(0).astype(np.uint8)


def weights(start: int, side: int) -> npt.NDArray[np.float32]:
    """1 inside a tile, falling linearly over the overlap towards a neighbour."""
    falling = np.arange(1, TILE + 1, dtype=np.float32) / (OVERLAP + 1)
    near = falling if start else np.ones_like(falling)
    far = falling[::-1] if start + TILE < side else np.ones_like(falling)
    return np.minimum(1, np.minimum(near, far))


def drawn(side: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def network() -> Network:
    """The U-Net of the recipe voc with drawn weights: they change no times."""
    torch.manual_seed(0)
    settings = ModelSettings(name="unet", widths=(16, 32, 64, 128, 256), align_corners=False, bias=False)
    return build_model(settings, Task(pictures=1, classes=CLASSES))


def compare(found: Pixels, expected: Pixels) -> str:
    differing = float((found != expected).mean())
    assert found.shape == expected.shape and differing < DIFFERING, f"{differing:.2%} of the pixels differ"
    return f"classes differ at {differing:.4%} of the pixels, at most {DIFFERING:.1%} is allowed"
