"""The epochs of a training so far, and which of them is best."""

import math
from dataclasses import dataclass, field

from torch import Tensor, nn

from cd_pipeline.data.task import Task

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: loss and scores of train, as it went, and of val, as in `Validation`.

    Seconds, images a second and GB of memory are measured: they differ from run to run.
    """

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
    memory_gb: float
    gpu_memory_gb: float | None


def score_names(task: Task) -> dict[str, str]:
    """Return what the scores of val are called; of several classes each is a mean over them.

    >>> score_names(Task())["f1"], score_names(Task(pictures=1, classes=21))["f1"]
    ('F1', 'mean Dice')
    """
    f1, iou = ("mean Dice", "mIoU") if task.multi_class else ("F1", "IoU")
    return {"f1": f1, "iou": iou, "mean_image_iou": "mean IoU of the images"}


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
    judged_by: str = "F1"
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
        if not self.history:
            return ""
        last = self.history[-1]
        if not math.isfinite(last.train_loss + last.val_loss):
            return f"loss not finite in epoch {last.epoch}"
        best = self.best
        if best is None or self.patience is None:
            return ""
        learns = best.val_f1 > self.floor_f1 + self.min_improvement
        if learns and last.epoch - best.epoch >= self.patience:
            return f"no better val {self.judged_by} in {self.patience} epochs"
        return ""
