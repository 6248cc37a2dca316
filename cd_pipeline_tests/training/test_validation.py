"""Scores on val and of the training batches, against scikit-learn and plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from torch import Tensor, nn

from cd_pipeline.data.samples import Sample
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.metrics import Confusion
from cd_pipeline.evaluation.predict import Batch, BatchLoader, to_batch
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.loop import build_loss
from cd_pipeline.training.losses import ChangeLoss
from cd_pipeline.training.segmentation_losses import build_segmentation_loss
from cd_pipeline.training.settings import SweepSettings, TrainingSettings
from cd_pipeline.training.validation import TrainingPixels, validate
from cd_pipeline_tests.tiny_images import COLOURS, TinyScenes, items_of
from cd_pipeline_tests.tiny_pairs import BrightnessChange, TinyPairs

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RUNTIME = Runtime()
ONE_IMAGE = Task(pictures=1)


def quick(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"preset": "published", "batch_size": 4, **values})


class HalfCounts(TinyPairs):
    """Pairs of which only the left half counts; the mask of the right one is wrong."""

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        sample = super().__getitem__(key).clone()
        sample[6:, :, 16:] = torch.tensor([255, 0], dtype=torch.uint8)[:, None, None]
        return sample


def test_pixels_that_do_not_count_have_no_say_in_weight_loss_and_validation() -> None:
    pairs, left = HalfCounts(5, 32), TinyPairs(5, 32)
    left.arrays = [Sample.of_pair(*(image[:, :16] for image in pair.arrays)) for pair in left.arrays]
    settings = quick()
    half, cut = (build_loss(BatchLoader(chosen, RUNTIME, 4), settings) for chosen in (pairs, left))
    assert float(half.pos_weight) == pytest.approx(float(cut.pos_weight), rel=1e-6)
    found, expected = (
        validate(BrightnessChange(), chosen, cut, settings, RUNTIME) for chosen in (pairs, left)
    )
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert replace(found, loss=0.0) == replace(expected, loss=0.0)


def test_validation_agrees_with_a_plain_sweep() -> None:
    pairs, settings = TinyPairs(5, 32), quick(sweep=SweepSettings(low=0.1, high=0.9, steps=9))
    loss = ChangeLoss(pos_weight=2.0)
    scores = validate(BrightnessChange(), pairs, loss, settings, RUNTIME)
    before, after = (np.stack([a.pictures[k] for a in pairs.arrays]).astype(np.float64) / 255 for k in (0, 1))
    truth = np.stack([a.mask for a in pairs.arrays]) > 0
    logits = 40 * (np.abs(before - after).mean(-1) - 0.1)
    probability = 1 / (1 + np.exp(-logits))
    pooled = {t: f1_score(truth.ravel(), (probability > t).ravel()) for t in np.linspace(0.1, 0.9, 9)}
    assert scores.f1 == pytest.approx(max(pooled.values()), abs=1e-9)
    assert pooled[min(pooled, key=lambda t: abs(t - scores.threshold))] == max(pooled.values())
    predicted = probability > scores.threshold
    assert scores.iou == pytest.approx(jaccard_score(truth.ravel(), predicted.ravel()))
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))
    assert scores.floor_f1 == pytest.approx(f1_score(truth.ravel(), np.ones(truth.size)))
    each = [
        float(loss(torch.tensor(x)[None, None], torch.tensor(t)[None, None].float()))
        for x, t in zip(logits, truth, strict=True)
    ]
    assert scores.loss == pytest.approx(np.mean(each), rel=1e-4)


@pytest.mark.parametrize("kind", [TinyPairs, HalfCounts])
def test_the_mean_iou_of_the_images_is_that_of_a_loop_over_them_at_one_half(kind: type[TinyPairs]) -> None:
    pairs = kind(7, 32)
    scores = validate(BrightnessChange(), pairs, ChangeLoss(pos_weight=1.0), quick(batch_size=3), RUNTIME)
    ious = []
    for index, pair in enumerate(pairs.arrays):
        counts = pairs[0, index][7].numpy() > 0
        truth = (pairs[0, index][6].numpy() > 0)[counts]
        difference = np.abs(pair.before.astype(np.float64) - pair.after).mean(-1) / 255
        predicted = (difference > 0.1)[counts]  # where the logit is above 0
        # published: 1e-6 in numerator and denominator
        ious.append(((predicted & truth).sum() + 1e-6) / ((predicted | truth).sum() + 1e-6))
    assert min(ious) < 1
    assert scores.mean_image_iou == pytest.approx(np.mean(ious), abs=1e-6)


class NearestColour(nn.Module):
    """A network whose answer is known: the logit of a class is its nearness to the class's colour; a shift of
    the image's brightness makes it wrong in places."""

    def __init__(self, classes: int, shift: float = 0.7) -> None:
        super().__init__()
        self.shift = shift
        self.register_buffer("colours", torch.from_numpy(COLOURS[:classes] / 255).float())

    def forward(self, image: Tensor) -> Tensor:
        ramp = torch.linspace(0, self.shift, image.shape[-1])
        return -40 * (image[:, None] + ramp - self.colours[None, :, :, None, None]).square().mean(2)


