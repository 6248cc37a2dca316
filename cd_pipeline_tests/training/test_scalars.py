import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cd_pipeline.training.scalars import EpochScalars

EPOCHS: list[dict[str, object]] = [
    {
        "epoch": epoch,
        "learning_rate": 10.0**-epoch,
        "train_loss": 0.5 / epoch,
        "val_loss": 0.6 / epoch,
        "train_iou": np.float32(0.1 * epoch),
        "val_iou": 0.2 * epoch,
        "val_mean_image_iou": 0.3 * epoch,
        "images": 7 * epoch,
    }
    for epoch in (1, 2, 3)
]
TAGS = {
    "learning_rate": "learning_rate",
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_iou": "iou/train",
    "val_iou": "iou/val",
    "val_mean_image_iou": "mean_image_iou/val",
    "images": "images",
}


def write(folder: Path, *records: Mapping[str, object]) -> None:
    with EpochScalars(folder) as scalars:
        for record in records:
            scalars.add(record)


def read(folder: Path) -> dict[str, dict[int, float]]:
    """Return step and value of each tag, as TensorBoard reads them."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_every_number_of_every_epoch_under_its_tag(tmp_path: Path) -> None:
    write(tmp_path / "new" / "folder", *EPOCHS)
    found = read(tmp_path / "new" / "folder")
    assert found.keys() == set(TAGS.values())
    for name, tag in TAGS.items():
        assert found[tag] == pytest.approx({record["epoch"]: record[name] for record in EPOCHS}, rel=1e-6)


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"epoch": 1, "val_f1": None, "names": ["a"], "note": "text", "best": True, "val_loss": 1})
    assert read(tmp_path) == {"loss/val": {1: 1.0}}


def test_an_epoch_can_be_read_while_training_goes_on(tmp_path: Path) -> None:
    with EpochScalars(tmp_path) as scalars:
        scalars.add(EPOCHS[0])
        assert read(tmp_path)["loss/train"] == {1: 0.5}
        scalars.add(EPOCHS[1])
        assert read(tmp_path)["loss/train"] == {1: 0.5, 2: 0.25}


def test_the_folder_holds_the_last_training_alone_and_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "history.parquet").write_bytes(b"kept")
    write(tmp_path, *EPOCHS)
    write(tmp_path, {"epoch": 1, "train_loss": 0.75})
    assert read(tmp_path) == {"loss/train": {1: 0.75}}
    assert (tmp_path / "history.parquet").read_bytes() == b"kept"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_package_is_one_line_with_the_remedy_and_older_events_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path, EPOCHS[0])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"^[^\n]*pip install cd_pipeline\[tensorboard\]$"):
        EpochScalars(tmp_path)
    assert read(tmp_path)["loss/train"] == {1: 0.5}
