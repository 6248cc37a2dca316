"""The epochs of a training as scalars for TensorBoard."""

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Self

EVENT_FILES = "events.out.tfevents.*"
PARTS = ("train", "val")


class EpochScalars:
    """Writes epochs into a folder that holds the last training alone: older event files there are removed.

    Shown with `tensorboard --logdir FOLDER`, also while training goes on. A context manager.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder, which is made where there is none.

        Raises:
            ValueError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "training.tensorboard: the package tensorboard is missing; pip install cd_pipeline[tensorboard]"
            ) from error
        for old in folder.glob(EVENT_FILES):
            old.unlink()
        self._writer = SummaryWriter(str(folder))

    def add(self, record: Mapping[str, object]) -> None:
        """Write the numbers of an epoch, with its `epoch` as the step; all other values are left out."""
        step = record["epoch"]
        for name, value in record.items():
            if name != "epoch" and isinstance(value, Real) and not isinstance(value, bool):
                self._writer.add_scalar(tag_of(name), float(value), step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tag_of(name: str) -> str:
    """Return the tag of a field: what it is comes before train or val, so that TensorBoard groups them.

    >>> tag_of("train_loss"), tag_of("val_mean_image_iou"), tag_of("learning_rate")
    ('loss/train', 'mean_image_iou/val', 'learning_rate')
    """
    part, _, kind = name.partition("_")
    return f"{kind}/{part}" if part in PARTS and kind else name
