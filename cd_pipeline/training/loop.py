"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm.auto import tqdm

from cd_pipeline.data.datasets import ItemDataset
from cd_pipeline.evaluation.predict import Batch, BatchLoader
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.distributed import alone, from_the_first, joined, summed_up
from cd_pipeline.training.losses import ChangeLoss, balanced_pos_weight
from cd_pipeline.training.optimizers import build_optimizer
from cd_pipeline.training.schedule import RateSchedule
from cd_pipeline.training.segmentation_losses import SegmentationLoss, build_segmentation_loss
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline.training.validation import TrainingPixels, validate

JUDGED_BY = {"f1": "F1", "iou": "IoU", "mean_image_iou": "mean IoU of the images"}
Weights = dict[str, Tensor]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: loss and scores of train, as it went, and of val, as in `Validation`."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_f1: float
    val_iou: float
    val_mean_image_iou: float
    val_pixel_accuracy: float
    train_iou: float
    train_pixel_accuracy: float
    threshold: float | None
    train_seconds: float
    val_seconds: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The averaged weights of the best epoch (on the CPU), and how training went."""

    weights: Weights
    best: EpochRecord
    history: list[EpochRecord]
    pos_weight: float
    stop_reason: str


@dataclass(slots=True)
class Progress:
    """The best epoch so far: the last one that beat the best by more than `min_improvement`.

    Patience counts only once the best beats `floor_f1`. With that of marking everything as changed, training
    does not stop before the network has begun to tell change from no change.
    """

    min_improvement: float
    patience: int | None
    floor_f1: float = 0.0
    best_by: str = "f1"
    history: list[EpochRecord] = field(default_factory=list)
    best: EpochRecord | None = None
    weights: Weights = field(default_factory=dict)

    def add(self, record: EpochRecord, model: nn.Module) -> None:
        """Record an epoch; keep a copy of the weights where it is a new best."""
        self.history.append(record)
        if not math.isfinite(record.train_loss + record.val_loss):
            return
        if self.best is None or self._score(record) > self._score(self.best) + self.min_improvement:
            self.best = record
            self.weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}

    def _score(self, record: EpochRecord) -> float:
        return float(getattr(record, f"val_{self.best_by}"))

    @property
    def stop_reason(self) -> str:
        """Why training must stop now; "" to go on."""
        last = self.history[-1]
        if not math.isfinite(last.train_loss + last.val_loss):
            return f"loss not finite in epoch {last.epoch}"
        best = self.best
        if best is None or self.patience is None:
            return ""
        learns = best.val_f1 > self.floor_f1 + self.min_improvement
        if learns and last.epoch - best.epoch >= self.patience:
            return f"no better val {JUDGED_BY[self.best_by]} in {self.patience} epochs"
        return ""


def train(
    model: nn.Module,
    train_set: ItemDataset,
    val_set: ItemDataset,
    settings: TrainingSettings,
    runtime: Runtime,
    *,
    class_weights: Sequence[float] | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    show_progress: bool = False,
) -> TrainingResult:
    """Train a network; validation and the result use the averaged (EMA) weights.

    Where the runtime is one of several processes, all of them call this with the same arguments: each takes its
    part of every batch, gradients are averaged, and the first one validates.

    Args:
        model: maps the pictures of a sample to logits, in training to those of several heads where it has them;
            it is changed in place.
        train_set: what is learnt.
        val_set: frozen; it chooses epoch and threshold.
        settings: all constants.
        runtime: device, precision and threads.
        class_weights: of the loss of several classes; None: all equal.
        on_epoch: called after each epoch.
        show_progress: draw a bar for train and valid.

    Raises:
        FloatingPointError: the loss was not finite from the first epoch on.
    """
    runtime.prepare()
    torch.manual_seed(settings.seed)  # the weights were drawn before; this is for layers that draw
    model = joined(runtime.place(model), runtime)
    loader = BatchLoader(train_set, runtime, settings.batch_size, shuffle_seed=settings.seed, shared=True)
    loss = build_loss(loader, settings, class_weights).to(runtime.device)
    optimizer = build_optimizer(model, settings)
    scaler = torch.amp.GradScaler(runtime.device_type, enabled=runtime.uses_grad_scaler)
    # one fused update of all float tensors, batch statistics included
    average = ModelEmaV3(alone(model), decay=settings.ema_decay, use_warmup=settings.ema_warmup, foreach=True)
    steps = len(loader)
    schedule = RateSchedule(settings, steps)
    progress = Progress(settings.min_improvement, settings.patience, best_by=settings.best_by)
    for epoch in range(settings.epochs):
        rates = schedule.epoch(epoch)
        started = time.perf_counter()
        name = f"epoch {epoch + 1}/{settings.epochs} train"
        pixels = TrainingPixels(train_set.task, runtime)
        train_loss = train_epoch(
            model,
            average,
            _bar(loader.epoch(epoch), len(loader), name, show_progress),
            rates,
            loader.weights,
            loss,
            optimizer,
            scaler,
            settings.clip_norm,
            runtime,
            pixels,
            first_step=epoch * steps,
        )
        train_iou, train_accuracy = pixels.iou_and_accuracy(runtime)
        trained = time.perf_counter()
        val_steps = math.ceil(len(val_set) / settings.batch_size)
        shown = partial(_bar, steps=val_steps, name="valid", show=show_progress)
        scores = from_the_first(
            runtime,
            lambda shown=shown: validate(average.module, val_set, loss, settings, runtime, progress=shown),  # type: ignore[misc]
        )
        schedule.judged(scores.loss)
        record = EpochRecord(
            epoch=epoch + 1,
            learning_rate=rates[-1],
            train_loss=train_loss,
            val_loss=scores.loss,
            val_f1=scores.f1,
            val_iou=scores.iou,
            val_mean_image_iou=scores.mean_image_iou,
            val_pixel_accuracy=scores.pixel_accuracy,
            train_iou=train_iou,
            train_pixel_accuracy=train_accuracy,
            threshold=scores.threshold,
            train_seconds=trained - started,
            val_seconds=time.perf_counter() - trained,
            images_per_second=len(train_set) / (trained - started),
        )
        waits = settings.wait_for_floor and settings.best_by == "f1"
        progress.floor_f1 = scores.floor_f1 if waits else -1.0
        progress.add(record, average.module)
        on_epoch(record)
        if progress.stop_reason:
            break
    if progress.best is None:
        raise FloatingPointError(
            f"training: {progress.stop_reason}; lower training.learning_rate or raise training.adam_eps"
        )
    stop_reason = progress.stop_reason or f"all {settings.epochs} epochs done"
    pos_weight = float(loss.pos_weight)
    return TrainingResult(progress.weights, progress.best, progress.history, pos_weight, stop_reason)


def train_epoch(
    model: nn.Module,
    average: ModelEmaV3,
    batches: Iterable[Batch],
    rates: Sequence[float],
    weights: Sequence[float],
    loss: ChangeLoss | SegmentationLoss,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip_norm: float | None,
    runtime: Runtime,
    pixels: TrainingPixels,
    *,
    first_step: int = 0,
) -> float:
    """Run one epoch of steps, each at its own learning rate; `weights` are those of `BatchLoader`.

    Of a network with several heads the loss is the mean over them, and the last one is scored. Returns the mean
    loss over samples, of all processes; the device is asked for it once.
    """
    model.train()
    total = torch.zeros(2, device=runtime.device)  # loss and samples; on the device: no wait in the loop
    steps = zip(batches, rates, weights, strict=True)
    for step, (batch, rate, weight) in enumerate(steps, start=first_step + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with runtime.autocast():
            answer = model(*batch.pictures)
        heads = answer if isinstance(answer, list) else [answer]
        counted = (_counted(batch, weight, runtime),) if isinstance(loss, ChangeLoss) else ()
        losses = [loss(logits, batch.truth, batch.valid, *counted) for logits in heads]
        value = torch.stack(losses).mean() if len(losses) > 1 else losses[0]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(value * weight).backward()
        if clip_norm is not None:
            scaler.unscale_(optimizer)  # clipping needs the true norm
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm, foreach=True)
        scaler.step(optimizer)
        scaler.update()
        # without a step the decay is the settings' from the first update on, as published
        average.update(alone(model), step=step if average.use_warmup else None)
        if weight:
            total += torch.stack([value.detach(), torch.ones_like(value)]) * len(batch.valid)
            pixels.add(heads[-1].detach(), batch)
    summed, count = summed_up(total, runtime).tolist()
    return float(summed / count)


def _counted(batch: Batch, weight: float, runtime: Runtime) -> Tensor | None:
    # the mean over the pixels of all processes is not the mean of theirs, where the share that counts differs
    if runtime.processes == 1:
        return None
    pairs = len(batch.valid)
    own = torch.stack([batch.valid.sum(), batch.valid.new_tensor(pairs)]) * (1 if weight else 0)
    summed = summed_up(own, runtime)
    return summed[0] / summed[1] * pairs


def build_loss(
    loader: BatchLoader, settings: TrainingSettings, class_weights: Sequence[float] | None = None
) -> ChangeLoss | SegmentationLoss:
    """Return the loss.

    The weight of positive pixels, in the losses of a binary mask that have one, is estimated on the first batches
    of epoch 0.

    Raises:
        ValueError: the loss is not for so many classes.
    """
    if settings.loss == "change":
        if loader.task.multi_class:
            raise ValueError(
                f"training.loss is change, for a binary mask; of {loader.task.classes} classes take ce, ce_dice, "
                "dice, focal, focal_dice, tversky or focal_tversky"
            )
        return ChangeLoss(
            pos_weight=_pos_weight(loader, settings),
            bce_weight=settings.bce_weight,
            tversky_weight=settings.tversky_weight,
            dice_weight=settings.dice_weight,
            false_positive=settings.tversky_false_positive,
            false_negative=settings.tversky_false_negative,
        )
    return build_segmentation_loss(
        settings.loss,
        classes=loader.task.classes,
        class_weights=class_weights,
        pos_weight=_pos_weight(loader, settings) if settings.loss.startswith("bce") else 1.0,
        **settings.loss_options(),
    )


def _pos_weight(loader: BatchLoader, settings: TrainingSettings) -> float:
    if settings.max_pos_weight <= 1 or loader.task.multi_class:
        return 1.0
    counts = torch.zeros(2, dtype=torch.int64, device=loader.runtime.device)  # positive and counted pixels
    batches = zip(loader.epoch(), loader.weights, strict=False)
    for batch, weight in islice(batches, settings.pos_weight_batches):
        if weight:
            counts[0] += (batch.truth * batch.valid).sum().long()
            counts[1] += batch.valid.sum().long()
    positive, total = summed_up(counts, loader.runtime).tolist()
    return balanced_pos_weight(positive, total, settings.max_pos_weight)


def _bar(batches: Iterable[Item], steps: int, name: str, show: bool) -> Iterable[Item]:
    return tqdm(batches, total=steps, desc=name, leave=False, disable=not show)
