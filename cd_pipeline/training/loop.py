"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm.auto import tqdm

from cd_pipeline.data.datasets import ItemDataset
from cd_pipeline.data.machine import give_back_freed_memory
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.predict import Batch, BatchLoader
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.distributed import alone, from_the_first, joined, summed_up
from cd_pipeline.training.losses import ChangeLoss, balanced_pos_weight
from cd_pipeline.training.memory import gpu_memory_gb, memory_gb
from cd_pipeline.training.optimizers import build_optimizer
from cd_pipeline.training.progress import EpochRecord, Progress, Weights, score_names
from cd_pipeline.training.schedule import RateSchedule
from cd_pipeline.training.segmentation_losses import SegmentationLoss, build_segmentation_loss
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline.training.unfinished import TrainingState, random_states, set_random_states
from cd_pipeline.training.validation import TrainingPixels, Validation, validate

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The averaged weights of the best epoch (on the CPU), and how training went."""

    weights: Weights
    best: EpochRecord
    history: list[EpochRecord]
    pos_weight: float
    stop_reason: str


@dataclass(slots=True)
class _Course:
    """What changes from epoch to epoch."""

    network: nn.Module
    average: ModelEmaV3
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: RateSchedule
    progress: Progress
    runtime: Runtime

    def state(self) -> TrainingState:
        """Return the state after the last epoch; its tensors are those that training goes on changing."""
        best = self.progress.best
        return TrainingState(
            epoch=len(self.progress.history),
            model=self.network.state_dict(),
            average=self.average.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            random=random_states(self.runtime),
            history=[asdict(record) for record in self.progress.history],
            floor_f1=self.progress.floor_f1,
            best_epoch=best.epoch if best else None,
            best_weights=self.progress.weights,
        )

    def restore(self, state: TrainingState) -> None:
        """Go back to a state."""
        self.network.load_state_dict(state.model)
        self.average.module.load_state_dict(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        self.scaler.load_state_dict(state.scaler)
        progress = self.progress
        progress.history = [EpochRecord(**row) for row in state.history]
        progress.best = next((one for one in progress.history if one.epoch == state.best_epoch), None)
        progress.weights = state.best_weights
        progress.floor_f1 = state.floor_f1
        for record in progress.history:
            self.schedule.judged(record.val_loss)
        set_random_states(state.random, self.runtime)

    def result(self, settings: TrainingSettings, pos_weight: float) -> TrainingResult:
        """Return the best weights and how training went, now that it has ended."""
        progress = self.progress
        if progress.best is None:
            raise FloatingPointError(
                f"training: {progress.stop_reason}; lower training.learning_rate or raise training.adam_eps"
            )
        stop_reason = progress.stop_reason or f"all {settings.epochs} epochs done"
        return TrainingResult(progress.weights, progress.best, progress.history, pos_weight, stop_reason)


def train(
    model: nn.Module,
    train_set: ItemDataset,
    val_set: ItemDataset,
    settings: TrainingSettings,
    runtime: Runtime,
    *,
    class_weights: Sequence[float] | None = None,
    resume: TrainingState | None = None,
    keep: Callable[[TrainingState], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    show_progress: bool = False,
) -> TrainingResult:
    """Train a network; validation and the result use the averaged (EMA) weights.

    Where the runtime is one of several processes, all of them call this with the same arguments: each takes its
    part of every batch, gradients are averaged, and the first one validates.

    A training that resumes ends with the weights of one that was never stopped: bit by bit on a CPU with the
    same threads, alone or in two processes. The sums of more processes can differ in the last digits.

    Args:
        model: maps the pictures of a sample to logits, in training to those of several heads where it has them;
            it is changed in place.
        train_set: what is learnt.
        val_set: frozen; it chooses epoch and threshold.
        settings: all constants.
        runtime: device, precision and threads.
        class_weights: of the loss of several classes; None: all equal.
        resume: the state of the same training after some epoch, to go on from; None: from the start.
        keep: given the state after each epoch, before `on_epoch`; it must write or copy what it wants to keep.
        on_epoch: called after each epoch.
        show_progress: draw a bar for train and valid.

    Raises:
        FloatingPointError: the loss was not finite from the first epoch on.
    """
    runtime.prepare()
    torch.manual_seed(settings.seed)  # the weights were drawn before; this is for layers that draw
    model = joined(runtime.place_for_training(model), runtime)
    loader = BatchLoader(train_set, runtime, settings.batch_size, shuffle_seed=settings.seed, shared=True)
    loss = build_loss(loader, settings, class_weights).to(runtime.device)
    course = _course(model, settings, runtime, len(loader), train_set.task)
    if resume is not None:
        course.restore(resume)
    progress = course.progress
    while len(progress.history) < settings.epochs and not progress.stop_reason:
        started = time.perf_counter()
        epoch, pixels = len(progress.history), TrainingPixels(train_set.task, runtime)
        rates = course.schedule.epoch(epoch)
        train_loss = train_epoch(
            model,
            course.average,
            _bar(
                loader.epoch(epoch), len(loader), f"epoch {epoch + 1}/{settings.epochs} train", show_progress
            ),
            rates,
            loader.weights,
            loss,
            course.optimizer,
            course.scaler,
            settings.clip_norm,
            runtime,
            pixels,
            first_step=epoch * len(loader),
        )
        train_iou, train_accuracy = pixels.iou_and_accuracy(runtime)
        trained = time.perf_counter()
        scores = _validated(course, val_set, loss, settings, show_progress)
        course.schedule.judged(scores.loss)
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
            memory_gb=memory_gb(runtime),
            gpu_memory_gb=gpu_memory_gb(runtime),
        )
        waits = settings.wait_for_floor and settings.best_by == "f1"
        progress.floor_f1 = scores.floor_f1 if waits else -1.0
        progress.add(record, course.average.module)
        if keep is not None:
            keep(course.state())
        on_epoch(record)
        give_back_freed_memory()
    return course.result(settings, float(loss.pos_weight))


def _course(
    model: nn.Module, settings: TrainingSettings, runtime: Runtime, steps: int, task: Task
) -> _Course:
    judged_by = score_names(task)[settings.best_by]
    return _Course(
        network=alone(model),
        # one fused update of all float tensors, batch statistics included
        average=ModelEmaV3(
            alone(model), decay=settings.ema_decay, use_warmup=settings.ema_warmup, foreach=True
        ),
        optimizer=build_optimizer(model, settings),
        scaler=torch.amp.GradScaler(runtime.device_type, enabled=runtime.uses_grad_scaler),
        schedule=RateSchedule(settings, steps),
        progress=Progress(
            settings.min_improvement, settings.patience, best_by=settings.best_by, judged_by=judged_by
        ),
        runtime=runtime,
    )


def _validated(
    course: _Course,
    val_set: ItemDataset,
    loss: ChangeLoss | SegmentationLoss,
    settings: TrainingSettings,
    show: bool,
) -> Validation:
    steps = math.ceil(len(val_set) / settings.batch_size)
    shown = partial(_bar, steps=steps, name="valid", show=show)
    return from_the_first(
        course.runtime,
        lambda: validate(course.average.module, val_set, loss, settings, course.runtime, progress=shown),
    )


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
