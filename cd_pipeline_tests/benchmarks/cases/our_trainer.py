"""The product's training epoch, from the functions that the checkpoint asset runs."""

import time
from collections.abc import Iterable, Sequence

import torch
from timm.utils import ModelEmaV3

from cd_pipeline.data.datasets import ItemDataset
from cd_pipeline.evaluation.predict import Batch, BatchLoader
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.training.loop import build_loss, train_epoch
from cd_pipeline.training.optimizers import build_optimizer
from cd_pipeline.training.schedule import RateSchedule
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline.training.validation import TrainingPixels


class OurTrainer:
    """The published network with the product's loop; the runtime is prepared here."""

    def __init__(self, dataset: ItemDataset, settings: TrainingSettings, runtime: Runtime) -> None:
        runtime.prepare()
        torch.manual_seed(settings.seed)
        self.dataset, self.settings, self.runtime = dataset, settings, runtime
        self.model = runtime.place(TinyChangeUNet())
        self.batches = BatchLoader(dataset, runtime, settings.batch_size, shuffle_seed=settings.seed)
        self.loss = build_loss(self.batches, settings)
        self.optimizer = build_optimizer(self.model, settings)
        self.average = ModelEmaV3(self.model, decay=settings.ema_decay, foreach=True)
        self.schedule = RateSchedule(settings, len(self.batches))
        self.scaler = torch.amp.GradScaler(enabled=False)

    def epoch_seconds(self, epoch: int) -> float:
        """Run one epoch and return its seconds."""
        started = time.perf_counter()
        self.run(self.batches.epoch(epoch), self.schedule.epoch(epoch), self.batches.weights)
        return time.perf_counter() - started

    def run(self, batches: Iterable[Batch], rates: Sequence[float], weights: Sequence[float]) -> None:
        """Run a step a batch."""
        train_epoch(
            self.model,
            self.average,
            batches,
            rates,
            weights,
            self.loss,
            self.optimizer,
            self.scaler,
            self.settings.clip_norm,
            self.runtime,
            TrainingPixels(self.dataset.task, self.runtime),
        )
