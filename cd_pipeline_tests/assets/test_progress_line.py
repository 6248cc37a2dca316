"""The line of the log after each epoch."""

from dataclasses import replace

import pytest

from cd_pipeline.assets.checkpoint import duration, progress_line
from cd_pipeline.data.task import Task
from cd_pipeline.training.progress import EpochRecord

RECORD = EpochRecord(
    epoch=3,
    learning_rate=2.9e-3,
    train_loss=0.1234,
    val_loss=0.2345,
    val_f1=0.612,
    val_iou=0.441,
    val_mean_image_iou=0.5,
    val_pixel_accuracy=0.9,
    train_iou=0.7,
    train_pixel_accuracy=0.8,
    threshold=0.4,
    train_seconds=15.0,
    val_seconds=4.6,
    images_per_second=16.2,
    memory_gb=1.32,
    gpu_memory_gb=None,
)


def test_an_epoch_is_one_line_with_all_that_one_watches() -> None:
    assert progress_line(RECORD, 40, Task()) == (  # 37 epochs of 19.6 s are left: 12 minutes
        "epoch 3/40: train loss 0.1234, val loss 0.2345, val F1 0.612, IoU 0.441, threshold 0.40, "
        "lr 2.9e-03, 16 images/s, 12 min left, 1.3 GB"
    )


def test_of_several_classes_the_scores_are_named_as_the_means_they_are_and_there_is_no_threshold() -> None:
    record = replace(RECORD, threshold=None, gpu_memory_gb=2.25)
    assert progress_line(record, 40, Task(pictures=1, classes=21)) == (
        "epoch 3/40: train loss 0.1234, val loss 0.2345, val mean Dice 0.612, mIoU 0.441, "
        "lr 2.9e-03, 16 images/s, 12 min left, 1.3 GB, GPU 2.2 GB"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "60 min"), (3600, "1.0 h")]
)
def test_a_time_is_told_in_its_own_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
