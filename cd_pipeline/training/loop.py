"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from cd_pipeline.evaluation.metrics import Confusion, everything_changed_f1, mean_image_iou
from cd_pipeline.evaluation.predict import Batch, BatchLoader, iterate_logits
from cd_pipeline.evaluation.sweep import ThresholdSweep, linear_thresholds
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.distributed import alone, from_the_first, joined, summed_up
from cd_pipeline.training.losses import ChangeLoss, balanced_pos_weight
from cd_pipeline.training.schedule import epoch_rates
from cd_pipeline.training.settings import TrainingSettings

JUDGED_BY = {"f1": "F1", "mean_image_iou": "mean IoU"}
HALF = 0.5
"""Threshold of the published mean IoU."""
Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch.

    F1, IoU and threshold are of the pooled val pixels at the epoch's own best threshold; the mean IoU of the
    val images is at 0.5.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_f1: float
    val_iou: float
    val_mean_image_iou: float
    threshold: float
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
    train_pairs: Dataset[Tensor],
    val_pairs: Dataset[Tensor],
    settings: TrainingSettings,
    runtime: Runtime,
    *,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    show_progress: bool = False,
) -> TrainingResult:
    """Train a network; validation and the result use the averaged (EMA) weights.

    Where the runtime is one of several processes, all of them call this with the same arguments: each takes its
    part of every batch, gradients are averaged, and the first one validates.

    Args:
        model: maps (before, after) to logits; it is changed in place.
        train_pairs: items of `PairDataset`'s form, asked for by (epoch, index).
        val_pairs: frozen pairs; they choose epoch and threshold.
        settings: all constants.
        runtime: device, precision and threads.
        on_epoch: called after each epoch.
        show_progress: draw a bar for train and valid.

    Raises:
        FloatingPointError: the loss was not finite from the first epoch on.
    """
    runtime.prepare()
    torch.manual_seed(settings.seed)  # the weights were drawn before; this is for layers that draw
    model = joined(runtime.place(model), runtime)
    loader = BatchLoader(train_pairs, runtime, settings.batch_size, shuffle_seed=settings.seed, shared=True)
    loss = build_loss(loader, settings).to(runtime.device)
    optimizer = build_optimizer(model, settings)
    scaler = torch.amp.GradScaler(runtime.device_type, enabled=runtime.uses_grad_scaler)
    # one fused update of all float tensors, batch statistics included
    average = ModelEmaV3(alone(model), decay=settings.ema_decay, use_warmup=settings.ema_warmup, foreach=True)
    steps = len(loader)
    progress = Progress(settings.min_improvement, settings.patience, best_by=settings.best_by)
    for epoch in range(settings.epochs):
        rates = epoch_rates(epoch, steps, settings)
        started = time.perf_counter()
        bar = _bar(
            loader.epoch(epoch),
            train_pairs,
            settings,
            f"epoch {epoch + 1}/{settings.epochs} train",
            show_progress,
        )
        train_loss = train_epoch(
            model,
            average,
            bar,
            rates,
            loader.weights,
            loss,
            optimizer,
            scaler,
            settings.clip_norm,
            runtime,
            first_step=epoch * steps,
        )
        trained = time.perf_counter()
        scores = from_the_first(
            runtime,
            lambda: validate(average.module, val_pairs, loss, settings, runtime, show_progress=show_progress),
        )
        record = EpochRecord(
            epoch=epoch + 1,
            learning_rate=rates[-1],
            train_loss=train_loss,
            val_loss=scores.loss,
            val_f1=scores.confusion.f1,
            val_iou=scores.confusion.iou,
            val_mean_image_iou=scores.mean_image_iou,
            threshold=scores.threshold,
            train_seconds=trained - started,
            val_seconds=time.perf_counter() - trained,
            images_per_second=_length(train_pairs) / (trained - started),
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
    loss: ChangeLoss,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clip_norm: float | None,
    runtime: Runtime,
    *,
    first_step: int = 0,
) -> float:
    """Run one epoch of steps, each at its own learning rate; `weights` are those of `BatchLoader`.

    Returns the mean loss over pairs, of all processes; the device is asked for it once.
    """
    model.train()
    total = torch.zeros(2, device=runtime.device)  # loss and pairs; on the device: no wait in the loop
    steps = zip(batches, rates, weights, strict=True)
    for step, (batch, rate, weight) in enumerate(steps, start=first_step + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with runtime.autocast():
            logits = model(batch.before, batch.after)
        value = loss(logits, batch.truth, batch.valid, _counted(batch, weight, runtime))
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(value * weight).backward()
        if clip_norm is not None:
            scaler.unscale_(optimizer)  # clipping needs the true norm
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm, foreach=True)
        scaler.step(optimizer)
        scaler.update()
        # without a step the decay is the settings' from the first update on, as published
        average.update(alone(model), step=step if average.use_warmup else None)
        pairs = len(logits) if weight else 0
        total[0] += value.detach() * pairs
        total[1] += pairs
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


