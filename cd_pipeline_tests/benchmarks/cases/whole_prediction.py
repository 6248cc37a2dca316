"""Probabilities of whole pairs at the input size."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from cd_pipeline.data.samples import Sample, input_samples
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.models.build import build_model
from cd_pipeline.models.network import Network
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline_tests.benchmarks.cases.profiles import profiled_torch
from cd_pipeline_tests.benchmarks.cases.rooms import SIZE, first_pairs, prepare_pictures, rendered_roots
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

TOLERANCE = 1e-4
Answer = npt.NDArray[np.float32]


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_pictures(folder, "test")


def ours(folder: Path, sizes: Sizes) -> Side:
    samples, runtime = pairs(folder, sizes), resolve_runtime(device="cpu").exact()
    runtime.prepare()
    predictor = Predictor(network_probabilities(runtime.place(network()), runtime), SIZE, 0.5)
    answers: list[npt.NDArray[np.float32]] = []

    def run() -> None:
        answers[:] = [predictor.probability(*sample.pictures) for sample in samples]

    return Side(run, lambda: np.stack(answers), lambda: profiled_torch(run))


def reference(folder: Path, sizes: Sizes) -> Side:
    samples, model = pairs(folder, sizes), network().eval()
    answers: list[npt.NDArray[np.float32]] = []

    def run() -> None:
        answers.clear()
        for sample in samples:
            before, after = (
                torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].float() / 255
                for picture in sample.pictures
            )
            with torch.no_grad():
                answers.append(model(before, after).sigmoid()[0, 0].numpy())

    return Side(run, lambda: np.stack(answers))


def pairs(folder: Path, sizes: Sizes) -> list[Sample]:
    rows = first_pairs(folder, "published", "test", sizes["pairs"])
    return list(input_samples(rows, rendered_roots(folder, "test"), SIZE))


def network() -> Network:
    """The network of the recipe rooms with drawn weights: they change no times."""
    torch.manual_seed(0)
    return build_model(ModelSettings(name="tiny_siamese_unet", pretrained=False))


def compare(found: Answer, expected: Answer) -> str:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    return f"{len(found)} pairs, probabilities within {TOLERANCE:.0e}"