def answers(scenes: TinyScenes, model: nn.Module) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits NxCxHxW, truth and what counts NxHxW, straight from the items."""
    items = items_of(scenes)
    with torch.no_grad():
        logits = model(items[:, :3].float() / 255)
    return logits.numpy(), items[:, 3].numpy().astype(int), items[:, 4].numpy() > 0


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_several_classes_are_scored_as_by_sklearn(classes: int, void: bool) -> None:
    scenes, model = TinyScenes(5, classes=classes, void=void), NearestColour(classes)
    loss = build_segmentation_loss("ce", classes=classes)
    scores = validate(model, scenes, loss, quick(batch_size=2), RUNTIME)
    logits, truth, counts = answers(scenes, model)
    predicted = logits.argmax(1)
    flat = truth[counts], predicted[counts]
    assert 0.3 < accuracy_score(*flat) < 0.98
    assert scores.iou == pytest.approx(jaccard_score(*flat, average="macro"))
    assert scores.f1 == pytest.approx(f1_score(*flat, average="macro"))
    assert scores.pixel_accuracy == pytest.approx(accuracy_score(*flat))
    images = [
        jaccard_score(t[c], p[c], average="macro") for t, p, c in zip(truth, predicted, counts, strict=True)
    ]
    assert scores.mean_image_iou == pytest.approx(np.mean(images))
    most = np.bincount(flat[0]).argmax()
    assert scores.floor_f1 == pytest.approx(f1_score(flat[0], np.full_like(flat[0], most), average="macro"))
    assert scores.threshold is None
    entropy = [
        float(F.cross_entropy(torch.tensor(x[:, c].T), torch.tensor(t[c])))
        for x, t, c in zip(logits, truth, counts, strict=True)
    ]  # as many pixels count in each image
    assert scores.loss == pytest.approx(np.mean(entropy), rel=1e-5)


def test_an_image_of_which_nothing_counts_has_no_say() -> None:
    scenes, others = TinyScenes(4), TinyScenes(3)
    last = scenes.samples[3]
    scenes.samples[3] = Sample(last.pictures, last.mask, np.zeros_like(last.mask))
    loss = build_segmentation_loss("ce", classes=3)
    found, expected = (
        validate(NearestColour(3), chosen, loss, quick(batch_size=1), RUNTIME) for chosen in (scenes, others)
    )
    assert replace(found, loss=0.0) == replace(expected, loss=0.0)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_network_that_gives_nan_scores_nan(classes: int) -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :1].repeat(1, classes, 1, 1) * math.nan

    loss = build_segmentation_loss("dice", classes=classes)
    scores = validate(Broken(), TinyScenes(2, classes=classes), loss, quick(), RUNTIME)
    assert all(math.isnan(value) for value in (scores.loss, scores.f1, scores.iou, scores.pixel_accuracy))


def batches_of(scenes: TinyScenes, size: int = 2) -> list[Batch]:
    return [to_batch(items, scenes.task, RUNTIME) for items in items_of(scenes).split(size)]


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_training_pixels_of_several_classes_are_those_of_sklearn(classes: int, void: bool) -> None:
    scenes, model = TinyScenes(5, classes=classes, void=void), NearestColour(classes)
    pixels = TrainingPixels(scenes.task, RUNTIME)
    for batch in batches_of(scenes):
        pixels.add(model(*batch.pictures), batch)
    logits, truth, counts = answers(scenes, model)
    flat = truth[counts], logits.argmax(1)[counts]
    iou, accuracy = pixels.iou_and_accuracy(RUNTIME)
    assert iou == pytest.approx(jaccard_score(*flat, average="macro"))
    assert accuracy == pytest.approx(accuracy_score(*flat))


@pytest.mark.parametrize("void", [False, True])
def test_training_pixels_of_one_class_are_those_of_sklearn(void: bool) -> None:
    scenes = TinyScenes(5, classes=1, void=void)
    pixels = TrainingPixels(scenes.task, RUNTIME)
    for batch in batches_of(scenes):
        (image,) = batch.pictures
        pixels.add(image[:, :1] - 0.41, batch)
    items = items_of(scenes)
    counts = items[:, 4].numpy() > 0
    flat = (items[:, 3].numpy() > 0)[counts], (items[:, 0].float() / 255 > 0.41).numpy()[counts]
    iou, accuracy = pixels.iou_and_accuracy(RUNTIME)
    assert 0.1 < iou < 1
    assert iou == pytest.approx(jaccard_score(*flat))
    assert accuracy == pytest.approx(accuracy_score(*flat))


def test_training_batches_without_a_positive_are_scored_as_those_of_val() -> None:
    nothing = torch.zeros(2, 1, 8, 8)
    batch = Batch((torch.zeros(2, 3, 8, 8),), nothing, torch.ones_like(nothing))
    for logit, fp in ((-1.0, 0), (1.0, 128)):
        pixels = TrainingPixels(ONE_IMAGE, RUNTIME)
        pixels.add(nothing + logit, batch)
        expected = Confusion(fp=fp, tn=128 - fp)
        assert pixels.iou_and_accuracy(RUNTIME) == (expected.iou, 1 - fp / 128)