@dataclass(frozen=True, slots=True)
class Validation:
    """Loss, scores at the best threshold of the sweep, and the mean IoU of the images at 0.5."""

    loss: float
    threshold: float
    confusion: Confusion
    mean_image_iou: float

    @property
    def floor_f1(self) -> float:
        """F1 of marking every pixel as changed."""
        return everything_changed_f1(self.confusion.tp + self.confusion.fn, self.confusion.pixels)


def validate(
    model: nn.Module,
    pairs: Dataset[Tensor],
    loss: ChangeLoss,
    settings: TrainingSettings,
    runtime: Runtime,
    *,
    show_progress: bool = False,
) -> Validation:
    """Score a network on frozen pairs, at the threshold that is best on them.

    A network that gives NaN or infinity scores NaN.
    """
    sweep = ThresholdSweep(linear_thresholds(settings.sweep.low, settings.sweep.high, settings.sweep.steps))
    total = torch.zeros((), device=runtime.device)
    count = 0
    images: list[Confusion] = []
    batches = iterate_logits(model, pairs, runtime, settings.batch_size)
    for logits, batch in _bar(batches, pairs, settings, "valid", show_progress):
        if not torch.isfinite(logits).all():
            return Validation(math.nan, math.nan, Confusion(), math.nan)
        total += loss(logits, batch.truth, batch.valid) * len(logits)
        count += len(logits)
        probability = logits.sigmoid().cpu().numpy()
        truth, valid = batch.truth.bool().cpu().numpy(), batch.valid.bool().cpu().numpy()
        sweep.update(probability, truth, valid)
        images += map(Confusion.of, probability > HALF, truth, valid)
    threshold, index = sweep.best()
    return Validation(
        loss=float(total) / count,
        threshold=threshold,
        confusion=sweep.confusions().at(index),
        mean_image_iou=mean_image_iou(images),
    )


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return AdamW with the settings' constants, in its fused form."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        eps=settings.adam_eps,
        fused=True,
    )


def build_loss(loader: BatchLoader, settings: TrainingSettings) -> ChangeLoss:
    """Return the loss; its positive weight is estimated on the first batches of epoch 0, where it is used."""
    pos_weight = 1.0
    if settings.max_pos_weight > 1:
        counts = torch.zeros(2, dtype=torch.int64, device=loader.runtime.device)  # changed and counted pixels
        batches = zip(loader.epoch(), loader.weights, strict=False)
        for batch, weight in islice(batches, settings.pos_weight_batches):
            if weight:
                counts[0] += (batch.truth * batch.valid).sum().long()
                counts[1] += batch.valid.sum().long()
        positive, total = summed_up(counts, loader.runtime).tolist()
        pos_weight = balanced_pos_weight(positive, total, settings.max_pos_weight)
    return ChangeLoss(
        pos_weight=pos_weight,
        bce_weight=settings.bce_weight,
        tversky_weight=settings.tversky_weight,
        dice_weight=settings.dice_weight,
        false_positive=settings.tversky_false_positive,
        false_negative=settings.tversky_false_negative,
    )


def _length(dataset: Dataset[Tensor]) -> int:
    return len(dataset)  # type: ignore[arg-type]


def _bar(
    batches: Iterable[object], pairs: Dataset[Tensor], settings: TrainingSettings, name: str, show: bool
) -> Iterable:  # type: ignore[type-arg]
    steps = math.ceil(_length(pairs) / settings.batch_size)
    return tqdm(batches, total=steps, desc=name, leave=False, disable=not show)
