"""How well a network does: on val after each epoch, and on the training batches as they go."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from cd_pipeline.data.datasets import ItemDataset
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.class_confusion import ClassConfusion
from cd_pipeline.evaluation.metrics import Confusion, everything_changed_f1, mean_image_iou
from cd_pipeline.evaluation.predict import Batch, iterate_logits
from cd_pipeline.evaluation.sweep import ThresholdSweep, linear_thresholds
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.distributed import summed_up
from cd_pipeline.training.settings import TrainingSettings

HALF = 0.5
"""Threshold of the published mean IoU."""
Progress: TypeAlias = Callable[[Iterable[tuple[Tensor, Batch]]], Iterable[tuple[Tensor, Batch]]]


@dataclass(frozen=True, slots=True)
class Validation:
    """Loss and scores on val.

    F1, IoU and pixel accuracy are of the pooled pixels at the threshold that is best on them; of several
    classes F1 is the mean Dice of the classes, IoU their mean IoU, and there is no threshold. The mean IoU of
    the images is at 0.5, or of each image's classes. `floor_f1` is the F1 of marking everything, or of the
    most frequent class everywhere.
    """

    loss: float
    f1: float
    iou: float
    mean_image_iou: float
    pixel_accuracy: float
    threshold: float | None
    floor_f1: float

    @classmethod
    def failed(cls) -> "Validation":
        """The scores of a network that gives NaN or infinity."""
        nan = math.nan
        return cls(nan, nan, nan, nan, nan, nan, nan)


def validate(
    model: nn.Module,
    dataset: ItemDataset,
    loss: nn.Module,
    settings: TrainingSettings,
    runtime: Runtime,
    *,
    progress: Progress = lambda batches: batches,
) -> Validation:
    """Score a network on frozen examples, at the threshold that is best on them.

    A network that gives NaN or infinity scores NaN.

    Args:
        model: maps pictures to logits.
        dataset: of val.
        loss: of logits, truth and valid.
        settings: of the sweep, and the batch size.
        runtime: where it runs.
        progress: draws a bar around the batches.
    """
    judge: _MaskJudge | _ClassJudge = (
        _ClassJudge(dataset.task.classes) if dataset.task.multi_class else _MaskJudge(settings)
    )
    total = torch.zeros((), device=runtime.device)
    count = 0
    for logits, batch in progress(iterate_logits(model, dataset, runtime, settings.batch_size)):
        if not torch.isfinite(logits).all():
            return Validation.failed()
        total += loss(logits, batch.truth, batch.valid) * len(logits)
        count += len(logits)
        judge.add(logits, batch)
    return judge.validation(float(total) / count)


class _MaskJudge:
    def __init__(self, settings: TrainingSettings) -> None:
        sweep = settings.sweep
        self._sweep = ThresholdSweep(linear_thresholds(sweep.low, sweep.high, sweep.steps))
        self._images: list[Confusion] = []

    def add(self, logits: Tensor, batch: Batch) -> None:
        probability = logits.sigmoid().cpu().numpy()
        truth, valid = batch.truth.bool().cpu().numpy(), batch.valid.bool().cpu().numpy()
        self._sweep.update(probability, truth, valid)
        self._images += map(Confusion.of, probability > HALF, truth, valid)

    def validation(self, loss: float) -> Validation:
        threshold, index = self._sweep.best()
        found = self._sweep.confusions().at(index)
        return Validation(
            loss=loss,
            f1=found.f1,
            iou=found.iou,
            mean_image_iou=mean_image_iou(self._images),
            pixel_accuracy=(found.tp + found.tn) / found.pixels,
            threshold=threshold,
            floor_f1=everything_changed_f1(found.tp + found.fn, found.pixels),
        )


class _ClassJudge:
    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._total = ClassConfusion(np.zeros((classes, classes), np.int64))
        self._image_ious: list[float] = []

    def add(self, logits: Tensor, batch: Batch) -> None:
        predicted = logits.argmax(dim=1).cpu().numpy()
        truth = torch.where(batch.valid > 0, batch.truth, -1)[:, 0].cpu().numpy()
        for one, other in zip(predicted, truth, strict=True):
            image = ClassConfusion.of(one, other, self._classes, ignore=-1)
            self._total += image
            if image.counts.any():
                self._image_ious.append(image.mean_iou())

    def validation(self, loss: float) -> Validation:
        found = self._total
        if not self._image_ious:
            raise ValueError("val: every pixel is void; add images to val, or set source.void to null")
        return Validation(
            loss=loss,
            f1=found.mean_dice(),
            iou=found.mean_iou(),
            mean_image_iou=float(np.mean(self._image_ious)),
            pixel_accuracy=found.pixel_accuracy(),
            threshold=None,
            floor_f1=found.everywhere().mean_dice(),
        )


class TrainingPixels:
    """Counts of the training batches by truth and prediction, gathered on the device.

    They are of the network as it was at each step, and of one threshold: a logit above 0.
    """

    def __init__(self, task: Task, runtime: Runtime) -> None:
        self._multi_class = task.multi_class
        self._classes = max(2, task.classes)
        self._counts = torch.zeros(self._classes**2, dtype=torch.int64, device=runtime.device)

    @torch.no_grad()
    def add(self, logits: Tensor, batch: Batch) -> None:
        """Count a batch: logits NxCxHxW."""
        if logits.shape[1] > 1:
            code = batch.truth[:, 0] * self._classes + logits.argmax(dim=1)
            # what does not count goes into a last place of its own
            code = torch.where(batch.valid[:, 0] > 0, code, self._classes**2).flatten()
            self._counts += torch.bincount(code, minlength=self._classes**2 + 1)[:-1]
            return
        counts, positive = batch.valid, batch.truth * batch.valid
        predicted = (logits > 0) * counts
        tp, marked = (predicted * positive).sum(), predicted.sum()
        fn, everything = positive.sum() - tp, counts.sum()
        self._counts += torch.stack([everything - marked - fn, marked - tp, fn, tp]).long()

    def iou_and_accuracy(self, runtime: Runtime) -> tuple[float, float]:
        """IoU (of several classes their mean) and pixel accuracy of all processes' batches."""
        counts = summed_up(self._counts, runtime).cpu().numpy().reshape(self._classes, self._classes)
        found = ClassConfusion(counts)
        if self._multi_class:
            return found.mean_iou(), found.pixel_accuracy()
        tn, fp, fn, tp = counts.ravel().tolist()
        return Confusion(tp, fp, fn, tn).iou, found.pixel_accuracy()
